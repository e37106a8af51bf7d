"""How far a photo's head has to be moved for the engine to see it go as far as people do.

The mean head that a photo is painted on answers differently from photo to photo: a beard, a shadow
or a smile pulls at the landmarks. So a portrait is tried out before it acts: filmed once at many
angles, looked at by the engine. Knows nothing about how clips are judged.
"""

import math
import random
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bot.login.liveness import Step
from bot.sandbox.performer import Motion, Portrait, Script, encode, film
from engine.types import Track

FRAMES_PER_S = 10

_TURNED, _NODDED = (0.31, 0.5), (0.18, 0.3)
"""Change of the yaw and of the pitch proxy that a step comes to, at least and at most: what turns
of about 34 to 45 degrees and nods of about 21 to 35 come to on real heads (28 and 18 degrees are
.25 and .15). Where more is seen, landmarks have left the stretched skin."""
_FLUKES = 0.17, 0.12
"""How far the two may be from those of the angles around them. Landmarks that are further off have
lost the skin there, and a film that goes so far would seem to be cut."""
_TURNS = tuple(range(24, 58, 2))
_NODS = tuple(range(14, 40, 2))
_BEYOND = 10.0
"""Degrees that people go further than they must, at most."""
_AHEAD = 6
_STEADY = 3
"""Angles in a row that reach far enough; one may be a fluke."""
_DIRECTIONS = {
    Step.SIDE: (-1, 0),
    Step.OTHER_SIDE: (1, 0),
    Step.UP: (0, -1),
    Step.DOWN: (0, 1),
}


def _poses() -> dict[Step, NDArray[np.float64]]:
    """(n, 2) yaw and pitch in degrees, for each step those that are tried, the least first."""
    return {
        step: np.outer(_TURNS if across else _NODS, (across, along)).astype(np.float64)
        for step, (across, along) in _DIRECTIONS.items()
    }


def clip(portrait: Portrait) -> bytes:
    """A clip of a head that looks ahead, and then in each direction ever further.

    Takes about two seconds on one core: work for a thread.
    """
    poses = np.array([(0.0, 0.0)] * _AHEAD + list(chain.from_iterable(_poses().values())))
    still = np.zeros(len(poses))
    motion = Motion(poses[:, 0], poses[:, 1], still, still, still, still + 1)
    times = np.arange(len(poses)) / FRAMES_PER_S
    script = Script(times, motion, None, np.zeros(len(poses), np.bool_), beside=False)
    lot = random.Random(0)  # noqa: S311 - draws light and grain
    return encode(film(portrait, script, lot, flipped=False), FRAMES_PER_S, quality=24)


def rehearsed(portrait: Portrait, track: Track) -> Portrait | None:
    """The portrait with a reach of its own, or None where its head does not follow in a direction.

    Args:
        portrait: what `clip` was made of.
        track: what the engine saw in that.
    """
    poses = _poses()
    count = _AHEAD + sum(map(len, poses.values()))
    seen = np.full((count, 2), np.nan)
    for frame in track.frames:
        index = round(frame.time_s * FRAMES_PER_S)
        if frame.face is not None and index < count:
            seen[index] = frame.face.pose.yaw, frame.face.pose.pitch
    if np.isnan(seen[:_AHEAD]).all():
        return None
    moved = seen - np.nanmedian(seen[:_AHEAD], axis=0)
    found: dict[Step, tuple[float, float]] = {}
    begin = _AHEAD
    for step, tried in poses.items():
        axis = 0 if _DIRECTIONS[step][0] else 1
        part = moved[begin : begin + len(tried), axis] * sum(_DIRECTIONS[step])
        begin += len(tried)
        angles = np.abs(tried).sum(axis=1)
        between = _between(angles, part, *(_TURNED, _NODDED)[axis], _FLUKES[axis])
        if between is None:
            return None
        found[step] = between
    return replace(portrait, reach=found)


def _between(
    angles: NDArray[np.float64],
    moved: NDArray[np.float64],
    least: float,
    most: float,
    fluke: float,
) -> tuple[float, float] | None:
    """The first angle about which enough is seen, and the last before it no longer is."""
    smooth = ndimage.median_filter(np.nan_to_num(moved, nan=-math.inf), 3, mode="nearest")
    follows = np.abs(moved - smooth) <= fluke  # never where nothing is seen
    follows[:-1] &= follows[1:]  # who goes so far goes a little further at times
    follows = np.logical_and.accumulate(follows)  # and passes whatever lies before
    enough = (smooth >= least) & (smooth <= most) & follows
    for first in range(len(enough) - _STEADY + 1):
        if enough[first : first + _STEADY].all():
            begin = first + 1  # noise may take the first below what is needed
            good = enough[begin:] & (angles[begin:] <= angles[begin] + _BEYOND)
            steady = int(np.argmin(good)) if not good.all() else len(good)
            return float(angles[begin]), float(angles[begin + steady - 1])
    return None
