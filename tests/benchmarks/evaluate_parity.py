"""`evaluate`'s TAR at FMR beside scikit-learn's roc_curve on the same scores.

    uv run python -m tests.benchmarks.evaluate_parity ../shared/data/celebrities

A fifth of each person's crops is held out by hand, a gallery is made of the rest and evaluated on
the fifth, both by the command line. The scores are then computed anew, from the crops and the
bundle's files, without the workshop's metrics.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from engine import bundle, threads
from engine.vision import align, embed
from engine.vision.detect import whole_crop


def split(folder, home, share, seed):
    """Links to the crops, in one folder for building and one for evaluating."""
    generator = random.Random(seed)
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        crops = sorted(person.iterdir())
        generator.shuffle(crops)
        count = round(share * len(crops))
        for part, chosen in (("held", crops[:count]), ("kept", crops[count:])):
            (home / part / person.name).mkdir(parents=True)
            for crop in chosen:
                (home / part / person.name / crop.name).symlink_to(crop.resolve())


def training(*arguments):
    begun = time.perf_counter()
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - begun, 1)


def scores(stem, folder, left_out):
    """(scores, same) of every crop with every other, from the bundle's files."""
    tensors = bundle.load(stem).tensors
    embedder = embed.load(embed.DEFAULT, torch.device("cpu"), Path("run/weights"))
    crops, owner = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if f"{path.parent.name}/{path.name}" in left_out:
            continue
        with Image.open(path) as picture:
            photo = picture.convert("RGB")
        points = whole_crop(photo.size).landmarks[0]
        crops.append(align.cut(photo, points, embedder.specification.template))
        owner.append(path.parent.name)
    vectors = embed.embed_crops(embedder, np.stack(crops)).numpy() - tensors["centre"].numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(len(owner), 1)
    people = np.array(owner)
    return (vectors @ vectors.T)[first, second], people[first] == people[second]


def copies(home):
    """Paths of the crops that `prepare` found to be copies: they count once."""
    found = set()
    for line in (home / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["code"] in ("copy", "near_copy") and row["status"] == "drop":
            found.add(row["path"])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a folder per person of aligned crops")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    threads.configure()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        split(arguments.folder, home, arguments.share, arguments.seed)
        stem = home / "gallery"
        seconds = {
            f"prepare {part}": training(
                "prepare", home / part, "--aligned", "--out", home / "prepared" / part
            )
            for part in ("kept", "held")
        }
        prepared = home / "prepared" / "held"
        seconds |= {
            "gallery": training("gallery", home / "prepared" / "kept", "--out", stem),
            "evaluate": training("evaluate", stem, prepared, "--out", home / "out"),
        }
        record = json.loads((home / "out" / "evaluation.json").read_text())["verification"]
        score, same = scores(stem, home / "held", copies(prepared))
    fmr, tar, _ = roc_curve(same, score, drop_intermediate=False)
    rows = [
        {
            "fmr": point["fmr"],
            "evaluate": point["tar"],
            "scikit_learn": float(tar[fmr <= point["fmr"]].max()),
            "interval_95": [point["lower_95"], point["upper_95"]],
            "warning": point["warning"],
        }
        for point in record["tar"]
    ]
    print(
        json.dumps(
            {
                "pairs": {
                    "evaluate": [record["genuine_pairs"], record["impostor_pairs"]],
                    "scikit_learn": [int(same.sum()), int((~same).sum())],
                },
                "tar_at_fmr": rows,
                "auc": {
                    "evaluate": record["auc"],
                    "scikit_learn": float(roc_auc_score(same, score)),
                },
                "seconds": seconds,
            },
            indent=2,
        )
    )
    sys.exit(any(row["evaluate"] != row["scikit_learn"] for row in rows))


if __name__ == "__main__":
    main()
