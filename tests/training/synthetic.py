"""Small prepared datasets of made-up people."""

import numpy as np
from PIL import Image

from engine.vision.align import ARCFACE
from training.datasets import manifest
from training.datasets.manifest import Row, Status


def pictures(folder, people=4, each=6, size=112, seed=4):
    """Made-up people: each a blurred pattern of their own, seen with noise."""
    generator = np.random.default_rng(seed)
    for person in range(people):
        home = folder / f"Person_{person}"
        home.mkdir(parents=True)
        pattern = Image.fromarray(generator.integers(0, 256, (7, 7, 3), np.uint8))
        smooth = np.asarray(pattern.resize((size, size), Image.Resampling.BICUBIC), float)
        for i in range(each):
            noisy = smooth + generator.normal(0, 45, (14, 14, 3)).repeat(8, 0).repeat(8, 1)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(home / f"{i}.png")
    return folder


def prepared(folder, people=4, each=6, seed=4):
    """A manifest over `pictures`, every face kept and in a group of its own; returns the folder."""
    pictures(folder / "crops", people, each, seed=seed)
    paths = sorted((folder / "crops").rglob("*.png"))
    rows = [
        Row(
            id=f"{seed}-{i}",
            path=f"{path.parent.name}/{path.name}",
            person=path.parent.name.replace("_", " "),
            status=Status.KEEP,
            crop=str(path.relative_to(folder)),
            landmarks=ARCFACE.tolist(),
            group=i,
            size_px=80.0 + i,
            blur=0.2,
            exposure=0.5,
            yaw=0.0,
            pitch=0.56,
        )
        for i, path in enumerate(paths)
    ]
    manifest.write(folder / manifest.NAME, rows)
    return folder
