"""Photos a second, against the recipe of facenet-pytorch's README, in one process.

    uv run python -m tests.benchmarks.photo ../shared/data/photos

The peer is `MTCNN(keep_all=True)` then `InceptionResnetV1().eval()`, one photo at a time, as its
README shows (random weights: they cost the same). Ours is the whole pipeline: detection,
alignment, pose, quality, embedding of crop and mirror, search. Both take decoded photos. The two
take turns, and every figure is the median over the rounds. `--memory` runs 2,000 photos of 500
sizes instead. Where a photo's time goes, `tests.benchmarks.stages` tells.
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

from engine import errors, threads
from engine.media import image
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

    def __init__(self, device=None):
        self.device = device or torch.device("cpu")
        self.mtcnn = MTCNN(keep_all=True, device=self.device)
        self.resnet = InceptionResnetV1().eval().to(self.device)

    @torch.no_grad()
    def __call__(self, photo):
        faces = self.mtcnn(photo)
        return 0 if faces is None else len(self.resnet(faces.to(self.device)).cpu())


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
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))
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
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
