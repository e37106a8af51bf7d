"""Face crops to embeddings: the registry of embedders, and what all of them promise.

Knows nothing about photos, detection or people. Vectors of different embedders never meet: an
embedder's id is stored with every vector.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import ConfigurationError
from engine.vision.align import Template

DEFAULT = "dlib-resnet29"

# Each size makes the backend build kernels and keep them, so that there must not be many; larger
# batches than these fall out of a CPU's caches.
_BATCH = 16


@dataclass(frozen=True)
class Specification:
    """What an embedder expects and gives.

    Attributes:
        id: its name in bundles and stored vectors.
        input_px: side of its square RGB crops.
        reference: (5, 2) landmarks in the crop's pixels, see `engine.vision.align`.
        dimension: length of its vectors.
        weights_sha256: of the weights file.
        licence: of the weights.
    """

    id: str
    input_px: int
    reference: NDArray[np.float64]
    dimension: int
    weights_sha256: str
    licence: str

    @property
    def template(self) -> Template:
        """Where a face lies in its crops."""
        return Template(self.input_px, self.reference)


class Embedder(Protocol):
    """A network that turns aligned faces into vectors whose cosine tells how alike they are."""

    @property
    def specification(self) -> Specification:
        """What it expects and gives."""
        ...

    def embed(self, crops: NDArray[np.uint8]) -> torch.Tensor:
        """Embed aligned faces.

        Args:
            crops: (n, input_px, input_px, 3) RGB, n >= 0.

        Returns:
            (n, dimension) float32 on the embedder's device, each row of unit length.
        """
        ...


def _dlib_resnet29(device: torch.device, weights_folder: Path) -> Embedder:
    del weights_folder  # its weights come with a package
    from engine.vision.embed.dlib_resnet29 import DlibResNet29

    return DlibResNet29(device)


def _facenet_vggface2(device: torch.device, weights_folder: Path) -> Embedder:
    from engine.vision.embed.facenet_vggface2 import FacenetVggface2

    return FacenetVggface2(device, weights_folder)


def _mobilefacenet(device: torch.device, weights_folder: Path) -> Embedder:
    from engine.vision.embed.mobilefacenet import MobileFaceNet

    return MobileFaceNet(device, weights_folder)


_REGISTRY: dict[str, Callable[[torch.device, Path], Embedder]] = {
    "dlib-resnet29": _dlib_resnet29,
    "facenet-vggface2": _facenet_vggface2,
    "mobilefacenet": _mobilefacenet,
}
EMBEDDERS = tuple(_REGISTRY)


def _onnx(file: str, device: torch.device, weights_folder: Path) -> Embedder:
    from engine.vision.embed.onnx import OnnxEmbedder

    return OnnxEmbedder(file, device, weights_folder)


def _trained(name: str, device: torch.device, weights_folder: Path) -> Embedder:
    from engine.vision.embed import trained

    return trained.load(name, lambda base: load(base, device, weights_folder), device)


_FAMILIES: dict[str, Callable[[str, torch.device, Path], Embedder]] = {
    "onnx:": _onnx,
    "trained:": _trained,
}
"""Embedders that an operator brings: the id goes on after the prefix with which one."""


def is_known(embedder_id: str) -> bool:
    """Whether an id is one that `load` can build, if what it names is there."""
    return embedder_id in _REGISTRY or embedder_id.startswith(tuple(_FAMILIES))


def load(embedder_id: str, device: torch.device, weights_folder: Path) -> Embedder:
    """Build an embedder by its id.

    Args:
        embedder_id: one of `EMBEDDERS`, "onnx:FILE" or "trained:BUNDLE".
        device: where it computes.
        weights_folder: where downloaded weights are looked for, and put.

    Raises:
        ConfigurationError: there is no such embedder.
        WeightsError: its weights are missing and cannot be fetched, or are not the right file.
    """
    if embedder_id in _REGISTRY:
        return _REGISTRY[embedder_id](device, weights_folder)
    for prefix, family in _FAMILIES.items():
        if embedder_id.startswith(prefix):
            return family(embedder_id.removeprefix(prefix), device, weights_folder)
    raise ConfigurationError(
        f"There is no embedder '{embedder_id}' in this version of face-matcher; it has "
        f"{', '.join(EMBEDDERS)}, and whatever begins with {' or '.join(_FAMILIES)}."
    )


def embed_crops(embedder: Embedder, crops: NDArray[np.uint8]) -> torch.Tensor:
    """Embed any number of crops, a few at a time.

    Args:
        embedder: the network.
        crops: (n, input_px, input_px, 3) RGB.

    Returns:
        (n, dimension) unit vectors.
    """
    starts = range(0, max(1, len(crops)), _BATCH)
    return torch.cat([embedder.embed(crops[start : start + _BATCH]) for start in starts])
