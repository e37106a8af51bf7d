"""JPEG in, matches out: photos a second on one device, and against facenet-pytorch's README.

    uv run python -m tests.benchmarks.end_to_end ../shared/data/photos --device cuda

Photos of 1280x960. Ours is the embedded engine in a process of its own, with as many callers as two
batches have photos, over batch sizes; then the time to an answer at half of the best rate. The peer
decodes with Pillow and runs `MTCNN(keep_all=True)` and `InceptionResnetV1` one photo at a time on
the same device. On a GPU its utilisation is sampled with nvidia-smi. Where a photo's time goes,
`tests.benchmarks.stages --device cuda` tells.
"""

import argparse
import io
import json
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from engine import threads
from engine.vision.device import choose_device
from tests.benchmarks.photo import Recipe, fill, read
from tests.benchmarks.served import Load, expected, here, summary
from tests.benchmarks.stages import as_jpeg

SIZE = (1280, 960)
QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


class Utilisation:
    """Per cent of the time that the GPU was busy, sampled while it is entered; None elsewhere."""

    def __init__(self, device):
        self._watched = device.type == "cuda"
        self._over = threading.Event()
        self._samples = []

    def __enter__(self):
        if self._watched:
            self._thread = threading.Thread(target=self._look)
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        if self._watched:
            self._thread.join()

    def _look(self):
        while not self._over.wait(0.5):
            said = subprocess.run(QUERY, capture_output=True, text=True, check=True).stdout
            self._samples.append(float(said.split()[0]))

    @property
    def median(self):
        return statistics.median(self._samples) if self._samples else None


def recipe_per_s(recipe, files, seconds):
    """Photos a second, one at a time; its numbers are on the CPU when a photo is done."""
    started, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
        with Image.open(io.BytesIO(files[done % len(files)].read_bytes())) as photo:
            recipe(photo.convert("RGB"))
        done += 1
    return done / spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--device", default="auto", choices=["cpu", "cuda", "auto"])
    arguments = parser.parse_args()
    cores = threads.configure()
    device = choose_device(arguments.device)
    recipe = Recipe(device)
    rates, busy = {}, {}

    def load(files, right, batch, **plan):
        settings = {
            "engine_device": device.type,
            "engine_max_batch": batch,
            "engine_queue": 4 * batch + 64,
            "engine_decode_threads": max(2, cores),
        }
        with Utilisation(device) as used:
            generator = Load(
                files, None, expected=right, settings=settings, duration_s=arguments.seconds, **plan
            )
            found = summary(generator.result())
        busy.setdefault(str(batch), []).append(used.median)
        return found

    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for i, photo in enumerate(read(here(arguments.folder), arguments.photos)):
            files.append(Path(scratch) / f"{i:03}.jpg")
            files[-1].write_bytes(as_jpeg(fill(photo, SIZE)))
        right = expected({"engine_device": device.type}, files)
        wrong = 0
        recipe_per_s(recipe, files, 3)  # warms up
        for _ in range(arguments.turns):
            rates.setdefault("recipe", []).append(recipe_per_s(recipe, files, arguments.seconds))
            for batch in arguments.batches:
                found = load(files, right, batch, clients=2 * batch)
                rates.setdefault(str(batch), []).append(found["per_s"])
                wrong += found["wrong"]
        medians = {name: statistics.median(own) for name, own in rates.items()}
        best = max(arguments.batches, key=lambda batch: medians[str(batch)])
        half = load(files, right, best, rate=medians[str(best)] / 2)
    table = Table("batch", "photos a second", "times the recipe", "GPU busy, %")
    for name, rate in medians.items():
        used = [str(value) for value in busy.get(name, []) if value is not None]
        table.add_row(name, f"{rate:.1f}", f"{rate / medians['recipe']:.1f}", " ".join(used))
    Console(stderr=True).print(table, "At half load, ms:", half["answered_ms"])
    record = {"device": str(device), "threads": cores, "per_s": medians, "wrong": wrong}
    print(json.dumps(record | {"half_load": half, "busy_percent": busy}))


if __name__ == "__main__":
    main()
