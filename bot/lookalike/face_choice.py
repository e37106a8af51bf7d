"""Which faces of a photo are shown, and in which order. Knows nothing about whom they resemble.

A photo of one person often has others behind, out of focus; and the detector finds faces in fists
and sleeves, of which it is less sure. Either would get a name that is made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bot.telegram.incoming import Reason, Refusal
from engine.types import Face

# Smaller or more blurred faces are passed over where the photo has a better one, and refused,
# saying so, where it has not.
SMALLEST_FACE_PX = 40
# Of 142 aligned press photos (112 px) none is above 0.63; enlarged from 28 px, 95 of 100 are below
# 0.75; blurred with a Gaussian of 3 px, 95 of 100 are above 0.80.
MOST_BLUR = 0.78

# The others were chosen on one half of the photos, and tried on the other, by
# `tests.benchmarks.shown`.
LEAST_PROBABILITY = 0.94
"""The detector's belief in a face, where there is another in which it believes."""
CLEAR_BLUR = 0.60
"""Up to here a face is clear, whatever the largest one is like."""
BLUR_APART = 0.10
"""How much more blurred than the largest face another may be: of a blurred photo, all are."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many faces of a photo are not shown.

    Attributes:
        smaller: as clear as the ones that are shown, and smaller.
        unclear: too small or too blurred.
    """

    smaller: int = 0
    unclear: int = 0


def choose(faces: Sequence[Face], most: int) -> tuple[tuple[Face, ...], LeftOut] | Refusal:
    """The faces that are shown, from left to right, and how many are not.

    What is most likely no face, beside others, is not counted at all.

    Args:
        faces: as the engine gave them, the largest first.
        most: how many faces are shown, the largest.
    """
    if not faces:
        return Refusal(Reason.NO_FACE)
    found = _probable(faces)
    large = [face for face in found if face.quality.size_px >= SMALLEST_FACE_PX]
    if not large:
        return Refusal(Reason.TOO_SMALL, {"pixels": SMALLEST_FACE_PX})
    clear = _clear(large)
    if not clear:
        return Refusal(Reason.BLURRED)
    shown = tuple(sorted(clear[:most], key=_middle))
    return shown, LeftOut(len(clear) - len(shown), len(found) - len(clear))


def _probable(faces: Sequence[Face]) -> Sequence[Face]:
    """The faces in which the detector believes, or the one in which it does most."""
    probable = [face for face in faces if face.probability >= LEAST_PROBABILITY]
    return probable or [max(faces, key=lambda face: face.probability)]


def _clear(faces: Sequence[Face]) -> Sequence[Face]:
    """The faces that are sharp, or hardly less so than the largest of those that can be told."""
    told = [face for face in faces if face.quality.blur <= MOST_BLUR]
    most = max(CLEAR_BLUR, told[0].quality.blur + BLUR_APART) if told else MOST_BLUR
    return [face for face in told if face.quality.blur <= most]


def _middle(face: Face) -> float:
    """Twice the x of a face's middle."""
    return face.box[0] + face.box[2]
