"""Exact cosine search: an embedding in, the most similar people out.

A person is a few prototypes; their similarity is that of the closest. What a similarity is worth
(probability, percentile, verdict) comes from the bundle's calibration. Knows nothing about photos.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from engine.bundle import Bundle
from engine.errors import BundleError
from engine.types import Match, Verdict

STRONG_PERCENTILE = 95.0
SOME_PERCENTILE = 50.0
_CHUNK = 65_536
_QUERIES = 32


def centred(vectors: Tensor, centre: Tensor) -> Tensor:
    """Unit vectors from the mean face: raw cosines are all high, these spread around zero."""
    return normalize(vectors - centre, dim=-1)


def best_per_person(queries: Tensor, prototypes: Tensor, owner: Tensor, people: int) -> Tensor:
    """The similarity of each query to each person: that of the person's closest prototype.

    Args:
        queries: (n, d) unit vectors.
        prototypes: (m, d) unit vectors.
        owner: (m,) int64 index of the person a prototype belongs to.
        people: how many people there are.

    Returns:
        (n, people) cosines; -inf for a person without a prototype.
    """
    best = queries.new_full((len(queries), people), float("-inf"))
    for start in range(0, len(prototypes), _CHUNK):
        part = slice(start, start + _CHUNK)
        cosines = queries @ prototypes[part].T
        best.scatter_reduce_(1, owner[part].expand_as(cosines), cosines, "amax")
    return best


class Gallery:
    """The people of one bundle, ready to be searched.

    Args:
        bundle: of kind "gallery".
        device: where the prototypes live.

    Raises:
        BundleError: the bundle is of another kind or its tensors do not fit together.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        _check(bundle)
        self._names = [bundle.manifest.people[i] for i in range(len(bundle.manifest.people))]
        self._prototypes = bundle.tensors["prototypes"].to(device)
        self._owner = bundle.tensors["owner"].to(device)
        self._centre = bundle.tensors["centre"].to(device)
        self._thumbnails = _thumbnails(bundle, len(self._names))
        calibration = bundle.manifest.calibration
        self._temperature = calibration.temperature
        self._is_threshold = calibration.identification.threshold
        self._quantiles = np.asarray(calibration.stranger_quantiles, np.float64)
        # No percentile is finer than the number of strangers it was measured on.
        self._highest = 100.0 * (1 - 1 / (calibration.identification.strangers + 1))

    def __len__(self) -> int:
        return len(self._names)

    @torch.inference_mode()
    def search(self, vectors: Tensor, top_k: int) -> list[tuple[Match, ...]]:
        """The most similar people to each vector, best first.

        Args:
            vectors: (n, d) unit embeddings of the bundle's embedder.
            top_k: how many people, at least 1; fewer come where the gallery has fewer.
        """
        # A few queries at a time: each needs a number for every person.
        return [
            matches
            for start in range(0, len(vectors), _QUERIES)
            for matches in self._search(vectors[start : start + _QUERIES], top_k)
        ]

    def _search(self, vectors: Tensor, top_k: int) -> list[tuple[Match, ...]]:
        similarity = best_per_person(
            centred(vectors, self._centre), self._prototypes, self._owner, len(self._names)
        )
        probability = torch.softmax(similarity / self._temperature, dim=1)
        values, people = similarity.topk(min(top_k, len(self._names)), dim=1)
        chances = probability.gather(1, people)
        return [
            tuple(self._match(*entry) for entry in zip(*row, strict=True))
            for row in zip(people.tolist(), chances.tolist(), values.tolist(), strict=True)
        ]

    def _match(self, person: int, probability: float, similarity: float) -> Match:
        percentile = self._percentile(similarity)
        return Match(
            name=self._names[person],
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


def _check(bundle: Bundle) -> None:
    manifest, tensors = bundle.manifest, bundle.tensors
    if manifest.kind != "gallery":
        raise BundleError(
            f"{bundle.name} is a {manifest.kind}, and this version of face-matcher answers with "
            "galleries. Build one with `python -m training gallery DIR --out run/models/NAME`.",
            code="bundle_mismatch",
        )
    try:
        prototypes, owner, centre = (tensors[key] for key in ("prototypes", "owner", "centre"))
        people, dimension = len(manifest.people), manifest.embedder.dimension
        sound = (
            people > 0
            and sorted(manifest.people) == list(range(people))
            and prototypes.shape == (len(owner), dimension)
            and centre.shape == (dimension,)
            and prototypes.dtype == centre.dtype == torch.float32
            and owner.dtype == torch.int64
            and sorted(set(owner.tolist())) == list(range(people))
            and bool(((prototypes.norm(dim=1) - 1).abs() < 1e-3).all())  # false for NaN, too
            and bool(centre.isfinite().all())
            and all(manifest.people.values())
            and len(set(manifest.people.values())) == people
        )
    except (KeyError, TypeError, IndexError):
        sound = False
    if not sound:
        raise BundleError(
            f"{bundle.name}'s tensors do not fit its description. Build the bundle again."
        )


def _thumbnails(bundle: Bundle, people: int) -> Sequence[bytes] | None:
    data, ends_of = bundle.tensors.get("thumbnails"), bundle.tensors.get("thumbnail_ends")
    if data is None:
        return None
    ends = [] if ends_of is None else ends_of.reshape(-1).tolist()
    if len(ends) != people or data.dtype != torch.uint8 or data.dim() != 1:
        raise BundleError(
            f"{bundle.name}'s thumbnails do not fit its people. Build the bundle again."
        )
    return [
        data[start:end].numpy().tobytes() for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
