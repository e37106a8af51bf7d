"""Challenges, and their judgement over what the engine saw in a clip: pure functions.

Somebody who is there does a few steps with their head, drawn by lot. What was done is read from
the track first, without knowing what was asked, and only then compared: whatever somebody does,
it is one sequence of steps at most, so that a guess is right as often as the lot says.

What this is worth: it resists still photos, photos that are moved, tilted or bent, photos shown one
after the other, clips of older challenges and crude cuts. It cannot tell a face that a computer
draws or gives depth to, films of single steps that are aligned before they are joined, nor a
changed client.
Knows poses, places and times; knows nothing about whose face it is (the decision does), about
files, or about how a challenge is shown.
"""

import functools
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np

from engine.types import Face, Frame, Track
from engine.vision.align import similarity_transform


class Step(StrEnum):
    """One thing to do with one's head, and then back; the letter is its place in a code.

    Which side is which is not told apart: a front camera's picture is often a mirror's.
    """

    SIDE = "s"
    OTHER_SIDE = "o"
    UP = "u"
    DOWN = "d"


STEPS = 4
"""In a challenge: 108 sequences, which with their mirror images make 55 that differ. A guess is
right 2 times in 108 at best (1.85 %)."""

_MIRRORED = {
    Step.SIDE: Step.OTHER_SIDE,
    Step.OTHER_SIDE: Step.SIDE,
    Step.UP: Step.UP,
    Step.DOWN: Step.DOWN,
}


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a person is asked to do.

    Attributes:
        steps: in their order; `STEPS` of them, none twice in a row.

    Raises:
        ValueError: they are not.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Refuse what nobody can be asked."""
        repeats = any(a == b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if len(self.steps) != STEPS or repeats:
            raise ValueError(f"a challenge has {STEPS} steps, none of them twice in a row")

    @property
    def code(self) -> str:
        """One letter for each step, such as "sudo"."""
        return "".join(self.steps)

    @classmethod
    def parse(cls, code: str) -> Self:
        """The challenge of a code.

        Raises:
            ValueError: it is none.
        """
        return cls(tuple(Step(letter) for letter in code))

    @property
    def mirrored(self) -> "Challenge":
        """What is seen of it in a mirror."""
        return Challenge(mirrored(self.steps))


def mirrored(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps as a mirror shows them."""
    return tuple(_MIRRORED[step] for step in steps)


@functools.cache
def every() -> tuple[Challenge, ...]:
    """All challenges there are."""
    sequences: list[tuple[Step, ...]] = [()]
    for _ in range(STEPS):
        sequences = [
            (*done, step) for done in sequences for step in Step if not done or step != done[-1]
        ]
    return tuple(Challenge(steps) for steps in sequences)


def draw(choose: random.Random) -> Challenge:
    """A challenge by lot, each as likely as any other.

    Args:
        choose: for people `random.SystemRandom()`, which nobody can foretell.
    """
    return choose.choice(every())


class FailureReason(StrEnum):
    """Why a clip does not show what was asked.

    UNREADABLE: its times or numbers make no sense; no camera films like that.
    TOO_SHORT, TOO_LONG: as a whole.
    NO_FACE: too rarely a face to be seen.
    FACE_LOST: the face was out of sight for too long.
    SEVERAL_FACES: somebody else is in the picture.
    JUMP: the face leaps: the clip is cut or the film stutters.
    STILL: the head never moves between the steps, as no head does: pictures, or a film that is too
        bad to tell.
    NOT_NEUTRAL_FIRST, NOT_NEUTRAL_LAST: it does not begin, or not end, looking ahead.
    TOO_FEW_STEPS: fewer steps than asked; some may have been too small or too quick.
    WRONG_STEPS: others than asked.
    FACE_TOO_SMALL, BLURRED, BAD_LIGHT, UNCLEAR: the face looking ahead, in most frames.
    """

    UNREADABLE = "unreadable"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NO_FACE = "no_face"
    FACE_LOST = "face_lost"
    SEVERAL_FACES = "several_faces"
    JUMP = "jump"
    STILL = "still"
    NOT_NEUTRAL_FIRST = "not_neutral_first"
    NOT_NEUTRAL_LAST = "not_neutral_last"
    TOO_FEW_STEPS = "too_few_steps"
    WRONG_STEPS = "wrong_steps"
    FACE_TOO_SMALL = "face_too_small"
    BLURRED = "blurred"
    BAD_LIGHT = "bad_light"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that does not show what was asked."""

    reason: FailureReason


@dataclass(frozen=True, slots=True)
class Performance:
    """A clip that shows what was asked.

    Attributes:
        neutral: faces that look ahead, good enough to be compared, with their embeddings: the
            best of each time between two steps first, so that a few of them stand for the whole
            clip.
        turns: for each step its faces with embeddings, one or more, the least turned first.
        mirrored: whether it was the challenge's mirror image that was done.
    """

    neutral: tuple[Face, ...]
    turns: tuple[tuple[Face, ...], ...]
    mirrored: bool


@dataclass(frozen=True, slots=True)
class LivenessLimits:
    """Every threshold of the judgement; what each costs and keeps out stands beside it.

    Yaw and pitch are `engine.types.Pose`'s proxies; "away" means from the person's own neutral.
    A tenth is a tenth of a second, the usual time between two frames.
    """

    shortest_s: float = 6.0
    longest_s: float = 15.5
    gap_s: float = 0.7
    """The face may be out of sight (or the film stand still) for so long, when it is in motion."""
    settle_s: float = 2.0
    """Looking ahead begins within so long: people look for the button first."""
    seen_share: float = 0.8
    """Of the frames that must show the face."""
    crowded_frames: int = 1
    """Frames that may show a second face: detectors see one in a pattern at times."""
    neutral_frames: int = 5
    """In a row, that looking ahead begins with."""
    end_frames: int = 3
    """That look ahead after the last step."""
    neutral_yaw: float = 0.12
    neutral_pitch: tuple[float, float] = (0.38, 0.74)
    """Of looking ahead; a phone held low or high changes it."""
    steady_pitch: float = 0.075
    """How far the first frames may be from their median."""
    turn: float = 0.25
    """Yaw away from neutral, about 28 degrees."""
    nod: float = 0.15
    """Pitch away from neutral, about 18 degrees."""
    hold_frames: int = 3
    """Frames of a step that reach so far."""
    release: float = 0.6
    """A step is over when the head is back within this share of `turn` and `nod`."""
    yaw_jump: float = 0.35
    pitch_jump: float = 0.25
    """Change in a tenth."""
    place_jump: float = 0.5
    """Of the face's middle in a tenth, in sizes of the face."""
    size_jump: float = 1.35
    """The larger size over the smaller, in a tenth."""
    rest: float = 0.3
    """Share of `turn` and `nod` within which the head rests between two steps."""
    rest_roll_deg: float = 5.0
    """That a resting head is tilted, or the phone turned, in a tenth."""
    rest_growth: float = 0.09
    """Change of a resting face's size in a tenth, of its size. The two are shares of one limit:
    honest clips come to 0.76 of it, films that are joined as they are mostly to 1.2 and more."""
    steady: float = 0.06
    """Change of yaw and of pitch within four frames, up to which the head seems to hold still."""
    steady_frames: int = 10
    """That are looked at in any case, the steadiest: some faces' landmarks flutter."""
    turned_deg: float = 0.5
    """Most of `Frame.turned_deg` that counts, of yaw and of pitch, at such a moment."""
    turned_mean_deg: float = 0.28
    """Geometric mean of yaw's and pitch's means over those moments: a picture, moved as a whole,
    does not turn, and one that is morphed into the next turns one way only. Honest clips come to
    0.33 and more, of heads that move half as much to 0.29, a third as much to 0.24; slide shows to
    0.24 at most, to 0.32 where they are shaken and morphed at once."""
    turned_held_deg: float = 0.15
    """Mean of the larger of the two over those of them away from neutral, against pictures between
    films of looking ahead. Honest clips come to 0.25 and more."""
    size_px: float = 80.0
    probability: float = 0.99
    blur: float = 0.75
    exposure: tuple[float, float] = (0.12, 0.9)
    neutral_faces: int = 3
    """Good faces looking ahead, with embeddings, that must be left."""


LIMITS = LivenessLimits()

_TURNED_SINCE = 3
"""Frames that `Frame.turned_deg` goes back."""


def judge(
    challenge: Challenge, track: Track, limits: LivenessLimits = LIMITS
) -> Performance | Failure:
    """Whether a clip shows the challenge or its mirror image, from neutral back to neutral.

    Never raises, whatever the track holds.

    Args:
        challenge: what was asked.
        track: what the engine saw.
        limits: see `LivenessLimits`.
    """
    reading = read(track, limits)
    if isinstance(reading, Failure):
        return reading
    is_mirrored = reading.steps == mirrored(challenge.steps)
    if reading.steps != challenge.steps and not is_mirrored:
        few = len(reading.steps) < len(challenge.steps)
        return Failure(FailureReason.TOO_FEW_STEPS if few else FailureReason.WRONG_STEPS)
    if reading.left_open:
        return Failure(FailureReason.NOT_NEUTRAL_LAST)
    neutral = _good(reading.neutral, limits)
    if isinstance(neutral, Failure):
        return neutral
    if not all(reading.turns):
        return Failure(FailureReason.TOO_FEW_STEPS)
    if reading.still:
        return Failure(FailureReason.STILL)
    return Performance(neutral, reading.turns, is_mirrored and reading.steps != challenge.steps)


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody did in a clip, whatever was asked of them.

    Attributes:
        steps: in their order; `SIDE` is where yaw is negative.
        turns: for each step its faces with embeddings, the least turned first; none at all where
            they have none.
        neutral: faces that look ahead, by the times between steps: one tuple before the first
            step, one after each.
        left_open: whether they do not look ahead at the end.
        still: whether they hold still as pictures do, and no head.
    """

    steps: tuple[Step, ...]
    turns: tuple[tuple[Face, ...], ...]
    neutral: tuple[tuple[Face, ...], ...]
    left_open: bool
    still: bool


def read(track: Track, limits: LivenessLimits = LIMITS) -> Reading | Failure:
    """What was done in a clip, or why that cannot be said; never raises.

    Args:
        track: what the engine saw.
        limits: see `LivenessLimits`.
    """
    reason = _unfit(track, limits)
    if reason is not None:
        return Failure(reason)
    sights = tuple(_sights(track.frames))
    reason = _broken(sights, track, limits)
    if reason is not None:
        return Failure(reason)
    start = _start(sights, limits)
    if start is None:
        return Failure(FailureReason.NOT_NEUTRAL_FIRST)
    return _steps(sights[start:], limits)


# --- One face, from frame to frame ---


@dataclass(frozen=True, slots=True)
class _ObservedFace:
    """A frame in which the face is seen, in plain finite numbers.

    Attributes:
        index: of the frame.
        turned_deg: see `Frame.turned_deg`; zeros where nothing is told, or no number.
    """

    index: int
    time_s: float
    yaw: float
    pitch: float
    x: float
    y: float
    size: float
    turned_deg: tuple[float, float]
    face: Face


def _sights(frames: Iterable[Frame]) -> Iterable[_ObservedFace]:
    for index, frame in enumerate(frames):
        face = frame.face
        if face is None:
            continue
        x1, y1, x2, y2 = face.box
        width, height = x2 - x1, y2 - y1
        values = (face.pose.yaw, face.pose.pitch, (x1 + x2) / 2, (y1 + y2) / 2)
        if all(map(math.isfinite, (*values, width, height))) and width > 0 and height > 0:
            size = math.sqrt(width) * math.sqrt(height)
            yaw, pitch = (told if told > 0 else 0.0 for told in frame.turned_deg or (0.0, 0.0))
            yield _ObservedFace(index, frame.time_s, *values, size, (yaw, pitch), face)


def _unfit(track: Track, limits: LivenessLimits) -> FailureReason | None:
    """What is wrong with a clip before anything is seen in it."""
    times = [frame.time_s for frame in track.frames]
    if not all(map(math.isfinite, (track.duration_s, *times))):
        return FailureReason.UNREADABLE
    ordered = all(a < b for a, b in itertools.pairwise(times))
    if not ordered or (times and not 0 <= times[0] <= times[-1] <= track.duration_s):
        return FailureReason.UNREADABLE
    if track.duration_s < limits.shortest_s:
        return FailureReason.TOO_SHORT
    if track.duration_s > limits.longest_s:
        return FailureReason.TOO_LONG
    if sum(frame.others > 0 for frame in track.frames) > limits.crowded_frames:
        return FailureReason.SEVERAL_FACES
    return None


def _broken(
    sights: Sequence[_ObservedFace], track: Track, limits: LivenessLimits
) -> FailureReason | None:
    """Why what is seen is not one face in one film."""
    if not sights:
        return FailureReason.NO_FACE
    waits = [b.time_s - a.time_s for a, b in itertools.pairwise(sights)]
    ends = (sights[0].time_s, track.duration_s - sights[-1].time_s)
    if len(sights) < limits.seen_share * len(track.frames) or max(ends) > limits.settle_s:
        return FailureReason.NO_FACE
    if max(waits, default=0.0) > limits.gap_s:
        return FailureReason.FACE_LOST
    if any(_leaps(a, b, limits) for a, b in itertools.pairwise(sights)):
        return FailureReason.JUMP
    vectors = (sight.face.embedding for sight in sights)
    if len({vector.shape for vector in vectors if vector is not None}) > 1:
        return FailureReason.UNREADABLE
    return None


def _leaps(a: _ObservedFace, b: _ObservedFace, limits: LivenessLimits) -> bool:
    """Whether nothing that is filmed moves so from one frame to the next."""
    tenths = max(1.0, (b.time_s - a.time_s) / 0.1)
    size = min(a.size, b.size)
    return (
        abs(b.yaw - a.yaw) > limits.yaw_jump * tenths
        or abs(b.pitch - a.pitch) > limits.pitch_jump * tenths
        or math.hypot(b.x - a.x, b.y - a.y) / size > limits.place_jump * tenths
        or max(a.size, b.size) / size > limits.size_jump**tenths
    )


# --- From where the head moves, and where to ---


def _start(sights: Sequence[_ObservedFace], limits: LivenessLimits) -> int | None:
    """Index of the first of the frames that look ahead, steadily, at the beginning."""
    for index, first in enumerate(sights):
        window = sights[index : index + limits.neutral_frames]
        if first.time_s > limits.settle_s or len(window) < limits.neutral_frames:
            return None
        if _looks_ahead(window, limits):
            return index
    return None


def _looks_ahead(window: Sequence[_ObservedFace], limits: LivenessLimits) -> bool:
    highest, lowest = limits.neutral_pitch
    pitch = _median(window, lambda sight: sight.pitch)
    return highest <= pitch <= lowest and all(
        abs(sight.yaw) <= limits.neutral_yaw and abs(sight.pitch - pitch) <= limits.steady_pitch
        for sight in window
    )


def _median(sights: Iterable[_ObservedFace], of: Callable[[_ObservedFace], float]) -> float:
    return statistics.median(of(sight) for sight in sights)


@dataclass(frozen=True, slots=True)
class _Moment:
    """A sight as its distance from neutral, in shares of what a step asks for.

    Attributes:
        sight: what was seen.
        turn: yaw, negative towards `Step.SIDE`.
        nod: pitch, negative is up.
    """

    sight: _ObservedFace
    turn: float
    nod: float

    @property
    def extent(self) -> float:
        """How far away, whichever way."""
        return max(abs(self.turn), abs(self.nod))

    def step(self, limits: LivenessLimits) -> Step | None:
        """What is being done, where it goes far enough.

        A turned head is no nod, whatever its pitch: seen from the side, the five points say so
        little about it that turns of 45 degrees were seen with as much as a nod's pitch.
        """
        if abs(self.turn) >= 1.0:
            return Step.SIDE if self.turn < 0 else Step.OTHER_SIDE
        if abs(self.nod) >= 1.0 and abs(self.turn) <= limits.release:
            return Step.UP if self.nod < 0 else Step.DOWN
        return None


def _steps(sights: Sequence[_ObservedFace], limits: LivenessLimits) -> Reading | Failure:
    """What is done from a neutral beginning on."""
    beginning = sights[: limits.neutral_frames]
    yaw = _median(beginning, lambda sight: sight.yaw)
    pitch = _median(beginning, lambda sight: sight.pitch)
    moments = [
        _Moment(sight, (sight.yaw - yaw) / limits.turn, (sight.pitch - pitch) / limits.nod)
        for sight in sights
    ]
    if any(_is_joint(a, b, limits) for a, b in itertools.pairwise(moments)):
        return Failure(FailureReason.JUMP)
    steps: list[Step] = []
    turns: list[tuple[Face, ...]] = []
    neutral: list[list[_ObservedFace]] = [[]]
    for away, stretch in _stretches(moments, limits):
        if not away:
            neutral[-1] += [moment.sight for moment in stretch]
            continue
        for step, held in _held(stretch, limits):
            steps.append(step)
            turns.append(_embedded(held))
            neutral.append([])
    return Reading(
        tuple(steps),
        tuple(turns),
        tuple(
            tuple(sight.face for sight in part if abs(sight.yaw) <= limits.neutral_yaw)
            for part in neutral
        ),
        left_open=len(neutral[-1]) < limits.end_frames,
        still=_is_still(moments, limits),
    )


def _is_joint(a: _Moment, b: _Moment, limits: LivenessLimits) -> bool:
    """Whether another film goes on from one frame to the next, while the head rests.

    Whoever films themselves once more holds the phone a little differently.
    """
    if max(a.extent, b.extent) > limits.rest:
        return False
    tenths = max(1.0, (b.sight.time_s - a.sight.time_s) / 0.1)
    try:
        (c, _, _), (s, _, _) = similarity_transform(a.sight.face.landmarks, b.sight.face.landmarks)
    except ValueError:
        return True
    roll = math.degrees(math.atan2(s, c)) / limits.rest_roll_deg
    growth = math.log(max(1e-9, math.hypot(c, s))) / limits.rest_growth
    return not math.hypot(roll, growth) <= tenths  # true for what is no number, too


def _is_still(moments: Sequence[_Moment], limits: LivenessLimits) -> bool:
    """Whether a head that seems to hold still does so too well.

    A living head turns by a degree or so all the time, and the phone in the hand moves around it.
    Pictures that are shown one after the other do not, however they are shaken or faded.
    """
    windows = [moments[end - _TURNED_SINCE : end + 1] for end in range(_TURNED_SINCE, len(moments))]
    spreads = sorted(
        ((_spread(window), window[-1]) for window in windows if _is_whole(window)),
        key=lambda entry: entry[0],
    )
    steady = [
        moment
        for rank, (spread, moment) in enumerate(spreads)
        if rank < limits.steady_frames or spread <= limits.steady
    ]
    if len(steady) < limits.steady_frames:
        return True
    turned = [
        [min(degrees, limits.turned_deg) for degrees in moment.sight.turned_deg]
        for moment in steady
    ]
    yaw, pitch = (statistics.fmean(ways) for ways in zip(*turned, strict=True))
    held = [
        max(ways)
        for moment, ways in zip(steady, turned, strict=True)
        if moment.extent > limits.release
    ]
    return math.sqrt(yaw * pitch) < limits.turned_mean_deg or (
        bool(held) and statistics.fmean(held) < limits.turned_held_deg
    )


def _is_whole(window: Sequence[_Moment]) -> bool:
    """Whether the face is seen in all frames from the first to the last."""
    return window[-1].sight.index - window[0].sight.index == len(window) - 1


def _spread(window: Sequence[_Moment]) -> float:
    """By how much yaw or pitch changes."""
    yaws = [moment.sight.yaw for moment in window]
    pitches = [moment.sight.pitch for moment in window]
    return max(max(yaws) - min(yaws), max(pitches) - min(pitches))


def _stretches(
    moments: Iterable[_Moment], limits: LivenessLimits
) -> Iterable[tuple[bool, Sequence[_Moment]]]:
    """Longest stretches that are away from neutral, or not."""
    stretch: list[_Moment] = []
    away = False
    for moment in moments:
        now = moment.extent > limits.release
        if stretch and now != away:
            yield away, stretch
            stretch = []
        away = now
        stretch.append(moment)
    if stretch:
        yield away, stretch


def _held(
    stretch: Sequence[_Moment], limits: LivenessLimits
) -> Iterable[tuple[Step, Sequence[_Moment]]]:
    """The steps in one stretch away from neutral, each with the moments that hold it.

    Who goes from one side straight up passes a corner; what is held for too short is on the way.
    """
    runs: list[tuple[Step, list[_Moment]]] = []
    for moment in stretch:
        step = moment.step(limits)
        if step is None:
            continue
        if not runs or runs[-1][0] != step:
            runs.append((step, []))
        runs[-1][1].append(moment)
    merged: list[tuple[Step, list[_Moment]]] = []
    for step, held in runs:
        if len(held) < limits.hold_frames:
            continue
        if merged and merged[-1][0] == step:
            merged[-1][1].extend(held)
        else:
            merged.append((step, held))
    return merged


def _embedded(moments: Iterable[_Moment]) -> tuple[Face, ...]:
    """Faces with embeddings, the least turned first."""
    faces = sorted(moments, key=lambda moment: moment.extent)
    return tuple(moment.sight.face for moment in faces if _has_embedding(moment.sight.face))


def _has_embedding(face: Face) -> bool:
    vector = face.embedding
    return vector is not None and vector.ndim == 1 and bool(np.isfinite(vector).all())


# --- Faces worth comparing ---


def _good(parts: Sequence[Sequence[Face]], limits: LivenessLimits) -> tuple[Face, ...] | Failure:
    """Of faces that look ahead those that are good enough, or what is wrong with most others."""
    faults: list[FailureReason] = []
    good: list[tuple[int, float, Face]] = []
    for part in parts:
        own = []
        for face in part:
            if not _has_embedding(face):
                continue
            fault = _fault(face, limits)
            if fault is None:
                own.append((face.quality.blur, face))
            else:
                faults.append(fault)
        own.sort(key=lambda entry: entry[0])
        good += [(rank, blur, face) for rank, (blur, face) in enumerate(own)]
    if len(good) < limits.neutral_faces:
        return Failure(max(faults, key=faults.count) if faults else FailureReason.UNCLEAR)
    # The best of each part, then the second best of each: a few stand for the whole clip.
    good.sort(key=lambda entry: entry[:2])
    return tuple(face for _, _, face in good)


def _fault(face: Face, limits: LivenessLimits) -> FailureReason | None:
    quality = face.quality
    darkest, brightest = limits.exposure
    # Each asks for what is good: a number that is none is neither large enough nor small enough.
    if not quality.size_px >= limits.size_px:
        return FailureReason.FACE_TOO_SMALL
    if not darkest <= quality.exposure <= brightest:
        return FailureReason.BAD_LIGHT
    if not quality.blur <= limits.blur:
        return FailureReason.BLURRED
    if not face.probability >= limits.probability:
        return FailureReason.UNCLEAR
    return None
