"""The same answer for the same photo, also where it was saved again, shrunk or cropped a little.

A face that hardly resembles anybody lies between several people, and between two verdicts: what a
second compression changes in a similarity is enough to change the name. So an answer that was given
to the same person a short time ago is given again (hysteresis). Knows what the engine saw, now and
then; knows nothing about pictures.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from engine.types import Face, Match

COMPARED = 30
"""People by whom a face is told: the engine is asked for so many, however few are shown."""
COMMON = 0.4
"""The share of them who must be among them again."""
FEWEST = 3
"""With fewer people in common nothing can be told."""
NEAR = 0.08
"""How far apart, on the mean, the similarities to them may be. Two photos of different people have
so much in common six times in a thousand (`tests.benchmarks.resaved`)."""


def steady(seen: Sequence[Face], known: Sequence[Face]) -> tuple[Face, ...]:
    """The faces of a photo; those that were seen before with the matches that were answered then.

    Args:
        seen: just now, with `COMPARED` matches for each face.
        known: what the same bundle saw and the same person was answered, the newest first, with as
            many.
    """
    pairs = sorted(
        (
            (apart, number, i)
            for number, face in enumerate(seen)
            for i, before in enumerate(known)
            if (apart := _apart(face.matches, before.matches)) <= NEAR
        ),
    )
    # The nearest pair first. What was answered for one face is not given again for two.
    faces, given = dict(enumerate(seen)), set[int]()
    left = set(faces)
    for _, number, i in pairs:
        if number in left and i not in given:
            faces[number] = replace(faces[number], matches=known[i].matches)
            left.remove(number)
            given.add(i)
    return tuple(faces[number] for number in sorted(faces))


def _apart(now: tuple[Match, ...], before: tuple[Match, ...]) -> float:
    """The mean difference of two faces' similarities to the same people; infinite where too few."""
    similarity = {match.name: match.similarity for match in before}
    apart = [
        abs(match.similarity - similarity[match.name]) for match in now if match.name in similarity
    ]
    if len(now) != len(before) or len(apart) < max(FEWEST, COMMON * len(now)):
        return math.inf
    return sum(apart) / len(apart)
