"""The trained classifier: an aligned crop in, the most similar people out.

For bundles that carry a network of their own, finetuned or trained from end to end: its features
are compared with one trained direction (or a few) per person. Knows nothing about photos.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.bundle import Bundle
from engine.people.gallery import check_prototypes
from engine.people.prototypes import Prototypes
from engine.people.scoring import MatchScorer
from engine.types import Match
from engine.vision import networks
from engine.vision.align import Template
from engine.vision.vectors import centred

_BATCH = 16


class Classifier:
    """The people of one bundle, as its own network sees them.

    See `engine.people.recogniser.Recogniser`.

    Args:
        bundle: a classifier with a network of its own.
        device: where the network runs.

    Attributes:
        scorer: what its similarities are worth.

    Raises:
        BundleError: its tensors do not fit together.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        network = networks.restore(bundle.manifest.architecture, bundle.tensors)
        check_prototypes(bundle, network.dimension, "feature_centre")
        self.scorer = MatchScorer(bundle)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._prototypes = Prototypes(
            bundle.tensors["prototypes"].to(device), bundle.tensors["owner"].to(device)
        )
        self._centre = bundle.tensors["feature_centre"].to(device)
        self._device = device

    def __len__(self) -> int:
        return len(self.scorer.names)

    @property
    def template(self) -> Template:
        """How its crops are aligned."""
        return self._network.template

    @torch.inference_mode()
    def similarities(self, crops: NDArray[np.uint8]) -> Tensor:
        """(n, size_px, size_px, 3) RGB crops to (n, people) cosines."""
        return torch.cat([self._prototypes.similarities(part) for part in self._features(crops)])

    @torch.inference_mode()
    def search(self, crops: NDArray[np.uint8], top_k: int) -> list[tuple[Match, ...]]:
        """The most similar people to each crop, best first; see `engine.people.gallery.Gallery`."""
        return [
            matches
            for part in self._features(crops)
            if len(part)
            for matches in self.scorer.matches(self._prototypes.parts(part), top_k)
        ]

    def _features(self, crops: NDArray[np.uint8]) -> Iterator[Tensor]:
        """(k, d) centred unit features, a batch at a time; at least once, if without a row."""
        for start in range(0, max(len(crops), 1), _BATCH):
            part = crops[start : start + _BATCH]
            yield centred(networks.features(self._network, part, self._device), self._centre)
