"""Degraded pictures: what light, sensor, lens and compression do, each by itself."""

import numpy as np
import pytest

from training.fit.degrade import Conditions, degrade, draw, expose

GREY = np.full((64, 64, 3), 120, np.uint8)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def edge():
    picture = np.full((96, 96, 3), 30, np.uint8)
    picture[:, 48:] = 220
    return picture


def test_the_generator_alone_decides(edge):
    assert np.array_equal(degrade(edge, 1.0, generator()), degrade(edge, 1.0, generator()))
    assert not np.array_equal(degrade(edge, 1.0, generator()), degrade(edge, 1.0, generator(1)))


def test_no_strength_changes_nothing(edge):
    assert np.array_equal(degrade(edge, 0.0, generator()), edge)


def test_full_light_leaves_a_picture_as_good_as_it_was(edge):
    assert np.abs(expose(edge, Conditions(), generator()).astype(int) - edge).max() <= 6


def test_a_stop_less_is_half_the_light_not_half_the_signal():
    half = expose(GREY, Conditions(light=0.5, recovered=0.0), generator()).mean()
    # sRGB 120 is 18.8 % of white's light; half of that is sRGB 86.4, not 60.
    assert abs(half - 86.4) < 0.5


def test_gain_brings_brightness_back_and_noise_with_it():
    dark = Conditions(light=1 / 64, recovered=1.0, read_noise=5.0)
    taken = expose(GREY, dark, generator())
    assert abs(taken.mean() - 120) < 4
    assert taken.std() > 4 * expose(GREY, Conditions(read_noise=5.0), generator()).std()


def test_shot_noise_grows_with_the_root_of_the_light():
    def spread(signal):
        flat = np.full((128, 128, 3), signal, np.uint8)
        seen = expose(flat, Conditions(light=1 / 50), generator()).astype(float) / 255
        light = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
        return light.std(), light.mean()

    (low, dim), (high, bright) = spread(100), spread(200)
    assert high / low == pytest.approx((bright / dim) ** 0.5, rel=0.1)


@pytest.mark.parametrize("conditions", [Conditions(defocus=0.03), Conditions(motion=0.08)])
def test_blur_spreads_an_edge_and_keeps_the_light(edge, conditions):
    blurred = expose(edge, conditions, generator())
    steepest = np.abs(np.diff(blurred[20, :, 0].astype(int))).max()
    assert steepest < 100
    assert np.allclose(blurred[:, :30].mean(), 30, atol=1)
    assert np.allclose(blurred[:, 66:].mean(), 220, atol=1)


def test_motion_along_an_edge_leaves_it_sharp(edge):
    along = expose(edge, Conditions(motion=0.08, motion_angle=np.pi / 2), generator())
    assert np.abs(np.diff(along[20, :, 0].astype(int))).max() > 100


def test_a_lamp_tints():
    red, green, blue = expose(GREY, Conditions(cast=(1.0, 0.7, 0.3)), generator()).mean((0, 1))
    assert red > green > blue


def test_compression_adds_blocks():
    noise = generator().integers(0, 256, (64, 64, 3), np.uint8)
    squeezed = expose(noise, Conditions(jpeg_quality=10), generator())
    assert np.abs(squeezed.astype(int) - noise).mean() > 20


@pytest.mark.parametrize("size", [(112, 112), (150, 150), (80, 120)])
def test_more_strength_is_worse_and_the_size_stays(size):
    rough = generator(3).integers(0, 256, (8, 8, 3)).repeat(size[0] // 8, 0)
    picture = rough.repeat(size[1] // 8, 1).astype(np.uint8)
    far = []
    for strength in (0.2, 0.6, 1.0):
        made = [degrade(picture, strength, generator(k)) for k in range(12)]
        assert all(one.shape == picture.shape and one.dtype == np.uint8 for one in made)
        far.append(np.mean([np.abs(one.astype(int) - picture).mean() for one in made]))
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize("strength", [0.1, 1.0, 1.5])
def test_conditions_stay_within_their_ranges(strength):
    for k in range(50):
        found = draw(strength, generator(k))
        assert 0 < found.light <= 1
        assert 0 <= found.recovered <= 1
        assert max(found.cast) == pytest.approx(1.0)
        assert min(found.cast) > 0
        assert 5 <= found.jpeg_quality <= 95
