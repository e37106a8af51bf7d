"""Exact cosine search: an embedding in, the most similar people out.

A person is a few prototypes; their similarity is that of the closest. What a similarity is worth
is `engine.people.scoring`'s. Knows nothing about photos.
"""

import torch
from torch import Tensor

from engine.bundle import Bundle
from engine.errors import BundleError
from engine.people.prototypes import Prototypes
from engine.people.scoring import MatchScorer
from engine.types import Match
from engine.vision.vectors import centred

_CHUNK = 65_536
_QUERIES = 32


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
    """The people of one bundle as prototypes among an embedder's vectors.

    A gallery's prototypes are cluster means; those of a classifier whose embedder stayed as it was
    were trained. See `engine.people.recogniser.Recogniser`.

    Args:
        bundle: a gallery, or a classifier without a network of its own.
        device: where the prototypes live.

    Attributes:
        scorer: what its similarities are worth.

    Raises:
        BundleError: its tensors do not fit together.
    """

    template: None = None

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        check_prototypes(bundle, bundle.embedder.dimension)
        self.scorer = MatchScorer(bundle)
        self._prototypes = Prototypes(
            bundle.tensors["prototypes"].to(device), bundle.tensors["owner"].to(device)
        )
        self._centre = bundle.tensors["centre"].to(device)

    def __len__(self) -> int:
        return len(self.scorer.names)

    @torch.inference_mode()
    def similarities(self, vectors: Tensor) -> Tensor:
        """(n, d) unit embeddings of the bundle's embedder to (n, people) cosines."""
        return self._prototypes.similarities(centred(vectors, self._centre))

    @torch.inference_mode()
    def search(self, vectors: Tensor, top_k: int) -> list[tuple[Match, ...]]:
        """The most similar people to each vector, best first.

        Args:
            vectors: (n, d) unit embeddings of the bundle's embedder.
            top_k: how many people, at least 1; fewer come where the gallery has fewer.
        """
        queries = centred(vectors, self._centre)
        return [
            matches
            for start in range(0, len(queries), _QUERIES)
            for matches in self.scorer.matches(
                self._prototypes.parts(queries[start : start + _QUERIES]), top_k
            )
        ]


def check_prototypes(bundle: Bundle, dimension: int, centre_name: str = "centre") -> None:
    """Raise BundleError where prototypes, owners and centre do not fit the bundle's people."""
    try:
        prototypes, owner, centre = (
            bundle.tensors[key] for key in ("prototypes", "owner", centre_name)
        )
        sound = (
            prototypes.shape == (len(owner), dimension)
            and centre.shape == (dimension,)
            and prototypes.dtype == centre.dtype == torch.float32
            and owner.dtype == torch.int64
            and sorted(set(owner.tolist())) == list(range(len(bundle.manifest.people)))
            and bool(((prototypes.norm(dim=1) - 1).abs() < 1e-3).all())  # false for NaN, too
            and bool(centre.isfinite().all())
        )
    except (KeyError, TypeError, IndexError):
        sound = False
    if not sound:
        raise BundleError(
            f"{bundle.name}'s tensors do not fit its description. Build the bundle again."
        )
