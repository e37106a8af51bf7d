"""Photos a second, against the recipe of facenet-pytorch's README, in one process.

    uv run python -m tests.benchmarks.photo ../shared/data/photos

The peer is `MTCNN(keep_all=True)` then `InceptionResnetV1().eval()`, one photo at a time, as its
README shows (random weights: they cost the same). Ours is the whole pipeline: detection,
alignment, pose, quality, embedding of crop and mirror, search. Both take decoded photos. The two
take turns, and every figure is the median over the rounds. `--memory` runs 2,000 photos of 500
sizes instead.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from PIL import Image
from skimage import data
from torch.utils.flop_counter import FlopCounterMode

from engine import errors, image, threads
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings

BATCH = 8


def read(folder, limit):
    """Photos with somebody on them, evenly over the folder; the astronaut without a folder."""
    if folder is None:
        return [Image.fromarray(data.astronaut())] * limit
    photos = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            photos.append(image.decode(path.read_bytes()))
        except errors.ImageError:
            continue
    return [photos[i] for i in np.linspace(0, len(photos) - 1, min(limit, len(photos))).astype(int)]


def fill(photo, size):
    """The photo scaled and cropped to a size, as if taken so."""
    scale = max(size[0] / photo.width, size[1] / photo.height)
    width, height = round(photo.width * scale), round(photo.height * scale)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    return photo.resize((width, height)).crop((left, top, left + size[0], top + size[1]))


class Recipe:
    """facenet-pytorch as its README uses it."""

    def __init__(self):
        self.mtcnn = MTCNN(keep_all=True)
        self.resnet = InceptionResnetV1().eval()

    @torch.no_grad()
    def __call__(self, photo):
        faces = self.mtcnn(photo)
        return 0 if faces is None else len(self.resnet(faces))


def seconds(work, items):
    started = time.perf_counter()
    faces = sum(work(item) for item in items)
    return time.perf_counter() - started, faces


def race(pipeline, recipe, photos, rounds):
    """Medians over rounds in which the three take turns."""
    requests = [PhotoRequest(photo) for photo in photos]
    batches = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
    ways = {
        "facenet_pytorch": (recipe, photos),
        "one_at_a_time": (lambda r: len(pipeline.analyze([r])[0].faces), requests),
        "in_batches_of_8": (lambda b: sum(len(a.faces) for a in pipeline.analyze(b)), batches),
    }
    times = {name: [] for name in ways}
    faces = {}
    for turn in range(rounds + 1):
        for name, (work, items) in ways.items():
            spent, faces[name] = seconds(work, items)
            if turn:  # the first round warms up
                times[name].append(spent)
    theirs = times["facenet_pytorch"]
    result = {
        name: {
            "photos_per_s": round(len(photos) / statistics.median(own), 2),
            "faces": faces[name],
            "ratio": round(statistics.median(a / b for a, b in zip(theirs, own, strict=True)), 2),
        }
        for name, own in times.items()
    }
    return {"photos": len(photos), **result}


def stages(pipeline, photos):
    """Share of each stage, and the floor that the networks' arithmetic sets on this machine."""
    from engine import align
    from engine import embed as module

    spent = dict.fromkeys(("detect", "align", "embed", "search"), 0.0)

    def timed(name, call):
        def wrapper(*arguments):
            started = time.perf_counter()
            result = call(*arguments)
            spent[name] += time.perf_counter() - started
            return result

        return wrapper

    originals = pipeline._detector.detect, align.crop, module.embed_crops, pipeline._gallery.search
    pipeline._detector.detect = timed("detect", originals[0])
    align.crop = timed("align", originals[1])
    module.embed_crops = timed("embed", originals[2])
    pipeline._gallery.search = timed("search", originals[3])
    try:
        started = time.perf_counter()
        for photo in photos:
            pipeline.analyze([PhotoRequest(photo)])
        total = time.perf_counter() - started
    finally:
        pipeline._detector.detect, align.crop, module.embed_crops, pipeline._gallery.search = (
            originals
        )
    with FlopCounterMode(display=False) as counter:
        for photo in photos:
            pipeline.analyze([PhotoRequest(photo)])
    flops = counter.get_total_flops() / len(photos)
    peak = convolution_peak()
    shares = {name: round(value / total, 3) for name, value in spent.items()}
    shares["rest"] = round(1 - sum(shares.values()), 3)
    return {
        "share": shares,
        "ms_per_photo": round(1000 * total / len(photos), 1),
        "gflop_per_photo": round(flops / 1e9, 2),
        "gflop_per_s_of_a_large_convolution": round(peak / 1e9, 1),
        "floor_ms_per_photo": round(1000 * flops / peak, 1),
        "times_the_floor": round(total / len(photos) / (flops / peak), 2),
    }


def convolution_peak():
    """FLOP/s of a convolution large enough to be nothing but arithmetic."""
    layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(8, 128, 56, 56).to(memory_format=torch.channels_last)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        layer(x)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(20):
            started = time.perf_counter()
            layer(x)
            best = min(best, time.perf_counter() - started)
    return counter.get_total_flops() / best


def memory(pipeline, photos):
    """Resident MiB after 200 photos and after 2,000, of 500 sizes."""
    process, generator = psutil.Process(), np.random.default_rng(0)
    sizes = [tuple(int(side) for side in generator.integers(120, 1600, 2)) for _ in range(500)]
    marks = {}
    for i in range(0, 2000, BATCH):
        batch = [
            PhotoRequest(fill(photos[k % len(photos)], sizes[k % 500])) for k in range(i, i + BATCH)
        ]
        pipeline.analyze(batch)
        done = i + BATCH
        if done % 200 == 0:
            marks[done] = round(process.memory_info().rss / 2**20, 1)
    return {"resident_mib": marks, "growth_mib_from_200": round(marks[2000] - marks[200], 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--photos", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    threads.configure()
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu"))
    photos = read(arguments.folder, arguments.photos)
    if arguments.memory:
        print(json.dumps(memory(pipeline, photos), indent=2))
        return
    recipe = Recipe()
    large = [fill(photo, (1280, 960)) for photo in photos]
    result = {
        "cores": torch.get_num_threads(),
        "1280x960": race(pipeline, recipe, large, arguments.rounds),
        "mixed_sizes": race(pipeline, recipe, photos, arguments.rounds),
        "stages_1280x960": stages(pipeline, large),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
