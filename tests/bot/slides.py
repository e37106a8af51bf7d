"""Slide shows: clips of a challenge made of a few pictures of the person, edited with usual tools.

Whoever has some pictures of a person, one for each way that a head goes, shows them one after the
other as the challenge asks. What is added makes a show look more like a film: new grain, shaking,
fades, or a morph, which warps one picture into the next by their facial points. Knows nothing about
how clips are judged. The same seed makes the same clip.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import interpolate, ndimage

from bot.login.liveness import Challenge, Step
from bot.sandbox.performer import (
    FRAMES_PER_S,
    SIDE_PX,
    Motion,
    Pixels,
    Points,
    Portrait,
    Script,
    encode,
    film,
    path,
    seen_at,
    transcode,
    write,
)

COUNTS = (5, 9, 17)
"""Pictures of a show: one that looks ahead, and one, two or four for each way that a head goes."""


class Edit(StrEnum):
    """What is done to the pictures.

    PLAIN: nothing; each frame shows one of them.
    GRAIN: each frame has its own grain.
    SHAKEN: the whole picture moves as a phone in a hand does; grain as well.
    FADED: each picture is faded into the next; grain as well.
    MORPHED: each picture is warped into the next; grain as well.
    MORPHED_AND_SHAKEN: the two together; grain as well.
    """

    PLAIN = "plain"
    GRAIN = "grain"
    SHAKEN = "shaken"
    FADED = "faded"
    MORPHED = "morphed"
    MORPHED_AND_SHAKEN = "morphed_and_shaken"


_SHAKEN = (Edit.SHAKEN, Edit.MORPHED_AND_SHAKEN)
_MORPHED = (Edit.MORPHED, Edit.MORPHED_AND_SHAKEN)
_MARGIN = 1.08
"""How much a picture that is shaken is enlarged, so that its edge is not seen."""
_MORPH_STEPS = 16
"""Warped pictures between two, at most."""


@dataclass(frozen=True, slots=True)
class _Pictures:
    """The pictures of a show.

    Attributes:
        frames: the one that looks ahead, then for each way those that go further and further.
        points: for each picture the same points of the face, (n, 2) in pixels.
        levels: how many there are for each way.
        reach: degrees that each way's last one has gone.
    """

    frames: Sequence[Pixels]
    points: Sequence[Points]
    levels: int
    reach: dict[Step, float]

    def place(self, step: Step, level: int) -> int:
        """Index of a picture; level 0 looks ahead."""
        return 0 if level == 0 else 1 + self.levels * list(Step).index(step) + level - 1


def show(
    portrait: Portrait,
    challenge: Challenge,
    *,
    count: int,
    edit: Edit,
    seed: int,
    frames_per_s: int = FRAMES_PER_S,
    brisk: bool = False,
) -> bytes:
    """A clip that shows pictures as the challenge asks; half are encoded once more.

    Args:
        portrait: whose pictures.
        challenge: what was asked.
        count: of the pictures, one of `COUNTS`.
        edit: what is done to them.
        seed: of everything that is drawn by lot.
        frames_per_s: of the clip.
        brisk: see `bot.sandbox.performer.perform`.

    Returns:
        An MP4 file.

    Raises:
        ValueError: no show has so many pictures.
    """
    if count not in COUNTS:
        raise ValueError(f"a show has {COUNTS} pictures")
    lot = random.Random(seed)
    pictures = _take(portrait, (count - 1) // len(Step), lot)
    begun = lot.getstate()
    yaw, pitch = path(challenge, lot, portrait.reach, frames_per_s, brisk=brisk)
    lot.setstate(begun)  # a hand that shakes for as long
    script = write(challenge, lot, portrait.reach, frames_per_s=frames_per_s, brisk=brisk)
    shown = [_where(pictures, *pose) for pose in zip(yaw.tolist(), pitch.tolist(), strict=True)]
    if edit in _MORPHED:
        frames = _morphed(pictures, shown)
    elif edit is Edit.FADED:
        frames = _faded(pictures, shown, round(lot.uniform(0.12, 0.4) * frames_per_s))
    else:
        frames = (_nearest(pictures, one).astype(np.float32) for one in shown)
    if edit in _SHAKEN:
        frames = _shaken(frames, script.motion)
    noise = 0.0 if edit is Edit.PLAIN else lot.uniform(1.0, 4.0)
    clip = encode(_grained(frames, noise, lot), frames_per_s, quality=lot.uniform(22, 30))
    return transcode(clip, lot, side=SIDE_PX) if lot.random() < 0.5 else clip


def _take(portrait: Portrait, levels: int, lot: random.Random) -> _Pictures:
    """Pictures of one sitting: hands and heads have moved a little from one to the next."""
    reach = {step: portrait.reach[step][1] for step in Step}
    angles = [(lot.gauss(0, 0.9), lot.gauss(0, 0.8))]
    for step in Step:
        across = {Step.SIDE: -1.0, Step.OTHER_SIDE: 1.0}.get(step, 0.0)
        along = {Step.UP: -1.0, Step.DOWN: 1.0}.get(step, 0.0)
        for level in range(1, levels + 1):
            degrees = reach[step] * level / levels
            angles.append((across * degrees + lot.gauss(0, 1), along * degrees + lot.gauss(0, 1)))
    # Whoever edits takes care that they fit: more or less of what is usual from frame to frame.
    care = lot.uniform(0, 1)
    count = len(angles)

    def near(usual: float, size: float) -> Points:
        return np.array([usual + care * lot.gauss(0, size) for _ in range(count)])

    yaw, pitch = np.array(angles).T
    motion = Motion(
        yaw,
        pitch,
        near(lot.gauss(0, 3), 1.2),
        near(lot.gauss(0, 0.12), 0.05),
        near(lot.gauss(0, 0.12), 0.05),
        near(math.exp(lot.gauss(0, 0.1)), 0.015),
    )
    times = np.arange(count) / FRAMES_PER_S
    script = Script(times, motion, None, np.zeros(count, np.bool_), beside=False)
    frames = tuple(film(portrait, script, lot, flipped=False))
    return _Pictures(frames, [seen_at(portrait, motion, k) for k in range(count)], levels, reach)


def _where(pictures: _Pictures, yaw: float, pitch: float) -> tuple[Step, float]:
    """Which way the head goes, and how far, from 0 to the number of pictures for that way."""
    if abs(yaw) >= abs(pitch):
        step, degrees = Step.SIDE if yaw < 0 else Step.OTHER_SIDE, abs(yaw)
    else:
        step, degrees = Step.UP if pitch < 0 else Step.DOWN, abs(pitch)
    return step, min(1.0, degrees / pictures.reach[step]) * pictures.levels


def _nearest(pictures: _Pictures, where: tuple[Step, float]) -> Pixels:
    step, level = where
    return pictures.frames[pictures.place(step, round(level))]


def _faded(
    pictures: _Pictures, shown: Sequence[tuple[Step, float]], frames: int
) -> Iterator[NDArray[np.float32]]:
    """Each of them fades into the next, within so many frames."""
    weights = np.zeros((len(shown), len(pictures.frames)))
    for index, (step, level) in enumerate(shown):
        weights[index, pictures.place(step, round(level))] = 1.0
    weights = ndimage.uniform_filter1d(weights, max(1, frames), axis=0, mode="nearest")
    for row in weights:
        used = np.flatnonzero(row > 1e-6).tolist()
        yield np.sum(
            [np.float32(row[k]) * pictures.frames[k].astype(np.float32) for k in used], axis=0
        )


def _morphed(
    pictures: _Pictures, shown: Sequence[tuple[Step, float]]
) -> Iterator[NDArray[np.float32]]:
    """Each of them is warped into the next."""
    made: dict[tuple[int, int, int], NDArray[np.float32]] = {}
    for step, level in shown:
        lower = min(int(level), pictures.levels - 1)
        pair = pictures.place(step, lower), pictures.place(step, lower + 1)
        share = round((level - lower) * _MORPH_STEPS)
        key = (*pair, share) if share else (pair[0], 0, 0)
        if key not in made:
            made[key] = _between(pictures, pair, share / _MORPH_STEPS)
        yield made[key]


def _between(pictures: _Pictures, pair: tuple[int, int], share: float) -> NDArray[np.float32]:
    """A picture between two: their points in between, their colours faded."""
    mixed = np.zeros((SIDE_PX, SIDE_PX, 3), np.float32)
    points = [pictures.points[k] for k in pair]
    target = (1 - share) * points[0] + share * points[1]
    for source, index, weight in zip(points, pair, (1 - share, share), strict=True):
        if weight:
            mixed += np.float32(weight) * _warped(pictures.frames[index], source, target)
    return mixed


def _warped(frame: Pixels, source: Points, target: Points) -> NDArray[np.float32]:
    """A picture with its points elsewhere, by a thin-plate spline; its edge stays."""
    ticks = np.linspace(0, SIDE_PX - 1, 25)
    edge = np.array(list(itertools.product(ticks[::6], ticks[::6])))
    edge = edge[(edge.min(axis=1) == 0) | (edge.max(axis=1) == SIDE_PX - 1)]
    spline = interpolate.RBFInterpolator(
        np.concatenate([target, edge]),
        np.concatenate([source - target, np.zeros_like(edge)]),
        smoothing=1.0,
    )
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)
    moved = spline(grid.reshape(-1, 2)).reshape(*grid.shape)
    zoom = SIDE_PX / len(ticks)
    x, y = (ndimage.zoom(moved[:, :, k], zoom, order=1, grid_mode=False) for k in range(2))
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    places = np.stack([rows + y, columns + x])
    return np.stack(
        [
            ndimage.map_coordinates(
                frame[:, :, k].astype(np.float32), places, order=1, mode="nearest"
            )
            for k in range(3)
        ],
        axis=2,
    )


def _shaken(frames: Iterator[NDArray[np.float32]], motion: Motion) -> Iterator[NDArray[np.float32]]:
    """The whole picture shifts, turns and grows as if a hand held the phone."""
    shifts = 78.0 * np.stack([motion.x - motion.x.mean(), motion.y - motion.y.mean()])
    for index, frame in enumerate(frames):
        angle = math.radians(float(motion.roll[index] - motion.roll.mean()))
        scale = float(motion.scale[index] / motion.scale.mean()) * _MARGIN
        a, b = math.cos(angle) / scale, math.sin(angle) / scale
        middle = SIDE_PX / 2
        x, y = middle + shifts[0, index], middle + shifts[1, index]
        picture = Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))
        moved = picture.transform(
            (SIDE_PX, SIDE_PX),
            Image.Transform.AFFINE,
            (a, b, middle - a * x - b * y, -b, a, middle + b * x - a * y),
            resample=Image.Resampling.BICUBIC,
        )
        yield np.asarray(moved, np.float32)


def _grained(
    frames: Iterator[NDArray[np.float32]], noise: float, lot: random.Random
) -> Iterator[Pixels]:
    """Each frame gets its own grain, a part of one sheet; `noise` is its deviation, of 255."""
    generator = np.random.default_rng(lot.getrandbits(32))
    sheet = generator.standard_normal((2 * SIDE_PX, 2 * SIDE_PX, 1), np.float32) * noise
    for frame in frames:
        left, top = generator.integers(0, SIDE_PX, 2)
        grain = sheet[top : top + SIDE_PX, left : left + SIDE_PX]
        yield np.clip(frame + grain, 0, 255).astype(np.uint8)
