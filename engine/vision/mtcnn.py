"""The three networks of MTCNN (Zhang et al. 2016), and the operators of the cascade around them.

The weights are facenet-pytorch's and the operators torchvision's. Neither package is imported: both
import torchvision's models and, with them, torch's compiler, which takes longer than torch itself.
Their files are read where the packages are installed.
"""

import importlib.util
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn


class _Flattened(nn.Module):
    """(n, channels, height, width) to (n, width * height * channels): the order of the weights."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 2, 1).flatten(1)


class CascadeNetwork(nn.Module):
    """One of the three networks, ready to be used.

    Args:
        name: of its file of weights, "pnet", "rnet" or "onet".
        layers: by their names in the file, in order.
        heads: likewise; each takes what the last layer gives.
    """

    def __init__(
        self, name: str, layers: dict[str, nn.Module], heads: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(OrderedDict(layers))
        self.heads = nn.ModuleDict(heads)
        file = _installed("facenet_pytorch") / "data" / f"{name}.pt"
        stored = torch.load(file, map_location="cpu", weights_only=True)
        for part, members in ((self.layers, layers), (self.heads, heads)):
            own = {key: value for key, value in stored.items() if key.split(".")[0] in members}
            part.load_state_dict(own)
        self.eval()

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """What each head tells of (n, 3, height, width) float crops, from about -1 to 1, in order.

        The last head's two channels are the probabilities of no face and of a face.
        """
        features = self.layers(crops)
        *others, face = (head(features) for head in self.heads.values())
        return *others, face.softmax(dim=1)


def p_net() -> CascadeNetwork:
    """Windows of 12 px, at every second pixel: regression (n, 4, h, w) and probability."""
    return CascadeNetwork(
        "pnet",
        {
            "conv1": nn.Conv2d(3, 10, 3),
            "prelu1": nn.PReLU(10),
            "pool1": nn.MaxPool2d(2, 2, ceil_mode=True),
            "conv2": nn.Conv2d(10, 16, 3),
            "prelu2": nn.PReLU(16),
            "conv3": nn.Conv2d(16, 32, 3),
            "prelu3": nn.PReLU(32),
        },
        {"conv4_2": nn.Conv2d(32, 4, 1), "conv4_1": nn.Conv2d(32, 2, 1)},
    )


def r_net() -> CascadeNetwork:
    """Crops of 24 px: regression (n, 4) and probability."""
    return CascadeNetwork(
        "rnet",
        {
            "conv1": nn.Conv2d(3, 28, 3),
            "prelu1": nn.PReLU(28),
            "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
            "conv2": nn.Conv2d(28, 48, 3),
            "prelu2": nn.PReLU(48),
            "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
            "conv3": nn.Conv2d(48, 64, 2),
            "prelu3": nn.PReLU(64),
            "flattened": _Flattened(),
            "dense4": nn.Linear(576, 128),
            "prelu4": nn.PReLU(128),
        },
        {"dense5_2": nn.Linear(128, 4), "dense5_1": nn.Linear(128, 2)},
    )


def o_net() -> CascadeNetwork:
    """Crops of 48 px: regression (n, 4), points (n, 10) as 5 x and 5 y, and probability."""
    return CascadeNetwork(
        "onet",
        {
            "conv1": nn.Conv2d(3, 32, 3),
            "prelu1": nn.PReLU(32),
            "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
            "conv2": nn.Conv2d(32, 64, 3),
            "prelu2": nn.PReLU(64),
            "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
            "conv3": nn.Conv2d(64, 64, 3),
            "prelu3": nn.PReLU(64),
            "pool3": nn.MaxPool2d(2, 2, ceil_mode=True),
            "conv4": nn.Conv2d(64, 128, 2),
            "prelu4": nn.PReLU(128),
            "flattened": _Flattened(),
            "dense5": nn.Linear(1152, 256),
            "prelu5": nn.PReLU(256),
        },
        {
            "dense6_2": nn.Linear(256, 4),
            "dense6_3": nn.Linear(256, 10),
            "dense6_1": nn.Linear(256, 2),
        },
    )


def roi_align(pixels: Tensor, rois: Tensor, size_px: int) -> Tensor:
    """(m, channels, size_px, size_px) windows, four samples a pixel (He et al. 2017).

    Args:
        pixels: (n, channels, height, width) float.
        rois: (m, 5) index of the picture, and x1, y1, x2, y2 in its pixels.
        size_px: to which each window is resized.
    """
    crops: Tensor = torch.ops.torchvision.roi_align(pixels, rois, 1.0, size_px, size_px, 2, True)
    return crops


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, most_shared: float) -> Tensor:
    """Indices of the boxes that no more probable box of their group covers, strongest first.

    Args:
        boxes: (n, 4) x1, y1, x2, y2.
        scores: (n,)
        groups: (n,) int64.
        most_shared: a pair's intersection over union, from 0 to 1, up to which both stay.
    """
    order, counts = groups.argsort(stable=True), groups.bincount()
    ends = counts[counts > 0].cumsum(0)[:-1].tolist()
    parts = (each.tensor_split(ends) for each in (order, boxes[order], scores[order]))
    kept = [
        index[torch.ops.torchvision.nms(own, probable, most_shared)]
        for index, own, probable in zip(*parts, strict=True)
    ]
    together = torch.cat(kept)
    return together[scores[together].argsort(descending=True, stable=True)]


def _installed(package: str) -> Path:
    """The folder of an installed package, which is not imported.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(spec.submodule_search_locations[0])


def _load_operators() -> None:
    """Make torchvision's compiled operators known to torch, as importing torchvision does."""
    for library in _installed("torchvision").glob("_C*"):
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401


_load_operators()
