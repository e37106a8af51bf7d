"""Similarities to matches: what each is worth, by the bundle's calibration.

Knows names, probabilities, percentiles and verdicts; knows nothing about where similarities come
from.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.bundle import Bundle
from engine.errors import BundleError
from engine.types import Match, Verdict

STRONG_PERCENTILE = 95.0
SOME_PERCENTILE = 50.0


class Judge:
    """What a bundle says about similarities to its people.

    Args:
        bundle: a gallery or a classifier.

    Raises:
        BundleError: its people are not numbered, named and different, or its thumbnails do not
            fit them.
    """

    def __init__(self, bundle: Bundle) -> None:
        people = bundle.manifest.people
        if (
            not people
            or sorted(people) != list(range(len(people)))
            or not all(people.values())
            or len(set(people.values())) != len(people)
        ):
            raise BundleError(
                f"{bundle.name}'s people are not numbered from 0 with a name of their own each. "
                "Build the bundle again."
            )
        self.names = [people[i] for i in range(len(people))]
        self._thumbnails = _thumbnails(bundle, len(people))
        calibration = bundle.calibration
        self._temperature = calibration.temperature
        self._is_threshold = calibration.identification.threshold
        self._quantiles = np.asarray(calibration.stranger_quantiles, np.float64)
        # No percentile is finer than the number of strangers it was measured on.
        self._highest = 100.0 * (1 - 1 / (calibration.identification.strangers + 1))

    def probabilities(self, similarity: Tensor) -> Tensor:
        """(n, people) similarities to (n, people) shares of belief."""
        return torch.softmax(similarity / self._temperature, dim=1)

    def matches(self, similarity: Tensor, top_k: int) -> list[tuple[Match, ...]]:
        """The most similar people, best first.

        Args:
            similarity: (n, people).
            top_k: how many people, at least 1; fewer come where the bundle has fewer.
        """
        # Numbers beyond what a network can carry are no similarity, let alone a high one.
        similarity = similarity.nan_to_num(nan=-1.0, posinf=-1.0, neginf=float("-inf"))
        values, people = similarity.topk(min(top_k, len(self.names)), dim=1)
        chances = self.probabilities(similarity).gather(1, people)
        return [
            tuple(self._match(*entry) for entry in zip(*row, strict=True))
            for row in zip(people.tolist(), chances.tolist(), values.tolist(), strict=True)
        ]

    def _match(self, person: int, probability: float, similarity: float) -> Match:
        percentile = self._percentile(similarity)
        return Match(
            name=self.names[person],
            probability=probability,
            similarity=similarity,
            percentile=percentile,
            verdict=self._verdict(similarity, percentile),
            thumbnail=self._thumbnails[person] if self._thumbnails else None,
        )

    def _percentile(self, similarity: float) -> float:
        """Of strangers, how many per cent are less similar to their best match."""
        steps = np.linspace(0.0, 100.0, len(self._quantiles))
        return min(self._highest, float(np.interp(similarity, self._quantiles, steps)))

    def _verdict(self, similarity: float, percentile: float) -> Verdict:
        if similarity >= self._is_threshold:
            return Verdict.IS
        if percentile >= STRONG_PERCENTILE:
            return Verdict.STRONG
        return Verdict.SOME if percentile >= SOME_PERCENTILE else Verdict.NONE


def _thumbnails(bundle: Bundle, people: int) -> Sequence[bytes] | None:
    data, ends_of = bundle.tensors.get("thumbnails"), bundle.tensors.get("thumbnail_ends")
    if data is None:
        return None
    ends = [] if ends_of is None or ends_of.dtype != torch.int64 else ends_of.reshape(-1).tolist()
    if len(ends) != people or data.dtype != torch.uint8 or data.dim() != 1:
        raise BundleError(
            f"{bundle.name}'s thumbnails do not fit its people. Build the bundle again."
        )
    return [
        data[start:end].numpy().tobytes() for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
