"""Networks from crops to features, by name: what is trained in the workshop and served here.

A network takes pixels from 0 to 255 and normalises them itself, so that nobody else has to know
how. Knows nothing about people, files or what the features are compared with.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from engine.errors import BundleError, ConfigurationError
from engine.vision.align import ARCFACE, ARCFACE_SIZE, Template

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_SCALE = (58.395, 57.12, 57.375)


class Network(nn.Module):
    """A network from aligned crops to features.

    Args:
        name: one of `names()`.
        body: takes normalised pixels.
        template: how its crops are aligned.
        dimension: length of a feature vector.
        mean, scale: of a pixel's channels: the body sees (pixel - mean) / scale.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        name: str,
        body: nn.Module,
        template: Template,
        dimension: int,
        mean: Sequence[float],
        scale: Sequence[float],
    ) -> None:
        super().__init__()
        self.name = name
        self.body = body
        self.template = template
        self.dimension = dimension
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, size_px, size_px) float RGB from 0 to 255 to (n, dimension) features."""
        features: Tensor = self.body((pixels - self.mean) / self.scale)
        return features

    def stages(self) -> list[list[nn.Parameter]]:
        """The parameters in groups, from the pixels to the features."""
        own = getattr(self.body, "stages", None)
        if own is not None:
            return [list(stage) for stage in own()]
        groups = [list(child.parameters()) for child in _flat_children(self.body)]
        return [group for group in groups if group]

    def architecture(self) -> dict[str, Any]:
        """What `restore` needs beside the tensors, as plain JSON values."""
        return {
            "network": self.name,
            "input_px": self.template.size_px,
            "dimension": self.dimension,
        }


def names() -> tuple[str, ...]:
    """Every network that can be built."""
    return (*_OWN, *_classifiers())


def build(name: str, input_px: int | None = None) -> Network:
    """A network with untrained weights.

    Args:
        name: "dlib-resnet29", "facenet-vggface2", or a classifier of `torchvision.models`
            ("mobilenet_v2", "resnet18", "efficientnet_b0", ...).
        input_px: side of its crops on the ArcFace template, for torchvision's, 112 when None; the
            first two have their own.

    Raises:
        ConfigurationError: there is no such network, or it cannot take crops of that size.
    """
    if name in _OWN:
        network = _OWN[name]()
        if input_px not in (None, network.template.size_px):
            raise ConfigurationError(
                f"{name} takes crops of {network.template.size_px} pixels, not {input_px}."
            )
        return network
    return _torchvision(name, ARCFACE_SIZE if input_px is None else input_px)


def restore(architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    """A trained network out of a bundle, ready to be used.

    Args:
        architecture: from `Network.architecture`; other keys are ignored.
        tensors: the network's state; names that do not start with "network." are ignored.

    Raises:
        BundleError: the two do not fit together.
    """
    try:
        network = build(str(architecture["network"]), int(architecture["input_px"]))
        network.load_state_dict(
            {
                name.removeprefix("network."): value
                for name, value in tensors.items()
                if name.startswith("network.")
            }
        )
    except (
        ConfigurationError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:
        first = str(error).splitlines()[0]
        raise BundleError(
            f"The bundle's network does not fit its description ({first}). Build the bundle again."
        ) from error
    return network.eval()


def state(network: Network) -> dict[str, Tensor]:
    """A network's tensors as a bundle keeps them."""
    return {f"network.{name}": value for name, value in network.state_dict().items()}


@torch.inference_mode()
def features(network: Network, crops: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(n, dimension) unit features of aligned faces: the mean of the crop's and its mirror's.

    Args:
        network: in evaluation mode, on `device`.
        crops: (n, size_px, size_px, 3) RGB.
        device: where it computes.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2).float()
    if not len(crops):
        return pixels.new_zeros(0, network.dimension)
    made = network(torch.cat([pixels, pixels.flip(3)]))
    return normalize(made[: len(crops)] + made[len(crops) :], dim=1)


def _dlib_resnet29() -> Network:
    from engine.vision.embed.dlib_resnet29 import MEAN, SCALE, SPECIFICATION, ResNet29

    return Network(
        "dlib-resnet29", ResNet29(), SPECIFICATION.template, 128, MEAN, (SCALE, SCALE, SCALE)
    )


def _facenet_vggface2() -> Network:
    from facenet_pytorch import InceptionResnetV1

    from engine.vision.embed.facenet_vggface2 import MEAN, SCALE, TEMPLATE

    body = InceptionResnetV1(classify=False)
    return Network("facenet-vggface2", body, TEMPLATE, 512, (MEAN,) * 3, (SCALE,) * 3)


_OWN = {"dlib-resnet29": _dlib_resnet29, "facenet-vggface2": _facenet_vggface2}


def _torchvision(name: str, input_px: int) -> Network:
    from torchvision.models import get_model

    if name not in _classifiers():
        raise ConfigurationError(
            f"There is no network '{name}'. Use dlib-resnet29, facenet-vggface2, or a classifier "
            "of torchvision such as mobilenet_v2, resnet18, resnet50 or efficientnet_b0."
        )
    body = get_model(name, weights=None)
    dimension = _behead(body)
    template = Template(input_px, ARCFACE * (input_px / ARCFACE_SIZE))
    network = Network(name, body, template, dimension, _IMAGENET_MEAN, _IMAGENET_SCALE)
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, input_px, input_px))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"{name} cannot take crops of {input_px} pixels.") from error
    return network


def _classifiers() -> list[str]:
    """Torchvision's classifiers of single pictures that end in one linear layer."""
    from torchvision import models

    several_outputs_or_none = {"googlenet", "inception_v3"}
    return [
        name
        for name in models.list_models(module=models)
        if name not in several_outputs_or_none and not name.startswith("squeezenet")
    ]


def _behead(body: nn.Module) -> int:
    """Replace the last linear layer, which tells ImageNet's classes apart, by nothing."""
    name, last = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, attribute = name.rpartition(".")
    setattr(body.get_submodule(parent), attribute, nn.Identity())
    return last.in_features


def _flat_children(module: nn.Module) -> list[nn.Module]:
    """The module's children, sequences opened up."""
    found: list[nn.Module] = []
    for child in module.children():
        found += _flat_children(child) if isinstance(child, nn.Sequential) else [child]
    return found
