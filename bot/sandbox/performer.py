"""Clips of people who do a challenge, and of people who cheat, drawn from one photo of a face.

A photo becomes a relief: a mean head's depth, fitted to the five landmarks, on which the photo is
painted. Every frame looks at the relief from where the head is then, by rays from the camera to the
first point that they hit; behind it stands the photo with the head painted over. Light, hands and
the sensor add what they add, and FFmpeg makes a round video message of it.

A mean head is not the person's, and what the photo does not show (an ear, the other side of the
nose) is stretched skin. So clips tell whether the rules work, not how often people are refused.
Knows nothing about how clips are judged. The same seed draws the same clip.
"""

import functools
import io
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage

from bot.login.liveness import Challenge, Step, draw, mirrored
from engine.media import image
from engine.vision import align

SIDE_PX = 384
"""Of a round video message."""
FRAMES_PER_S = 30

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


class Attack(StrEnum):
    """Ways to cheat. Whoever cheats knows the challenge, unless it is said that they do not.

    STILL: the photo, held still.
    MOVED: the photo, moved about and turned in its plane.
    TILTED: the photo, tilted to where the head should look, by 20 to 60 degrees.
    BENT: a bent print, tilted as well; the face's edge is bent away by 20 to 60 degrees.
    OTHER_TURNS: the photo's face looks ahead, somebody else's face does the steps.
    OTHER_NEUTRAL: somebody else's face looks ahead, the photo's face does the steps.
    WRONG_ORDER: the right steps in another order, or as near as there is.
    REPLAY: a true clip of an older challenge.
    RECODED: the same, encoded once more, smaller and worse.
    TWO_FACES: a true clip, with somebody beside.
    CUT: true pieces, one a step, recorded apart and joined where the head looks ahead.
    CUT_ALIGNED: the same, each piece moved, turned and scaled until it fits the one before.
    GUESS: a challenge by lot, without knowing which was asked.
    ROLLED: the head goes round and round, so that every extreme is there.
    PUMPED: every step is done two or three times over.
    """

    STILL = "still"
    MOVED = "moved"
    TILTED = "tilted"
    BENT = "bent"
    OTHER_TURNS = "other_turns"
    OTHER_NEUTRAL = "other_neutral"
    WRONG_ORDER = "wrong_order"
    REPLAY = "replay"
    RECODED = "recoded"
    TWO_FACES = "two_faces"
    CUT = "cut"
    CUT_ALIGNED = "cut_aligned"
    GUESS = "guess"
    ROLLED = "rolled"
    PUMPED = "pumped"


NEEDS_OTHER = frozenset((Attack.OTHER_TURNS, Attack.OTHER_NEUTRAL, Attack.TWO_FACES))
"""Attacks that somebody else's photo is needed for."""


Reach = Mapping[Step, tuple[float, float]]
"""How far a relief is moved for each step, at least and at most, in degrees."""

MEAN_REACH: Reach = {
    Step.SIDE: (34.0, 45.0),
    Step.OTHER_SIDE: (34.0, 45.0),
    Step.UP: (24.0, 29.0),
    Step.DOWN: (24.0, 29.0),
}
"""What does for many photos and for prints; `rehearsal` finds it out for one."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """A photo and where the face on it is.

    Attributes:
        pixels: (height, width, 3) RGB.
        landmarks: (5, 2) in its pixels, in the order of `engine.types.Landmarks`. The face should
            look into the camera: what it is turned by adds to every frame.
        reach: how far this head is moved.
    """

    pixels: Pixels
    landmarks: Points
    reach: Reach = field(default_factory=lambda: MEAN_REACH)

    @classmethod
    def of(cls, photo: bytes | Pixels, landmarks: ArrayLike) -> "Portrait":
        """From a picture file's bytes or (height, width, 3) RGB.

        Raises:
            ImageError: the bytes are no picture.
            ValueError: the pixels or the landmarks are of another shape, or these coincide.
        """
        pixels = np.asarray(image.decode(photo) if isinstance(photo, bytes) else photo, np.uint8)
        points = np.asarray(landmarks, np.float64)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or points.shape != (5, 2):
            raise ValueError("a portrait is RGB pixels and five landmarks")
        if not np.isfinite(points).all() or np.ptp(points, axis=0).min() <= 0:
            raise ValueError("the landmarks are no face's")
        return cls(pixels, points)


def perform(
    portrait: Portrait,
    challenge: Challenge,
    *,
    seed: int,
    attack: Attack | None = None,
    other: Portrait | None = None,
    frames_per_s: int = FRAMES_PER_S,
    brisk: bool = False,
) -> bytes:
    """A clip in which the challenge is done, or an attack on it.

    Takes 15 to 35 ms a frame on one core: work for a thread.

    Args:
        portrait: who does it, or whose photo is used.
        challenge: what was asked.
        seed: of everything that is drawn by lot; the same gives the same bytes.
        attack: None does as asked.
        other: somebody else, where the attack needs one.
        frames_per_s: of the clip.
        brisk: whether it is done as fast as people do, in 6 to 8 seconds rather than up to 14.

    Returns:
        An MP4 file: square, `SIDE_PX` wide, H.264.

    Raises:
        ValueError: somebody else is missing.
    """
    lot = random.Random(seed)  # noqa: S311 - not to keep a secret: to draw the same again
    mover = other if other is not None and attack is Attack.OTHER_TURNS else portrait
    script = write(
        challenge, lot, mover.reach, attack=attack, frames_per_s=frames_per_s, brisk=brisk
    )
    clip = encode(film(portrait, script, lot, other), frames_per_s, quality=lot.uniform(22, 30))
    return transcode(clip, lot) if attack is Attack.RECODED else clip


# --- What is done: poses over time ---


@dataclass(frozen=True, slots=True)
class Motion:
    """Where a head, or a photo in a hand, is at each frame; all (n,).

    Attributes:
        yaw: degrees, positive to the picture's right.
        pitch: degrees, positive is down.
        roll: degrees.
        x: of the middle between the eyes, in eye distances right of the picture's middle.
        y: likewise, below.
        scale: of the face; 1 is usual.
    """

    yaw: Points
    pitch: Points
    roll: Points
    x: Points
    y: Points
    scale: Points

    def __len__(self) -> int:
        return len(self.yaw)


_DIRECTIONS = {
    Step.SIDE: (-1.0, 0.0),
    Step.OTHER_SIDE: (1.0, 0.0),
    Step.UP: (0.0, -1.0),
    Step.DOWN: (0.0, 1.0),
}
_LONGEST_S = 14.5
_SHORTEST_S = 6.3


@dataclass(slots=True)
class _Score:
    """Key poses (time in seconds, yaw and pitch in degrees), as they are written down."""

    keys: list[tuple[float, float, float]]

    @classmethod
    def begin(cls) -> "_Score":
        return cls([(0.0, 0.0, 0.0)])

    def then(self, seconds: float, yaw: float, pitch: float) -> None:
        self.keys.append((self.keys[-1][0] + seconds, yaw, pitch))

    def wait(self, seconds: float) -> None:
        self.then(seconds, *self.keys[-1][1:])

    @property
    def seconds(self) -> float:
        return self.keys[-1][0]

    def paced(self, seconds: float) -> "_Score":
        """The same within a time."""
        by = seconds / self.seconds
        return _Score([(time * by, yaw, pitch) for time, yaw, pitch in self.keys])

    def at(self, times: Points) -> tuple[Points, Points]:
        """Yaw and pitch: from key to key as muscles move, starting and stopping softly."""
        keys = np.array(self.keys)
        index = np.clip(np.searchsorted(keys[:, 0], times, side="right"), 1, len(keys) - 1)
        before, after = keys[index - 1], keys[index]
        span = np.maximum(after[:, 0] - before[:, 0], 1e-9)
        share = np.clip((times - before[:, 0]) / span, 0.0, 1.0)
        # The path of least jerk (Flash and Hogan 1985).
        eased = share**3 * (10 - 15 * share + 6 * share**2)
        moved = before[:, 1:] + (after[:, 1:] - before[:, 1:]) * eased[:, None]
        return moved[:, 0], moved[:, 1]


def _score(steps: Iterable[Step], lot: random.Random, reach: Reach, brisk: bool) -> _Score:
    """Steps as somebody does them: overshooting on the way back, not quite along one axis.

    Heads that turn by 45 degrees do so at 100 to 200 degrees a second at their fastest.
    """
    score = _Score.begin()
    score.wait(lot.uniform(0.8, 1.2))
    for step in steps:
        across, along = _DIRECTIONS[step]
        degrees = lot.uniform(*reach[step])
        yaw, pitch = across * degrees, along * degrees
        yaw, pitch = yaw + lot.gauss(0, 2) * abs(along), pitch + lot.gauss(0, 2.5) * abs(across)
        score.then(lot.uniform(0.45, 0.8), yaw, pitch)
        score.then(lot.uniform(0.4, 0.9), yaw * lot.uniform(0.95, 1.03), pitch)
        back = lot.uniform(-0.12, 0.03)
        score.then(lot.uniform(0.4, 0.7), yaw * back, pitch * back)
        score.then(lot.uniform(0.15, 0.4), 0.0, 0.0)
        score.wait(lot.uniform(0.0, 0.4))
    score.wait(lot.uniform(0.7, 1.0))
    if brisk:
        return score.paced(lot.uniform(_SHORTEST_S, 7.5))
    return score.paced(min(max(score.seconds, _SHORTEST_S), _LONGEST_S))


def _rolled(lot: random.Random, reach: Reach) -> _Score:
    """Round and round along every extreme."""
    score = _Score.begin()
    score.wait(1.0)
    extreme = {step: lot.uniform(*reach[step]) for step in Step}
    phase, way = lot.uniform(0, 2 * math.pi), lot.choice((-1, 1))
    rounds = lot.choice((1, 2, 3))
    for k in range(12 * rounds + 1):
        angle = phase + way * 2 * math.pi * k / 12
        across, along = math.cos(angle), math.sin(angle)
        turn = extreme[Step.SIDE if across < 0 else Step.OTHER_SIDE]
        nod = extreme[Step.UP if along < 0 else Step.DOWN]
        score.then(0.25, turn * across, nod * along)
    score.then(0.5, 0.0, 0.0)
    score.wait(1.0)
    return score.paced(min(max(score.seconds, _SHORTEST_S), _LONGEST_S))


def _pumped(steps: Iterable[Step], lot: random.Random, reach: Reach) -> _Score:
    """Every step two or three times over."""
    times = lot.choice((2, 3))
    score = _score([step for step in steps for _ in range(times)], lot, reach, brisk=False)
    return score.paced(min(score.seconds, _LONGEST_S))


def _sway(times: Points, lot: random.Random, size: float, slowest_hz: float = 0.15) -> Points:
    """What hands and heads do when they hold still; `size` is its standard deviation."""
    waves = [
        np.sin(2 * math.pi * (lot.uniform(slowest_hz, 1.4) * times + lot.random()))
        for _ in range(4)
    ]
    return np.asarray(size * math.sqrt(2 / 4) * np.sum(waves, axis=0))


@dataclass(frozen=True, slots=True)
class Print:
    """A photo on paper that may be bent about an upright or a lying axis.

    Attributes:
        bend: degrees by which the paper at the face's edge (1.2 eye distances from the middle)
            is turned; 0 is flat, negative hollow.
        upright: whether the axis is upright.
    """

    bend: float = 0.0
    upright: bool = True


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be filmed.

    Attributes:
        times: (n,) seconds.
        motion: of n frames.
        paper: what the photo is printed on, where it is a photo that is held up.
        by_other: (n,) whether somebody else is seen in place of the person.
        beside: whether somebody else is seen beside them.
    """

    times: Points
    motion: Motion
    paper: Print | None
    by_other: NDArray[np.bool_]
    beside: bool


@dataclass(frozen=True, slots=True)
class _Placement:
    """Where somebody holds the phone: shifts in eye distances, roll in degrees, scale."""

    x: float
    y: float
    roll: float
    scale: float

    @classmethod
    def by_lot(cls, lot: random.Random) -> "_Placement":
        return cls(
            lot.gauss(0, 0.12), lot.gauss(0, 0.12), lot.gauss(0, 3), math.exp(lot.gauss(0, 0.1))
        )


def write(
    challenge: Challenge,
    lot: random.Random,
    reach: Reach = MEAN_REACH,
    *,
    attack: Attack | None = None,
    frames_per_s: int = FRAMES_PER_S,
    brisk: bool = False,
) -> Script:
    """What a head, or a hand with a photo, does in front of the camera; see `perform`.

    `reach` is that of the head that does the steps.
    """
    if attack in _ON_PAPER:
        reach = MEAN_REACH
    score = _played(challenge, attack, lot, reach, brisk)
    times = np.arange(0, score.seconds, 1 / frames_per_s)
    yaw, pitch = score.at(times)
    motion = _held(times, yaw, pitch, lot, _Placement.by_lot(lot))
    by_other = np.zeros(len(times), np.bool_)
    paper = None
    if attack in _ON_PAPER:
        motion, paper = _faked(attack, motion, times, yaw, pitch, lot)
    elif attack in (Attack.CUT, Attack.CUT_ALIGNED):
        aligned = attack is Attack.CUT_ALIGNED
        motion = _joined(motion, times, yaw, pitch, lot, aligned=aligned)
    elif attack in (Attack.OTHER_TURNS, Attack.OTHER_NEUTRAL):
        # Of what a step asks for: whoever cuts does so early in the turn, while it is small.
        across, along = _shares(yaw, pitch, reach)
        extent = np.maximum(np.abs(across), np.abs(along))
        by_other = (extent > lot.uniform(0.15, 0.6)) == (attack is Attack.OTHER_TURNS)
    return Script(times, motion, paper, by_other, attack is Attack.TWO_FACES)


def path(
    challenge: Challenge, lot: random.Random, reach: Reach, frames_per_s: int, *, brisk: bool
) -> tuple[Points, Points]:
    """Yaw and pitch in degrees, (n,), of a head that does the steps and else holds still."""
    score = _score(challenge.steps, lot, reach, brisk)
    return score.at(np.arange(0, score.seconds, 1 / frames_per_s))


_ON_PAPER = (Attack.STILL, Attack.MOVED, Attack.TILTED, Attack.BENT)


def _shares(yaw: Points, pitch: Points, reach: Reach) -> tuple[Points, Points]:
    """Yaw and pitch as shares of the least that a step takes."""
    left, right, up, down = (
        reach[step][0] for step in (Step.SIDE, Step.OTHER_SIDE, Step.UP, Step.DOWN)
    )
    return yaw / np.where(yaw < 0, left, right), pitch / np.where(pitch < 0, up, down)


def _held(
    times: Points, yaw: Points, pitch: Points, lot: random.Random, place: _Placement
) -> Motion:
    """A performance by a head, with a phone in a hand."""
    return Motion(
        yaw=yaw + _sway(times, lot, 0.9),
        pitch=pitch + _sway(times, lot, 0.8),
        roll=place.roll + _sway(times, lot, 1.2) + 0.06 * yaw * lot.gauss(0, 1),
        x=place.x + _sway(times, lot, 0.05),
        y=place.y + _sway(times, lot, 0.05),
        scale=place.scale * (1 + _sway(times, lot, 0.015)),
    )


def _played(
    challenge: Challenge, attack: Attack | None, lot: random.Random, reach: Reach, brisk: bool
) -> _Score:
    """What is done in the clip."""
    if attack is Attack.ROLLED:
        return _rolled(lot, reach)
    if attack is Attack.PUMPED:
        return _pumped(challenge.steps, lot, reach)
    done = challenge
    if attack is Attack.GUESS:
        done = draw(lot)
    elif attack in (Attack.REPLAY, Attack.RECODED):
        done = _another(challenge, lot)
    elif attack is Attack.WRONG_ORDER:
        done = reordered(challenge, lot)
    return _score(done.steps, lot, reach, brisk)


def _another(challenge: Challenge, lot: random.Random) -> Challenge:
    """A challenge that is neither this one nor its mirror image."""
    while True:
        found = draw(lot)
        if found not in (challenge, challenge.mirrored):
            return found


def reordered(challenge: Challenge, lot: random.Random) -> Challenge:
    """The same steps in another order, or another challenge where they have no other."""
    for _ in range(100):
        steps = lot.sample(challenge.steps, len(challenge.steps))
        if any(a == b for a, b in itertools.pairwise(steps)):
            continue
        if tuple(steps) not in (challenge.steps, mirrored(challenge.steps)):
            return Challenge(tuple(steps))
    return _another(challenge, lot)


def _faked(
    attack: Attack, motion: Motion, times: Points, yaw: Points, pitch: Points, lot: random.Random
) -> tuple[Motion, Print]:
    """What a hand does with a photo, and what that is printed on."""
    across, along = yaw / MEAN_REACH[Step.SIDE][1], pitch / MEAN_REACH[Step.UP][1]
    if attack is Attack.STILL:
        still = np.zeros_like(yaw)
        return replace(motion, yaw=still, pitch=still, roll=still + motion.roll[0]), Print()
    if attack is Attack.MOVED:
        moved = replace(
            motion,
            yaw=_sway(times, lot, 3.0),
            pitch=_sway(times, lot, 3.0),
            roll=motion.roll + lot.uniform(15, 40) * across,
            x=motion.x + lot.uniform(0.3, 0.8) * across,
            y=motion.y + lot.uniform(0.3, 0.8) * along,
        )
        return moved, Print()
    degrees = lot.uniform(20, 60)
    tilted = replace(
        motion,
        yaw=degrees * across + _sway(times, lot, 1.5),
        pitch=degrees * along + _sway(times, lot, 1.5),
    )
    return tilted, bent(lot) if attack is Attack.BENT else Print()


def bent(lot: random.Random) -> Print:
    """A print, bent by 20 to 60 degrees one way or the other."""
    return Print(lot.choice((-1, 1)) * lot.uniform(20, 60), lot.random() < 0.7)


def _joined(
    motion: Motion,
    times: Points,
    yaw: Points,
    pitch: Points,
    lot: random.Random,
    *,
    aligned: bool,
) -> Motion:
    """Pieces recorded apart, joined where the head looks ahead."""
    ahead = (np.abs(yaw) < 1) & (np.abs(pitch) < 1)
    joints = np.flatnonzero(ahead[1:] & ~ahead[:-1]) + 1
    for joint in joints[:-1]:
        piece = _held(times, yaw, pitch, lot, _Placement.by_lot(lot))
        if aligned:
            piece = replace(
                piece,
                roll=piece.roll + motion.roll[joint - 1] - piece.roll[joint],
                x=piece.x + motion.x[joint - 1] - piece.x[joint],
                y=piece.y + motion.y[joint - 1] - piece.y[joint],
                scale=piece.scale * motion.scale[joint - 1] / piece.scale[joint],
            )
        motion = Motion(
            *(
                np.concatenate([getattr(motion, name)[:joint], getattr(piece, name)[joint:]])
                for name in ("yaw", "pitch", "roll", "x", "y", "scale")
            )
        )
    return motion


# --- Reliefs: what is looked at ---


class _Relief(Protocol):
    """A surface over a plane, in eye distances: x right, y down, z towards the camera.

    The middle between the eyes is the origin. `pivot` is what it turns about.
    """

    @property
    def pivot(self) -> tuple[float, float, float]: ...

    def height(self, x: Points, y: Points) -> Points:
        """z; very low where there is nothing."""
        ...

    def texture(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Where on the painting a point of the surface lies, in eye distances."""
        ...


_NOWHERE = -9.0
# A mean face's landmarks seen from the front, in eye distances.
_FRONT = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 0.57), (-0.4, 1.1), (0.4, 1.1)])
_NOSE_HEIGHT = 0.5
"""Of its tip over the ball that the head is, in eye distances. With it, and with a nose so wide
that it does not hide the far cheek's stretched skin, the engine sees yaws of .26 to .30 at 30
degrees and .29 to .41 at 42 (3 people, both sides)."""


@dataclass(frozen=True, slots=True)
class _Head:
    """A mean head: a ball, flat in front, with a nose where the photo has one.

    The pivot is the top of the neck.
    """

    nose: tuple[float, float]
    pivot: tuple[float, float, float] = (0.0, 0.9, -1.2)

    def height(self, x: Points, y: Points) -> Points:
        across, along = x / 1.42, (y - 0.3) / 2.05
        round_ = np.clip(1.0 - across**2 - along**4, 0.0, 1.0)
        ball = 1.5 * (np.sqrt(round_) - 1.0) + 0.1
        aside, below = (x - self.nose[0]) / 0.35, y - self.nose[1]
        # A ridge that rises slowly from between the eyes and falls steeply to the lip.
        steep = below / np.where(below < 0, 0.36, 0.15)
        nose = _NOSE_HEIGHT * np.exp(-(steep**2) - aside**2)
        return np.where(round_ > 0, ball + nose, _NOWHERE)

    def texture(self, x: Points, y: Points) -> tuple[Points, Points]:
        return x, y


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A print, bent or not."""

    paper: Print
    pivot: tuple[float, float, float] = (0.0, 0.5, 0.0)

    @property
    def _radius(self) -> float:
        """Of the cylinder; without end where the sheet is flat."""
        bend = math.radians(abs(self.paper.bend))
        return 1.2 / bend if bend > 0.01 else math.inf

    def _across(self, x: Points, y: Points) -> Points:
        return x if self.paper.upright else y - 0.5

    def height(self, x: Points, y: Points) -> Points:
        radius = self._radius
        if math.isinf(radius):
            return np.zeros_like(x)
        inside = radius**2 - self._across(x, y) ** 2
        depth = radius - np.sqrt(np.maximum(inside, 0.0))
        return np.where(inside > 0, -math.copysign(1, self.paper.bend) * depth, _NOWHERE)

    def texture(self, x: Points, y: Points) -> tuple[Points, Points]:
        radius = self._radius
        if math.isinf(radius):
            return x, y
        arc = radius * np.arcsin(np.clip(self._across(x, y) / radius, -1.0, 1.0))
        return (arc, y) if self.paper.upright else (x, arc + 0.5)


# --- Paintings: what is seen on it ---

PER_EYE_DISTANCE_PX = 78
"""A face that fills a round video message as selfies do has eyes so far apart, in pixels."""
_LEFT, _TOP, _RIGHT, _BOTTOM = -3.4, -3.0, 3.4, 3.6
_GRID_PX = 8
_CAMERA = 8.0  # eye distances from the pivot: an arm's length
_NEAREST, _PLANES = 2.4, 25


@dataclass(frozen=True, slots=True)
class _Actor:
    """Somebody, ready to be filmed.

    Attributes:
        painting: (h, w, 4) float32, the photo around the face, premultiplied RGB and opacity.
        relief: what it is painted on.
        scenery: what stands behind, an RGB picture of the same extent.
    """

    painting: NDArray[np.float32]
    relief: _Relief
    scenery: Image.Image


_LENS_PX = 0.4
"""Softness of a phone's lens, the standard deviation of a Gaussian."""


def _unfolded(portrait: Portrait) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """The photo around the face, upright in eye distances, and where the tip of the nose is.

    Returns:
        (h, w, 3), 0 to 255; past the photo's edge its last pixels go on.
    """
    forward = align.similarity_transform(portrait.landmarks, _FRONT)
    columns = np.arange(_LEFT, _RIGHT, 1 / PER_EYE_DISTANCE_PX)
    rows = np.arange(_TOP, _BOTTOM, 1 / PER_EYE_DISTANCE_PX)
    x, y = np.meshgrid(columns, rows)
    back = np.linalg.inv(forward[:, :2])
    places = np.einsum("ij,jhw->ihw", back, np.stack([x, y]) - forward[:, 2, None, None])
    # Pixels of the photo for one of the painting: what is finer than that would glitter.
    step = 1 / (PER_EYE_DISTANCE_PX * math.hypot(forward[0, 0], forward[1, 0]))
    painting = np.empty((*x.shape, 3), np.float32)
    for channel in range(3):
        plane = portrait.pixels[:, :, channel].astype(np.float32)
        plane = ndimage.gaussian_filter(plane, _LENS_PX * step)
        painting[:, :, channel] = ndimage.map_coordinates(
            plane, places[::-1] - 0.5, order=1, mode="nearest"
        )
    nose = forward[:, :2] @ portrait.landmarks[2] + forward[:, 2]
    return painting, (float(np.clip(nose[0], -0.2, 0.2)), float(np.clip(nose[1], 0.3, 0.85)))


def _extent(shape: tuple[int, ...]) -> tuple[Points, Points]:
    """X and y of a painting's pixels, in eye distances."""
    columns = _LEFT + np.arange(shape[1]) / PER_EYE_DISTANCE_PX
    rows = _TOP + np.arange(shape[0]) / PER_EYE_DISTANCE_PX
    x, y = np.meshgrid(columns, rows)
    return x, y


def _person(portrait: Portrait) -> _Actor:
    """Somebody in the flesh: the head in front, the rest of the photo behind."""
    pixels, nose = _unfolded(portrait)
    x, y = _extent(pixels.shape)
    out = np.abs(x / 1.36) ** 2.6 + np.abs((y - 0.3) / 1.98) ** 2.6
    opacity = np.clip((1.0 - out) / 0.16, 0.0, 1.0).astype(np.float32)
    away = 1.0 - ndimage.grey_dilation(opacity, size=(9, 9))
    seen = away[:, :, None]
    # Behind the head goes on what stands around it: so smooth that a sixth of the pixels do.
    small = np.concatenate([pixels * seen, seen], axis=2)[::6, ::6]
    smooth = np.stack([ndimage.gaussian_filter(small[:, :, c], 4) for c in range(4)], axis=2)
    around = _picture(smooth[:, :, :3] / (smooth[:, :, 3:] + 1e-4))
    filled = np.asarray(around.resize(opacity.shape[::-1], Image.Resampling.BILINEAR), np.float32)
    scenery = seen * pixels + (1 - seen) * filled
    painting = np.concatenate([pixels, np.full_like(opacity, 1.0)[:, :, None]], axis=2)
    return _Actor(
        (painting * opacity[:, :, None]).astype(np.float32), _Head(nose), _picture(scenery)
    )


def _paper(portrait: Portrait, paper: Print, room: Image.Image) -> _Actor:
    """A print of the photo, held before the camera."""
    pixels, _ = _unfolded(portrait)
    x, y = _extent(pixels.shape)
    inner = np.maximum(np.abs(x) / 2.0, np.abs(y - 0.45) / 2.4)
    outer = np.maximum(np.abs(x) / 2.1, np.abs(y - 0.45) / 2.5)
    pixels[inner > 1] = 245.0
    opacity = (outer <= 1).astype(np.float32)[:, :, None]
    painting = np.concatenate([pixels, np.ones_like(opacity)], axis=2) * opacity
    return _Actor(painting.astype(np.float32), _Sheet(paper), room)


def _room(lot: random.Random) -> Image.Image:
    """A wall with some furniture, out of focus."""
    noise = np.random.default_rng(lot.getrandbits(32))
    x, y = _extent(
        (
            len(np.arange(_TOP, _BOTTOM, 1 / PER_EYE_DISTANCE_PX)),
            len(np.arange(_LEFT, _RIGHT, 1 / PER_EYE_DISTANCE_PX)),
        )
    )
    wall = np.array([lot.uniform(90, 190) for _ in range(3)])
    scene = wall + 12.0 * x[:, :, None] + 9.0 * y[:, :, None]
    for _ in range(7):
        left, top = lot.uniform(_LEFT, _RIGHT), lot.uniform(_TOP, _BOTTOM)
        width, height = lot.uniform(0.4, 2.0), lot.uniform(0.4, 2.5)
        inside = (x > left) & (x < left + width) & (y > top) & (y < top + height)
        scene[inside] = noise.uniform(30, 220, 3)
    return _picture(np.stack([ndimage.gaussian_filter(scene[:, :, c], 6) for c in range(3)], 2))


def _picture(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


# --- Looking: rays to the first point that they hit ---


def _rotation(yaw: float, pitch: float) -> Points:
    """Turns a relief's points to where they are seen; yaw to the right, pitch down, in degrees."""
    a, b = math.radians(yaw), math.radians(pitch)
    turn = np.array([(math.cos(a), 0, math.sin(a)), (0, 1, 0), (-math.sin(a), 0, math.cos(a))])
    nod = np.array([(1, 0, 0), (0, math.cos(b), math.sin(b)), (0, -math.sin(b), math.cos(b))])
    return np.asarray(nod @ turn)


def _hit(
    relief: _Relief, x: Points, y: Points, yaw: float, pitch: float
) -> tuple[Points, Points, Points]:
    """Where on the painting one sees, looking at (x, y) of the plane through the pivot.

    Returns:
        x and y on the painting, and 1 where there is anything to be seen, else 0. Rays that hit
        nothing come out where they pass the surface most closely, so that one can interpolate.
    """
    depth = np.linspace(_NEAREST, -_NEAREST, _PLANES)
    # Back from where things are seen to where they are on the relief.
    back = _rotation(yaw, pitch).T
    pivot = np.array(relief.pivot)
    # A ray is a straight line on the relief too: from its point on the plane towards the camera.
    foot = back[:, :2] @ np.stack([x, y]) + pivot[:, None]
    along = back @ np.stack([-x / _CAMERA, -y / _CAMERA, np.ones_like(x)])

    def above(at: Points) -> Points:
        px, py, pz = foot[:, None] + along[:, None] * at
        return np.asarray(pz - relief.height(px, py))

    heights = above(depth[:, None])
    crossed = (heights[:-1] > 0) & (heights[1:] <= 0)
    hits = crossed.any(axis=0)
    first = np.where(hits, crossed.argmax(axis=0), heights[:-1].argmin(axis=0))
    rays = np.arange(x.size)
    near, far = depth[first], np.where(hits, depth[first + 1], depth[first])
    high, low = heights[first, rays], heights[first + 1, rays]
    for _ in range(2):  # false position: the surface is nearly flat between two planes
        middle = near + (far - near) * np.clip(high / np.maximum(high - low, 1e-9), 0.02, 0.98)
        over = above(middle[None])[0]
        outside = over > 0
        near, high = np.where(outside, middle, near), np.where(outside, over, high)
        far, low = np.where(outside, far, middle), np.where(outside, low, over)
    at = near + (far - near) * np.clip(high / np.maximum(high - low, 1e-9), 0.0, 1.0)
    found = foot + along * at
    across, along_it = relief.texture(found[0], found[1])
    return across, along_it, np.asarray(hits, np.float64)


@functools.cache
def _weights() -> NDArray[np.float32]:
    """(side, grid) shares of the grid's points in each pixel."""
    points = SIDE_PX // _GRID_PX + 1
    place = np.arange(SIDE_PX) / _GRID_PX
    base = np.minimum(place.astype(int), points - 2)
    share = np.zeros((SIDE_PX, points), np.float32)
    share[np.arange(SIDE_PX), base] = 1 - (place - base)
    share[np.arange(SIDE_PX), base + 1] = place - base
    return share


def _look(actor: _Actor, motion: Motion, index: int) -> NDArray[np.float32]:
    """(side, side, 3) one frame, 0 to 255, as an ideal camera sees it."""
    scale = PER_EYE_DISTANCE_PX * float(motion.scale[index])
    middle = SIDE_PX / 2
    # Of the face, not of the eyes, in the middle of the picture.
    x0, y0 = float(motion.x[index]), float(motion.y[index]) - 0.45
    frame = _behind(actor.scenery, x0, y0, scale)
    ticks = np.arange(SIDE_PX // _GRID_PX + 1) * _GRID_PX
    u, v = np.meshgrid((ticks - middle) / scale - x0, (ticks - middle) / scale - y0)
    angle = math.radians(float(motion.roll[index]))
    x = math.cos(angle) * u + math.sin(angle) * v
    y = -math.sin(angle) * u + math.cos(angle) * v
    pivot = actor.relief.pivot
    # The painting was made from in front, at the height of the eyes: a point there is at rest.
    shrink = 1.0 - max(0.0, -pivot[2]) / _CAMERA
    at = _hit(
        actor.relief,
        ((x - pivot[0]) * 1.0 / shrink).ravel(),
        ((y - pivot[1]) * 1.0 / shrink).ravel(),
        float(motion.yaw[index]),
        float(motion.pitch[index]),
    )
    weights = _weights()
    columns, rows, hit = (
        weights @ part.reshape(u.shape).astype(np.float32) @ weights.T for part in at
    )
    _paint(frame, actor.painting, columns, rows, np.clip(2 * hit - 1, 0, 1))
    return frame


def seen_at(portrait: Portrait, motion: Motion, index: int) -> Points:
    """Where in a frame, in pixels, points of somebody's face and its surroundings are.

    Returns:
        (n, 2), the same points whatever the motion; those that are hidden are told too.
    """
    _, nose = _unfolded(portrait)
    head = _Head(nose)
    x, y = (
        part.ravel() for part in np.meshgrid(np.linspace(-0.9, 0.9, 9), np.linspace(-0.8, 1.6, 11))
    )
    pivot = np.array(head.pivot)
    rotation = _rotation(float(motion.yaw[index]), float(motion.pitch[index]))
    across, down, near = rotation @ (np.stack([x, y, head.height(x, y)]) - pivot[:, None])
    shrink = 1.0 - max(0.0, -head.pivot[2]) / _CAMERA
    u = across / (1 - near / _CAMERA) * shrink + pivot[0]
    v = down / (1 - near / _CAMERA) * shrink + pivot[1]
    angle = math.radians(float(motion.roll[index]))
    x0, y0 = float(motion.x[index]), float(motion.y[index]) - 0.45
    scale = PER_EYE_DISTANCE_PX * float(motion.scale[index])
    columns = (math.cos(angle) * u - math.sin(angle) * v + x0) * scale + SIDE_PX / 2
    rows = (math.sin(angle) * u + math.cos(angle) * v + y0) * scale + SIDE_PX / 2
    return np.stack([columns, rows], axis=1)


def _behind(scenery: Image.Image, x0: float, y0: float, scale: float) -> NDArray[np.float32]:
    """The scenery, which is far away and moves half as much."""
    zoom = min(PER_EYE_DISTANCE_PX / scale, 1.3)
    left = (-_LEFT - 0.5 * x0) * PER_EYE_DISTANCE_PX - SIDE_PX / 2 * zoom
    top = (-_TOP - 0.5 * y0 + 0.225) * PER_EYE_DISTANCE_PX - SIDE_PX / 2 * zoom
    left = min(max(left, 0.0), scenery.width - 1 - SIDE_PX * zoom)
    top = min(max(top, 0.0), scenery.height - 1 - SIDE_PX * zoom)
    box = (left, top, left + SIDE_PX * zoom, top + SIDE_PX * zoom)
    seen = scenery.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, box)
    return np.array(seen, np.float32)


def _paint(
    frame: NDArray[np.float32],
    painting: NDArray[np.float32],
    columns: NDArray[np.float32],
    rows: NDArray[np.float32],
    hit: NDArray[np.float32],
) -> None:
    """Lay the painting over a frame.

    Args:
        frame: is changed.
        painting: see `_Actor`.
        columns: (side, side) in eye distances, what is seen of the painting where.
        rows: likewise.
        hit: (side, side) 0 to 1, how much is seen of it at all.
    """
    height, width, channels = painting.shape
    u = (columns - _LEFT) * PER_EYE_DISTANCE_PX
    v = (rows - _TOP) * PER_EYE_DISTANCE_PX
    inside = (u >= 0) & (v >= 0) & (u < width - 1) & (v < height - 1) & (hit > 0)
    across, down = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    if not len(across) or not len(down):
        return
    part = (slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1))
    u = np.clip(u[part], 0, width - 1.001)
    v = np.clip(v[part], 0, height - 1.001)
    flat = painting.reshape(-1, channels)
    left, top = np.floor(u), np.floor(v)
    place = (top * width + left).astype(np.intp)
    a, b = (u - left)[..., None], (v - top)[..., None]
    upper, lower = flat.take(place, axis=0), flat.take(place + width, axis=0)
    upper += (flat.take(place + 1, axis=0) - upper) * a
    lower += (flat.take(place + width + 1, axis=0) - lower) * a
    upper += (lower - upper) * b
    upper *= (hit * inside)[part][..., None]
    frame[part] *= 1 - upper[..., 3:]
    frame[part] += upper[..., :3]


# --- Cameras: light and sensor ---


@dataclass(frozen=True, slots=True)
class _Camera:
    """What a phone makes of what it sees.

    Attributes:
        gain: (n,) brightness of each frame.
        tint: (3,) of its light.
        noise: standard deviation of the sensor's, of 255.
        flipped: whether the picture is a mirror's.
    """

    gain: Points
    tint: NDArray[np.float32]
    noise: float
    flipped: bool

    @classmethod
    def by_lot(cls, times: Points, lot: random.Random, flipped: bool | None) -> "_Camera":
        gain = lot.uniform(0.85, 1.1) * (1 + _sway(times, lot, 0.05))
        for _ in range(lot.choice((0, 1, 2))):  # the exposure is set anew, with a blink
            at, depth = lot.uniform(0, float(times[-1])), lot.uniform(-0.3, 0.2)
            gain = gain * (1 + depth * np.exp(-(((times - at) / 0.08) ** 2)))
        tint = np.array([lot.uniform(0.94, 1.06) for _ in range(3)], np.float32)
        is_mirror = lot.random() < 0.5
        return cls(gain, tint, lot.uniform(1.0, 4.0), is_mirror if flipped is None else flipped)

    def shot(self, seen: NDArray[np.float32], index: int, grain: NDArray[np.float32]) -> Pixels:
        """(side, side, 3) RGB; `seen` is changed."""
        seen *= self.tint * np.float32(self.gain[index])
        seen += grain
        shot = np.clip(seen, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(shot[:, ::-1]) if self.flipped else shot


def _shoot(
    looks: Iterable[NDArray[np.float32]], times: Points, lot: random.Random, flipped: bool | None
) -> Iterator[Pixels]:
    camera = _Camera.by_lot(times, lot, flipped)
    # One sheet of grain, of which every frame gets another part: new grain takes too long.
    generator = np.random.default_rng(lot.getrandbits(32))
    sheet = generator.standard_normal((2 * SIDE_PX, 2 * SIDE_PX, 1), np.float32) * camera.noise
    for index, seen in enumerate(looks):
        left, top = generator.integers(0, SIDE_PX, 2)
        yield camera.shot(seen, index, sheet[top : top + SIDE_PX, left : left + SIDE_PX])


# --- Films: who is seen when ---


def film(
    portrait: Portrait,
    script: Script,
    lot: random.Random,
    other: Portrait | None = None,
    *,
    flipped: bool | None = None,
) -> Iterator[Pixels]:
    """The frames of a clip.

    Args:
        portrait: who, or whose photo, is seen.
        script: what they do.
        lot: draws light, grain and background.
        other: somebody else, where the script has a part for them.
        flipped: whether the camera shows a mirror's picture; None draws it.

    Raises:
        ValueError: they are missing.
    """
    if other is None and (script.beside or script.by_other.any()):
        raise ValueError("this attack takes somebody else's portrait as well")
    if script.paper is None:
        actor = _person(portrait)
    else:
        actor = _paper(portrait, script.paper, _room(lot))
    return _shoot(_looks(actor, script, lot, other), script.times, lot, flipped)


def _looks(
    actor: _Actor, script: Script, lot: random.Random, other: Portrait | None
) -> Iterator[NDArray[np.float32]]:
    """What an ideal camera sees."""
    if other is None:
        return (_look(actor, script.motion, index) for index in range(len(script.motion)))
    if script.beside:
        return _side_by_side(actor, _person(other), script.motion, lot)
    return _in_turn(actor, _person(other), script)


def _in_turn(actor: _Actor, stranger: _Actor, script: Script) -> Iterator[NDArray[np.float32]]:
    """Two people in the same place, before the same wall."""
    stranger = replace(stranger, scenery=actor.scenery)
    for index, is_other in enumerate(script.by_other):
        yield _look(stranger if is_other else actor, script.motion, index)


def _side_by_side(
    owner: _Actor, stranger: _Actor, motion: Motion, lot: random.Random
) -> Iterator[NDArray[np.float32]]:
    """Somebody does something, and somebody else looks on."""
    side = lot.choice((-1, 1))
    share = lot.uniform(0.62, 0.9)
    near = replace(motion, x=motion.x + 1.7 * side, scale=motion.scale * 0.7)
    still = np.zeros_like(motion.yaw)
    far = replace(
        motion,
        yaw=still,
        pitch=still,
        x=motion.x - 1.7 * side / share,
        scale=motion.scale * 0.7 * share,
    )
    middle = SIDE_PX // 2 + round(side * 0.06 * SIDE_PX)
    for index in range(len(motion)):
        frame, seen = _look(stranger, far, index), _look(owner, near, index)
        half = slice(middle, None) if side > 0 else slice(None, middle)
        frame[:, half] = seen[:, half]
        yield frame


# --- Files ---


def encode(frames: Iterable[Pixels], frames_per_s: int, *, quality: float = 25) -> bytes:
    """An MP4 file of RGB frames, all of one size.

    Args:
        frames: (height, width, 3), sides even.
        frames_per_s: how fast.
        quality: x264's constant rate factor: 18 is hardly told from the original, 35 is bad.

    Raises:
        ValueError: there are no frames.
    """
    import av  # only who makes a clip needs FFmpeg's libraries in memory

    file = io.BytesIO()
    stream = None
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        for pixels in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=frames_per_s)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": f"{quality:.1f}", "preset": "veryfast", "threads": "1"}
                stream.time_base = Fraction(1, frames_per_s)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is None:
            raise ValueError("a clip has at least one frame")
        container.mux(stream.encode())
    return file.getvalue()


def transcode(clip: bytes, lot: random.Random, side: int | None = None) -> bytes:
    """A clip as it comes out of another phone: smaller or larger, and worse.

    Args:
        clip: a video file, its first stream is taken.
        lot: draws size and quality.
        side: in pixels, where the size is given.
    """
    import av

    side = 2 * lot.randint(120, 200) if side is None else side
    with av.open(io.BytesIO(clip), "r") as container:
        stream = container.streams.video[0]
        rate = round(float(stream.average_rate or FRAMES_PER_S))
        frames = (
            np.asarray(
                Image.fromarray(frame.to_ndarray(format="rgb24")).resize(
                    (side, side), Image.Resampling.BILINEAR
                ),
                np.uint8,
            )
            for frame in container.decode(stream)
        )
        return encode(frames, rate, quality=lot.uniform(28, 36))
