import numpy as np
import pytest
import torch
from facenet_pytorch.models.mtcnn import PNet
from torch.nn.functional import interpolate

from engine.vision.detect import CANVASES, SMALL_CANVASES, SMALLEST_FACE_PX
from engine.vision.pyramid import CELL_PX, FACTOR, STRIDE_PX, Pyramid

CPU = torch.device("cpu")


def pyramid(canvas):
    width, height = canvas
    return Pyramid(width, height, SMALLEST_FACE_PX, CPU)


@pytest.mark.parametrize("canvas", CANVASES + SMALL_CANVASES)
def test_every_scale_is_there_once_and_none_lies_on_another(canvas):
    built = pyramid(canvas)
    white = torch.full((1, 3, canvas[1], canvas[0]), 255, dtype=torch.uint8)
    areas = [int((sheet[0, 0] == 255).sum()) for sheet in built.sheets(white)]
    scale, expected = CELL_PX / SMALLEST_FACE_PX, []
    while min(canvas) * scale >= CELL_PX:
        expected.append(int(canvas[1] * scale + 1) * int(canvas[0] * scale + 1))
        scale *= FACTOR
    assert len(built.scales) == len(expected)
    assert areas == [expected[0], sum(expected[1:])]


@pytest.mark.parametrize("canvas", [CANVASES[0], CANVASES[5], SMALL_CANVASES[2]])
def test_windows_are_those_of_each_scale_alone(canvas):
    """What the network says of a window does not depend on the sheet that it lies on."""
    built = pyramid(canvas)
    generator = np.random.default_rng(3)
    coarse = generator.integers(0, 256, (1, 3, canvas[1] // 8, canvas[0] // 8), np.uint8)
    stack = interpolate(torch.from_numpy(coarse), size=canvas[::-1], mode="bilinear")
    network = PNet().eval()
    outputs = {}
    with torch.inference_mode():
        for sheet, level_of in zip(built.sheets(stack), built.level_of, strict=True):
            _, probability = network((sheet.float() - 127.5) / 128)
            assert probability.shape[2:] == level_of.shape
            for level in level_of.unique()[1 if (level_of < 0).any() else 0 :].tolist():
                rows, columns = torch.nonzero(level_of == level, as_tuple=True)
                area = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                left, top = (built.origins[level] // STRIDE_PX).tolist()
                assert (int(columns.min()), int(rows.min())) == (left, top)
                outputs[level] = probability[0, 1][area]
        for level, scale in enumerate(built.scales.tolist()):
            size = int(canvas[1] * scale + 1), int(canvas[0] * scale + 1)
            alone = interpolate(stack, size=size, mode="bilinear", antialias=True)
            _, expected = network((alone.float() - 127.5) / 128)
            assert outputs[level].shape == expected.shape[2:]
            # All but the last row and column, whose pooling may reach into the gap.
            inner = np.s_[:-1, :-1]
            torch.testing.assert_close(
                outputs[level][inner], expected[0, 1][inner], atol=1e-5, rtol=0
            )
