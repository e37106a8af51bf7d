"""Is one embedder better than another on people that it was not trained on?

Divides people into those learned from and those held out altogether, and compares two sets of
vectors of the same faces as they are used: a few faces of each person are enrolled as their mean,
and others compared with it. Face against face says less: it calls shares of a vectorizer worse that
serve people better once they are enrolled (tests/benchmarks/domain.py).

Knows vectors and numbered people; knows nothing about how the vectors are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.datasets.data import Faces, split
from training.measure.metrics import support, upper_quantile
from training.measure.verification import FMRS, Pairs, resampled_tars, thinned
from training.vectors import Numbers, Owners, Vectors, mean_face, numbered, unit

FMR = 1e-2
"""At which networks are selected: even a few people's pairs support it."""

FEWEST_PEOPLE = 6
_FEW_PEOPLE = 60
_FOLDS = 3
_HELD_OUT_SHARE = 0.25
_MEMBERS_SHARE = 0.25
_MOST_PROBES = 40
_MOST_PAIRS = 100_000
_ENROLLED_FROM = 3
_FEWEST_FOR_A_CENTRE = 3
_RESAMPLES = 500


@dataclass(frozen=True)
class Fold:
    """One division of the faces.

    Attributes:
        training: indices of the faces that are learned from.
        members: other faces of the same people, none a near-duplicate of those; a few dozen of
            each at most, as of the strangers.
        strangers: faces of people held out altogether.
    """

    training: Owners
    members: Owners
    strangers: Owners


@dataclass(frozen=True)
class Compared:
    """What faces of both kinds of people are to templates of the same kind, in one fold."""

    strangers: Pairs
    members: Pairs


@dataclass(frozen=True)
class Change:
    """What became of TAR at one FMR from one embedder to the other, on the same pairs of faces.

    Attributes:
        fmr: rate of false matches, each embedder having its own threshold for it.
        before, after: share of genuine pairs accepted (mean of the folds, by genuine pairs).
        lower_95, upper_95: of the difference, bootstrapped by person.
        certainty: share of the bootstrap's samples in which it rises.
        people: how many take part.
        genuine_pairs, impostor_pairs: how many comparisons.
    """

    fmr: float
    before: float
    after: float
    lower_95: float
    upper_95: float
    certainty: float
    people: int
    genuine_pairs: int
    impostor_pairs: int

    @property
    def gain(self) -> float:
        """After less before."""
        return self.after - self.before


def divide(faces: Faces, seed: int, count: int | None = None) -> list[Fold]:
    """Hold people out: a quarter of many, or each once, in three folds, where they are few.

    Args:
        faces: the dataset.
        seed: another seed, another division.
        count: how many folds; 1 holds out a quarter of the people once.

    Raises:
        ValueError: there are too few people with two faces or more.
    """
    sizes = np.bincount(faces.owner, minlength=len(faces.people))
    usable = np.flatnonzero(sizes >= 2)
    if len(usable) < FEWEST_PEOPLE:
        raise ValueError(
            f"To see whether a vectorizer is better on people it was not trained on takes at "
            f"least {FEWEST_PEOPLE} people with two photos or more; there are {len(usable)}. Add "
            "people, or use an embedder as it is."
        )
    if count is None:
        count = _FOLDS if len(usable) < _FEW_PEOPLE else 1
    order = np.random.default_rng(seed).permutation(usable)
    first, second = split(faces, _MEMBERS_SHARE, seed)
    folds = []
    for k in range(count):
        out = order[k::count] if count > 1 else order[: int(len(order) * _HELD_OUT_SHARE)]
        held = np.isin(faces.owner, out)
        # A picture of a held-out person may also lie in another person's folder.
        seen = np.isin(faces.group, faces.group[held])
        members = _a_few_each(second[~seen[second]], faces.owner, seed)
        strangers = _a_few_each(np.flatnonzero(held), faces.owner, seed)
        folds.append(Fold(first[~seen[first]], members, strangers))
    return folds


def _a_few_each(index: Owners, owner: Owners, seed: int) -> Owners:
    drawn = np.random.default_rng(seed).permutation(index)
    chosen = [drawn[owner[drawn] == person][:_MOST_PROBES] for person in np.unique(owner[index])]
    return np.sort(np.concatenate(chosen)) if chosen else index


def compare(vectors: Vectors, owner: Numbers, stranger: NDArray[np.bool_], seed: int) -> Compared:
    """Faces against what others of their people were enrolled from, for both kinds of people.

    Each kind is a gallery of its own, and the mean face is its people's, as where they are the
    ones who are enrolled. Where the strangers are too few to make one, it is the members'.

    Args:
        vectors: (n, d) unit vectors.
        owner: (n,) whose they are.
        stranger: (n,) whether they are a stranger's.
        seed: of who is enrolled from what, and of the thinning where there are too many pairs.
    """
    known = ~stranger if (~stranger).any() else stranger
    enough = len(np.unique(owner[stranger])) >= _FEWEST_FOR_A_CENTRE
    among = stranger if enough else known
    return Compared(
        compared(vectors[stranger], owner[stranger], mean_face(vectors[among], owner[among]), seed),
        compared(
            vectors[~stranger], owner[~stranger], mean_face(vectors[known], owner[known]), seed
        ),
    )


def compared(vectors: Vectors, owner: Numbers, centre: Vectors, seed: int) -> Pairs:
    """Every face against every template that it is no part of.

    For each face there is a template: the mean of it and of two others of its person, drawn; of
    fewer where somebody has less than four. Thinned evenly over people to a bounded number of
    pairs.

    Args:
        vectors: (n, d) unit vectors, not centred.
        owner: (n,) whose they are.
        centre: (d) the mean face.
        seed: of what is drawn.

    Returns:
        Pairs whose first is the face's person and whose second the template's.
    """
    chosen = thinned(owner, _MOST_PAIRS, seed)
    person = numbered(owner[chosen])
    part = _enrolled(person, seed)
    centred = unit(np.asarray(vectors[chosen] - centre, np.float32))
    templates = unit(np.asarray(part.astype(np.float32) @ centred, np.float32))
    face, template = np.nonzero(~part.T)
    score = np.matmul(centred, templates.T)[face, template]
    first, second = person[face], person[template]
    return Pairs(score.astype(np.float32), first == second, first, second)


def _enrolled(person: Numbers, seed: int) -> NDArray[np.bool_]:
    """(templates, faces) which faces each template is made of: as many templates as faces."""
    generator = np.random.default_rng(seed)
    part = np.eye(len(person), dtype=bool)
    for whose in np.unique(person):
        own = generator.permutation(np.flatnonzero(person == whose))
        for step in range(1, min(_ENROLLED_FROM, len(own) - 1)):
            part[own, np.roll(own, step)] = True
    return part


def tar(pairs: Pairs, fmr: float = FMR) -> float:
    """True accepts at a rate of false matches; 0 without pairs of either kind."""
    genuine, impostor = pairs.genuine, pairs.impostor
    if not len(genuine) or not len(impostor):
        return 0.0
    return float((genuine >= upper_quantile(impostor, fmr)).mean())


def supported(pairs: Sequence[Pairs]) -> list[float]:
    """The rates of false matches that the impostor pairs of every fold can support."""
    fewest = min(len(part.impostor) for part in pairs)
    return [rate for rate in FMRS if support(rate, fewest)[0]]


def change(before: Sequence[Pairs], after: Sequence[Pairs], fmr: float, seed: int = 0) -> Change:
    """Compare two embedders on the same pairs, one `Pairs` of each for every fold."""
    weight = np.array([len(part.genuine) for part in before], np.float64)
    weight /= weight.sum()
    drawn = np.zeros(_RESAMPLES)
    for k, (old, new) in enumerate(zip(before, after, strict=True)):
        # The same people and seed give the same samples, so that the two are compared in pairs.
        tars = [resampled_tars(pairs, [fmr], seed + k, _RESAMPLES)[0] for pairs in (old, new)]
        drawn += weight[k] * np.nan_to_num(tars[1] - tars[0])
    lower, upper = np.quantile(drawn, (0.025, 0.975))
    return Change(
        fmr=fmr,
        before=float(weight @ [tar(part, fmr) for part in before]),
        after=float(weight @ [tar(part, fmr) for part in after]),
        lower_95=float(lower),
        upper_95=float(upper),
        certainty=float((drawn > 0).mean()),
        people=sum(part.people for part in before),
        genuine_pairs=sum(len(part.genuine) for part in before),
        impostor_pairs=sum(len(part.impostor) for part in before),
    )
