"""Verification on pairs of ordinary photos: AUC and TAR at FMR, with `engine compare`'s own scores.

    uv run python -m tests.benchmarks.pairs ../shared/data/photos/people

Folder names tell whose photos they are; on photos of several people they do not tell which face.
So only photos with exactly one face of 40 pixels or more count, and copies (by the picture, not by
the embedder) count once. Nothing is left out for its score; requiring that a face agrees with the
mean of its folder would leave nobody out. Rates come with the 90 % interval of a bootstrap over
folders, and with what the bundle's own threshold gives, which was set on other people.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from engine import errors, threads
from engine.media import image
from engine.people.compare import pair_threshold
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.vision.vectors import centred
from tests.benchmarks.accuracy import COPY, signature, tiny

SMALLEST_PX = 40


def read(pipeline, folder):
    """One embedding a photo: (vectors, folder index, signature of the picture)."""
    vectors, owner, signatures, left_out = [], [], [], 0
    for i, person in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(path for path in person.iterdir() if path.is_file()):
            try:
                photo = image.decode(path.read_bytes())
            except errors.ImageError:
                left_out += 1
                continue
            (analysis,) = pipeline.analyze([PhotoRequest(photo, embed=True)])
            faces = [f for f in analysis.faces if f.quality.size_px >= SMALLEST_PX]
            if len(faces) != 1:
                left_out += 1
                continue
            x1, y1, x2, y2 = (int(value) for value in faces[0].box)
            chip = np.asarray(photo.crop((x1, y1, x2, y2)))
            vectors.append(faces[0].embedding)
            signatures.append(tiny(chip))
            owner.append(i)
    centre = pipeline.bundle.tensors["centre"]
    own = centred(torch.from_numpy(np.stack(vectors)), centre).numpy()
    return own, np.array(owner), signature(np.stack(signatures)), left_out


def without_copies(vectors, owner, signatures):
    copies = np.triu(signatures @ signatures.T > COPY, 1).any(axis=0)
    return vectors[~copies], owner[~copies]


def summary(genuine, impostor):
    """AUC and TAR at FMR."""
    order = np.sort(impostor)
    auc = float((np.searchsorted(order, genuine) / len(order)).mean())
    result = {"auc": auc}
    for rate in (1e-2, 1e-3):
        threshold = order[len(order) - 1 - int(rate * len(order))]
        result[f"tar_at_fmr_{rate:g}"] = float((genuine > threshold).mean())
    return result


def interval(vectors, owner, resamples=300):
    generator = np.random.default_rng(0)
    people = np.unique(owner)
    draws = []
    for _ in range(resamples):
        chosen = generator.choice(people, len(people))
        index = np.concatenate([np.flatnonzero(owner == person) for person in chosen])
        # A folder drawn twice counts twice, but is never its own impostor.
        first, second = np.triu_indices(len(index), 1)
        different = index[first] != index[second]
        first, second = index[first][different], index[second][different]
        scores = (vectors[first] * vectors[second]).sum(axis=1)
        same = owner[first] == owner[second]
        if same.any() and (~same).any():
            draws.append(summary(scores[same], scores[~same]))
    return {
        key: [round(float(np.quantile([d[key] for d in draws], q)), 4) for q in (0.05, 0.95)]
        for key in draws[0]
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    threads.configure()
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))
    vectors, owner, signatures, left_out = read(pipeline, arguments.folder)
    vectors, owner = without_copies(vectors, owner, signatures)
    record = pair_threshold(pipeline.bundle)
    first, second = np.triu_indices(len(owner), 1)
    scores = (vectors @ vectors.T)[first, second]
    same = owner[first] == owner[second]
    result = {
        "photos": len(owner),
        "photos_left_out": left_out,
        "people": len(np.unique(owner)),
        "genuine_pairs": int(same.sum()),
        "impostor_pairs": int((~same).sum()),
        **summary(scores[same], scores[~same]),
        "interval_90": interval(vectors, owner),
        "at_the_bundles_threshold": {
            "threshold": record.threshold,
            "fmr_it_was_set_at": record.fmr,
            "true_accepts": float((scores[same] >= record.threshold).mean()),
            "false_matches": float((scores[~same] >= record.threshold).mean()),
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
