"""A face cut out of its photo, upright and with room for hair and chin.

Knows nothing about cards. The cut serves the eye: nothing is computed from it.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from engine.types import Face
from engine.vision import align


def cut(photo: Image.Image, face: Face, shrunk: float, side_px: int, *, ground: str) -> Image.Image:
    """Cut a face out; past the photo's edge its colours run out softly.

    Args:
        photo: the upright photo, RGB.
        face: where it is, in pixels of the original.
        shrunk: the photo's size over the original's.
        side_px: side of the square cut.
        ground: colour of a cut that lies outside the photo altogether.

    Returns:
        A square RGB picture. Landmarks that all coincide have no direction: then it shows the
        face's box as it stands.
    """
    reference = _loosened(side_px)
    landmarks = np.asarray(face.landmarks, np.float64) * shrunk
    try:
        forward = align.similarity_transform(landmarks, reference)
        pixels = align.crop(photo, landmarks, reference, side_px)
    except (ValueError, np.linalg.LinAlgError):
        box = _square([edge * shrunk for edge in face.box], photo)
        return photo.resize((side_px, side_px), Image.Resampling.BICUBIC, box=box)
    inside = _inside(forward, photo.size, side_px)
    if inside.all():
        return Image.fromarray(pixels)
    return Image.fromarray(_extended(pixels, inside, ground))


def _loosened(side: int) -> NDArray[np.float64]:
    """The ArcFace template in a square of `side` pixels with room for hair and chin."""
    loose = 0.64
    points = (align.ARCFACE / align.ARCFACE_SIZE - 0.5) * loose + (0.5, 0.49)
    return np.asarray(points * side, np.float64)


def _inside(forward: NDArray[np.float64], size: tuple[int, int], side: int) -> NDArray[np.bool_]:
    """(side, side) mask of a crop's pixels that lie within the photo."""
    linear = np.linalg.inv(forward[:, :2])
    y, x = np.mgrid[0:side, 0:side] + 0.5
    u = linear[0, 0] * (x - forward[0, 2]) + linear[0, 1] * (y - forward[1, 2])
    v = linear[1, 0] * (x - forward[0, 2]) + linear[1, 1] * (y - forward[1, 2])
    # Half a pixel, or one of the crop where that is larger, is blended with black already.
    edge = max(1.0, float(np.hypot(linear[0, 0], linear[1, 0]))) * 1.5
    inside = (u >= edge) & (v >= edge) & (u <= size[0] - edge) & (v <= size[1] - edge)
    return np.asarray(inside)


def _extended(
    pixels: NDArray[np.uint8], inside: NDArray[np.bool_], ground: str
) -> NDArray[np.uint8]:
    """The crop with what lies outside the photo painted in the colours of its edge, run out.

    Push-pull interpolation (Gortler et al. 1996): averages of what is known, halved down to one
    pixel, then doubled up again, each level speaking where it knows and the coarser one elsewhere.
    """
    levels = 8
    small = Image.fromarray(np.where(inside[..., None], pixels, 0).astype(np.uint8))
    known = Image.fromarray(inside.astype(np.uint8) * 255)
    shape = (2**levels, 2**levels)
    colours = np.asarray(small.resize(shape, Image.Resampling.BOX), np.float32)
    shares = np.asarray(known.resize(shape, Image.Resampling.BOX), np.float32)
    weights: NDArray[np.float32] = shares[..., None] / np.float32(255)
    pyramid: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = [(colours, weights)]
    for _ in range(levels):
        colours, weights = _halved(colours), _halved(weights)
        # What is known of a part of a pixel is the best guess for the whole of it.
        surer = np.minimum(np.float32(1), weights * np.float32(4))
        colours = colours * (surer / np.maximum(weights, np.float32(1e-6)))
        weights = surer
        pyramid.append((colours, weights))
    filled: NDArray[np.float32] = np.full((1, 1, 3), ImageColor.getrgb(ground), np.float32)
    for colours, weights in reversed(pyramid):
        filled = filled if len(filled) == len(colours) else _doubled(filled)
        filled = colours + (np.float32(1) - weights) * filled
    grown = Image.fromarray(np.clip(filled, 0, 255).astype(np.uint8)).resize(
        pixels.shape[:2], Image.Resampling.BICUBIC
    )
    return np.where(inside[..., None], pixels, np.asarray(grown))


def _halved(field: NDArray[np.float32]) -> NDArray[np.float32]:
    return (field[::2, ::2] + field[1::2, ::2] + field[::2, 1::2] + field[1::2, 1::2]) * np.float32(
        0.25
    )


def _doubled(field: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in (0, 1):
        field = np.repeat(field, 2, axis)
        padded = np.concatenate([field.take([0], axis), field, field.take([-1], axis)], axis)
        length = field.shape[axis]
        before = padded.take(range(length), axis)
        after = padded.take(range(2, length + 2), axis)
        field = (before + 2 * field + after) * np.float32(0.25)
    return field


def _square(box: list[float], photo: Image.Image) -> tuple[float, float, float, float]:
    """A square round a box's middle, within the photo."""
    side = min(max(box[2] - box[0], box[3] - box[1], 1.0) * 1.3, *photo.size)
    x = min(max((box[0] + box[2] - side) / 2, 0.0), photo.width - side)
    y = min(max((box[1] + box[3] - side) / 2, 0.0), photo.height - side)
    return (x, y, x + side, y + side)
