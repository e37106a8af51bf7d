"""What hostile picture files cost the process that decodes them, and honest ones beside them.

    uv run python -m tests.benchmarks.hostile [FOLDER] [--mutations 10000] [--seed 0]

Real pictures of each format are changed where their structure is: boxes, chunks and blocks are
repeated, dropped, moved, renumbered and made to lie about their length. Each file, and each of
FOLDER, is decoded by `engine.media.decoder_pool`; told are the worst processor time, memory and
wall time by format, and what the files were answered with. Then an embedded engine that computes
nothing is sent honest photos, alone and beside four files that take as long as they are let; and
photos of 24 megapixels are analyzed by turns, decoded in this process and by
`engine.media.decoder_pool`.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import random
import statistics
import time
from asyncio import to_thread
from functools import partial
from pathlib import Path

import psutil

from engine import errors
from engine.client import EmbeddedEngine
from engine.media import image
from engine.media.decoder_pool import PhotoDecoders
from engine.pipeline import Pipeline
from engine.settings import Settings
from tests.engine import mutations, seers
from tests.engine.seers import request_of

PHOTO_PX = (1280, 960)
LARGE_PX = (6000, 4000)
GRAIN = 5.0
"""See `mutations.photo`; a PNG has none, which would make it larger than what is accepted."""


def worst(files):
    """Costs and answers of some files, one after the other."""
    answers = collections.Counter()
    most = {"cpu_s": 0.0, "rss_mb": 0.0, "wall_s": 0.0}
    with PhotoDecoders(1) as decoders:
        for data in files:
            processes = {child.pid: cost(child) for child in psutil.Process().children()}
            started = time.perf_counter()
            try:
                decoders.open(data)
                answers["decoded"] += 1
            except errors.ImageError as error:
                answers[error.code] += 1
            most["wall_s"] = max(most["wall_s"], time.perf_counter() - started)
            for child in psutil.Process().children():
                cpu_s, rss_mb = cost(child)
                before = processes.get(child.pid, (0.0, 0.0))[0]
                most["cpu_s"] = max(most["cpu_s"], cpu_s - before)
                most["rss_mb"] = max(most["rss_mb"], rss_mb)
    return {**{name: round(value, 3) for name, value in most.items()}, "answers": dict(answers)}


def cost(process):
    """Processor time in seconds and most memory in MB so far."""
    try:
        times = process.cpu_times()
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return times.user + times.system, int(line.split()[1]) / 1024
    except (psutil.Error, OSError):
        pass
    return 0.0, 0.0


async def beside(hostile, honest, rounds):
    """Seconds of honest photos, alone and beside four hostile files."""
    seer = seers.seer()
    async with EmbeddedEngine(seer) as engine:
        await engine.start_decoders()

        async def timed(data):
            started = time.perf_counter()
            await engine.analyze(data)
            return time.perf_counter() - started

        async def hang(data):
            with contextlib.suppress(errors.EngineError):
                await engine.analyze(data)

        await timed(honest)
        quiet = [await timed(honest) for _ in range(rounds)]
        attack = [asyncio.create_task(hang(hostile)) for _ in range(4)]
        await asyncio.sleep(0.05)
        busy = []
        while not all(task.done() for task in attack):
            busy.append(await timed(honest))
        await asyncio.gather(*attack)
        again = [await timed(honest) for _ in range(rounds)]
    return {
        name: {
            "photos": len(times),
            "median_s": round(sorted(times)[len(times) // 2], 4),
            "slowest_s": round(max(times), 4),
        }
        for name, times in (("quiet", quiet), ("beside", busy), ("after", again))
    }


async def by_turns(rounds=9):
    """How many times as long honest large photos take as if decoded in this process, by format."""
    ratios = {}
    pipeline = Pipeline.from_settings(Settings())

    def analyzed_here(data):
        pipeline.analyze([request_of(image.open_photo(data))])

    async with EmbeddedEngine(pipeline) as engine:
        await engine.start_decoders()
        with PhotoDecoders(1) as decoders:
            for kind in mutations.KINDS:
                data = mutations.photo(kind, LARGE_PX, grain=GRAIN * (kind != "PNG"))
                here, ours = partial(image.open_photo, data), partial(decoders.open, data)
                all_here = partial(to_thread, analyzed_here, data)
                ratios[kind] = {
                    "decoded": await ratio(
                        partial(to_thread, here), partial(to_thread, ours), rounds
                    ),
                    "analyzed": await ratio(all_here, partial(engine.analyze, data), rounds),
                }
    return ratios


async def ratio(peer, ours, rounds):
    """The median over rounds of the time of `ours` by that of `peer`."""
    each = []
    await peer()
    await ours()
    for _ in range(rounds):
        started = time.perf_counter()
        await peer()
        between = time.perf_counter()
        await ours()
        each.append((time.perf_counter() - between) / (between - started))
    return round(statistics.median(each), 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    result = {}
    if arguments.folder:
        files = [path.read_bytes() for path in sorted(arguments.folder.iterdir())]
        result["folder"] = worst(files)
    for kind in mutations.KINDS:
        lot = random.Random(f"{arguments.seed} {kind}")
        result[kind] = worst(mutations.mutated(kind, lot) for _ in range(arguments.mutations))
        print(kind, json.dumps(result[kind]), flush=True)
    slow = mutations.slow()
    result["slow file"] = worst([slow])
    honest = mutations.photo("JPEG", PHOTO_PX)
    result["beside"] = asyncio.run(beside(slow, honest, arguments.rounds))
    result["24 megapixels, times as long as in one process"] = asyncio.run(by_turns())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
