import itertools
import math

import numpy as np
import pytest

from engine.vision.align import ARCFACE
from engine.vision.pose import pose

# A rigid face: x to the right, y down, z towards the camera, in eye distances.
HEAD = np.array([(-0.5, 0, 0), (0.5, 0, 0), (0, 0.57, 0.45), (-0.4, 1.1, 0.05), (0.4, 1.1, 0.05)])


def seen(yaw_degrees, pitch_degrees=0.0):
    yaw, pitch = math.radians(yaw_degrees), math.radians(pitch_degrees)
    turn = np.array(
        [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    )
    nod = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    return (HEAD @ turn.T @ nod.T)[:, :2] * 80 + 200


def test_yaw_is_monotone_where_the_popular_ratio_is_not():
    yaws = [pose(seen(angle)).yaw for angle in range(-60, 61, 5)]
    assert all(a < b for a, b in itertools.pairwise(yaws))
    assert pose(seen(0)).yaw == pytest.approx(0, abs=1e-9)


def test_pitch_grows_looking_down():
    pitches = [pose(seen(0, angle)).pitch for angle in range(-30, 31, 5)]
    assert all(a < b for a, b in itertools.pairwise(pitches))


def test_yaw_flips_in_a_mirror_and_pitch_stays():
    face = seen(25, 10)
    mirrored = (face * (-1, 1))[[1, 0, 2, 4, 3]]
    assert pose(mirrored).yaw == pytest.approx(-pose(face).yaw)
    assert pose(mirrored).pitch == pytest.approx(pose(face).pitch)


def test_blind_to_roll_size_and_place():
    roll = np.array([[0.8, -0.6], [0.6, 0.8]])
    moved = 3 * seen(25, 10) @ roll.T - 40
    assert pose(moved).yaw == pytest.approx(pose(seen(25, 10)).yaw)
    assert pose(moved).pitch == pytest.approx(pose(seen(25, 10)).pitch)


def test_the_template_is_frontal():
    assert abs(pose(ARCFACE).yaw) < 0.01
    assert 0.45 < pose(ARCFACE).pitch < 0.6


def test_a_face_that_is_a_point_has_no_pose():
    assert math.isnan(pose(np.ones((5, 2))).yaw)
