"""Light changes that a face stays the same face under: for batches, on the device.

Mirror, a small turn, zoom and shift around the aligned position, light and colour, blur, a covered
patch. Knows nothing about whose faces they are; randomness comes in.
"""

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

_TURN_RAD = math.radians(8)
_ZOOM = 0.08
_SHIFT = 0.05
_BRIGHTNESS = 0.25
_CONTRAST = 0.25
_COLOUR = 0.15
_BLURRED_SHARE = 0.15
_COVERED_SHARE = 0.15
_COVERED_SIDE = 0.3


class _Draw(Protocol):
    def __call__(self, *shape: int, reach: float) -> Tensor: ...


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change each face of a batch a little, each in its own way.

    Args:
        pixels: (n, 3, s, s) float RGB from 0 to 255.
        generator: on the CPU, so that every device draws the same numbers.

    Returns:
        As many pixels, from 0 to 255.
    """
    n = len(pixels)

    def draw(*shape: int, reach: float) -> Tensor:
        values = (torch.rand(n, *shape, generator=generator) * 2 - 1) * reach
        return values.to(pixels.device)

    mirror = torch.where(draw(reach=1.0) < 0, -1.0, 1.0)
    turn, zoom = draw(reach=_TURN_RAD), 1 + draw(reach=_ZOOM)
    matrix = torch.zeros(n, 2, 3, device=pixels.device)
    matrix[:, 0, 0] = mirror * zoom * turn.cos()
    matrix[:, 0, 1] = -zoom * turn.sin()
    matrix[:, 1, 0] = mirror * zoom * turn.sin()
    matrix[:, 1, 1] = zoom * turn.cos()
    matrix[:, :, 2] = draw(2, reach=_SHIFT)
    shape = [n, pixels.shape[1], pixels.shape[2], pixels.shape[3]]
    with torch.autocast(pixels.device.type, enabled=False):  # half precision is a fifth of a pixel
        grid = affine_grid(matrix, shape, align_corners=False)
        moved = grid_sample(pixels, grid, align_corners=False)
    blurred = draw(1, 1, 1, reach=0.5) + 0.5 < _BLURRED_SHARE
    half = interpolate(moved, scale_factor=0.5, mode="area")
    coarse = interpolate(half, size=moved.shape[2:], mode="bilinear", align_corners=False)
    moved = torch.where(blurred, coarse, moved)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    lit = (moved - mean) * (1 + draw(1, 1, 1, reach=_CONTRAST)) + mean
    lit = lit * (1 + draw(1, 1, 1, reach=_BRIGHTNESS)) * (1 + draw(3, 1, 1, reach=_COLOUR))
    return _cover(lit, draw).clamp(0, 255)


def _cover(pixels: Tensor, draw: _Draw) -> Tensor:
    """Grey out a patch of some faces, as a hand or a cup would (DeVries and Taylor 2017)."""
    side = pixels.shape[-1]
    at = torch.arange(side, device=pixels.device)
    half = side * _COVERED_SIDE / 2
    centre = (draw(2, reach=0.5) + 0.5) * side
    rows = ((at - centre[:, :1]).abs() < half)[:, None, :, None]
    columns = ((at - centre[:, 1:]).abs() < half)[:, None, None, :]
    chosen = draw(1, 1, 1, reach=0.5) + 0.5 < _COVERED_SHARE
    return torch.where(rows & columns & chosen, 127.0, pixels)
