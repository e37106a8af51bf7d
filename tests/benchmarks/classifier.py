"""Classifiers by every recipe on crops that were held out by hand.

    uv run python -m tests.benchmarks.classifier ../shared/data/celebrities --splits 5

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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine import bundle, threads
from engine.people import recogniser
from engine.vision import align, embed
from training import tools
from training.datasets.twins import signature
from training.measure.metrics import expected_calibration_error, reliability

ALIKE = 0.95
FIFTHS = 5

RECIPES = {
    "gallery": ["gallery"],
    "head": ["classifier"],
    "finetune": ["classifier", "--recipe", "finetune"],
    "mobilenet_v2": ["classifier", "--recipe", "cnn", "--arch", "mobilenet_v2", "--from-scratch"],
}


def put_aside(source, work, fold):
    """Four fifths and one fifth of each person's crops, in folders of their own."""
    generator = np.random.default_rng(0)
    for home in sorted(path for path in source.iterdir() if path.is_dir()):
        files = sorted(home.iterdir())
        part = generator.permutation(len(files)) % FIFTHS
        for i, path in enumerate(files):
            place = work / ("test" if part[i] == fold else "training") / home.name
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
    named = scores.max(axis=1) >= loaded.calibration.identification.threshold
    return {
        "counted": counted,
        "rank": rank,
        "named": named,
        "confidence": probability.max(axis=1),
    }


def figures(looks, runs):
    """Of all crops that were put aside together, and the median of the runs."""
    every = {key: np.concatenate([look[key] for look in looks]) for key in looks[0]}
    counted, right = every["counted"], every["rank"] == 0
    bins = reliability(every["confidence"][counted], right[counted])
    return {
        "crops": int(counted.sum()),
        "top_1": float(right[counted].mean()),
        "top_1_of_each": [float((look["rank"] == 0)[look["counted"]].mean()) for look in looks],
        "top_5": float((every["rank"] < 5)[counted].mean()),
        "ece": expected_calibration_error(bins),
        "is_right": float((right & every["named"])[counted].mean()),
        "is_wrong": float((~right & every["named"])[counted].mean()),
        "with_copies": {
            "crops": len(right),
            "top_1": float(right.mean()),
            "top_5": float((every["rank"] < 5).mean()),
        },
        **{key: statistics.median(run[key] for run in runs) for key in runs[0]},
    }


def one_split(arguments, work, fold, looks, runs):
    """Train every recipe on four fifths, and look at the fifth put aside."""
    training, test = put_aside(arguments.folder, work, fold)
    names, pictures = crops(test)
    counted = ~copies(pictures, crops(training)[1])
    environment = os.environ | {"ENGINE_DEVICE": "cpu"}
    for recipe in looks:
        home, out = work / "crops" / recipe, work / recipe
        prepare = ["prepare", training, "--aligned", "--out", home, "--json"]
        prepare_s, _, _ = timed([str(word) for word in prepare], environment)
        command = [*RECIPES[recipe], home, "--out", out, "--json"]
        if command[0] == "classifier":
            command += ["--runs", work / "runs"]
        if recipe == "mobilenet_v2":
            command += ["--max-minutes", arguments.minutes]
            command += ["--epochs", arguments.epochs] if arguments.epochs else []
        seconds, peak, report = timed([str(word) for word in command], environment)
        looks[recipe].append(judged(out, names, pictures, counted, torch.device("cpu")))
        runs[recipe].append(
            {
                "from_raw_s": prepare_s + seconds,
                "cached_s": seconds,
                "peak_mib": peak,
                "epochs": report.get("epochs", 0),
            }
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipes", default="gallery,head", help=",".join(RECIPES))
    parser.add_argument(
        "--splits", type=int, default=1, help="of the five fifths", choices=range(1, 6)
    )
    parser.add_argument("--minutes", type=float, default=10, help="of training, for mobilenet_v2")
    parser.add_argument("--epochs", type=int, help="of mobilenet_v2")
    arguments = parser.parse_args()
    threads.configure()
    recipes = arguments.recipes.split(",")
    looks, runs = ({recipe: [] for recipe in recipes} for _ in range(2))
    for fold in range(arguments.splits):
        with tempfile.TemporaryDirectory() as place:
            one_split(arguments, Path(place), fold, looks, runs)
    found = {recipe: figures(looks[recipe], runs[recipe]) for recipe in recipes}
    print(
        f"{'recipe':14} {'top-1':>7} {'top-5':>7} {'ECE':>6} {'is':>6} {'wrong is':>8} "
        f"{'raw s':>6} {'cached s':>8} {'MiB':>6} {'epochs':>6}"
    )
    for recipe, f in found.items():
        print(
            f"{recipe:14} {f['top_1']:7.4f} {f['top_5']:7.4f} {f['ece']:6.4f} "
            f"{f['is_right']:6.3f} {f['is_wrong']:8.4f} {f['from_raw_s']:6.1f} "
            f"{f['cached_s']:8.1f} {f['peak_mib']:6.0f} {f['epochs'] or '':>6}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
