"""Which faces of a collection not to learn from: copies, mislabels, strays.

Works on embeddings and signatures only; knows nothing about files beyond their names. Every
decision comes with its reason.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.faces import Faces, Rejection

COPY_SIGNATURE = 0.95
COPY_SIMILARITY = 0.85
STRAY_DEVIATIONS = 4.5
STRAY_SHARE = 0.6
_ENOUGH_TO_JUDGE = 5


@dataclass(frozen=True)
class Audit:
    """What to keep, and what not, with reasons.

    Attributes:
        kept: sorted indices into the faces.
        dropped: the other faces.
    """

    kept: NDArray[np.int64]
    dropped: list[Rejection]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)


def mean_of_means(
    vectors: NDArray[np.float32], owner: NDArray[np.int64], people: int
) -> NDArray[np.float32]:
    """(people, d) mean vector of each person; their mean is a centre in which all weigh alike."""
    sums = np.zeros((people, vectors.shape[1]), np.float64)
    np.add.at(sums, owner, vectors)
    counts = np.bincount(owner, minlength=people)
    means: NDArray[np.float32] = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    return means


def audit(faces: Faces, centre: NDArray[np.float32] | None = None) -> Audit:
    """Find copies, mislabels and strays.

    A stray lies more than `STRAY_DEVIATIONS` robust deviations (median absolute deviation, scaled
    as for a normal distribution) below its person's typical similarity to the person's mean,
    itself left out, and under `STRAY_SHARE` of it; when it is closer to somebody else it is
    reported as a likely mislabel. Of two nearly equal pictures, the one that fits its person
    better stays.

    Args:
        faces: all faces.
        centre: (d) the mean face; that of these people when None.
    """
    people = len(faces.people)
    means = mean_of_means(faces.vectors, faces.owner, people)
    vectors = unit(faces.vectors - (means.mean(axis=0) if centre is None else centre))
    sums = np.zeros((people, vectors.shape[1]), np.float32)
    np.add.at(sums, faces.owner, vectors)
    own = np.sum(unit(sums[faces.owner] - vectors) * vectors, axis=1)
    others = vectors @ unit(sums).T
    others[np.arange(len(vectors)), faces.owner] = -np.inf

    reasons: dict[int, str] = {}
    for person in range(people):
        members = np.flatnonzero(faces.owner == person)
        if len(members) < _ENOUGH_TO_JUDGE:
            continue
        median = np.median(own[members])
        deviation = 1.4826 * np.median(np.abs(own[members] - median))
        limit = min(median - STRAY_DEVIATIONS * deviation, STRAY_SHARE * median)
        for i in members[own[members] < limit]:
            closest = int(others[i].argmax())
            reasons[int(i)] = (
                f"likely mislabelled: closer to {faces.people[closest]}"
                if others[i, closest] > own[i]
                else "unlike the person's other photos"
            )
    _mark_copies(faces, vectors, own, reasons)
    kept = np.array([i for i in range(len(vectors)) if i not in reasons], np.int64)
    dropped = [Rejection(faces.paths[i], reason) for i, reason in sorted(reasons.items())]
    return Audit(kept, dropped)


def _mark_copies(
    faces: Faces,
    vectors: NDArray[np.float32],
    own: NDArray[np.float32],
    reasons: dict[int, str],
) -> None:
    # The best fitting face of a group of copies is met first and stays.
    order = [i for i in np.lexsort((np.arange(len(own)), -own)) if int(i) not in reasons]
    kept: list[int] = []
    for i in order:
        if kept:
            alike = faces.signatures[kept] @ faces.signatures[i] > COPY_SIGNATURE
            alike &= vectors[kept] @ vectors[i] > COPY_SIMILARITY
            if alike.any():
                twin = kept[int(np.flatnonzero(alike)[0])]
                reasons[int(i)] = f"copy of {faces.paths[twin].name}" + (
                    "" if faces.owner[i] == faces.owner[twin] else " under another person's name"
                )
                continue
        kept.append(int(i))
