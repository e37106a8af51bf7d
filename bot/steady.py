"""The same answer for the same photo, also where it was saved again, shrunk or cropped a little.

A face that hardly resembles anybody lies between several people, and between two verdicts: what a
second compression changes in a similarity is enough to change the name. So an answer that was given
to the same person a short time ago is given again (hysteresis). Knows what the engine saw, now and
then; knows nothing about pictures.
"""

from collections.abc import Iterable
from dataclasses import replace

from engine.types import Analysis, Face, Match

COMPARED = 30
"""People by whom a face is told: the engine is asked for so many, however few are shown."""
COMMON = 0.4
"""The share of them who must be among them again."""
FEWEST = 3
"""With fewer people in common nothing can be told."""
NEAR = 0.08
"""How far apart, on the mean, the similarities to them may be. Two photos of different people have
so much in common six times in a thousand (`tests.benchmarks.resaved`)."""


def steady(analysis: Analysis, earlier: Iterable[Analysis]) -> Analysis:
    """An analysis, with the matches that were answered before for faces that were seen before.

    Args:
        analysis: of a photo, just made, with `COMPARED` matches for each face.
        earlier: what was answered to the same person, the newest first, with as many.
    """
    known = [
        face for before in earlier if before.bundle == analysis.bundle for face in before.faces
    ]
    faces = tuple(_as_before(face, known) for face in analysis.faces)
    return replace(analysis, faces=faces)


def _as_before(face: Face, known: Iterable[Face]) -> Face:
    for before in known:
        if _alike(face.matches, before.matches):
            return replace(face, matches=before.matches)
    return face


def _alike(now: tuple[Match, ...], before: tuple[Match, ...]) -> bool:
    similarity = {match.name: match.similarity for match in before}
    apart = [
        abs(match.similarity - similarity[match.name]) for match in now if match.name in similarity
    ]
    if len(now) != len(before) or len(apart) < max(FEWEST, COMMON * len(now)):
        return False
    return sum(apart) / len(apart) <= NEAR
