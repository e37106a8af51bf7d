"""`trained:NAME`: an embedder that was trained in the workshop, out of a vectorizer bundle.

Either a whole network, or an adapter on top of another embedder, which is loaded below it and must
be the very one that the adapter was trained on. Knows nothing about how they were trained.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import bundle
from engine.bundle import Bundle
from engine.errors import BundleError
from engine.vision import adapter, networks
from engine.vision.embed import Embedder, Specification

PREFIX = "trained:"


class TrainedNetwork:
    """A vectorizer that carries a network of its own.

    Args:
        trained: the bundle.
        name: what it is called by after "trained:".
        device: where it computes.

    Raises:
        BundleError: its tensors do not fit its description.
    """

    def __init__(self, trained: Bundle, name: str, device: torch.device) -> None:
        network = networks.restore(trained.manifest.architecture, trained.tensors)
        self.specification = Specification(
            id=PREFIX + name,
            input_px=network.template.size_px,
            reference=network.template.landmarks,
            dimension=network.dimension,
            weights_sha256=trained.manifest.pth_sha256,
            licence=_licence(trained),
        )
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._device = device

    def embed(self, crops: NDArray[np.uint8]) -> Tensor:
        """See `Embedder`; a vector is the mean of the crop's and its mirror's."""
        return networks.features(self._network, crops, self._device)


class TrainedAdapter:
    """A vectorizer that adapts another embedder's vectors.

    Args:
        trained: the bundle.
        name: what it is called by after "trained:".
        base: the embedder below.
        device: where it computes.

    Raises:
        BundleError: the base is another one than it was trained on, or its tensors do not fit its
            description.
    """

    def __init__(self, trained: Bundle, name: str, base: Embedder, device: torch.device) -> None:
        form = base.specification
        _require_same(trained, form.id, form.weights_sha256)
        self._adapter = adapter.restore(trained.manifest.architecture, trained.tensors).to(device)
        if self._adapter.dimension != form.dimension:
            raise BundleError(
                f"{trained.name} adapts vectors of {self._adapter.dimension} numbers; those of "
                f"{form.id} have {form.dimension}. Train it again."
            )
        self.specification = Specification(
            id=PREFIX + name,
            input_px=form.input_px,
            reference=form.reference,
            dimension=form.dimension,
            weights_sha256=trained.manifest.pth_sha256,
            licence=_licence(trained),
        )
        self._base = base

    @torch.inference_mode()
    def embed(self, crops: NDArray[np.uint8]) -> Tensor:
        """See `engine.vision.embed.Embedder`."""
        vectors: Tensor = self._adapter(self._base.embed(crops))
        return vectors


def load(name: str, below: Callable[[str], Embedder], device: torch.device) -> Embedder:
    """Build the embedder of a vectorizer bundle.

    Args:
        name: of a bundle in run/models, or a path.
        below: loads the embedder that an adapter sits on.
        device: where it computes.

    Raises:
        BundleError: the bundle is missing or damaged, is no vectorizer, or was trained on another
            embedder than the one here.
    """
    try:
        trained = bundle.load(name)
    except BundleError as error:
        if error.code != "bundle_missing":
            raise
        raise BundleError(
            f"The embedder {PREFIX}{name} is not here: there is no bundle {bundle.locate(name)}. "
            "Put its .pth and .json back, or train one: `python -m training vectorizer DIR --out "
            "run/models/NAME`, and build again what was made with it.",
            code=error.code,
        ) from error
    if trained.manifest.kind != "vectorizer":
        raise BundleError(
            f"{trained.name} is a {trained.manifest.kind}: it tells people apart and makes no "
            "vectors. Name a vectorizer after 'trained:', or train one: `python -m training "
            "vectorizer DIR --out run/models/NAME`.",
            code="bundle_mismatch",
        )
    if "adapter" not in trained.manifest.architecture:
        return TrainedNetwork(trained, name, device)
    base = trained.manifest.embedder
    if base is None:
        raise BundleError(
            f"{trained.name} adapts an embedder but does not say which. Train it again."
        )
    _require_end(trained)
    return TrainedAdapter(trained, name, below(base.id), device)


def _require_same(trained: Bundle, embedder_id: str, weights_sha256: str) -> None:
    base = trained.manifest.embedder
    if not trained.made_with(embedder_id, weights_sha256):
        assert base is not None
        raise BundleError(
            f"{trained.name} was trained on top of {base.id} with the weights "
            f"{base.weights_sha256[:8]}; here that embedder has {weights_sha256[:8]}, and its "
            "vectors mean something else. Put the old weights back, or train it again.",
            code="bundle_mismatch",
        )


def _require_end(trained: Bundle) -> None:
    """Raise BundleError where adapters sit on each other in a circle."""
    seen = {trained.manifest.pth_sha256}
    base = trained.manifest.embedder
    while base is not None and base.id.startswith(PREFIX):
        lower = bundle.load(base.id.removeprefix(PREFIX))
        if lower.manifest.pth_sha256 in seen:
            raise BundleError(
                f"{trained.name} sits on {base.id}, which sits on it in turn. Train it again."
            )
        seen.add(lower.manifest.pth_sha256)
        base = lower.manifest.embedder if "adapter" in lower.manifest.architecture else None


def _licence(trained: Bundle) -> str:
    """Of the weights: whoever trained them wrote it down; their data's at the least."""
    stated = trained.manifest.architecture.get("licence")
    return str(stated or trained.manifest.dataset.licence)
