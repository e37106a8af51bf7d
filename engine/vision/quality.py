"""How usable a face is: its size, blur, exposure and shadow.

Knows nothing about thresholds: who needs a good face says how good.
"""

import numpy as np
from numpy.typing import NDArray

from engine.types import Box, Quality

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_FILTER_PX = 9


def quality(box: Box, crop: NDArray[np.uint8]) -> Quality:
    """Measure a face.

    Args:
        box: in pixels of the original photo.
        crop: (height, width, 3) RGB, the aligned face, at least 16 pixels a side.
    """
    luminance = crop.astype(np.float32) @ _LUMA / 255.0
    size = min(box[2] - box[0], box[3] - box[1])
    return Quality(
        size_px=float(size),
        blur=max(_blur(luminance), _blur(luminance.T)),
        exposure=float(luminance.mean()),
        shadow=_shadow(luminance),
    )


def _shadow(luminance: NDArray[np.float32]) -> float:
    """How much darker the darker half is, as a share of the brighter one."""
    middle = luminance.shape[1] // 2
    halves = float(luminance[:, :middle].mean()), float(luminance[:, -middle:].mean())
    brighter = max(halves)
    return 0.0 if brighter == 0.0 else 1.0 - min(halves) / brighter


def _blur(luminance: NDArray[np.float32]) -> float:
    """The blur annoyance of Crete et al. (2007) along columns: 0 is sharp, 1 is flat.

    Blurring a sharp picture once more takes most of its neighbours' differences away; blurring a
    blurred one takes hardly any.
    """
    sums = np.cumsum(np.pad(luminance, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    half = _FILTER_PX // 2
    blurred = (sums[_FILTER_PX:] - sums[:-_FILTER_PX]) / _FILTER_PX
    variation = np.abs(np.diff(luminance[half:-half], axis=0))
    lost = np.maximum(0.0, variation - np.abs(np.diff(blurred, axis=0)))
    total = float(variation.sum())
    return 1.0 if total == 0.0 else float((total - lost.sum()) / total)
