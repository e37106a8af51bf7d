"""Throughput and memory of `prepare` over many images.

    uv run python -m tests.benchmarks.prepare_scale --images 100000

Draws that many small aligned crops, all different (a person's own pattern under noise, 100 to a
person), prepares them, and prints the throughput of each tenth and the memory of the process over
time. Processor time tells what a busy neighbour hides in the throughput. The first line tells what
the embedder alone does with such crops, decoded already: what is missing from there is decoding,
measuring, files and the journal.
"""

import argparse
import itertools
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from engine import threads
from engine.vision import embed
from training import tools
from training.datasets.journal import NAME

EACH = 100
SIZE_PX = 112
POLL_S = 0.2


def draw(folder, images, seed=0):
    generator = np.random.default_rng(seed)
    for person in range(-(-images // EACH)):
        home = folder / f"Person_{person:05}"
        home.mkdir(parents=True)
        pattern = generator.normal(128, 60, (8, 8, 3))
        for i in range(min(EACH, images - person * EACH)):
            own = pattern + generator.normal(0, 25, (8, 8, 3))
            small = Image.fromarray(own.clip(0, 255).astype(np.uint8))
            smooth = np.asarray(small.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC), float)
            # Without details they would be dropped as blurred.
            detailed = smooth + generator.normal(0, 12, smooth.shape)
            picture = Image.fromarray(detailed.clip(0, 255).astype(np.uint8))
            picture.save(home / f"{i:03}.jpg", quality=85)


def embedder_alone(embedder, seconds=5.0):
    """Crops a second."""
    size = embedder.specification.input_px
    crops = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), np.uint8)
    embed.embed_crops(embedder, crops)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        embed.embed_crops(embedder, crops)
        done += len(crops)
    return done / (time.perf_counter() - start)


def watch(process, journal, part):
    """(images done, time, resident bytes, processor seconds) at the end of each part."""
    marks = [(0, time.perf_counter(), 0, 0.0)]
    while process.poll() is None:
        time.sleep(POLL_S)
        try:
            with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as book:
                (done,) = book.execute("SELECT count(*) FROM photos").fetchone()
            own = psutil.Process(process.pid)
            memory, spent = own.memory_info().rss, own.cpu_times()
            busy = spent.user + spent.system
        except (sqlite3.OperationalError, psutil.NoSuchProcess):
            continue
        if done == 0:  # it is still loading
            marks = [(0, time.perf_counter(), memory, busy)]
        elif done // part > marks[-1][0] // part:
            marks.append((done, time.perf_counter(), memory, busy))
    return marks


def peak(process, highest):
    """Keep the highest resident size of a process until it ends."""
    with suppress(psutil.NoSuchProcess):
        own = psutil.Process(process.pid)
        while process.poll() is None:
            highest[0] = max(highest[0], own.memory_info().rss)
            time.sleep(POLL_S)


def command(folder, home):
    return [
        *(sys.executable, "-m", "training", "prepare", str(folder)),
        *("--out", str(home), "--aligned", "--json"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--part", type=int, default=0, help="[default: a tenth of the images]")
    parser.add_argument("--folder", type=Path, help="Where to work. [default: a temporary folder]")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads.configure()
    seeing = tools.load()
    alone = embedder_alone(seeing.embedder)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder, home = Path(scratch) / "photos", Path(scratch) / "crops"
        draw(folder, arguments.images)
        process = subprocess.Popen(command(folder, home), stdout=subprocess.PIPE, text=True)
        highest = [0]
        sampler = threading.Thread(target=peak, args=(process, highest))
        sampler.start()
        start = time.perf_counter()
        part = arguments.part or max(1, arguments.images // 10)
        marks = watch(process, home / NAME, part)
        end = time.perf_counter()
        sampler.join()
        summary = json.loads(process.communicate()[0])
        journal_bytes = (home / NAME).stat().st_size
        again = time.perf_counter()
        subprocess.run(command(folder, home), check=True, stdout=subprocess.DEVNULL)
        again = time.perf_counter() - again
    parts = [
        {
            "images": done,
            "per_second": round((done - was) / (at - then), 1),
            "processor_ms_each": round(1000 * (busy - before) / (done - was), 1),
            "rss_mib": round(memory / 2**20),
        }
        for (was, then, _, before), (done, at, memory, busy) in itertools.pairwise(marks)
    ]
    record = {
        "images": summary["photos"],
        "embedder_alone_per_second": round(alone, 1),
        "parts": parts,
        "codes": summary["codes"],
        "seeing_s": round(marks[-1][1] - start, 1),
        "judging_s": round(end - marks[-1][1], 1),
        "highest_rss_mib": round(highest[0] / 2**20),
        "again_with_nothing_to_do_s": round(again, 1),
        "journal_bytes_per_image": round(journal_bytes / summary["photos"]),
    }
    table = Table("images", "images/s", "processor ms each", "memory, MiB")
    for part in parts:
        table.add_row(
            f"{part['images']:,}",
            f"{part['per_second']:.0f}",
            f"{part['processor_ms_each']:.1f}",
            f"{part['rss_mib']:,}",
        )
    console = Console()
    console.print(f"The embedder alone: {alone:.0f} crops/s")
    console.print(table)
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
