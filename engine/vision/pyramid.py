"""All scales of a canvas on two sheets, so that a network sees two pictures instead of nine.

MTCNN's first network slides a 12-pixel window over the canvas at every scale. Most scales are so
small that calling the network costs more than computing; together on one sheet they cost little
more than the largest of them. Knows nothing about faces: where windows lie, not what is in them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

FACTOR = 0.709
"""Between scales; its square is about a half, as in MTCNN."""

MOST_LEVELS = 32
"""More than any canvas has: twenty would make a canvas of 12,000 pixels as small as a window."""

CELL_PX = 12
STRIDE_PX = 2
_GAP_PX = 2


@dataclass(frozen=True, slots=True)
class _Level:
    """One scale: its factor, its size, and where it lies on its sheet."""

    scale: float
    height: int
    width: int
    sheet: int
    top: int
    left: int

    @property
    def cells(self) -> tuple[slice, slice]:
        """Its windows among those of its sheet; the last may reach one pixel past its edge."""
        rows, columns = (-(-(side - 10) // STRIDE_PX) for side in (self.height, self.width))
        top, left = self.top // STRIDE_PX, self.left // STRIDE_PX
        return slice(top, top + rows), slice(left, left + columns)


class Pyramid:
    """The sheets of one canvas size.

    Args:
        width: of the canvas in pixels.
        height: of the canvas in pixels.
        smallest_px: side of the smallest object that a window shall fit.
        device: where the sheets are made.
    """

    def __init__(self, width: int, height: int, smallest_px: float, device: torch.device) -> None:
        self._levels = _place(width, height, CELL_PX / smallest_px)
        self._sizes = [_extent(self._levels, sheet) for sheet in (0, 1)]
        self._device = device
        self.scales = torch.tensor([level.scale for level in self._levels], device=device)
        self.origins = torch.tensor(
            [(level.left, level.top) for level in self._levels], device=device
        )
        # Which level a window of a sheet belongs to; -1 for those across an edge.
        self.level_of = [self._level_map(sheet) for sheet in (0, 1)]

    def sheets(self, stack: Tensor) -> list[Tensor]:
        """Draw canvases at all scales.

        Args:
            stack: (n, 3, height, width) bytes.

        Returns:
            Two tensors (n, 3, sheet height, sheet width), bytes on a CPU, where that kernel is the
            fastest, else float32; 0 to 255, and grey between the levels.
        """
        source = stack if stack.device.type == "cpu" else stack.float()
        sheets = [
            torch.full(
                (len(stack), 3, *size), 127, dtype=source.dtype, device=self._device
            ).contiguous(memory_format=torch.channels_last)
            for size in self._sizes
        ]
        for level in self._levels:
            small = interpolate(
                source, size=(level.height, level.width), mode="bilinear", antialias=True
            )
            bottom, right = level.top + level.height, level.left + level.width
            sheets[level.sheet][:, :, level.top : bottom, level.left : right] = small
        return sheets

    def _level_map(self, sheet: int) -> Tensor:
        height, width = self._sizes[sheet]
        # Of a network whose pooling rounds up; windows at the edges belong to no level.
        shape = [-(-(side - 2) // STRIDE_PX) - 4 for side in (height, width)]
        levels = torch.full(shape, -1, dtype=torch.int64)
        for i, level in enumerate(self._levels):
            if level.sheet == sheet:
                levels[level.cells] = i
        return levels.to(self._device)


def _place(width: int, height: int, scale: float) -> list[_Level]:
    """The largest scale on a sheet of its own, the others on the second.

    The second sheet has three columns: the second scale; the third, and below it the sixth and
    smaller ones side by side; the fourth, and below it the fifth.
    """
    sizes: list[tuple[float, int, int]] = []
    while min(width, height) * scale >= CELL_PX:
        sizes.append((scale, int(height * scale + 1), int(width * scale + 1)))
        scale *= FACTOR
    levels = []
    column = [0, 0, 0]
    for i, (own, level_height, level_width) in enumerate(sizes):
        if i <= 1:
            place = (0, 0)
            column[1] = _even(level_width)
        elif i == 2:
            place = (0, column[1])
            column[2] = column[1] + _even(level_width)
        elif i == 3:
            place = (0, column[2])
        elif i == 4:
            place = (_even(sizes[3][1]), column[2])
        else:
            beside = sum(_even(size[2]) for size in sizes[5:i])
            place = (_even(sizes[2][1]), column[1] + beside)
        levels.append(_Level(own, level_height, level_width, min(i, 1), *place))
    return levels


def _even(side: int) -> int:
    """Where the next level may begin: past a gap, on a window's place."""
    return -(-(side + _GAP_PX) // STRIDE_PX) * STRIDE_PX


def _extent(levels: list[_Level], sheet: int) -> tuple[int, int]:
    own = [level for level in levels if level.sheet == sheet]
    return (
        _even(max(level.top + level.height for level in own)),
        _even(max(level.left + level.width for level in own)),
    )
