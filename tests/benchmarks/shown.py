"""Which faces of photos are shown, and how many of those are none or far out of focus.

    uv run python -m tests.benchmarks.shown ../shared/data/photos

Every photo was looked at. The thresholds of `bot.lookalike.face_choice` were chosen on the first
half (every other file, by name), in the middle of what is best there; the second half tells what
they are worth.
"""

import argparse
import json
import math
from pathlib import Path

from bot.lookalike.face_choice import MOST_BLUR, SMALLEST_FACE_PX, choose
from bot.telegram.incoming import Refusal
from engine import threads
from engine.errors import EngineError
from engine.media.image import open_photo
from engine.pipeline import Pipeline
from engine.settings import Settings
from tests.engine.seers import request_of

NOT_CLEAR = {
    "people/lionel_messi/005.jpg": ((0.2, 0.36),),
    "people/lionel_messi/011.jpg": ((0.75, 0.73), (0.06, 0.74)),
    "people/lionel_messi/013.jpg": ((0.63, 0.45),),
    "people/lionel_messi/025.jpg": ((0.49, 0.63),),
    "people/lionel_messi/034.jpg": ((0.22, 0.46),),
    "people/roger_federer/002.jpg": ((0.02, 0.69), (0.88, 0.67), (0.68, 0.55), (0.44, 0.62)),
    "people/roger_federer/006.jpg": ((0.07, 0.81),),
    "people/roger_federer/009.jpg": ((0.73, 0.1),),
    "people/roger_federer/018.jpg": ((0.39, 0.05),),
    "people/roger_federer/021.jpg": ((0.38, 0.2), (0.36, 0.02), (0.02, 0.42)),
    "people/roger_federer/025.jpg": ((0.91, 0.97),),
    "people/roger_federer/027.jpg": ((0.02, 0.84),),
    "people/roger_federer/032.jpg": ((0.05, 0.83), (0.38, 0.2)),
    "people/virat_kohli/008.jpg": ((0.19, 0.52),),
    "people/virat_kohli/018.jpg": ((0.02, 0.73),),
}
"""Middles of what is no face or far out of focus, in widths and heights of the photo."""
NEAR = 0.03
EVERY_FACE = 32


def is_clear(face, analysis, middles):
    x1, y1, x2, y2 = face.box
    middle = (x1 + x2) / 2 / analysis.width_px, (y1 + y2) / 2 / analysis.height_px
    return all(math.dist(middle, other) > NEAR for other in middles)


def large_and_sharp(analysis):
    """What would be shown by size and blur alone."""
    return [
        face
        for face in analysis.faces
        if face.quality.size_px >= SMALLEST_FACE_PX and face.quality.blur <= MOST_BLUR
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    threads.configure()
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu"))
    halves = [
        dict.fromkeys(("by_size_and_blur", "not_clear", "shown", "shown_not_clear", "lost"), 0)
        for _ in range(2)
    ]
    lost_photos = []
    for number, path in enumerate(sorted(p for p in arguments.folder.rglob("*") if p.is_file())):
        try:
            photo = open_photo(path.read_bytes())
        except EngineError:
            continue
        request = request_of(photo, 0, embed=False, aligned=False)
        (analysis,) = pipeline.analyze([request])
        name = path.relative_to(arguments.folder).as_posix()
        middles = NOT_CLEAR.get(name, ())
        chosen = choose(analysis.faces, EVERY_FACE)
        shown = () if isinstance(chosen, Refusal) else chosen[0]
        before = large_and_sharp(analysis)
        if before and not shown:
            lost_photos.append(name)
        count = halves[number % 2]
        count["by_size_and_blur"] += len(before)
        count["not_clear"] += sum(not is_clear(face, analysis, middles) for face in before)
        count["shown"] += len(shown)
        count["shown_not_clear"] += sum(not is_clear(face, analysis, middles) for face in shown)
        count["lost"] += sum(
            face not in shown and is_clear(face, analysis, middles) for face in before
        )
    print(json.dumps({"first_half": halves[0], "second_half": halves[1], "refused": lost_photos}))


if __name__ == "__main__":
    main()
