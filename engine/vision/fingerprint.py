"""The pattern of light and dark on a face, by which copies of one shot are told from other shots.

Taken of the aligned face: what is cropped, framed, turned, scaled or compressed around it changes
little. Knows nothing about who keeps fingerprints or how near is too near.
"""

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from engine.vision import align

SIDE_PX = 45
PATTERN_BYTES = SIDE_PX**2
PITCH_PX = 2
"""Between the places of a fingerprint, of which there are 16 in a row."""

_TEMPLATE_PX = 3.5
"""Of the ArcFace template in a pixel: the 16 x 16 places lie over all of it."""
_MIDDLE = (55.9, 62.0)
"""Of the ArcFace template; left and right of it everything is alike, so that mirrors fit."""
_SIGMAS_PX = (1.0, 2.0)
_FULL = 2.0
"""Times the median contrast: what has more counts as having so much."""
_LEAST = 0.1
"""Median contrast in levels of grey, under which there is no pattern."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def pattern(image: Image.Image, landmarks: ArrayLike) -> bytes:
    """A face's difference of Gaussians (Marr and Hildreth 1980), aligned by its landmarks.

    Args:
        image: mode "RGB".
        landmarks: (5, 2) in its pixels, not all the same.

    Returns:
        `SIDE_PX` rows of as many int8, -127 to 127: brighter than around it where positive.
    """
    crop = align.cut(image, landmarks, _template()).astype(np.float32) @ _LUMA
    fine, coarse = (blur @ crop @ blur.T for blur in map(_blur, _SIGMAS_PX))
    band = fine - coarse
    full = _FULL * max(_LEAST, float(np.median(np.abs(band))))
    levels: NDArray[np.int8] = np.rint(np.clip(band / full, -1.0, 1.0) * 127).astype(np.int8)
    return levels.tobytes()


@functools.cache
def _template() -> align.Template:
    mirror = align.ARCFACE[[1, 0, 2, 4, 3]] * (-1, 1) + (2 * _MIDDLE[0], 0)
    points = ((align.ARCFACE + mirror) / 2 - _MIDDLE) / _TEMPLATE_PX + SIDE_PX / 2
    return align.Template(SIDE_PX, points)


@functools.cache
def _blur(sigma_px: float) -> NDArray[np.float32]:
    """(SIDE_PX, SIDE_PX) matrix that blurs along one axis; at the edges what is there counts."""
    apart = np.subtract.outer(np.arange(SIDE_PX), np.arange(SIDE_PX))
    weights = np.exp(-((apart / sigma_px) ** 2) / 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
