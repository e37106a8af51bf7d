"""What bad light, a cheap camera and a slow link do to a face's picture.

The order is light's: from the scene, in linear light, through lamp and lens to the sensor, and
only then through the camera's gamma and its JPEG. Knows pictures; knows nothing about faces,
people or embedders. What comes out depends on the generator alone.
"""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import irfft2, rfft2

Picture = NDArray[np.uint8]
_Light = NDArray[np.float32]

_FULL_WELL = 20_000.0
"""Electrons of a white pixel in full light: a small sensor's."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a picture is taken.

    Attributes:
        light: of full light, the share that reaches the sensor (0 to 1).
        recovered: how much of the missing light the camera's gain makes up for: 0 leaves the
            picture dark, 1 makes it as bright as in full light, and the noise with it.
        read_noise: of the sensor's electronics, in electrons (standard deviation).
        motion: length of the face's way during the exposure, in sides of the crop.
        motion_angle: its direction, in radians.
        defocus: radius of the circle of confusion, in sides of the crop.
        cast: the lamp's red, green and blue against white's.
        jpeg_quality: 1 to 95; None leaves the picture uncompressed.
    """

    light: float = 1.0
    recovered: float = 1.0
    read_noise: float = 0.0
    motion: float = 0.0
    motion_angle: float = 0.0
    defocus: float = 0.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    jpeg_quality: int | None = None


def draw(strength: float, generator: np.random.Generator) -> Conditions:
    """Conditions at random.

    Args:
        strength: 0 is a good photo by day, 1 a night outdoors under a street lamp, taken with a
            cheap camera; in between, and somewhat above, accordingly.
        generator: where chance comes from.
    """
    stops = generator.uniform(2.0, 7.0)
    warm, tint = generator.uniform(-0.3, 1.0), generator.normal(0.0, 0.15)
    motion, angle = generator.exponential(0.03), generator.uniform(0.0, np.pi)
    defocus = generator.exponential(0.012)
    recovered, read_noise = generator.uniform(0.4, 0.95), generator.uniform(3.0, 12.0)
    worst = generator.uniform(12.0, 45.0)
    cast = np.exp(strength * np.array([0.45 * warm, tint, -0.8 * warm]))
    red, green, blue = (cast / cast.max()).tolist()
    return Conditions(
        light=float(2.0 ** (-strength * stops)),
        recovered=float(1.0 - strength * (1.0 - recovered)) if strength <= 1 else float(recovered),
        read_noise=float(strength * read_noise),
        motion=float(strength * min(motion, 0.1)),
        motion_angle=float(angle),
        defocus=float(strength * min(defocus, 0.04)),
        cast=(red, green, blue),
        jpeg_quality=round(float(np.clip(95.0 - strength * (95.0 - worst), 5.0, 95.0))),
    )


def expose(picture: Picture, conditions: Conditions, generator: np.random.Generator) -> Picture:
    """The same scene as it would have been taken under other conditions.

    Args:
        picture: (height, width, 3) sRGB.
        conditions: under which.
        generator: where the noise comes from.

    Returns:
        A picture of the same size.
    """
    scene = _to_light(picture) * np.array(conditions.cast, np.float32)
    side = max(picture.shape[:2])
    blurred = _blur(scene, conditions, side)
    electrons = blurred * np.float32(_FULL_WELL * conditions.light)
    # Shot noise is Poisson's; so many electrons make it a normal one.
    spread = np.sqrt(np.maximum(electrons, 0.0) + np.float32(conditions.read_noise**2))
    noisy = electrons + generator.standard_normal(electrons.shape, np.float32) * spread
    gain = conditions.light ** (1.0 - conditions.recovered) / (_FULL_WELL * conditions.light)
    developed = _from_light((noisy * np.float32(gain)).astype(np.float32))
    return _compress(developed, conditions.jpeg_quality)


def degrade(picture: Picture, strength: float, generator: np.random.Generator) -> Picture:
    """`expose` under conditions drawn with a strength; 0 gives the picture itself."""
    if strength == 0.0:
        return picture
    return expose(picture, draw(strength, generator), generator)


def _to_light(picture: Picture) -> _Light:
    light: _Light = _light_of()[picture]
    return light


def _from_light(light: _Light) -> Picture:
    # IEC 61966-2-1 (sRGB), inverse of `_light_of`.
    bounded = light.clip(0.0, 1.0)
    curved = 1.055 * np.power(bounded, 1 / 2.4) - 0.055
    signal = np.where(bounded <= 0.0031308, 12.92 * bounded, curved)
    return np.asarray((signal * 255.0 + 0.5).astype(np.uint8))


@cache
def _light_of() -> _Light:
    signal = np.arange(256) / 255.0
    light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return np.asarray(light, np.float32)


def _blur(scene: _Light, conditions: Conditions, side: int) -> _Light:
    length, radius = conditions.motion * side, conditions.defocus * side
    reach = int(np.ceil(length / 2 + radius)) + 1
    if length < 0.5 and radius < 0.5:
        return scene
    point = _point_spread(reach, length, conditions.motion_angle, radius)
    padded = np.pad(scene, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    shape = padded.shape[:2]
    kernel = np.zeros(shape, np.float32)
    kernel[: len(point), : len(point)] = point
    spectrum = rfft2(padded, axes=(0, 1)) * rfft2(kernel)[..., None]
    smooth = irfft2(spectrum, shape, axes=(0, 1))
    return np.asarray(smooth[2 * reach :, 2 * reach :], np.float32)


def _point_spread(reach: int, length: float, angle: float, radius: float) -> _Light:
    """(2 reach + 1, 2 reach + 1) where one point's light goes: a disc drawn along a line."""
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = x * np.cos(angle) + y * np.sin(angle)
    beyond = np.maximum(np.abs(along) - length / 2, 0.0)
    across = -x * np.sin(angle) + y * np.cos(angle)
    # A pixel at the edge counts by how far in it lies.
    inside = np.clip(max(radius, 0.5) + 0.5 - np.hypot(beyond, across), 0.0, 1.0)
    return np.asarray(inside / inside.sum(), np.float32)


def _compress(picture: Picture, quality: int | None) -> Picture:
    if quality is None:
        return picture
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))
