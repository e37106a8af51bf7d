import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from engine.vision.quality import quality

BOX = (10.0, 20.0, 110.0, 150.0)


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(data.astronaut()).crop((165, 45, 285, 165))


def test_blur_grows_with_blurring_and_stays_in_range(face):
    blurs = [
        quality(BOX, np.asarray(face.filter(ImageFilter.GaussianBlur(radius)))).blur
        for radius in (0, 1, 2, 4, 8)
    ]
    assert blurs == sorted(blurs)
    assert 0 <= blurs[0] < 0.5
    assert 0.7 < blurs[-1] <= 1


def test_a_flat_picture_is_nothing_but_blur():
    assert quality(BOX, np.full((112, 112, 3), 80, np.uint8)).blur == 1.0


def test_exposure_is_mean_luminance():
    white, black = np.full((20, 20, 3), 255, np.uint8), np.zeros((20, 20, 3), np.uint8)
    assert quality(BOX, white).exposure == pytest.approx(1, abs=1e-5)
    assert quality(BOX, black).exposure == 0


def test_size_is_the_shorter_side(face):
    assert quality(BOX, np.asarray(face)).size_px == 100


def test_shadow_is_how_much_darker_one_half_is(face):
    lit = np.asarray(face)
    shaded = lit.copy()
    shaded[:, lit.shape[1] // 2 :] //= 4
    mirrored = shaded[:, ::-1]
    assert quality(BOX, lit).shadow < 0.3 < 0.6 < quality(BOX, shaded).shadow < 0.9
    assert quality(BOX, mirrored).shadow == pytest.approx(quality(BOX, shaded).shadow)
    assert quality(BOX, np.zeros((20, 20, 3), np.uint8)).shadow == 0
