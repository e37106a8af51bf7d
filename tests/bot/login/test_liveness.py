"""Challenges and their judgement, on tracks that are written down and on generated clips."""

import collections
import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.login.liveness import (
    LIMITS,
    Challenge,
    Failure,
    FailureReason,
    Performance,
    Reading,
    Step,
    draw,
    every,
    judge,
    mirrored,
    read,
)
from engine.types import Face, Frame, Pose, Quality, Track

YAW, PITCH = 0.02, 0.55
"""Of the person who is filmed, looking ahead."""
TENTH_S = 0.1
AWAY = {
    Step.SIDE: (-0.36, 0.0),
    Step.OTHER_SIDE: (0.36, 0.0),
    Step.UP: (0.0, -0.2),
    Step.DOWN: (0.0, 0.2),
}
SUDO = Challenge.parse("sudo")
LANDMARKS = ((1.0, 1.0), (2.0, 1.0), (1.5, 1.5), (1.0, 2.0), (2.0, 2.0))


def face(yaw: float, pitch: float, *, x: float = 192, size: float = 160, **changes: Any) -> Face:
    quality = Quality(size_px=size, blur=0.4, exposure=0.5)
    values: dict[str, Any] = {
        "box": (x - size / 2, 190 - size / 2, x + size / 2, 190 + size / 2),
        "landmarks": LANDMARKS,
        "probability": 0.9999,
        "quality": replace(quality, **changes.pop("quality", {})),
        "pose": Pose(yaw, pitch),
        **changes,
    }
    return Face(**values)


def film(
    poses: Iterable[tuple[float, float]], *, start_s: float = 0.0, dt: float = TENTH_S
) -> Track:
    """Poses away from neutral, ten a second, of a living head; every second frame is embedded."""
    frames = []
    for index, (yaw, pitch) in enumerate(poses):
        own = face(YAW + yaw, PITCH + pitch)
        if index % 2 == 0:
            own = replace(own, embedding=np.array([1, index % 7, 0, 0], np.float32))
        turned_deg = None if index < 3 else (1.5, 0.5)
        frames.append(Frame(start_s + index * dt, own, 0, turned_deg))
    return track(frames)


def track(frames: Sequence[Frame], duration_s: float | None = None) -> Track:
    if duration_s is None:
        duration_s = frames[-1].time_s + TENTH_S if frames else 0.0
    return Track(tuple(frames), 384, 384, duration_s, "test@00000000")


def path(
    steps: Iterable[Step],
    *,
    still: int = 8,
    move: int = 4,
    hold: int = 5,
    between: int = 4,
    extent: float = 1.0,
) -> list[tuple[float, float]]:
    """Poses of somebody who does the steps; times in frames."""
    poses = [(0.0, 0.0)] * still
    for step in steps:
        yaw, pitch = (extent * part for part in AWAY[step])
        rise = [k / move for k in range(1, move)]
        shares = [*rise, *[1.0] * hold, *reversed(rise)]
        poses += [(yaw * share, pitch * share) for share in shares]
        poses += [(0.0, 0.0)] * between
    return poses + [(0.0, 0.0)] * (still - between)


def changed(of: Track, changes: dict[int, Any]) -> Track:
    """A track with fields of some of its frames replaced."""
    frames = [replace(one, **changes.get(index, {})) for index, one in enumerate(of.frames)]
    return replace(of, frames=tuple(frames))


def reason(challenge: Challenge, of: Track) -> FailureReason | None:
    judged = judge(challenge, of)
    return judged.reason if isinstance(judged, Failure) else None


@pytest.mark.parametrize(("release", "steps"), [(0.6, (Step.UP,)), (0.3, ())])
def test_how_far_a_nodding_head_may_be_turned_is_told_by_the_limits_that_are_passed(
    release: float, steps: tuple[Step, ...]
) -> None:
    half = 0.5 * LIMITS.turn
    poses = [(half if pitch else 0.0, pitch) for _, pitch in path([Step.UP], still=30)]
    reading = read(film(poses), replace(LIMITS, release=release))
    assert isinstance(reading, Reading)
    assert reading.steps == steps


# --- What is asked ---


def test_there_are_108_challenges_and_55_that_a_mirror_does_not_make_alike() -> None:
    challenges = every()
    assert len(set(challenges)) == len(challenges) == 108
    classes = {frozenset((one.code, one.mirrored.code)) for one in challenges}
    assert len(classes) == 55
    # Whoever guesses is right when the lot falls on the guess or on its mirror image.
    assert max(map(len, classes)) / len(challenges) <= 0.02


def test_the_lot_is_fair() -> None:
    lot = random.Random(5)
    drawn = collections.Counter(draw(lot).code for _ in range(108 * 200))
    assert len(drawn) == 108
    # Chi-square with 107 degrees of freedom: 99.9 % of fair lots are below 155.
    assert sum((count - 200) ** 2 / 200 for count in drawn.values()) < 155


def test_a_code_is_a_challenge_in_letters() -> None:
    assert Challenge.parse("sudo").steps == (Step.SIDE, Step.UP, Step.DOWN, Step.OTHER_SIDE)
    assert all(Challenge.parse(one.code) == one for one in every())
    assert Challenge.parse("sudo").mirrored.code == "ouds"


@pytest.mark.parametrize("code", ["", "sud", "sudos", "suud", "sudx", "SUDO"])
def test_what_is_no_challenge_is_not_read_as_one(code: str) -> None:
    with pytest.raises(ValueError, match=r"challenge|valid"):
        Challenge.parse(code)


# --- Who does as asked ---


def test_every_challenge_can_be_done_either_way_round_and_no_other_passes_for_it(
    one_in: Callable[[int], int],
) -> None:
    for code in [one.code for one in every()][:: one_in(13)]:
        filmed = film(path(Challenge.parse(code).steps))
        passed = {one.code for one in every() if isinstance(judge(one, filmed), Performance)}
        assert passed == {code, Challenge.parse(code).mirrored.code}


def test_a_performance_carries_faces_of_the_whole_clip() -> None:
    judged = judge(SUDO, film(path(SUDO.steps)))
    assert isinstance(judged, Performance)
    assert not judged.mirrored
    assert len(judged.turns) == 4
    for step, turn in zip(SUDO.steps, judged.turns, strict=True):
        yaw, pitch = AWAY[step]
        assert turn
        assert all(one.embedding is not None for one in turn)
        for one in turn:
            assert (one.pose.yaw - YAW) / (yaw or 1) >= (0.6 if yaw else -0.1)
            assert (one.pose.pitch - PITCH) / (pitch or 1) >= (0.7 if pitch else -0.1)
    assert len(judged.neutral) >= LIMITS.neutral_faces
    assert all(one.embedding is not None for one in judged.neutral)
    assert all(abs(one.pose.yaw) <= LIMITS.neutral_yaw for one in judged.neutral)


def test_a_mirror_image_is_told() -> None:
    judged = judge(SUDO, film(path(SUDO.mirrored.steps)))
    assert isinstance(judged, Performance)
    assert judged.mirrored
    alike = Challenge.parse("udud")
    judged = judge(alike, film(path(alike.steps)))
    assert isinstance(judged, Performance)
    assert not judged.mirrored


def test_the_best_faces_come_first_and_stand_for_the_whole_clip() -> None:
    filmed = film(path(SUDO.steps))
    blur = {
        index: {"face": replace(one.face, quality=replace(one.face.quality, blur=value))}
        for index, one in enumerate(filmed.frames)
        if one.face is not None
        for value in [0.30 + (index * 7919 % 100) / 1000]
    }
    judged = judge(SUDO, changed(filmed, blur))
    assert isinstance(judged, Performance)
    times = {one.face.quality.blur: one.time_s for one in changed(filmed, blur).frames if one.face}
    first = [times[one.quality.blur] for one in judged.neutral[:5]]
    # One of before the first step, one of after each: the time between any two is a step's.
    assert min(b - a for a, b in itertools.pairwise(sorted(first))) > 0.5
    assert [one.quality.blur for one in judged.neutral[:5]] == sorted(
        one.quality.blur for one in judged.neutral[:5]
    )


@given(
    challenge=st.sampled_from(every()),
    seed=st.integers(0, 2**32),
    still=st.integers(7, 12),
    move=st.integers(3, 7),
    hold=st.integers(5, 8),
    between=st.integers(3, 6),
)
@settings(max_examples=60, deadline=None)
def test_noise_and_pace_do_not_matter(
    challenge: Challenge, seed: int, still: int, move: int, hold: int, between: int
) -> None:
    generator = np.random.default_rng(seed)
    poses = path(challenge.steps, still=still, move=move, hold=hold, between=between)
    noisy = [
        (yaw + generator.normal(0, 0.012), pitch + generator.normal(0, 0.014))
        for yaw, pitch in poses
    ]
    filmed = film(noisy)
    if not LIMITS.shortest_s <= filmed.duration_s <= LIMITS.longest_s:
        filmed = film(noisy, dt=TENTH_S * (7 if filmed.duration_s < 7 else 14) / filmed.duration_s)
    judged = judge(challenge, filmed)
    assert isinstance(judged, Performance), judged


def test_the_clumsy_pass() -> None:
    poses = path(SUDO.steps)
    # Looking for the button first; overshooting on the way back; one frame without a face.
    overshoot = list(poses)
    for index in range(1, len(poses)):
        if poses[index] == (0.0, 0.0) and poses[index - 1] != (0.0, 0.0):
            yaw, pitch = poses[index - 1]
            overshoot[index] = (-0.4 * yaw, -0.4 * pitch)
    button = [(0.05, 0.14), (0.04, 0.2), (0.0, 0.12)]
    blink = changed(film(button + overshoot), {14: {"face": None}, 30: {"face": None}})
    assert reason(SUDO, blink) is None


def test_from_one_side_straight_up_is_two_steps() -> None:
    # Round the corner, without coming back in between.
    side, up = AWAY[Step.SIDE], AWAY[Step.UP]
    corner = [(side[0] * (1 - k / 4), up[1] * k / 4) for k in range(5)]
    poses = [(0.0, 0.0)] * 8 + [side] * 5 + corner + [up] * 5
    rest = path((Step.DOWN, Step.OTHER_SIDE), still=4)
    eased = [(0.0, -0.1), *rest]
    ramp = [(side[0] / 3, 0.0), (side[0] * 2 / 3, 0.0)]
    assert reason(SUDO, film(poses[:8] + ramp + poses[8:] + eased)) is None


# --- Who does not ---


def test_doing_more_than_asked_fails() -> None:
    twice = [step for step in SUDO.steps for _ in range(2)]
    assert reason(SUDO, film(path(twice, still=6, hold=4, move=3, between=3))) is (
        FailureReason.WRONG_STEPS
    )
    more = (*SUDO.steps, Step.UP)
    assert reason(SUDO, film(path(more))) is FailureReason.WRONG_STEPS


def test_a_side_for_the_other_in_one_place_fails() -> None:
    half = (Step.SIDE, Step.UP, Step.DOWN, Step.SIDE)
    assert reason(SUDO, film(path(half))) is FailureReason.WRONG_STEPS


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("phase", [0.0, 0.4, 1.2, 2.9])
def test_rolling_the_head_is_one_guess_at_most(rounds: int, phase: float) -> None:
    turn, nod = 0.38, 0.22
    circle = [
        (turn * math.cos(phase + k / 4), nod * math.sin(phase + k / 4))
        for k in range(round(rounds * 8 * math.pi))
    ]
    entry = [(circle[0][0] * k / 4, circle[0][1] * k / 4) for k in range(1, 4)]
    leave = [(circle[-1][0] * k / 4, circle[-1][1] * k / 4) for k in (3, 2, 1)]
    still = [(0.0, 0.0)] * 12
    filmed = film([*still, *entry, *circle, *leave, *still, *still])
    passed = [one for one in every() if isinstance(judge(one, filmed), Performance)]
    assert len(passed) <= (2 if rounds == 1 else 0)


def test_a_turned_head_is_no_nod_whatever_its_pitch_looks_like() -> None:
    """Of a head turned by 45 degrees the engine sees a pitch that is off by a nod and more."""
    poses = [(yaw, pitch - 0.19 if abs(yaw) >= 0.25 else pitch) for yaw, pitch in path(SUDO.steps)]
    assert reason(SUDO, film(poses)) is None


def test_too_small_or_too_short_a_step_does_not_count() -> None:
    assert reason(SUDO, film(path(SUDO.steps, extent=0.6))) is FailureReason.TOO_FEW_STEPS
    quick = path(SUDO.steps, hold=2, move=2, between=10)
    assert reason(SUDO, film(quick)) is FailureReason.TOO_FEW_STEPS


def test_a_single_wild_frame_is_no_step() -> None:
    poses = path(SUDO.steps)
    poses[-3] = (0.02, 0.16)
    assert reason(SUDO, film(poses)) is None


def test_it_begins_and_ends_looking_ahead() -> None:
    poses = path(SUDO.steps)
    late = [(0.2, 0.0)] * 25 + poses
    assert reason(SUDO, film(late)) is FailureReason.NOT_NEUTRAL_FIRST
    upwards = [(0.0, -0.19)] * 25 + poses
    assert reason(SUDO, film(upwards)) is FailureReason.NOT_NEUTRAL_FIRST
    last = max(index for index, pose in enumerate(poses) if pose == AWAY[Step.OTHER_SIDE])
    assert reason(SUDO, film(poses[: last + 1])) is FailureReason.NOT_NEUTRAL_LAST


def test_the_length_is_judged() -> None:
    poses = path(SUDO.steps)
    assert reason(SUDO, film(poses[:40])) is FailureReason.TOO_SHORT
    assert reason(SUDO, film(poses + [(0.0, 0.0)] * 120)) is FailureReason.TOO_LONG


def test_a_face_that_never_turns_while_it_holds_still_is_a_picture() -> None:
    filmed = film(path(SUDO.steps, move=2, hold=7))
    poses = [(one.face.pose.yaw, one.face.pose.pitch) for one in filmed.frames if one.face]

    def turned(degrees: Callable[[int, bool], tuple[float, float] | None]) -> Track:
        """With the degrees of a frame, given its number and whether the head moves."""
        moves = [poses[max(0, index - 3)] != pose for index, pose in enumerate(poses)]
        changes = {k: {"turned_deg": degrees(k, moves[k])} for k in range(3, len(poses))}
        return changed(filmed, changes)

    far, some, none = (20.0, 20.0), (0.6, 0.4), (0.0, 0.0)
    assert reason(SUDO, turned(lambda _, moves: far if moves else some)) is None
    assert reason(SUDO, turned(lambda k, moves: far if moves else some if k % 5 else none)) is None
    # Pictures; shaken ones, of which a bad film makes a little movement; morphed ones.
    for still in (none, (0.2, 0.2), (5.0, 0.1), (math.nan, math.nan), None):
        shown = turned(lambda _, moves, still=still: far if moves else still)  # type: ignore[misc]
        assert reason(SUDO, shown) is FailureReason.STILL, still
    # A film of looking ahead, between pictures of the steps.
    ahead = turned(lambda k, moves: far if moves else none if poses[k] != poses[0] else far)
    assert reason(SUDO, ahead) is FailureReason.STILL


def test_an_engine_that_does_not_tell_whether_a_head_turns_lets_nobody_pass() -> None:
    filmed = film(path(SUDO.steps))
    untold = changed(filmed, {k: {"turned_deg": None} for k in range(len(filmed.frames))})
    assert reason(SUDO, untold) is FailureReason.STILL


@pytest.mark.parametrize(
    ("roll_deg", "growth", "expected"),
    [
        (0.0, 1.0, None),
        (3.0, 1.03, None),
        (6.0, 1.0, FailureReason.JUMP),
        (0.0, 1.1, FailureReason.JUMP),
        (-4.0, 0.93, FailureReason.JUMP),
        (math.nan, 1.0, FailureReason.JUMP),
    ],
)
def test_films_that_are_joined_where_the_head_rests_fail(
    roll_deg: float, growth: float, expected: FailureReason | None
) -> None:
    filmed = film(path(SUDO.steps))
    joint = next(k for k, pose in enumerate(path(SUDO.steps)) if k > 10 and pose == (0.0, 0.0)) + 2
    angle = math.radians(roll_deg)
    c, s = growth * math.cos(angle), growth * math.sin(angle)
    points: Any = tuple((c * x - s * y, s * x + c * y) for x, y in LANDMARKS)
    changes = {
        k: {"face": replace(one.face, landmarks=points)}
        for k, one in enumerate(filmed.frames)
        if k >= joint and one.face is not None
    }
    assert reason(SUDO, changed(filmed, changes)) is expected
    # While the head turns, its landmarks may do so.
    held = filmed.frames[13].face
    assert held is not None
    assert reason(SUDO, changed(filmed, {13: {"face": replace(held, landmarks=points)}})) is None


def test_a_second_face_in_more_than_one_frame_fails() -> None:
    filmed = film(path(SUDO.steps))
    assert reason(SUDO, changed(filmed, {3: {"others": 1}})) is None
    two = changed(filmed, {3: {"others": 1}, 40: {"others": 1}})
    assert reason(SUDO, two) is FailureReason.SEVERAL_FACES


def test_a_face_may_not_be_away_for_long() -> None:
    filmed = film(path(SUDO.steps))
    gone = {index: {"face": None} for index in range(30, 38)}
    assert reason(SUDO, changed(filmed, gone)) is FailureReason.FACE_LOST
    rarely = {index: {"face": None} for index in range(0, len(filmed.frames), 3)}
    assert reason(SUDO, changed(filmed, rarely)) is FailureReason.NO_FACE
    everywhere = {index: {"face": None} for index in range(len(filmed.frames))}
    assert reason(SUDO, changed(filmed, everywhere)) is FailureReason.NO_FACE
    assert reason(SUDO, track([], 8.0)) is FailureReason.NO_FACE


def test_frames_that_are_missing_count_like_frames_without_a_face() -> None:
    filmed = film(path(SUDO.steps))
    frames = filmed.frames[:30] + filmed.frames[38:]
    assert reason(SUDO, replace(filmed, frames=frames)) is FailureReason.FACE_LOST


def test_a_leap_fails() -> None:
    filmed = film(path(SUDO.steps))

    def later(**changes: Any) -> Track:
        faces = {
            index: {"face": face(YAW + yaw, PITCH + pitch, **changes)}
            for index, (yaw, pitch) in enumerate(path(SUDO.steps))
            if index >= 5
        }
        return changed(filmed, faces)

    assert reason(SUDO, later(x=192 + 90)) is FailureReason.JUMP
    assert reason(SUDO, later(size=90)) is FailureReason.JUMP
    poses = [(0.0, 0.0)] * 10 + [AWAY[Step.SIDE]] * 5 + [AWAY[Step.OTHER_SIDE]] * 55
    assert reason(SUDO, film(poses)) is FailureReason.JUMP


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": 70}, FailureReason.FACE_TOO_SMALL),
        ({"quality": {"blur": 0.95}}, FailureReason.BLURRED),
        ({"quality": {"exposure": 0.02}}, FailureReason.BAD_LIGHT),
        ({"quality": {"exposure": 0.98}}, FailureReason.BAD_LIGHT),
        ({"quality": {"blur": math.nan}}, FailureReason.BLURRED),
        ({"probability": 0.9}, FailureReason.UNCLEAR),
        ({"probability": math.nan}, FailureReason.UNCLEAR),
    ],
)
def test_a_face_not_worth_comparing_fails_and_says_why(
    changes: dict[str, Any], expected: FailureReason
) -> None:
    vector = np.ones(4, np.float32)
    frames = {
        index: {"face": face(YAW + yaw, PITCH + pitch, embedding=vector, **changes)}
        for index, (yaw, pitch) in enumerate(path(SUDO.steps))
    }
    assert reason(SUDO, changed(film(path(SUDO.steps)), frames)) is expected


@pytest.mark.parametrize("vector", [None, np.full(4, np.nan, np.float32), np.ones((2, 2))])
def test_without_sound_embeddings_nothing_passes(vector: Any) -> None:
    filmed = film(path(SUDO.steps))
    frames = {
        index: {"face": replace(one.face, embedding=vector)}
        for index, one in enumerate(filmed.frames)
        if one.face is not None
    }
    assert reason(SUDO, changed(filmed, frames)) is FailureReason.UNCLEAR


# --- Whatever comes ---


def test_embeddings_of_two_kinds_are_refused() -> None:
    filmed = film(path(SUDO.steps))
    other = replace(face(YAW, PITCH), embedding=np.ones(5, np.float32))
    assert reason(SUDO, changed(filmed, {2: {"face": other}})) is FailureReason.UNREADABLE


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -1.0, 3.0])
def test_times_out_of_order_are_refused(time_s: float) -> None:
    filmed = film(path(SUDO.steps))
    assert reason(SUDO, changed(filmed, {40: {"time_s": time_s}})) is FailureReason.UNREADABLE


@pytest.mark.parametrize("duration_s", [math.nan, math.inf, 1.0])
def test_a_length_that_does_not_hold_the_frames_is_refused(duration_s: float) -> None:
    filmed = film(path(SUDO.steps))
    assert reason(SUDO, replace(filmed, duration_s=duration_s)) is FailureReason.UNREADABLE


def test_poses_that_are_no_numbers_are_no_faces() -> None:
    poses = path(SUDO.steps)
    poses[20] = (math.nan, math.nan)
    assert reason(SUDO, film(poses)) is None
    assert reason(SUDO, film([(math.nan, 0.0)] * 80)) is FailureReason.NO_FACE
    assert reason(SUDO, film([(0.0, math.inf)] * 80)) is FailureReason.NO_FACE


numbers = st.one_of(
    st.floats(), st.floats(-0.5, 0.5), st.sampled_from([0.0, 0.25, -0.25, 1e308, -1e308, 5e-324])
)
vectors = st.sampled_from(
    [None, np.ones(4, np.float32), np.ones(3, np.float32), np.zeros((0,)), np.ones((2, 2))]
)
wild_faces = st.builds(
    Face,
    box=st.tuples(numbers, numbers, numbers, numbers),
    landmarks=st.just(LANDMARKS),
    probability=numbers,
    quality=st.builds(Quality, size_px=numbers, blur=numbers, exposure=numbers),
    pose=st.builds(Pose, yaw=numbers, pitch=numbers),
    embedding=vectors,
)


@given(
    st.lists(
        st.builds(
            Frame,
            time_s=st.one_of(numbers, st.floats(0, 15)),
            face=st.one_of(st.none(), wild_faces),
            others=st.integers(-1, 3),
            turned_deg=st.one_of(st.none(), st.tuples(numbers, numbers)),
        ),
        max_size=30,
    ),
    st.one_of(st.floats(), st.floats(6, 15)),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_no_track_makes_it_raise(frames: list[Frame], duration_s: float, ordered: bool) -> None:
    if ordered:
        frames = [replace(one, time_s=0.1 * index) for index, one in enumerate(frames)]
    assert isinstance(judge(SUDO, track(frames, duration_s)), Failure | Performance)


@given(
    st.lists(st.sampled_from([*Step, None]), min_size=4, max_size=9),
    st.integers(3, 7),
    st.floats(0.5, 1.2),
    st.integers(0, 2**32),
)
@settings(max_examples=12, deadline=None)
def test_whatever_is_done_is_one_challenge_at_most(
    done: list[Step | None], hold: int, extent: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    poses = [(0.0, 0.0)] * 7
    for step in done:
        yaw, pitch = AWAY[step] if step else (0.0, 0.0)
        poses += [(extent * yaw / 2, extent * pitch / 2)]
        poses += [(extent * yaw, extent * pitch)] * hold
        poses += [(extent * yaw / 2, extent * pitch / 2)] * int(generator.integers(1, 3))
    poses += [(0.0, 0.0)] * 7
    noisy = [
        (yaw + generator.normal(0, 0.03), pitch + generator.normal(0, 0.03)) for yaw, pitch in poses
    ]
    filmed = film(noisy, dt=8.0 / len(noisy))
    passed = [one for one in every() if isinstance(judge(one, filmed), Performance)]
    assert len(passed) <= 2
    if passed:
        assert {one.code for one in passed} == {passed[0].code, passed[0].mirrored.code}


def test_a_mirror_of_a_mirror_is_the_thing_itself() -> None:
    assert all(mirrored(mirrored(one.steps)) == one.steps for one in every())
