"""Landmarks to an upright crop: pure geometry, no networks.

Knows nothing about who detected the landmarks or which embedder will read the crop: the reference
points come in as an argument. Needs numpy and Pillow only, so that the bot can draw faces with it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

ARCFACE_SIZE = 112
ARCFACE = np.array(
    [(38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)], np.float64
)
"""(5, 2) landmarks of the 112x112 template that aligned face datasets use (InsightFace's)."""


@dataclass(frozen=True)
class Template:
    """Where a face lies in a square crop.

    Attributes:
        size_px: side of the crop.
        landmarks: (5, 2) in the crop's pixels, in the order of `engine.types.Landmarks`.
    """

    size_px: int
    landmarks: NDArray[np.float64]


ARCFACE_TEMPLATE = Template(ARCFACE_SIZE, ARCFACE)
"""The 112x112 template as a whole."""


def similarity_transform(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Least-squares rotation, uniform scale and shift that carry source points to target points.

    The closed form of Umeyama (1991) without reflection, which in the plane is one complex
    division.

    Args:
        source: (n, 2) points, n >= 2, not all the same.
        target: (n, 2) points.

    Returns:
        (2, 3) matrix M such that target is about M @ (x, y, 1).

    Raises:
        ValueError: all source points coincide.
    """
    s = np.asarray(source, np.float64) @ np.array([1, 1j])
    t = np.asarray(target, np.float64) @ np.array([1, 1j])
    s_mean, t_mean = s.mean(), t.mean()
    spread = float(np.sum(np.abs(s - s_mean) ** 2))
    if spread == 0.0:
        raise ValueError("landmarks coincide: no transform is determined by one point")
    a = np.sum(np.conj(s - s_mean) * (t - t_mean)) / spread
    b = t_mean - a * s_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def cut(image: Image.Image, landmarks: ArrayLike, template: Template) -> NDArray[np.uint8]:
    """Cut a face out on a template; see `crop`."""
    return crop(image, landmarks, template.landmarks, template.size_px)


def crop(
    image: Image.Image, landmarks: ArrayLike, reference: ArrayLike, size: int
) -> NDArray[np.uint8]:
    """Cut a face out so that its landmarks fall on the reference points.

    Shrinking is anti-aliased: the face's surroundings are first resized to the crop's scale with
    an area-aware filter, then only rotated. What lies outside the photo is black.

    Args:
        image: an RGB picture.
        landmarks: (5, 2) points in the picture's pixels.
        reference: (5, 2) points in the crop's pixels.
        size: side of the square crop in pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ValueError: the landmarks coincide.
    """
    forward = similarity_transform(landmarks, reference)
    scale = math.hypot(forward[0, 0], forward[1, 0])
    offset = np.zeros(2)
    if scale < 1.0:
        # The part of the photo that the crop can reach, resized to the crop's own scale.
        corners = np.array([(0, 0), (size, 0), (0, size), (size, size)], np.float64)
        reach = _apply(_invert(forward), corners)
        margin = 2.0 / scale
        left, top = np.floor(np.maximum(reach.min(axis=0) - margin, 0.0)).astype(int)
        right, bottom = np.ceil(
            np.minimum(reach.max(axis=0) + margin, (image.width, image.height))
        ).astype(int)
        if right <= left or bottom <= top:
            return np.zeros((size, size, 3), np.uint8)
        width = max(1, round((right - left) * scale))
        height = max(1, round((bottom - top) * scale))
        image = image.resize(
            (width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
        )
        zoom = np.array([width / (right - left), height / (bottom - top)])
        offset = np.array([left, top], np.float64)
        moved = (np.asarray(landmarks, np.float64) - offset) * zoom
        forward = similarity_transform(moved, reference)
    inverse = _invert(forward)
    cut = image.transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(inverse.ravel()),
        resample=Image.Resampling.BICUBIC if scale > 1.0 else Image.Resampling.BILINEAR,
    )
    return np.array(cut)


def _invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -(linear @ matrix[:, 2])[:, None]])


def _apply(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ matrix[:, :2].T + matrix[:, 2]
