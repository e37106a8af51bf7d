"""How many copies of photos `training prepare` finds, and what it takes for copies in a folder.

    uv run python -m tests.benchmarks.near_copies ../shared/data/photos/people --sheet pairs.png
    uv run python -m tests.benchmarks.near_copies ../shared/data/celebrities --aligned

Each sampled photo is copied once in each way, and `prepare` sees photo and copy alone: found is
what it calls a copy. Then it prepares the folder itself; `--sheet` draws what it takes for near
copies there, side by side, because only eyes can tell whether those are.
"""

import argparse
import json
import math
import random
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table

from engine import threads
from engine.media import image
from tests.benchmarks.fingerprints import LONGEST_PX, cropped, encoded, scaled
from training import tools
from training.datasets import manifest, prepare
from training.datasets.audit import FaceLimits
from training.datasets.manifest import Code

TILE_PX = 150
COLUMNS = 4


def realigned(picture, amount):
    """As another aligner would have cut it: turned, scaled and shifted by up to so much."""
    lot = random.Random(picture.tobytes())
    turn, scale, across, down = (lot.uniform(-amount, amount) for _ in range(4))
    angle, side = turn, picture.width
    cos, sin = (1 + scale) * math.cos(angle), (1 + scale) * math.sin(angle)
    middle = side / 2
    x = middle - cos * middle + sin * middle + across * middle
    y = middle - sin * middle - cos * middle + down * middle
    affine = (cos, -sin, x, sin, cos, y)
    moved = picture.transform(
        picture.size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )
    return encoded(moved, 85)


def recoloured(picture):
    return encoded(ImageEnhance.Contrast(ImageEnhance.Color(picture).enhance(0.3)).enhance(1.3), 85)


COPIES = {
    "JPEG 85": lambda picture: encoded(picture, 85),
    "JPEG 30": lambda picture: encoded(picture, 30),
    "half as large": lambda picture: encoded(scaled(picture, max(picture.size) // 2), 85),
    "brighter by 25 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    "paler, contrast 1.3": recoloured,
    "grey": lambda picture: encoded(ImageOps.grayscale(picture).convert("RGB"), 85),
}
OF_PHOTOS = {
    "cropped by 2 %": lambda picture: encoded(cropped(picture, 0.02), 85),
    "cropped by 5 %": lambda picture: encoded(cropped(picture, 0.05), 85),
    "cropped by 10 %": lambda picture: encoded(cropped(picture, 0.10), 85),
}
OF_CROPS = {
    "aligned otherwise by 3 %": lambda picture: realigned(picture, 0.03),
    "aligned otherwise by 6 %": lambda picture: realigned(picture, 0.06),
}
OTHERS = {"mirrored (no copy)": lambda picture: encoded(ImageOps.mirror(picture), 85)}


def found(pictures, copy, eyes, aligned):
    """Of pairs of a photo and its copy with a face in both, how many are called copies."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "people"
        for i, picture in enumerate(pictures):
            home = source / f"{i:04d}"
            home.mkdir(parents=True)
            picture.save(home / "0.png")
            copy(picture).save(home / "1.png")
        out = Path(folder) / "out"
        prepare.prepare(source, out, eyes, aligned=aligned, limits=FaceLimits(0, 1))
        rows = list(manifest.read(out / manifest.NAME))
    faces = [row for row in rows if row.crop]
    pairs = len(faces) - len({row.person for row in faces})
    copies = sum(row.code in (Code.COPY, Code.NEAR_COPY) for row in faces)
    return copies, pairs


def sheet(rows, home, path):
    """Draw each near copy beside the photo that stays."""
    by_path = {row.path: row for row in rows}
    pairs = [(row, by_path[row.twin]) for row in rows if row.code == Code.NEAR_COPY]
    step = 2 * TILE_PX + 10
    drawn = Image.new("RGB", (COLUMNS * step, math.ceil(len(pairs) / COLUMNS) * (TILE_PX + 10)))
    for i, pair in enumerate(pairs):
        for side, row in enumerate(pair):
            with Image.open(home / row.crop) as crop:
                tile = crop.convert("RGB").resize((TILE_PX, TILE_PX))
            place = (i % COLUMNS * step + side * TILE_PX, i // COLUMNS * (TILE_PX + 10))
            drawn.paste(tile, place)
    drawn.save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="one folder per person")
    parser.add_argument("--aligned", action="store_true")
    parser.add_argument("--photos", type=int, default=50, help="photos to make copies of")
    parser.add_argument("--sheet", type=Path, help="picture of what is taken for near copies")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    threads.configure()
    eyes, aligned = tools.load(), arguments.aligned
    with tempfile.TemporaryDirectory() as out:
        home = Path(out) / "own"
        prepare.prepare(arguments.folder, home, eyes, aligned=aligned)
        rows = list(manifest.read(home / manifest.NAME))
        if arguments.sheet:
            sheet(rows, home, arguments.sheet)
    lone = [row for row in rows if row.kept and row.faces == 1]
    chosen = np.random.default_rng(0).permutation(len(lone))[: arguments.photos]
    pictures = [
        scaled(image.decode((arguments.folder / lone[i].path).read_bytes()), LONGEST_PX)
        for i in chosen
    ]
    ways = COPIES | (OF_CROPS if aligned else OF_PHOTOS) | OTHERS
    copies = {name: found(pictures, copy, eyes, aligned) for name, copy in ways.items()}
    near = sum(row.code == Code.NEAR_COPY for row in rows)
    if arguments.json:
        print(json.dumps({"copies": copies, "photos": len(rows), "near copies": near}))
        return
    table = Table("", "copies found", "of")
    for name, (count, pairs) in copies.items():
        table.add_row(name, str(count), str(pairs))
    Console(width=100).print(table)
    print(f"{near} of the folder's {len(rows)} photos are taken for near copies of others.")


if __name__ == "__main__":
    main()
