"""TwinPairs of pictures that show the same moment of the same face.

Works on embeddings and tiny grey pictures; knows nothing about files or people. The search goes
through each face's nearest neighbours, so that its time grows about linearly with the faces.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from training.vectors import Vectors

Index = NDArray[np.int64]

NEIGHBOURS = 24
"""Looked at for each face. More than so many near-duplicates of one face hang together through
others of theirs."""

_EXACT_UP_TO = 20_000
_PROBES = 16
_TRAINED_ON = 64
_CHUNK = 8192


@dataclass(frozen=True)
class TwinPairs:
    """Likely twins, each pair once.

    Attributes:
        first, second: (k,) indices of faces, first < second.
        signature: (k,) correlation of their tiny grey pictures, -1 to 1.
        similarity: (k,) cosine of their centred embeddings.
    """

    first: Index
    second: Index
    signature: Vectors
    similarity: Vectors

    def __getitem__(self, chosen: NDArray[np.bool_] | Index) -> "TwinPairs":
        return TwinPairs(
            self.first[chosen], self.second[chosen], self.signature[chosen], self.similarity[chosen]
        )


def find(vectors: Vectors, grey: NDArray[np.uint8], least: tuple[float, float]) -> TwinPairs:
    """The pairs of faces that look alike to both measures.

    Args:
        vectors: (n, d) centred unit embeddings.
        grey: (n, s, s) tiny grey pictures.
        least: signature and similarity that a pair must exceed.
    """
    least_signature, least_similarity = least
    index = _index(vectors)
    none, nothing = np.empty(0, np.int64), np.empty(0, np.float32)
    parts = [(none, none, nothing, nothing)]
    for start in range(0, len(vectors), _CHUNK):
        similarity, found = index.search(vectors[start : start + _CHUNK], NEIGHBOURS)
        rows, columns = np.nonzero((found >= 0) & (similarity > least_similarity))
        a, b = rows + start, found[rows, columns]
        signature = correlation(grey[a], grey[b])
        close = (signature > least_signature) & (a != b)
        a, b = np.minimum(a, b)[close], np.maximum(a, b)[close]
        parts.append((a, b, signature[close], similarity[rows, columns][close]))
    pairs = TwinPairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    # A pair is mostly found from both sides, but not where one side has too many twins.
    _, once = np.unique(pairs.first * len(vectors) + pairs.second, return_index=True)
    return pairs[once]


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Vectors:
    """(k,) how alike grey pictures are, without brightness and contrast; 0 where one is flat."""
    left, right = signature(a), signature(b)
    alike: Vectors = np.einsum("ij,ij->i", left, right)
    return alike


def signature(grey: NDArray[np.uint8]) -> Vectors:
    """(k, ...) grey pictures as (k, d) unit rows whose products are `correlation`s."""
    flat = grey.reshape(len(grey), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(norm == 0, 1, norm), np.float32)


def _index(vectors: Vectors) -> faiss.Index:
    """Exact for few vectors, by cells (Jegou et al. 2011, without compression) for many."""
    count, dimension = vectors.shape
    exact = faiss.IndexFlatIP(dimension)
    if count <= _EXACT_UP_TO:
        exact.add(vectors)
        return exact
    cells = int(4 * np.sqrt(count))
    index = faiss.IndexIVFFlat(exact, dimension, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = _TRAINED_ON
    index.cp.seed = 0
    index.train(vectors)
    for start in range(0, count, _CHUNK):
        index.add(vectors[start : start + _CHUNK])
    index.nprobe = _PROBES
    return index
