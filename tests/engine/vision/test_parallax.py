"""Turns of a head are told by depth; whatever a flat picture does is none."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import data

from engine.types import Face, Pose, Quality
from engine.vision.parallax import LAG, Parallax

POINTS = np.array([(203.7, 100.6), (246.9, 103.4), (224.8, 128.9), (202, 139.3), (245, 141.3)])
"""Of the astronaut's face, as the engine finds them."""
EYES, EYE_DISTANCE_PX = POINTS[:2].mean(axis=0), 43.3
PHOTO = data.astronaut().astype(np.float64)
SIZE_PX = PHOTO.shape[1], PHOTO.shape[0]


def face(points: NDArray[np.float64] = POINTS) -> Face:
    a, b, c, d, e = ((float(x), float(y)) for x, y in points)
    box = (180.0, 70.0, 270.0, 170.0)
    return Face(box, (a, b, c, d, e), 0.999, Quality(90, 0.3, 0.5), Pose(0.0, 0.56))


def moved(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """The photo after (2, 2) x and y were multiplied around the face."""
    back = np.linalg.inv(linear)[::-1, ::-1]
    middle = EYES[::-1]
    return np.stack(
        [
            ndimage.affine_transform(PHOTO[:, :, k], back, middle - back @ middle, order=3)
            for k in range(3)
        ],
        axis=2,
    )


def turned(yaw_deg: float, pitch_deg: float) -> NDArray[np.float64]:
    """The photo as if it were round with a nose of half an eye distance, seen from elsewhere."""
    rows, columns = np.mgrid[: SIZE_PX[1], : SIZE_PX[0]].astype(np.float64)
    x, y = (columns - EYES[0]) / EYE_DISTANCE_PX, (rows - EYES[1]) / EYE_DISTANCE_PX
    nose = 0.5 * np.exp(-(((y - 0.57) / 0.3) ** 2) - (x / 0.35) ** 2)
    depth_px = EYE_DISTANCE_PX * (nose - 0.4 * np.clip(x, -1.5, 1.5) ** 2)
    places = [rows - math.radians(pitch_deg) * depth_px, columns - math.radians(yaw_deg) * depth_px]
    return np.stack([ndimage.map_coordinates(PHOTO[:, :, k], places) for k in range(3)], axis=2)


def grained(picture: NDArray[np.float64], deviation: float, seed: int = 1) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, deviation, picture.shape)
    return Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))


def degrees(
    after: NDArray[np.float64], of: Face | None = None, grain: float = 0.0
) -> tuple[float, float] | None:
    """What is told of the photo and then another picture."""
    parallax = Parallax()
    for seed in range(LAG):
        assert parallax.see(grained(PHOTO, grain, seed), SIZE_PX, face()) is None
    return parallax.see(grained(after, grain, LAG), SIZE_PX, of or face())


def rolled(roll_deg: float, scale: float) -> NDArray[np.float64]:
    c, s = math.cos(math.radians(roll_deg)), math.sin(math.radians(roll_deg))
    return scale * np.array([(c, -s), (s, c)])


@pytest.mark.parametrize("grain", [0.0, 4.0])
@pytest.mark.parametrize(
    "linear",
    [
        np.eye(2),
        rolled(3, 1.05),
        rolled(-6, 0.95),
        np.array([(math.cos(math.radians(15)), 0), (0, 1)]),  # a print, turned by 15 degrees
        np.array([(1, 0.05), (0, 1)]),
    ],
)
def test_a_flat_picture_never_turns(linear: NDArray[np.float64], grain: float) -> None:
    found = (POINTS - EYES) @ linear.T + EYES
    # Landmarks are never exact.
    found += np.array([(0.8, -0.5), (-0.4, 0.6), (0.5, 0.5), (-0.6, 0.2), (0.3, -0.7)])
    told = degrees(moved(linear), face(found), grain)
    assert told is not None
    assert max(told) < 0.4


@pytest.mark.parametrize("grain", [0.0, 4.0])
@pytest.mark.parametrize(("yaw_deg", "pitch_deg"), [(1.5, 0.0), (-3.0, 0.0), (0.0, 2.0), (2, -2)])
def test_a_head_that_turns_is_told_by_about_how_much(
    yaw_deg: float, pitch_deg: float, grain: float
) -> None:
    told = degrees(turned(yaw_deg, pitch_deg), grain=grain)
    assert told == pytest.approx((abs(yaw_deg), abs(pitch_deg)), rel=0.35, abs=0.4)


def test_nothing_is_told_where_the_face_was_not_seen_or_shows_nothing() -> None:
    parallax, photo = Parallax(), Image.fromarray(data.astronaut())
    seen = [face(), None, face(), face(), face(), face(), None]
    told = [parallax.see(photo, SIZE_PX, one) for one in seen]
    assert [one is None for one in told] == [True, True, True, False, True, False, True]
    grey = Image.new("RGB", SIZE_PX, "grey")
    assert parallax.see(grey, SIZE_PX, face()) is None
    coinciding = replace(face(), landmarks=((1.0, 1.0),) * 5)
    assert parallax.see(photo, SIZE_PX, coinciding) is None


def test_landmarks_are_in_pixels_of_the_original() -> None:
    parallax, photo = Parallax(), Image.fromarray(data.astronaut())
    large = SIZE_PX[0] * 2, SIZE_PX[1] * 2
    of = face(POINTS * 2)
    told = [parallax.see(photo, large, of) for _ in range(LAG + 1)]
    assert told[-1] == pytest.approx((0.0, 0.0), abs=1e-6)
