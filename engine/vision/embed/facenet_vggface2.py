"""facenet-pytorch's InceptionResnetV1, trained on VGGFace2.

An upgrade whose weights are a release file of facenet-pytorch, fetched on first use. Knows nothing
about detection; its crops come aligned.
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import WeightsError
from engine.vision import networks, weights
from engine.vision.align import Template
from engine.vision.embed import Specification
from engine.vision.networks import Network

WEIGHTS = weights.WeightsFile(
    name="20180402-114759-vggface2.pt",
    url="https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
    "20180402-114759-vggface2.pt",
    size_bytes=111_898_327,
    sha256="281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
    licence="MIT (weights trained on VGGFace2, CC BY-SA 4.0)",
)

_REFERENCE = np.array(
    [(48.7, 62.8), (116.1, 63.6), (81.5, 93.5), (51.6, 116.2), (112.3, 117.3)], np.float64
)
"""Medians of MTCNN's landmarks in the crops that facenet-pytorch itself cuts for this network (its
LFW example: 160 pixels, margin 14), over 142 frontal faces."""


TEMPLATE = Template(160, _REFERENCE)
MEAN, SCALE = 127.5, 128.0


class FacenetVggface2:
    """InceptionResnetV1 with the weights of its VGGFace2 release.

    Args:
        device: where it computes.
        folder: where the weights are looked for, and put when they are not there.
        file: the weights file.

    Raises:
        WeightsError: the weights are missing and cannot be fetched, or are not the right file.
    """

    def __init__(
        self, device: torch.device, folder: Path, file: weights.WeightsFile = WEIGHTS
    ) -> None:
        self.specification = Specification(
            id="facenet-vggface2",
            input_px=TEMPLATE.size_px,
            reference=TEMPLATE.landmarks,
            dimension=512,
            weights_sha256=file.sha256,
            licence=file.licence,
        )
        self._device = device
        network = trained_network(weights.fetch(file, folder))
        self._network = network.eval().to(device).to(memory_format=torch.channels_last)

    def embed(self, crops: NDArray[np.uint8]) -> Tensor:
        """See `Embedder`; a vector is the mean of the crop's and its mirror's."""
        return networks.features(self._network, crops, self._device)


def trained_network(path: Path) -> Network:
    """The network with the release file's weights.

    Raises:
        WeightsError: the file is damaged.
    """
    network = networks.build("facenet-vggface2")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{path} does not hold tensors. Delete it and start again to fetch it anew.",
            code="weights_corrupt",
        ) from error
    # The release file carries the classifier that the network was trained with.
    own = {name: value for name, value in state.items() if not name.startswith("logits.")}
    network.body.load_state_dict(own)
    return network
