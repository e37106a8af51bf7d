import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.vision.align import ARCFACE, ARCFACE_SIZE, crop, similarity_transform


@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.05, 20),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_recovers_any_similarity(angle, scale, x, y):
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = ARCFACE @ rotation.T + (x, y)
    found = similarity_transform(ARCFACE, target)
    np.testing.assert_allclose(found[:, :2], rotation, atol=1e-6 * scale)
    np.testing.assert_allclose(found[:, 2], (x, y), atol=1e-4)


def test_never_mirrors():
    mirrored = ARCFACE * (-1, 1)
    found = similarity_transform(ARCFACE, mirrored)
    assert np.linalg.det(found[:, :2]) > 0


def test_points_that_coincide_determine_nothing():
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.zeros((5, 2)), ARCFACE)


def dotted(landmarks, size, spread):
    """A black picture with a soft white dot on every landmark."""
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    picture = np.zeros((size, size))
    for x, y in landmarks:
        picture += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    return Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5, 5.0])
@pytest.mark.parametrize("angle", [0.0, 0.6, -2.0])
def test_landmarks_land_on_the_reference(scale, angle):
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (ARCFACE - 56) @ rotation.T + 400
    cut = crop(dotted(landmarks, 800, 2 * scale), landmarks, ARCFACE, ARCFACE_SIZE)
    assert cut.shape == (112, 112, 3)
    for x, y in ARCFACE:
        window = np.s_[int(y) - 7 : int(y) + 8, int(x) - 7 : int(x) + 8]
        rows, columns = np.mgrid[window] + 0.5
        light = cut[window][..., 0].astype(float)
        centre = (light * columns).sum() / light.sum(), (light * rows).sum() / light.sum()
        np.testing.assert_allclose(centre, (x, y), atol=0.2)


def test_shrinking_is_anti_aliased():
    """One-pixel stripes must turn grey, not into a moire of black and white."""
    stripes = np.zeros((1120, 1120, 3), np.uint8)
    stripes[:, ::2] = 255
    cut = crop(Image.fromarray(stripes), ARCFACE * 10, ARCFACE, ARCFACE_SIZE)
    inside = cut[4:-4, 4:-4]
    assert abs(inside.astype(float) - 127.5).max() < 16


def test_outside_the_photo_is_black_and_far_away_too():
    white = Image.new("RGB", (112, 112), "white")
    assert crop(white, ARCFACE + 56, ARCFACE, 112)[:50, :50].min() == 255
    assert crop(white, ARCFACE + 56, ARCFACE, 112)[-50:, -50:].max() == 0
    assert crop(white, ARCFACE * 3 + 5000, ARCFACE, 112).max() == 0
