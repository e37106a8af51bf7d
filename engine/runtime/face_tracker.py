"""One face through the frames of a clip: which of a frame's faces it is, and who else is there.

Pure geometry. Knows nothing about whose face it is, or whether its way through the frames is that
of a face: who cares looks at the track.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.types import Box, Face

SURE = 0.9
"""Probability from which on a face begins a track, counts as another one, or may be far from where
the followed one was."""

SHARE_OF_SIZE = 0.5
"""Of the followed face's size: smaller ones are passers-by."""

NEAR = 1.0
"""In sizes of the face before: a find that is less than sure is not taken for it further away."""


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """What was seen in one frame.

    Attributes:
        face: the followed one; None where it is not seen.
        others: how many more there are, of those at least half as large.
    """

    face: Face | None
    others: int


class FaceTracker:
    """Follows one face from frame to frame: the largest at first, then the nearest."""

    def __init__(self) -> None:
        self._last: Box | None = None

    def see(self, faces: Sequence[Face]) -> TrackedFace:
        """Take the next frame's faces, largest first."""
        face = self._largest(faces) if self._last is None else self._nearest(self._last, faces)
        if face is not None:
            self._last = face.box
        return TrackedFace(face, self._others(faces, face))

    def _largest(self, faces: Sequence[Face]) -> Face | None:
        return next((face for face in faces if face.probability >= SURE), None)

    def _nearest(self, last: Box, faces: Sequence[Face]) -> Face | None:
        plausible = [
            face for face in faces if face.probability >= SURE or _distance(last, face.box) <= NEAR
        ]
        return min(plausible, key=lambda face: _distance(last, face.box), default=None)

    def _others(self, faces: Sequence[Face], followed: Face | None) -> int:
        if self._last is None:
            return 0
        least = SHARE_OF_SIZE * _size(self._last)
        return sum(
            face is not followed and face.probability >= SURE and _size(face.box) >= least
            for face in faces
        )


def _distance(last: Box, box: Box) -> float:
    """How far a face would have moved and grown: in its sizes, and in powers of e."""
    moved = math.hypot(box[0] + box[2] - last[0] - last[2], box[1] + box[3] - last[1] - last[3]) / 2
    return moved / _size(last) + abs(math.log(_size(box) / _size(last)))


def _size(box: Box) -> float:
    """The side of a square of the box's area; more than nothing, whatever a detector says."""
    return math.sqrt(max(1e-6, (box[2] - box[0]) * (box[3] - box[1])))
