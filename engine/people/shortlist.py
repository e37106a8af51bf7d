"""Similarities to very many people, a part of them at a time, to the few highest and their shares.

What a softmax and a top-k over everybody would say, in one pass and a bounded amount of memory:
the sum of the exponentials runs along as in Milakov and Gimelshein, "Online normalizer calculation
for softmax" (2018). Knows nothing about who the people are or where similarities come from.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_BLOCK = 64
_LOWEST = -1.0
"""No cosine is lower."""


def shortlist(
    parts: Iterable[tuple[Tensor, Tensor]], length: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The people most similar to each of n queries.

    Args:
        parts: everybody once, at least one part: (c,) int64 numbers of people, and (c, n) float32
            similarities to them, which are overwritten.
        length: how many people to keep, at least 1; fewer come where there are fewer.
        temperature: similarities divided by it are the logits of the shares.

    Returns:
        Three (n, k) tensors, highest similarity first: numbers of people, similarities, and
        shares of all people's softmax.
    """
    kept: list[Tensor] = []
    numbers: list[Tensor] = []
    highest = torch.tensor(_LOWEST)
    # Of exp((similarity - highest) / temperature), over everybody so far.
    total = torch.tensor(0.0)
    for people, similarity in parts:
        # Numbers beyond what a network can carry are no similarity, let alone a high one.
        similarity.nan_to_num_(nan=_LOWEST, posinf=_LOWEST, neginf=float("-inf"))
        rows = _highest_rows(similarity, length)
        values = torch.cat([*kept, similarity.gather(0, rows)])
        found = torch.cat([*numbers, people[rows]])
        values, order = values.topk(min(length, len(values)), dim=0)
        kept, numbers = [values], [found.gather(0, order)]
        before, highest = highest, values[0].maximum(highest)
        terms = similarity.sub_(highest).div_(temperature).exp_()
        total = total * ((before - highest) / temperature).exp() + terms.sum(dim=0)
    shares = ((kept[0] - highest) / temperature).exp() / total
    return numbers[0].T, kept[0].T, shares.T


def _highest_rows(values: Tensor, count: int) -> Tensor:
    """(k, n) the rows of the highest values of each column of (c, n), in no order.

    The k highest values lie in the k blocks whose own highest are the highest, and a maximum over
    blocks that lie across the rows runs at the speed of memory, which `topk` is far from.
    """
    blocks = len(values) // _BLOCK
    if blocks <= count:
        return values.topk(min(count, len(values)), dim=0, sorted=False).indices
    whole = blocks * _BLOCK
    across = values[:whole].view(_BLOCK, blocks, -1)
    chosen = across.amax(dim=0).topk(count, dim=0, sorted=False).indices
    rows = chosen + blocks * torch.arange(_BLOCK, device=values.device)[:, None, None]
    rest = torch.arange(whole, len(values), device=values.device)[:, None]
    candidates = torch.cat([rows.flatten(0, 1), rest.expand(-1, values.shape[1])])
    best = values.gather(0, candidates).topk(count, dim=0, sorted=False).indices
    return candidates.gather(0, best)
