"""How good names are: rates, tables and calibration, as pure functions on arrays.

Terms are those of ISO/IEC 19795-1: a mated search is one for somebody who is in the gallery. Knows
ranks, scores and numbered people; knows nothing about bundles, files or pictures. Pairs of faces
are `training.measure.verification`'s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from training.vectors import Flags, Numbers

Scores = NDArray[np.float32]

RESAMPLES = 1000
ERRORS_TO_QUOTE = 30
"""Doddington's rule of 30: with so many errors a rate is within 30 % of the true one, at 90 %
confidence, were all of them independent."""

ERRORS_TO_MENTION = 3
"""With fewer than 30 errors but at least so many, a rate is given with a warning beside it; with
fewer than that it is not given at all."""

CONFIDENCE_BINS = 15
_CURVE_POINTS = 300


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval.

    Attributes:
        value: 0 to 1.
        lower_95, upper_95: the looser, on each side, of Clopper and Pearson's interval, which
            takes the cases as independent, and the bootstrap by subject, which does not but sees
            no further than the errors that were made.
        count: cases it is a share of.
        people: whom the cases come from.
    """

    value: float
    lower_95: float
    upper_95: float
    count: int
    people: int


@dataclass(frozen=True)
class PersonResult:
    """What became of one person's faces.

    Attributes:
        person: name.
        faces: how many.
        top_1: share whose most similar person is the right one.
        named: share called by the right name ("is").
        misnamed: share called by a wrong name.
        taken_for: the wrong person most often most similar; None where there is none.
    """

    person: str
    faces: int
    top_1: float
    named: float
    misnamed: float
    taken_for: str | None


@dataclass(frozen=True)
class Confusion:
    """How many (and what share) of one person's faces are most similar to another person."""

    person: str
    taken_for: str
    faces: int
    share: float


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        lower, upper: limits of the confidence.
        count: answers in it.
        confidence: their mean confidence; 0 where there is none.
        accuracy: the share that is right; 0 where there is none.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class OpenSetPoint:
    """A threshold for names, and what it costs.

    Attributes:
        threshold: similarity from which a face is called by name.
        fpir: false positive identification rate: strangers called by any name.
        fnir: false negative identification rate: mated searches not called by the right name.
    """

    threshold: float
    fpir: float
    fnir: float


@dataclass(frozen=True)
class OpenSetRate:
    """The false negatives at a rate of false positives.

    Attributes:
        fpir: asked for.
        fnir: at that rate; None where too few strangers support it.
        threshold: similarity that gives it; None likewise.
        errors: how many false positives the rate would rest on.
        warning: why the figure is weak or missing; "" where it is sound.
    """

    fpir: float
    fnir: float | None
    threshold: float | None
    errors: float
    warning: str


def multiplicities(people: int, seed: int, resamples: int = RESAMPLES) -> Iterator[Numbers]:
    """Bootstrap samples of people: how often each was drawn, (people,) at a time."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, people, people), minlength=people)


def resampled_rates(
    hits: NDArray[Any], cases: Numbers, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """(resamples,) the rate of hits in bootstrap samples of people, who have (people,) of each."""
    drawn = multiplicities(len(cases), seed, resamples)
    return np.array([(hits @ times) / (cases @ times) for times in drawn])


def rate(hit: Flags, subject: Numbers, seed: int = 0) -> Rate | None:
    """The share of hits, with an interval that knows that faces of one person are alike.

    Args:
        hit: (n,) of each case, whether it is one.
        subject: (n,) whose case it is; any numbers.
        seed: of the bootstrap.

    Returns:
        None where there is no case.
    """
    if not len(hit):
        return None
    people, renumbered = np.unique(subject, return_inverse=True)
    hits, cases = np.bincount(renumbered, hit), np.bincount(renumbered)
    drawn = resampled_rates(hits, cases, seed)
    lower, upper = clopper_pearson(int(hit.sum()), len(hit))
    return Rate(
        value=float(hit.mean()),
        lower_95=min(lower, float(np.quantile(drawn, 0.025))),
        upper_95=max(upper, float(np.quantile(drawn, 0.975))),
        count=len(hit),
        people=len(people),
    )


def clopper_pearson(hits: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share of independent cases (Clopper and Pearson 1934).

    Args:
        hits: how many; a fraction where a share is carried over to another number of cases.
        count: of all cases.
        level: of confidence. The upper end at 0.9 is the one-sided bound of 95 %.
    """
    tail = (1 - level) / 2
    lower = float(beta.ppf(tail, hits, count - hits + 1)) if hits else 0.0
    upper = float(beta.ppf(1 - tail, hits + 1, count - hits)) if hits < count else 1.0
    return lower, upper


def support(rate: float, cases: int) -> tuple[bool, str]:
    """Whether so many cases support a rate of errors, and what is to be said about it.

    The rule of 30 (see `ERRORS_TO_QUOTE`); from three errors on the rate is given with a warning.
    """
    errors = rate * cases + 1e-9
    if errors >= ERRORS_TO_QUOTE:
        return True, ""
    if errors >= ERRORS_TO_MENTION:
        return True, f"rests on {int(errors)} errors only; 30 would make it firm"
    needed = int(np.ceil(ERRORS_TO_MENTION / rate))
    return False, f"{cases:,} comparisons cannot support it; it takes {needed:,} at the least"


def per_person(
    truth: Numbers, answer: Numbers, named: Flags, names: Sequence[str]
) -> list[PersonResult]:
    """A row for each person who has faces, worst first.

    Args:
        truth: (n,) whose faces they are.
        answer: (n,) the most similar person.
        named: (n,) whether that similarity suffices for a name.
        names: of all people, by number.
    """
    rows = []
    for person, name in enumerate(names):
        own = truth == person
        if not own.any():
            continue
        right = answer[own] == person
        wrong = answer[own][~right]
        rows.append(
            PersonResult(
                person=name,
                faces=int(own.sum()),
                top_1=float(right.mean()),
                named=float((right & named[own]).mean()),
                misnamed=float((~right & named[own]).mean()),
                taken_for=names[int(np.bincount(wrong).argmax())] if len(wrong) else None,
            )
        )
    return sorted(rows, key=lambda row: (row.top_1, row.named))


def most_confused(
    truth: Numbers, answer: Numbers, limit: int, names: Sequence[str]
) -> list[Confusion]:
    """The pairs of people most often confused, most faces first; see `per_person`."""
    wrong = truth != answer
    pairs, counts = np.unique(np.stack([truth[wrong], answer[wrong]]), axis=1, return_counts=True)
    faces = np.bincount(truth)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [
        Confusion(
            person=names[pairs[0, k]],
            taken_for=names[pairs[1, k]],
            faces=int(counts[k]),
            share=float(counts[k] / faces[pairs[0, k]]),
        )
        for k in order
    ]


def confusion_matrix(truth: Numbers, answer: Numbers, chosen: Sequence[int]) -> Numbers:
    """(k, k) faces of one of the chosen people (row) that are most similar to another (column).

    Args:
        truth: (n,) whose faces they are.
        answer: (n,) the most similar person.
        chosen: (k) numbers of people, rising.
    """
    counts = np.zeros((len(chosen), len(chosen)), np.int64)
    both = np.isin(truth, chosen) & np.isin(answer, chosen)
    places = np.searchsorted(chosen, truth[both]), np.searchsorted(chosen, answer[both])
    np.add.at(counts, places, 1)
    return counts


def reliability(confidence: Scores, right: Flags, bins: int = CONFIDENCE_BINS) -> list[Bin]:
    """Answers in bins of equal width by confidence, as a reliability diagram shows them."""
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    found = []
    for k in range(bins):
        own = place == k
        count = int(own.sum())
        found.append(
            Bin(
                lower=k / bins,
                upper=(k + 1) / bins,
                count=count,
                confidence=float(confidence[own].mean(dtype=np.float64)) if count else 0.0,
                accuracy=float(right[own].mean()) if count else 0.0,
            )
        )
    return found


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance of confidence and accuracy over all answers (Guo et al. 2017)."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / max(total, 1)


def open_set(mated: Scores, strangers: Scores) -> list[OpenSetPoint]:
    """FPIR and FNIR over all thresholds, thinned to a few hundred points.

    Args:
        mated: (n,) the similarity with which a mated search found the right person first; -inf
            where somebody else came first.
        strangers: (m,) the similarity of each non-mated search's best match.
    """
    if not len(mated) or not len(strangers):
        return []
    found, best = np.sort(mated), np.sort(strangers)
    # Thresholds at the strangers' own scores, densest where they are highest.
    ranks = np.unique(np.geomspace(1, len(best), _CURVE_POINTS).astype(int))
    thresholds = [float(np.nextafter(best[-1], np.float32(np.inf))), *map(float, best[-ranks])]
    return [_open_set_point(found, best, threshold) for threshold in thresholds]


def _open_set_point(found: Scores, best: Scores, threshold: float) -> OpenSetPoint:
    """One point of the curve, from sorted scores."""
    return OpenSetPoint(
        threshold=threshold,
        fpir=1 - float(np.searchsorted(best, np.float32(threshold))) / len(best),
        fnir=float(np.searchsorted(found, np.float32(threshold))) / len(found),
    )


def open_set_rates(mated: Scores, strangers: Scores, targets: Sequence[float]) -> list[OpenSetRate]:
    """The FNIR at each FPIR asked for, where there are strangers enough for it."""
    rates = []
    for target in targets:
        supported, warning = support(target, len(strangers))
        if not supported or not len(mated):
            rates.append(OpenSetRate(target, None, None, target * len(strangers), warning))
            continue
        threshold = upper_quantile(strangers, target)
        point = _open_set_point(np.sort(mated), np.sort(strangers), threshold)
        rates.append(OpenSetRate(target, point.fnir, threshold, target * len(strangers), warning))
    return rates


def upper_quantile(values: NDArray[np.floating], rate: float) -> float:
    """The lowest threshold that at most a `rate` of the values reach."""
    allowed = min(int(rate * len(values) + 1e-9), len(values) - 1)
    place = len(values) - 1 - allowed
    return float(np.nextafter(np.partition(values, place)[place], np.float32(np.inf)))
