"""Similarities to matches: what each is worth, by the bundle's calibration.

Knows names, probabilities, percentiles and verdicts; knows nothing about where similarities come
from.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engine.bundle import Bundle
from engine.errors import BundleError
from engine.people.shortlist import shortlist
from engine.types import Match, Verdict

# Lowest percentiles of the verdicts below "is"; see `engine.types.Verdict`.
STRONG_PERCENTILE = 95.0
GOOD_PERCENTILE = 60.0
SOME_PERCENTILE = 8.0


class MatchScorer:
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
        self._thumbnails = thumbnails(bundle)
        calibration = bundle.calibration
        self._temperature = calibration.temperature
        self._threshold_of = calibration.threshold_of
        self._quantiles = np.asarray(calibration.stranger_quantiles, np.float64)
        self._tail = calibration.tail
        self._percentiles = np.linspace(0.0, 100.0, len(self._quantiles))
        # No percentile is finer than the number of strangers it was measured on.
        self._highest = 100.0 * (1 - 1 / (calibration.identification.strangers + 1))

    def probabilities(self, similarity: Tensor) -> Tensor:
        """(n, people) similarities to (n, people) shares of belief."""
        return torch.softmax(similarity / self._temperature, dim=1)

    def matches(
        self, parts: Iterable[tuple[Tensor, Tensor]], top_k: int
    ) -> list[tuple[Match, ...]]:
        """The most similar people, best first.

        Args:
            parts: everybody once, a part at a time, at least one part: (c,) int64 numbers of
                people, and (c, n) float32 similarities to them, which are overwritten.
            top_k: how many people, at least 1; fewer come where the bundle has fewer.
        """
        found = (column.tolist() for column in shortlist(parts, top_k, self._temperature))
        return [
            tuple(self._match(*entry) for entry in zip(*row, strict=True))
            for row in zip(*found, strict=True)
        ]

    def _match(self, person: int, similarity: float, probability: float) -> Match:
        percentile = self._percentile(similarity)
        return Match(
            name=self.names[person],
            probability=probability,
            similarity=similarity,
            percentile=percentile,
            verdict=self._verdict(person, similarity, percentile),
            thumbnail=self._thumbnails[person] if self._thumbnails else None,
        )

    def _percentile(self, similarity: float) -> float:
        """Of strangers, how many per cent are less similar to their best match."""
        finest = float(np.interp(similarity, self._quantiles, self._percentiles))
        if self._tail is not None:
            start, most = self._tail.start, 100.0 * (1 - self._tail.rate)
            above = 100.0 * (1 - self._tail.share_above(max(similarity, start)))
            finest = above if similarity > start else min(finest, most)
        return min(self._highest, finest)

    def _verdict(self, person: int, similarity: float, percentile: float) -> Verdict:
        if similarity >= self._threshold_of(person):
            return Verdict.IS
        if percentile >= STRONG_PERCENTILE:
            return Verdict.STRONG
        if percentile >= GOOD_PERCENTILE:
            return Verdict.GOOD
        return Verdict.SOME if percentile >= SOME_PERCENTILE else Verdict.FAINT


def thumbnails(bundle: Bundle) -> Sequence[bytes] | None:
    """A JPEG of each person; None where the bundle has no pictures.

    Raises:
        BundleError: they do not fit its people.
    """
    data, ends_of = bundle.tensors.get("thumbnails"), bundle.tensors.get("thumbnail_ends")
    if data is None:
        return None
    ends = [] if ends_of is None or ends_of.dtype != torch.int64 else ends_of.reshape(-1).tolist()
    sound = (
        data.dtype == torch.uint8 and data.dim() == 1 and len(ends) == len(bundle.manifest.people)
    )
    # They rise, or a few pictures could be cut out again and again, and fill the memory.
    if not sound or not all(a <= b for a, b in pairwise([0, *ends, len(data)])):
        raise BundleError(
            f"{bundle.name}'s thumbnails do not fit its people. Build the bundle again."
        )
    return [
        data[start:end].numpy().tobytes() for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
