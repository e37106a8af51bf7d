"""Classifiers by every recipe on crops that were held out by hand.

    uv run python -m tests.benchmarks.classifier ../shared/data/celebrities

A fifth of each person's crops, chosen at random, is put aside; `python -m training classifier` (and
`gallery`, for comparison) gets the rest in a folder of its own and nothing else; the bundle is then
loaded by the engine and looks at the crops put aside, mislabels included. Crops of which a copy is
among the rest are not counted (a memory of pictures is no knowledge of faces), and are counted in
`with_copies`. Wall time and peak memory are those of the whole command, from raw crops and again
with the embeddings cached.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine import align, bundle, embed, recogniser, threads
from training import tools
from training.metrics import expected_calibration_error, reliability
from training.twins import signature

ALIKE = 0.95

RECIPES = {
    "gallery": ["gallery"],
    "head": ["classifier"],
    "finetune": ["classifier", "--recipe", "finetune"],
    "mobilenet_v2": ["classifier", "--recipe", "cnn", "--arch", "mobilenet_v2", "--from-scratch"],
}


def put_aside(source, work, seed):
    """Folders of links, four fifths and one fifth; returns the two."""
    generator = np.random.default_rng(seed)
    for home in sorted(path for path in source.iterdir() if path.is_dir()):
        files = sorted(home.iterdir())
        test = set(generator.permutation(len(files))[: round(len(files) / 5)].tolist())
        for i, path in enumerate(files):
            place = work / ("test" if i in test else "training") / home.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / path.name)
    return work / "training", work / "test"


def crops(folder):
    """(people, pictures) of a folder per person."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.parent.name.replace("_", " ") for path in files]
    return names, [Image.open(path).convert("RGB") for path in files]


def grey(pictures):
    small = [picture.convert("L").resize((16, 16), Image.Resampling.BOX) for picture in pictures]
    return signature(np.stack([np.asarray(picture) for picture in small]))


def copies(test, training):
    """Which test pictures have a near copy in the other part."""
    return (grey(test) @ grey(training).T).max(axis=1) > ALIKE


def timed(arguments, environment):
    """Seconds and the largest resident set so far of any such process (MiB)."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return time.perf_counter() - start, peak, json.loads(done.stdout)


def judged(stem, names, pictures, counted, device):
    """Figures of a bundle on the crops put aside, as the engine sees them."""
    loaded = bundle.load(stem)
    known = recogniser.load(loaded, device)
    template = known.template
    if template is None:
        embedder = tools.load(loaded.embedder.id).embedder
        template = embedder.specification.template
    cut = np.stack(
        [
            align.cut(picture, align.ARCFACE * (picture.width / 112), template)
            for picture in pictures
        ]
    )
    seen = cut if known.template else embed.embed_crops(embedder, cut)
    similarity = known.similarities(seen)
    probability = known.judge.probabilities(similarity).cpu().numpy()
    scores = similarity.cpu().numpy()
    truth = np.array([known.judge.names.index(name) for name in names])
    own = scores[np.arange(len(truth)), truth]
    rank = (scores > own[:, None]).sum(axis=1)
    threshold = loaded.calibration.identification.threshold
    right = rank == 0
    return {
        "crops": int(counted.sum()),
        "top_1": float(right[counted].mean()),
        "top_5": float((rank < 5)[counted].mean()),
        "ece": expected_calibration_error(
            reliability(probability.max(axis=1)[counted], right[counted])
        ),
        "is_right": float((right & (own >= threshold))[counted].mean()),
        "is_wrong": float((~right & (scores.max(axis=1) >= threshold))[counted].mean()),
        "with_copies": {"top_1": float(right.mean()), "top_5": float((rank < 5).mean())},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipes", default="gallery,head", help=",".join(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10, help="of training, for mobilenet_v2")
    parser.add_argument("--epochs", type=int, help="of mobilenet_v2")
    arguments = parser.parse_args()
    threads.configure()
    device = torch.device("cpu")
    figures = {}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        training, test = put_aside(arguments.folder, work, arguments.seed)
        names, pictures = crops(test)
        counted = ~copies(pictures, crops(training)[1])
        environment = os.environ | {"ENGINE_DEVICE": "cpu"}
        for recipe in arguments.recipes.split(","):
            home = work / "crops" / recipe
            prepare = ["prepare", training, "--aligned", "--out", home, "--json"]
            prepare_s, _, _ = timed([str(word) for word in prepare], environment)
            out = work / recipe
            command = [*RECIPES[recipe], home, "--out", out, "--json"]
            if command[0] == "classifier":
                command += ["--runs", work / "runs"]
            if recipe == "mobilenet_v2":
                command += ["--max-minutes", arguments.minutes]
                command += ["--epochs", arguments.epochs] if arguments.epochs else []
            seconds, peak, report = timed([str(word) for word in command], environment)
            figures[recipe] = judged(out, names, pictures, counted, device) | {
                "from_raw_s": prepare_s + seconds,
                "cached_s": seconds,
                "peak_mib": peak,
                "epochs": report.get("epochs"),
            }
    print(
        f"{'recipe':14} {'top-1':>7} {'top-5':>7} {'ECE':>6} {'is':>6} {'wrong is':>8} "
        f"{'raw s':>6} {'cached s':>8} {'MiB':>6} {'epochs':>6}"
    )
    for recipe, f in figures.items():
        print(
            f"{recipe:14} {f['top_1']:7.4f} {f['top_5']:7.4f} {f['ece']:6.4f} "
            f"{f['is_right']:6.3f} {f['is_wrong']:8.4f} {f['from_raw_s']:6.1f} "
            f"{f['cached_s']:8.1f} {f['peak_mib']:6.0f} {f['epochs'] or '':>6}"
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
