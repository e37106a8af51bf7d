"""How far a head turned between two frames, told by depth: near parts move against far ones.

A picture that is shifted, turned in its plane, scaled or sheared moves as a plane does, and so does
a print that is tilted a little. A head is no plane: turned by one degree, the tip of its nose moves
by almost a hundredth of the eyes' distance against eyes and mouth. Both motions are estimated
together from the grey values of the aligned face, to a fraction of a pixel, as Lucas and Kanade
(1981) and Bergen et al. (1992, plane and parallax) do. Landmarks alone are 2 degrees and more off.

Knows nothing about whose face it is, or how much a living head turns.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from engine.types import Face
from engine.vision import align

LAG = 3
"""Frames between the two that are compared: about 0.3 s."""

_ITERATIONS = 5
_BLUR_PX = 1.0
_NOISE = 8.0
"""How much larger an estimate's error is than if each pixel had its own: a compressed video's
errors are alike within blocks, of about so many pixels a side."""
_SIDE = align.ARCFACE_SIZE
_EYES = align.ARCFACE[:2].mean(axis=0)
_EYE_DISTANCE_PX = float(np.hypot(*(align.ARCFACE[1] - align.ARCFACE[0])))
_PLANE = 6
"""Ways that a plane moves: shifts, and what is linear in the place."""

Values = NDArray[np.float64]


def _face_points() -> tuple[Values, Values]:
    """(n,) columns and rows of the crop's pixels within the face's oval."""
    rows, columns = np.mgrid[:_SIDE, :_SIDE].astype(np.float64)
    x, y = (columns - _EYES[0]) / _EYE_DISTANCE_PX, (rows - _EYES[1]) / _EYE_DISTANCE_PX
    inside = x**2 + ((y - 0.5) / 1.15) ** 2 < 1
    return columns[inside], rows[inside]


def _depth(x: Values, y: Values) -> Values:
    """Of a mean face over a plane, in eye distances from the middle between the eyes, as is x, y.

    A cylinder with a nose, which rises slowly from between the eyes and falls steeply to the lip.
    """
    below = y - 0.57
    nose = 0.5 * np.exp(-((below / np.where(below < 0, 0.36, 0.2)) ** 2) - (x / 0.35) ** 2)
    return np.asarray(nose - 0.4 * x**2)


def _ways() -> tuple[Values, Values]:
    """(8, n) each: what the columns and rows do in each way to move, a plane's first."""
    columns, rows = _face_points()
    x, y = (columns - _SIDE / 2) / _EYE_DISTANCE_PX, (rows - _SIDE / 2) / _EYE_DISTANCE_PX
    one, none = np.ones_like(x), np.zeros_like(x)
    # A radian moves what is one eye distance nearer by one eye distance.
    z = _EYE_DISTANCE_PX * _depth(
        (columns - _EYES[0]) / _EYE_DISTANCE_PX, (rows - _EYES[1]) / _EYE_DISTANCE_PX
    )
    across = np.stack([one, x, y, none, none, none, z, none])
    down = np.stack([none, none, none, one, x, y, none, z])
    return across, down


_COLUMNS, _ROWS = _face_points()
_AT = _ROWS.astype(np.intp), _COLUMNS.astype(np.intp)
_ACROSS, _DOWN = _ways()


@dataclass(frozen=True, slots=True)
class _View:
    """One aligned face.

    Attributes:
        grey: (side, side) brightness.
        own: (n,) of it, within the face.
        slopes: (n, 10) what each way to move, more contrast and more light do to `own`.
        inverse: (10, 10) of the normal equations.
    """

    grey: Values
    own: Values
    slopes: Values
    inverse: Values


class Parallax:
    """Compares a face with itself, a few frames before."""

    def __init__(self) -> None:
        self._views: deque[_View | None] = deque(maxlen=LAG)

    def see(
        self, image: Image.Image, original_px: tuple[int, int], face: Face | None
    ) -> tuple[float, float] | None:
        """Degrees of yaw and pitch that the head turned since `LAG` frames before, 0 or more.

        What noise and compression may have made of it is taken off. Takes about two milliseconds:
        work for a thread.

        Args:
            image: the next frame.
            original_px: size of the frame whose pixels the face's landmarks are in.
            face: the followed one; None where it is not seen.

        Returns:
            None where it is not seen in both frames, or shows nothing to compare.
        """
        before = self._views[0] if len(self._views) == LAG else None
        view = None if face is None else _view(image, original_px, face)
        self._views.append(view)
        return None if before is None or view is None else _turned_deg(before, view)


def _view(image: Image.Image, original_px: tuple[int, int], face: Face) -> _View | None:
    points = np.array(face.landmarks) * np.array(image.size) / np.array(original_px)
    try:
        crop = Image.fromarray(align.cut(image, points, align.ARCFACE_TEMPLATE)).convert("L")
        grey = np.asarray(crop.filter(ImageFilter.GaussianBlur(_BLUR_PX)), np.float64)
        own = grey[_AT]
        down, across = np.gradient(grey, axis=0)[_AT], np.gradient(grey, axis=1)[_AT]
        slopes = np.concatenate([across * _ACROSS + down * _DOWN, [-own, -np.ones_like(own)]]).T
        return _View(grey, own, slopes, np.linalg.inv(slopes.T @ slopes))
    except (ValueError, np.linalg.LinAlgError):  # coinciding landmarks; nothing but one grey
        return None


def _turned_deg(before: _View, after: _View) -> tuple[float, float] | None:
    moved = np.zeros(_PLANE + 2)
    for _ in range(_ITERATIONS):
        seen = _sampled(after.grey, _COLUMNS + moved @ _ACROSS, _ROWS + moved @ _DOWN)
        step = before.inverse @ (before.slopes.T @ (seen - before.own))
        moved -= step[: _PLANE + 2]
    left = seen - before.own - before.slopes @ step
    variances = float(left @ left) / len(left) * before.inverse.diagonal()
    squares = (moved**2 - _NOISE**2 * variances[: _PLANE + 2])[_PLANE:]
    if not np.isfinite(squares).all():
        return None
    yaw, pitch = np.degrees(np.sqrt(np.maximum(squares, 0.0))).tolist()
    return yaw, pitch


def _sampled(grey: Values, columns: Values, rows: Values) -> Values:
    """Brightness between pixels, bilinear; past the edge as at the edge."""
    columns = np.clip(columns, 0, _SIDE - 1.001)
    rows = np.clip(rows, 0, _SIDE - 1.001)
    left, top = columns.astype(np.intp), rows.astype(np.intp)
    a, b = columns - left, rows - top
    flat, place = grey.ravel(), top * _SIDE + left
    upper = flat[place] * (1 - a) + flat[place + 1] * a
    lower = flat[place + _SIDE] * (1 - a) + flat[place + _SIDE + 1] * a
    return np.asarray(upper * (1 - b) + lower * b)
