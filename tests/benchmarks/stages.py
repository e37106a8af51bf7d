"""Where a photo's time goes: the share of each stage, and the least that it could take.

    uv run python -m tests.benchmarks.stages ../shared/data/photos

JPEG files go in, matches come out, in batches, and every stage is timed inside the pipeline. The
floor of decoding is libjpeg's own time for the same file at the same scale; that of a network is
its arithmetic at the speed of a convolution large enough to be nothing else, measured in the same
run; that of the search is reading every vector once. Aligning and the rest (boxes, pose, quality,
answers) have none: they should be small. `--device cuda` waits for the device after each stage, so
nothing overlaps there that would otherwise.
"""

import argparse
import io
import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from engine import threads
from engine.media import image
from engine.pipeline import Pipeline
from engine.settings import Settings
from engine.vision import align, detect, embed
from tests.benchmarks.photo import fill, read
from tests.engine.seers import request_of

QUALITY = 90
NOTHING_S = 1e-5
"""A photo: no floor worth a comparison, as that of searching a few people."""
NETWORKS = ("p_net", "r_net", "o_net", "embed")


class Stages:
    """Seconds and arithmetic of the stages of one pipeline, while it is entered."""

    def __init__(self, pipeline, device, *, counting=False):
        self.spent = {}
        self.flops = {}
        self._counting = counting
        self._device = device
        seer = pipeline._detector
        self._places = [
            (image, "open_photo", "decode"),
            (detect, "_letterbox", "scale"),
            (seer, "_propose", "p_net"),
            (seer, "_refine", "r_net"),
            (seer, "_output", "o_net"),
            (seer, "detect", "detect"),
            (align, "cut", "align"),
            (embed, "embed_crops", "embed"),
            (pipeline.recogniser, "search", "search"),
        ]

    def __enter__(self):
        self._stack = ExitStack()
        for owner, name, stage in self._places:
            call = self._watched(getattr(owner, name), stage)
            self._stack.enter_context(patch.object(owner, name, call))
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _watched(self, call, stage):
        def timed(*arguments):
            started = time.perf_counter()
            result = call(*arguments)
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            self.spent[stage] = self.spent.get(stage, 0.0) + time.perf_counter() - started
            return result

        def counted(*arguments):
            with FlopCounterMode(display=False) as counter:
                result = call(*arguments)
            self.flops[stage] = self.flops.get(stage, 0) + counter.get_total_flops()
            return result

        return counted if self._counting else timed


def analyse(pipeline, files, batch):
    """Seconds for all files, and how many faces were found."""
    started, faces = time.perf_counter(), 0
    for start in range(0, len(files), batch):
        requests = [request_of(image.open_photo(data)) for data in files[start : start + batch]]
        faces += sum(len(analysis.faces) for analysis in pipeline.analyze(requests))
    return time.perf_counter() - started, faces


def decoding_floor(files):
    """Seconds that Pillow's libjpeg takes for the files, at the scale that the engine asks for."""
    started = time.perf_counter()
    for data in files:
        with Image.open(io.BytesIO(data)) as picture:
            shrink = max(1, max(picture.size) // image.ENOUGH_PX)
            picture.draft("RGB", (picture.width // shrink, picture.height // shrink))
            picture.load()
    return time.perf_counter() - started


def convolution_peak(device):
    """FLOP/s of a convolution large enough to be nothing but arithmetic."""
    layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(device, memory_format=torch.channels_last)
    x = torch.randn(8, 128, 56, 56).to(device, memory_format=torch.channels_last)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        layer(x)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(20):
            started = time.perf_counter()
            layer(x)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    return counter.get_total_flops() / best


def reading_floor(pipeline):
    """Seconds that reading everybody's vectors once takes."""
    vectors = pipeline.bundle.tensors["prototypes"].to(pipeline.device)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        vectors.sum().item()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(pipeline, files, batch, rounds):
    """Each stage's share, milliseconds a photo and floor, by its median round."""
    device, photos = pipeline.device, len(files)
    analyse(pipeline, files, batch)  # warms up
    records, peaks, decodes = [], [], []
    for _ in range(rounds):
        with Stages(pipeline, device) as stages:
            total, faces = analyse(pipeline, files, batch)
        records.append(stages.spent | {"total": total})
        peaks.append(convolution_peak(device))
        decodes.append(decoding_floor(files))
    with Stages(pipeline, device, counting=True) as counts:
        analyse(pipeline, files, batch)
    spent = {name: statistics.median(own[name] for own in records) for name in records[0]}
    spent["boxes"] = spent["detect"] - sum(
        spent[name] for name in ("scale", "p_net", "r_net", "o_net")
    )
    total = spent.pop("total")
    del spent["detect"]
    spent["rest"] = total - sum(spent.values())
    peak = statistics.median(peaks)
    floors = {name: counts.flops[name] / peak for name in NETWORKS}
    floors["decode"] = statistics.median(decodes)
    floors["search"] = reading_floor(pipeline) * -(-photos // batch)
    return {
        "photos": photos,
        "faces": faces,
        "batch": batch,
        "ms_per_photo": round(1000 * total / photos, 2),
        "floor_ms_per_photo": round(1000 * sum(floors.values()) / photos, 2),
        "times_the_floor": round(total / sum(floors.values()), 2),
        "gflop_per_s_of_a_large_convolution": round(peak / 1e9),
        "stages": {
            name: {
                "share": round(own / total, 3),
                "ms": round(1000 * own / photos, 2),
                "floor_ms": round(1000 * floors[name] / photos, 2) if name in floors else None,
                "times_the_floor": _times(own, floors.get(name, 0.0), photos),
            }
            for name, own in spent.items()
        },
    }


def _times(own, floor, photos):
    return round(own / floor, 1) if floor > NOTHING_S * photos else None


def as_jpeg(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def show(console, title, found):
    table = Table("stage", "share", "ms a photo", "floor, ms", "times the floor", title=title)
    for name, row in found["stages"].items():
        values = (row["ms"], row["floor_ms"], row["times_the_floor"])
        table.add_row(
            name, f"{row['share']:.0%}", *("" if value is None else str(value) for value in values)
        )
    table.add_section()
    table.add_row(
        "all",
        "100%",
        *(str(found[key]) for key in ("ms_per_photo", "floor_ms_per_photo", "times_the_floor")),
    )
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--photos", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "auto"])
    arguments = parser.parse_args()
    cores = threads.configure()
    pipeline = Pipeline.from_settings(
        Settings(engine_device=arguments.device, engine_bundle="celebrities")
    )
    photos = read(arguments.folder, arguments.photos)
    sets = {
        "1280x960": [as_jpeg(fill(photo, (1280, 960))) for photo in photos],
        "mixed_sizes": [as_jpeg(photo) for photo in photos],
    }
    console, result = Console(stderr=True), {"threads": cores, "device": str(pipeline.device)}
    for name, files in sets.items():
        for batch in arguments.batches:
            found = measure(pipeline, files, batch, arguments.rounds)
            result[f"{name}, batches of {batch}"] = found
            show(console, f"{name}, batches of {batch}", found)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
