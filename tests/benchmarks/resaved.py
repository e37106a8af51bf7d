"""How often the first name or the verdict changes when a photo is saved again.

    uv run python -m tests.benchmarks.resaved ../shared/data/photos [--bundle NAME] [--photos 100]

Each photo is saved ten more times: as JPEG of four qualities, shrunk three ways, cropped three
ways. The largest face of each is looked up, with what was answered before kept in mind, as the bot
does (`bot.lookalike.stable_answers`), and without. A photo counts as changed where any of the ten
differs from the photo itself. Photos on which the face is not found again, or another one is, are
left out and counted.
"""

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bot.lookalike.face_choice import MOST_BLUR, SMALLEST_FACE_PX
from bot.lookalike.stable_answers import COMPARED, steady
from engine import threads
from engine.errors import EngineError
from engine.media import image
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings

QUALITIES = (95, 85, 70, 50)
SHRUNK = ((0.8, 85), (0.6, 85), (0.9, 75))
CROPPED = ((0.01, 85), (0.03, 85), (0.02, 70))
FARTHEST = 0.12
"""How far the middle of the face may be from where it was, in widths and heights of the photo."""


def saved(picture, quality):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return image.open_photo(buffer.getvalue()).image


def copies(picture):
    """The ten copies."""
    width, height = picture.size
    yield from (saved(picture, quality) for quality in QUALITIES)
    for scale, quality in SHRUNK:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        yield saved(picture.resize(size, Image.Resampling.LANCZOS), quality)
    for edge, quality in CROPPED:
        box = (width * edge, height * edge * 0.7, width * (1 - edge * 0.6), height * (1 - edge))
        yield saved(picture.crop(tuple(map(int, box))), quality)


def seen(pipeline, pictures):
    """An analysis of each picture with its largest face alone; None where one has no such face."""
    found = []
    for picture in pictures:
        (analysis,) = pipeline.analyze([PhotoRequest(picture, top_k=COMPARED)])
        if not analysis.faces:
            return None
        found.append(analysis)
    return found


def middle(analysis):
    x1, y1, x2, y2 = analysis.faces[0].box
    return np.array([(x1 + x2) / 2 / analysis.width_px, (y1 + y2) / 2 / analysis.height_px])


def first(analysis):
    match = analysis.faces[0].matches[0]
    return match.name, str(match.verdict)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", default="celebrities")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    threads.configure()
    pipeline = Pipeline.from_settings(Settings(engine_bundle=arguments.bundle))
    files = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    np.random.default_rng(arguments.seed).shuffle(files)
    rows, left_out, alike, pairs, others = [], 0, 0, 0, []
    for path in files:
        if len(rows) == arguments.photos:
            break
        try:
            picture = image.open_photo(path.read_bytes()).image
        except EngineError:
            continue
        analyses = seen(pipeline, [picture, *copies(picture)])
        if analyses is None or any(
            np.abs(middle(analyses[0]) - middle(each)).max() > FARTHEST for each in analyses
        ):
            left_out += 1
            continue
        quality = analyses[0].faces[0].quality
        if quality.size_px < SMALLEST_FACE_PX or quality.blur > MOST_BLUR:
            continue
        plain = [first(each) for each in analyses]
        kept = [analyses[0]]
        for each in analyses[1:]:
            known = [face for before in reversed(kept) for face in before.faces]
            kept.append(replace(each, faces=steady(each.faces, known)))
        steadied = [first(each) for each in kept]
        rows.append(
            [
                len({name for name, _ in plain}) > 1,
                len({verdict for _, verdict in plain}) > 1,
                len({name for name, _ in steadied}) > 1,
                len({verdict for _, verdict in steadied}) > 1,
            ]
        )
        # What an answer to a photo of somebody else changes: it should change nothing.
        for home, other in others:
            if home != path.parent:
                pairs += 1
                alike += steady(analyses[0].faces, other.faces) != analyses[0].faces
        others.append((path.parent, analyses[0]))
    share = np.mean(rows, axis=0)
    print(
        json.dumps(
            {
                "bundle": pipeline.bundle.id,
                "photos": len(rows),
                "left_out": left_out,
                "alone": {"name_changes": share[0], "verdict_changes": share[1]},
                "with_earlier_answers": {"name_changes": share[2], "verdict_changes": share[3]},
                "photos_of_others_taken_for_the_same": alike / pairs if pairs else None,
                "pairs_of_photos": pairs,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
