"""Directions of very many people, and how close queries come to each person's closest.

Laid out so that a search reads every number once, in order, and writes only what fits the
processor's cache. Knows nothing about names, or what a similarity is worth.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_CACHED = {"cpu": 2**19}
_IN_MEMORY = 2**25
"""Similarities computed at a time: a CPU keeps 2 MiB of them close, a GPU wants large pieces."""

_PIECES = 64


class Prototypes:
    """Everybody's prototypes.

    Args:
        vectors: (m, d) float32 unit vectors.
        owner: (m,) int64 index of the person a prototype belongs to; everybody below the highest
            has one.
    """

    def __init__(self, vectors: Tensor, owner: Tensor) -> None:
        counts = torch.bincount(owner)
        self._people = len(counts)
        # People with as many prototypes together: (people,) and (prototypes each, people, d).
        self._groups: list[tuple[Tensor, Tensor]] = []
        order = owner.argsort(stable=True)
        first = counts.cumsum(0) - counts
        for count in sorted(set(counts.tolist())):
            people = torch.nonzero(counts == count)[:, 0]
            rows = order[first[people] + torch.arange(count, device=owner.device)[:, None]]
            in_order = torch.equal(rows.flatten(), torch.arange(len(vectors), device=rows.device))
            own = vectors.view(*rows.shape, -1) if in_order else vectors[rows]
            self._groups.append((people, own))

    def __len__(self) -> int:
        return self._people

    def parts(self, queries: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """How close each person is, some people at a time.

        Args:
            queries: (n, d) unit vectors, n >= 1.

        Yields:
            (c,) numbers of people, and (c, n) the cosines with their closest prototypes.
        """
        numbers = _CACHED.get(queries.device.type, _IN_MEMORY)
        size = max(1, numbers // len(queries))
        for people, prototypes in self._groups:
            for start in range(0, len(people), size):
                part = slice(start, start + size)
                cosines = _cosines(prototypes[0, part], queries)
                for further in prototypes[1:]:
                    torch.maximum(cosines, _cosines(further[part], queries), out=cosines)
                yield people[part], cosines

    def similarities(self, queries: Tensor) -> Tensor:
        """(n, d) unit vectors to (n, people) cosines with each person's closest prototype."""
        everybody = queries.new_empty(len(queries), len(self))
        if len(queries):
            for people, cosines in self.parts(queries):
                everybody[:, people] = cosines.T
        return everybody


def _cosines(prototypes: Tensor, queries: Tensor) -> Tensor:
    """(c, d) and (n, d) to (c, n)."""
    if len(queries) > 1:
        # This way round, not (n, c): MKL is up to five times as fast for few queries.
        return prototypes @ queries.T
    # MKL multiplies a matrix by one vector in one thread, but pieces of it side by side.
    whole = len(prototypes) // _PIECES * _PIECES
    pieces = prototypes[:whole].view(_PIECES, -1, prototypes.shape[1])
    many = torch.bmm(pieces, queries.T.expand(_PIECES, -1, -1)).view(-1, 1)
    return torch.cat([many, prototypes[whole:] @ queries.T])
