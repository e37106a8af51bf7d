"""Which face of each photo is the person's, and which faces not to learn from.

Works on embeddings and measurements; knows nothing about files. An operator's word is the truth:
what it says is not judged, and the rest is judged by it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from training.console import Advance, silent
from training.datasets import twins
from training.datasets.manifest import Code
from training.vectors import Vectors, person_means, unit

Index = NDArray[np.int64]

TWINS = ((0.85, 0.8), (0.7, 0.9))
"""Signature and similarity above which two pictures are of one moment, or much as if they were;
either pair tells them. Of these, `Same` tells which are one picture."""

Same = Callable[[int, int], bool]
"""Whether two faces, by their indices among all faces, are of one picture that was encoded again,
resized or cropped otherwise; see `training.datasets.registration`."""

STRAY_DEVIATIONS = 4.5
STRAY_SHARE = 0.6
ENOUGH_TO_JUDGE = 5

OWN_CENTRE_PEOPLE = 10
"""The mean of fewer people is no mean face."""

LEAST_ALIKE = (min(t[0] for t in TWINS), min(t[1] for t in TWINS))
"""Signature and similarity that every pair of twins exceeds."""

_ROUNDS = 3
_COMPARED = 8
"""With so many likely copies, the most alike, a face is compared at most: bursts are long."""
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class FaceLimits:
    """What a face must be to be learned from.

    Attributes:
        size_px: the least size, see `engine.types.Quality`.
        blur: the most blur.
    """

    size_px: float = 24.0
    blur: float = 0.75


@dataclass(frozen=True)
class Overrides:
    """An operator's word, in arrays over the photos.

    Attributes:
        kept: (n,) bool, to be kept.
        dropped: (n,) bool, to be dropped.
        named: (n,) bool, `Photos.owner` is what the operator says.
        face: (n,) int64, the index among all faces that the operator has chosen, or -1.
    """

    kept: NDArray[np.bool_]
    dropped: NDArray[np.bool_]
    named: NDArray[np.bool_]
    face: Index

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(n,) whether the operator has decided the photo's fate."""
        return self.kept | self.dropped


@dataclass(frozen=True)
class Photos:
    """The photos with faces, and all their faces.

    Attributes:
        people: how many people there are.
        owner: (n,) int64, whose photo it is.
        first: (n + 1,) int64; the faces of photo i are `first[i]:first[i + 1]`.
        vectors: (m, d) float32 embeddings of the faces; `decide` centres them in place.
        grey: (m, s, s) uint8.
        area, size_px, blur: (m,) float32.
        identity: (m,) int64; the same number is the same face of the same file's bytes.
        word: the operator's.
    """

    people: int
    owner: Index
    first: Index
    vectors: Vectors
    grey: NDArray[np.uint8]
    area: Vectors
    size_px: Vectors
    blur: Vectors
    identity: Index
    word: Overrides


@dataclass(frozen=True)
class Decisions:
    """What is decided, in arrays over the photos with faces.

    Attributes:
        chosen: (n,) int64, the face among all faces.
        code: (n) one of `Code` or "".
        other: (n,) int64: of a copy the photo that stays, of a mislabel the likely person; else -1.
        own: (n,) float32: similarity to the mean of the person's other photos.
        likeness: (n,) float32: to `other`, where there is one.
        group: (n,) int64 see `training.datasets.manifest.Row`.
    """

    chosen: Index
    code: Sequence[Code | str]
    other: Index
    own: Vectors
    likeness: Vectors
    group: Index


def decide(
    photos: Photos,
    limits: FaceLimits,
    same: Same,
    lender: tuple[Vectors, int] | None = None,
    advance: Advance = silent,
) -> Decisions:
    """Choose, judge and group.

    Args:
        photos: everything seen; its vectors are changed.
        limits: what a face must be.
        same: asked about likely copies.
        lender: the mean face of so many other people, for where these are too few for one.
        advance: told how many photos have been compared with their likely copies.
    """
    chosen = _largest(photos)
    _centre(photos, chosen, lender)
    _choose(photos, chosen)
    vectors = photos.vectors[chosen]
    count = len(chosen)
    code: list[Code | str] = [""] * count
    other = np.full(count, -1, np.int64)
    likeness = np.zeros(count, np.float32)

    usable = ~photos.word.dropped
    for kind, bad in (
        (Code.SMALL, photos.size_px[chosen] < limits.size_px),
        (Code.BLURRED, photos.blur[chosen] > limits.blur),
    ):
        for i in np.flatnonzero(bad & ~photos.word.judged & usable):
            code[i] = kind
            usable[i] = False
    own = _judge(photos, vectors, usable, code, other, likeness)
    pairs = _copies(photos, chosen, vectors, own, usable, code, other, likeness, same, advance)
    for i in np.flatnonzero(photos.word.judged):
        code[i] = Code.OPERATOR
    several = np.diff(photos.first) > 1
    for i in np.flatnonzero(several):
        if not code[i]:
            code[i] = Code.SEVERAL_FACES
    return Decisions(chosen, code, other, own, likeness, _groups(photos.identity[chosen], pairs))


def _largest(photos: Photos) -> Index:
    """Of each photo the operator's choice, or its largest face."""
    # Sorted by photo, then by area: the last of each photo is its largest.
    photo = np.repeat(np.arange(len(photos.owner)), np.diff(photos.first))
    largest = np.lexsort((-np.arange(len(photo)), photos.area, photo))[photos.first[1:] - 1]
    return np.where(photos.word.face >= 0, photos.word.face, largest)


def _centre(photos: Photos, chosen: Index, lender: tuple[Vectors, int] | None) -> None:
    """Carry the mean face out of all vectors, people weighing alike, in place."""
    present, owner = np.unique(photos.owner, return_inverse=True)
    means = person_means(photos.vectors[chosen], owner.astype(np.int64), len(present))
    total, people = means.sum(axis=0), len(present)
    if people < OWN_CENTRE_PEOPLE:
        centre, known = lender or (np.zeros_like(total), OWN_CENTRE_PEOPLE)
        total, people = total + known * centre, people + known
    for start in range(0, len(photos.vectors), _CHUNK):
        part = photos.vectors[start : start + _CHUNK]
        part[:] = unit(part - (total / people).astype(np.float32))


def _choose(photos: Photos, chosen: Index) -> None:
    """Of each photo with several faces, the one that agrees with the person's other photos."""
    count = np.diff(photos.first)
    several = np.flatnonzero((count > 1) & (photos.word.face < 0))
    order = np.argsort(photos.owner, kind="stable")
    starts = np.searchsorted(photos.owner[order], np.arange(photos.people + 1))
    for person in np.unique(photos.owner[several]):
        own = order[starts[person] : starts[person + 1]]
        own = own[~photos.word.dropped[own]]
        open_ones = several[photos.owner[several] == person]
        settled = (count[own] == 1) | (photos.word.face[own] >= 0)
        # Photos with one face tell who the person is; without any, all the largest faces do.
        clear = own[settled] if settled.any() else own
        for _ in range(_ROUNDS):
            mean = photos.vectors[chosen[clear]].mean(axis=0) if len(clear) else 0.0
            for i in open_ones:
                faces = slice(photos.first[i], photos.first[i + 1])
                chosen[i] = photos.first[i] + int(np.argmax(photos.vectors[faces] @ mean))
            clear = own


def _judge(
    photos: Photos,
    vectors: Vectors,
    usable: NDArray[np.bool_],
    code: list[Code | str],
    other: Index,
    likeness: Vectors,
) -> Vectors:
    """Find mislabels and strays; returns every face's similarity to its person's others.

    A stray lies more than `STRAY_DEVIATIONS` robust deviations (median absolute deviation, scaled
    as for a normal distribution) below its person's typical similarity to the person's mean,
    itself left out, and under `STRAY_SHARE` of it. When it is closer to somebody else, of whom it
    would be no stray, it is a likely mislabel.
    """
    counts = np.bincount(photos.owner[usable], minlength=photos.people)
    means = person_means(vectors[usable], photos.owner[usable], photos.people)
    sums = means * counts[:, None].astype(np.float32)
    own = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        without = sums[photos.owner[part]] - vectors[part] * usable[part, None]
        own[part] = np.einsum("ij,ij->i", unit(without), vectors[part])
    directions = unit(sums)
    order = np.flatnonzero(usable)
    order = order[np.argsort(photos.owner[order], kind="stable")]
    starts = np.searchsorted(photos.owner[order], np.arange(photos.people + 1))
    doubtful: list[int] = []
    limits = np.full(photos.people, np.nan)
    for person in np.flatnonzero(counts >= ENOUGH_TO_JUDGE):
        members = order[starts[person] : starts[person + 1]]
        median = np.median(own[members])
        deviation = 1.4826 * np.median(np.abs(own[members] - median))
        limits[person] = min(median - STRAY_DEVIATIONS * deviation, STRAY_SHARE * median)
        doubtful += members[own[members] < limits[person]].tolist()
    if doubtful:  # people with too few photos to judge are taken for average ones
        limits[np.isnan(limits)] = np.nanmedian(limits)
    for i in sorted(doubtful):
        if photos.word.named[i] or photos.word.judged[i]:
            continue
        similarities = directions @ vectors[i]
        similarities[(counts == 0) | (np.arange(photos.people) == photos.owner[i])] = -np.inf
        closest = int(similarities.argmax())
        usable[i] = False
        if similarities[closest] > max(own[i], limits[closest]):
            code[i], other[i], likeness[i] = Code.MISLABEL, closest, similarities[closest]
        else:
            code[i] = Code.STRAY
    return own


def _copies(
    photos: Photos,
    chosen: Index,
    vectors: Vectors,
    own: Vectors,
    usable: NDArray[np.bool_],
    code: list[Code | str],
    other: Index,
    likeness: Vectors,
    same: Same,
    advance: Advance,
) -> twins.TwinPairs:
    """Find copies among the faces still usable; returns all pairs of twins.

    Of two copies of one picture the one that fits its person better stays.
    """
    # Of each picture that is there more than once one stands for all.
    _, lone = np.unique(photos.identity[chosen], return_index=True)
    lone.sort()
    pairs = twins.find(np.ascontiguousarray(vectors[lone]), photos.grey[chosen[lone]], LEAST_ALIKE)
    pairs = pairs[np.any([_above(pairs, limits) for limits in TWINS], axis=0)]
    pairs = twins.TwinPairs(
        lone[pairs.first], lone[pairs.second], pairs.signature, pairs.similarity
    )
    stands_for = dict(zip(photos.identity[chosen[lone]].tolist(), lone.tolist(), strict=True))

    near: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for i, j, alike in zip(
        pairs.first.tolist(), pairs.second.tolist(), pairs.similarity.tolist(), strict=True
    ):
        near[i].append((j, alike))
        near[j].append((i, alike))

    stays: dict[int, int] = {}  # the photo that stays for each picture, by what stands for it
    order = np.lexsort((np.arange(len(own)), -own, ~photos.word.kept))
    for done, i in enumerate(order[usable[order]].tolist()):
        if done % 64 == 0:
            advance(done)
        picture = stands_for[int(photos.identity[chosen[i]])]
        if picture in stays:
            twin, kind, alike = stays[picture], Code.COPY, 1.0
        else:
            known = sorted(
                ((-alike, stays[p]) for p, alike in near[picture] if p in stays),
            )[:_COMPARED]
            found = next((k for k in known if same(int(chosen[k[1]]), int(chosen[i]))), None)
            if found is None:
                stays[picture] = i
                continue
            alike, twin, kind = -found[0], found[1], Code.NEAR_COPY
        if photos.word.kept[i]:
            continue
        code[i], other[i], likeness[i] = kind, twin, alike
    return pairs


def _above(pairs: twins.TwinPairs, limits: tuple[float, float]) -> NDArray[np.bool_]:
    signature, similarity = limits
    return (pairs.signature > signature) & (pairs.similarity > similarity)


def _groups(identity: Index, pairs: twins.TwinPairs) -> Index:
    """Numbers such that twins, and twins of twins, share one; in order of appearance."""
    _, representative, same = np.unique(identity, return_index=True, return_inverse=True)
    count = len(identity)
    first = np.concatenate([pairs.first, np.arange(count)])
    second = np.concatenate([pairs.second, representative[same]])
    edges = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(count, count))
    _, label = connected_components(edges, directed=False)
    _, appearance, compact = np.unique(label, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(appearance))
    numbers: Index = rank[compact].astype(np.int64)
    return numbers
