"""Faces' crops as files and as small grey pictures. Knows pixels; knows nothing about whose."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def jpeg(crop: NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG of an (h, w, 3) RGB crop; the quality is Pillow's, 1 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def grey(crop: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """(side_px, side_px) the luma of a crop, each pixel the mean of what it covers."""
    size = (side_px, side_px)
    return np.asarray(Image.fromarray(crop).convert("L").resize(size, Image.Resampling.BOX))
