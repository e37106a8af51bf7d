"""How far fingerprints of copies, of other shots and of other takes are apart, in bits of 256.

    uv run python -m tests.benchmarks.fingerprints ../shared/data/photos/people --clips 20

`bot.store.fingerprints` takes its thresholds from here. Copies of a photo are made as somebody
would who wants an old one to pass as new; other shots are all other photos of the folder, and,
because selfies that are taken one after the other are more alike than those, frames of generated
clips a second or more apart. Copies of a clip are encoded anew; other takes are clips of the same
photo before the same background with another challenge, which is nearer than second takes in life.
"""

import argparse
import io
import itertools
import json
import random
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table

from bot.liveness import draw
from bot.sandbox.performer import Portrait, perform, transcode
from bot.store.fingerprints import CLIP_DISTANCE, PHOTO_DISTANCE, mirrored
from engine import threads
from engine.errors import ImageError
from engine.fingerprint import fingerprint
from engine.image import SUFFIXES, decode, open_photo
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings

# Of what Telegram makes of a photo.
LONGEST_PX = 1280
CLIP_PX = 384


def encoded(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(image, longest_px):
    copy = image.copy()
    copy.thumbnail((longest_px, longest_px))
    return copy


def cropped(image, share):
    width, height = image.size
    x, y = round(share * width), round(share * height)
    return image.crop((x, y, width - x, height - y))


def turned(image, degrees):
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=False)


COPIES = {
    "JPEG 85": lambda image: encoded(image, 85),
    "JPEG 30": lambda image: encoded(image, 30),
    "half as large": lambda image: encoded(scaled(image, max(image.size) // 2), 85),
    "320 px": lambda image: encoded(scaled(image, 320), 85),
    "brighter by 25 %": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "darker by 25 %": lambda image: ImageEnhance.Brightness(image).enhance(0.75),
    "contrast 1.3": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "equalised": ImageOps.equalize,
    "cropped by 1 %": lambda image: cropped(image, 0.01),
    "cropped by 2 %": lambda image: cropped(image, 0.02),
    "cropped by 3 %": lambda image: cropped(image, 0.03),
    "cropped by 5 %": lambda image: cropped(image, 0.05),
    "cropped by 10 %": lambda image: cropped(image, 0.10),
    "turned by 1 degree": lambda image: turned(image, 1),
    "turned by 3 degrees": lambda image: turned(image, 3),
    "mirrored": lambda image: encoded(ImageOps.mirror(image), 85),
    "cropped by 1 %, JPEG 50, darker": lambda image: encoded(
        ImageEnhance.Brightness(cropped(image, 0.01)).enhance(0.85), 50
    ),
}


def bits(fingerprints):
    """(n, 256) of 0 and 1."""
    return np.unpackbits(np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, 32), axis=1)


def distance(one, other):
    return int((bits([one]) != bits([other])).sum())


def nearest(one, other):
    """As the store compares them."""
    return min(distance(one, other), distance(mirrored(one), other))


def photos(folder):
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            found.append(scaled(decode(path.read_bytes()), LONGEST_PX))
        except ImageError:
            continue
    return found


def clip_prints(clip, every_s=1.0):
    """Fingerprints of a clip's frames at equal distances, as `bot.captures` chooses them."""
    prints, due_s = [], 0.0
    with av.open(io.BytesIO(clip)) as container:
        for frame in container.decode(video=0):
            if frame.time >= due_s - 1e-3:
                prints.append(fingerprint(scaled(frame.to_image(), CLIP_PX)))
                due_s += every_s
    return prints


def clip_distance(one, other):
    both = list(zip(one, other, strict=False))
    return float(
        min(
            np.median([distance(a, b) for a, b in both]),
            np.median([distance(mirrored(a), b) for a, b in both]),
        )
    )


def portraits(folder, limit):
    """Photos with one frontal face, and its landmarks."""
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))
    for path in sorted(folder.rglob("*")):
        if limit == 0:
            return
        if path.suffix.lower() not in SUFFIXES:
            continue
        content = path.read_bytes()
        try:
            photo = open_photo(content)
        except ImageError:
            continue
        seen = pipeline.analyze([PhotoRequest.of(photo, 1, embed=False, aligned=False)])[0]
        if len(seen.faces) == 1 and abs(seen.faces[0].pose.yaw) < 0.12:
            limit -= 1
            yield content, np.array(seen.faces[0].landmarks)


def takes(folder, limit):
    """Distances of copies of clips, of other takes, and of frames of one clip."""
    copies, others, shots = [], [], []
    for index, (content, landmarks) in enumerate(portraits(folder, limit)):
        lot, portrait = random.Random(index), Portrait.of(content, landmarks)
        clips = [
            perform(portrait, draw(lot), seed=10 * index + take, frames_per_s=10)
            for take in range(3)
        ]
        prints = [clip_prints(clip) for clip in clips]
        copies += [
            clip_distance(clip_prints(transcode(clip, lot)), own)
            for clip, own in zip(clips, prints, strict=True)
        ]
        others += [clip_distance(a, b) for a, b in itertools.combinations(prints, 2)]
        shots += [nearest(a, b) for own in prints for a, b in itertools.combinations(own, 2)]
    return copies, others, shots


def quantiles(values):
    return [round(float(each), 1) for each in np.percentile(values, (0, 1, 5, 50, 95, 99, 100))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=0, help="photos to make clips of")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    threads.configure()
    pictures = photos(arguments.folder)
    prints = [fingerprint(picture) for picture in pictures]
    rows = {
        name: [
            nearest(fingerprint(copy(picture)), own)
            for picture, own in zip(pictures, prints, strict=True)
        ]
        for name, copy in COPIES.items()
    }
    rows["other photos"] = [nearest(a, b) for a, b in itertools.combinations(prints, 2)]
    limits = dict.fromkeys(rows, PHOTO_DISTANCE)
    if arguments.clips:
        copies, others, shots = takes(arguments.folder, arguments.clips)
        rows |= {"frames of one clip": shots, "clips encoded anew": copies, "other takes": others}
        limits |= {
            "frames of one clip": PHOTO_DISTANCE,
            "clips encoded anew": CLIP_DISTANCE,
            "other takes": CLIP_DISTANCE,
        }
    found = {
        name: {
            "count": len(values),
            "quantiles": quantiles(values),
            "near": round(float(np.mean(np.array(values) <= limits[name])), 4),
        }
        for name, values in rows.items()
    }
    if arguments.json:
        print(json.dumps(found))
        return
    columns = ("", "count", "min", "1 %", "5 %", "50 %", "95 %", "99 %", "max", "taken for a copy")
    table = Table(*columns)
    for name, row in found.items():
        table.add_row(name, str(row["count"]), *map(str, row["quantiles"]), f"{row['near']:.1%}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
