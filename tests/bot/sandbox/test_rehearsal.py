"""How far a head must go, found from what was seen of it."""

from dataclasses import replace

import numpy as np
import pytest
from skimage import data

from bot.login.liveness import Step
from bot.sandbox import rehearsal
from bot.sandbox.performer import MEAN_REACH, Portrait
from engine.types import Face, Frame, Pose, Track
from tests.bot.fakes import face
from tests.bot.sandbox.test_performer import LANDMARKS, frames_of

ASTRONAUT = Portrait.of(data.astronaut(), LANDMARKS)
ANGLES = (
    [(0.0, 0.0)] * 6
    + [(-degrees, 0.0) for degrees in range(24, 58, 2)]
    + [(degrees, 0.0) for degrees in range(24, 58, 2)]
    + [(0.0, -degrees) for degrees in range(14, 40, 2)]
    + [(0.0, degrees) for degrees in range(14, 40, 2)]
)


def seen(yaw: float, pitch: float) -> Face:
    """A head of which .01 of yaw and pitch is seen for each degree, from somewhat aside."""
    return replace(face(), pose=Pose(0.05 + 1.01 * yaw / 100, 0.56 + 1.01 * pitch / 100))


def track(*, lost: range = range(0), flukes: range = range(0)) -> Track:
    frames = []
    for index, (yaw, pitch) in enumerate(ANGLES):
        found: Face | None = None if index in lost else seen(yaw, pitch)
        if index in flukes:
            found = seen(9 * yaw, 9 * pitch)
        frames.append(Frame(index / 10, found, 0))
    return Track(tuple(frames), 384, 384, len(ANGLES) / 10, "v1")


def test_a_clip_shows_every_angle_once() -> None:
    frames = frames_of(rehearsal.clip(ASTRONAUT))
    assert len(frames) == len(ANGLES)
    assert np.abs(frames[0].astype(float) - frames[22]).mean() > 5


def test_the_least_and_the_most_angle_at_which_enough_is_seen() -> None:
    found = rehearsal.rehearsed(ASTRONAUT, track())
    assert found is not None
    assert found.reach == {
        Step.SIDE: (34.0, 44.0),
        Step.OTHER_SIDE: (34.0, 44.0),
        Step.UP: (20.0, 28.0),
        Step.DOWN: (20.0, 28.0),
    }
    assert ASTRONAUT.reach == MEAN_REACH


def test_a_lost_face_is_the_end() -> None:
    found = rehearsal.rehearsed(ASTRONAUT, track(lost=range(14, 23)))
    assert found is not None
    assert found.reach[Step.SIDE] == (34.0, 36.0)


def test_nobody_goes_where_landmarks_flutter_nor_past_it() -> None:
    found = rehearsal.rehearsed(ASTRONAUT, track(flukes=range(15, 16)))
    assert found is not None
    assert found.reach[Step.SIDE] == (34.0, 38.0)
    assert rehearsal.rehearsed(ASTRONAUT, track(flukes=range(9, 10))) is None


@pytest.mark.parametrize("lost", [range(6), range(8, 23), range(56, 66), range(66)])
def test_a_head_that_does_not_follow_everywhere_is_none(lost: range) -> None:
    assert rehearsal.rehearsed(ASTRONAUT, track(lost=lost)) is None
