"""Embeddings as everything here compares them. Knows nothing about whose they are."""

from torch import Tensor
from torch.nn.functional import normalize


def centred(vectors: Tensor, centre: Tensor) -> Tensor:
    """Unit vectors from the mean face: raw cosines are all high, these spread around zero.

    Args:
        vectors: (n, d) embeddings.
        centre: (d,) the mean embedding of many people.

    Returns:
        (n, d), of length 1.
    """
    return normalize(vectors - centre, dim=-1)
