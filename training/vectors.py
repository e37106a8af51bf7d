"""Arithmetic on faces' vectors and on the numbers of their people.

Knows arrays; knows nothing about files, bundles or what the vectors are compared for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""(n, d), a row a face."""

Numbers = NDArray[np.int64]
Owners = NDArray[np.int64]
"""(n,) number of the person of each face, from 0."""

Flags = NDArray[np.bool_]


def unit(vectors: Vectors) -> Vectors:
    """Rows scaled to unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)


def person_means(vectors: Vectors, owner: Owners, people: int) -> Vectors:
    """(people, d) mean vector of each person; their mean is a centre in which all weigh alike."""
    sums = np.zeros((people, vectors.shape[1]), np.float64)
    np.add.at(sums, owner, vectors)
    counts = np.bincount(owner, minlength=people)
    means: Vectors = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    return means


def mean_face(vectors: Vectors, owner: Owners) -> Vectors:
    """(d) the mean of people's means; numbers of people without a vector do not count."""
    people = numbered(owner)
    return np.asarray(person_means(vectors, people, int(people.max()) + 1).mean(axis=0), np.float32)


def numbered(values: Sequence[Any] | NDArray[Any]) -> Numbers:
    """(n,) equal values under equal numbers, from 0 without gaps, in the values' order."""
    _, numbers = np.unique(np.asarray(values), return_inverse=True)
    return numbers.astype(np.int64)


def grouped(owner: Owners, people: int) -> list[Numbers]:
    """The indices of each person's faces, rising."""
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.searchsorted(owner[order], np.arange(1, people)))


def thinned(members: Numbers, most: int) -> Numbers:
    """At most so many of the members, evenly over their order."""
    chosen = np.linspace(0, len(members) - 1, min(len(members), most)).astype(int)
    kept: Numbers = members[chosen]
    return kept
