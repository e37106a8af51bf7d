"""Vectors as text, for conversations that outlive a process. Knows nothing about what they mean.

With each goes the id of the embedder that made it: those of two embedders cannot be compared.
"""

import base64
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def pack(vector: Vectors) -> str:
    """A (d,) vector as base64 of its little-endian float32."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")


def unpack(texts: Iterable[str]) -> Vectors:
    """The (k, d) vectors that `pack` made texts of; (0, 0) of none.

    Raises:
        ValueError: a text is no vector, or they are of different lengths.
    """
    rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f4") for text in texts]
    if not rows:
        return np.empty((0, 0), np.float32)
    return np.stack(rows).astype(np.float32)


def label(embedder: str, vector: Vectors) -> list[str]:
    """A vector with its embedder's id, JSON-able."""
    return [embedder, pack(vector)]


def of_embedder(labelled: Iterable[Sequence[str]], embedder: str) -> list[Sequence[str]]:
    """Those of an embedder."""
    return [each for each in labelled if each[0] == embedder]


def unlabel(labelled: Iterable[Sequence[str]]) -> Vectors:
    """The (k, d) vectors that `label` made these of: as `unpack`."""
    return unpack(text for _, text in labelled)
