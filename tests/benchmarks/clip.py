"""What a clip costs: processor seconds a second of video by stage, clips a minute, and memory.

    OMP_NUM_THREADS=1 uv run python -m tests.benchmarks.clip
    uv run python -m tests.benchmarks.clip clip.mp4 ...

Without files, a round video message is drawn: a face that moves, 6 s, 384 px, 30 frames a second.
Stages inside this process are the device thread's processor time, which is all there is when
networks have one thread; decoding is that of the decoder's process, with its birth. The last table
is the decoder alone on clips that mean ill, under the limits that it always has.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from engine import pipeline, threads
from engine.client import EmbeddedEngine
from engine.media import clip_decoder
from engine.media.clip import LIMITS, PROGRAM
from engine.media.clip_decoder import Ending
from engine.settings import Settings
from engine.vision import embed
from tests.engine import clips

SECONDS = 6
CLIENTS = 4


def swaying(seconds=SECONDS, rate=30):
    """A face that goes to and fro."""
    count = seconds * rate
    frames = clips.astronaut(count // 2, step_px=1)
    return clips.encode(frames + frames[::-1], rate=rate, options={"crf": "26"})


MEASURE = """
import json, os, subprocess, sys, time
clip = open(sys.argv[1], "rb")
started = time.perf_counter()
process = subprocess.Popen(
    sys.argv[2:], stdin=clip, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}
)
said = sum(map(len, iter(lambda: process.stdout.read(2**16), b"")))
_, status, usage = os.wait4(process.pid, 0)
spent = time.perf_counter() - started
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime,
                  usage.ru_maxrss, spent, said]))
"""
"""Between us and the decoder, because a process' greatest memory begins as that of its parent."""


def decode(clip, demuxer="mov", limits=LIMITS):
    """The decoder alone: how it ended, its seconds and its most memory."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(clip)
        file.flush()
        command = [*PROGRAM, *clip_decoder.arguments(demuxer, limits)]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MEASURE, file.name, *command],
            capture_output=True,
            check=True,
        )
    code, cpu_s, memory_kib, wall_s, said = json.loads(done.stdout)
    return {
        "ending": Ending(code).name.lower() if code in {*Ending} else f"signal {-code}",
        "cpu_s": round(cpu_s, 3),
        "wall_s": round(wall_s, 3),
        "memory_mib": round(memory_kib / 1024),
        "said_mib": round(said / 2**20, 1),
    }


class Stages:
    """Processor seconds of the threads that work on clips, by stage, while it is entered."""

    def __init__(self, seer):
        self.spent = {}
        self._places = [
            (pipeline, "pattern", "pattern"),
            (seer._detector, "detect", "detect"),
            (pipeline, "cut_faces", "cut and measure"),
            (embed, "embed_crops", "embed"),
            (seer, "analyze", "see"),
        ]

    def __enter__(self):
        self._stack = ExitStack()
        for owner, name, stage in self._places:
            self._stack.enter_context(patch.object(owner, name, self._timed(owner, name, stage)))
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _timed(self, owner, name, stage):
        call = getattr(owner, name)

        def timed(*arguments, **options):
            started = time.thread_time()
            result = call(*arguments, **options)
            self.spent[stage] = self.spent.get(stage, 0.0) + time.thread_time() - started
            return result

        return timed


async def by_stage(seer, files, rounds):
    """Processor seconds a second of video, of each stage."""
    async with EmbeddedEngine(seer) as engine:
        await engine.track(files[0])  # warms up
        before, seconds, embeddings = time.process_time(), 0.0, 0
        with Stages(seer) as stages:
            for clip in files * rounds:
                track = await engine.track(clip)
                seconds += track.duration_s
                embeddings += sum(
                    frame.face is not None and frame.face.embedding is not None
                    for frame in track.frames
                )
        here = time.process_time() - before
    spent = dict(stages.spent)
    seen = spent.pop("see")
    spent["rest of seeing"] = seen - sum(
        spent[name] for name in ("detect", "cut and measure", "pattern", "embed")
    )
    spent["event loop and pictures"] = here - seen
    decoded = [decode(clip, demuxer_of(clip)) for clip in files * rounds]
    spent["decode"] = sum(one["cpu_s"] for one in decoded)
    return {
        "seconds_of_video": round(seconds, 2),
        "embeddings_a_second": round(embeddings / seconds, 2),
        "cpu_s_a_second": round((sum(spent.values())) / seconds, 4),
        "stages": {name: round(own / seconds, 4) for name, own in spent.items()},
        "decoder_cpu_s_a_clip": round(sum(one["cpu_s"] for one in decoded) / len(decoded), 3),
        "decoder_memory_mib": max(one["memory_mib"] for one in decoded),
    }


def demuxer_of(clip):
    return "matroska" if clip.startswith(b"\x1a\x45\xdf\xa3") else "mov"


async def throughput(seer, files, seconds):
    """Clips a minute, when there are always a few."""
    times = []

    async def client(engine, number, ends):
        while time.perf_counter() < ends:
            started = time.perf_counter()
            await engine.track(files[number % len(files)])
            times.append(time.perf_counter() - started)

    async with EmbeddedEngine(seer) as engine:
        await engine.track(files[0])
        started = time.perf_counter()
        ends = started + seconds
        await asyncio.gather(*(client(engine, number, ends) for number in range(CLIENTS)))
        spent = time.perf_counter() - started
    times.sort()
    return {
        "clips_a_minute": round(60 * len(times) / spent, 1),
        "clients": CLIENTS,
        "median_s": round(times[len(times) // 2], 2),
        "slowest_s": round(times[-1], 2),
    }


def hostile():
    """Clips that mean ill, and the demuxer that each would have."""
    fast = {"preset": "ultrafast"}
    large = clips.pictures(60, (1920, 1920))
    plain = clips.encode(clips.pictures(30))
    huge = clips.encode(clips.pictures(2, (3840, 2160)), options=fast)
    yield "a round message of 6 s", "mov", swaying()
    yield "one frame", "mov", clips.encode(clips.pictures(1))
    yield "largest frames, 15 s", "mov", clips.encode(large * 7, rate=28, options=fast)
    yield (
        "largest frames, 16 references",
        "mov",
        clips.encode(large, options=fast | {"refs": "16", "bf": "0"}),
    )
    yield "8.3 megapixels", "mov", huge
    yield "8.3 megapixels that claim 64x64", "mov", clips.claiming(huge, 64, 64)
    yield "claims 65535x65535", "mov", clips.claiming(plain, 65535, 65535)
    yield (
        "1,000 frames a second",
        "mov",
        clips.encode(clips.pictures(5000, (384, 384)), rate=1000, options=fast),
    )
    yield "hidden frames for ever", "matroska", clips.endless()
    yield "20 MB of noise behind a header", "mov", plain[:32] + os.urandom(20 * 2**20 - 32)
    yield "20 MB of noise as WebM", "matroska", b"\x1a\x45\xdf\xa3" + os.urandom(20 * 2**20 - 4)
    yield "truncated", "mov", plain[: len(plain) // 2]


def show(console, result):
    table = Table("stage", "CPU seconds a second of video")
    for name, own in sorted(result["by_stage"]["stages"].items(), key=lambda item: -item[1]):
        table.add_row(name, f"{own:.4f}")
    table.add_section()
    table.add_row("all", f"{result['by_stage']['cpu_s_a_second']:.4f}")
    console.print(table)
    table = Table("clip", "ended", "CPU s", "wall s", "most memory, MiB")
    for name, own in result["decoder"].items():
        row = (own["ending"], own["cpu_s"], own["wall_s"], own["memory_mib"])
        table.add_row(name, *map(str, row))
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    cores = threads.configure()
    seer = pipeline.Pipeline.from_settings(
        Settings(engine_device="cpu", engine_bundle="celebrities")
    )
    files = [path.read_bytes() for path in arguments.clips] or [swaying()]
    result = {
        "threads": cores,
        "cores": threads.usable_cores(),
        "by_stage": asyncio.run(by_stage(seer, files, arguments.rounds)),
        "throughput": asyncio.run(throughput(seer, files, arguments.seconds)),
        "decoder": {name: decode(clip, demuxer) for name, demuxer, clip in hostile()},
    }
    console = Console(stderr=True)
    show(console, result)
    console.print(result["throughput"])
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
