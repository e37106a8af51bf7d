"""Two faces: the same person or not. Rates over pairs, as pure functions on arrays.

A score is a similarity: the higher, the more alike. Knows scores and numbered people; knows nothing
about bundles, files or pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import roc_auc_score, roc_curve

from training.measure.metrics import (
    ERRORS_TO_MENTION,
    RESAMPLES,
    Scores,
    multiplicities,
    support,
    upper_quantile,
)
from training.vectors import Flags, Numbers, Vectors, numbered, person_means, unit

FMRS = (1e-2, 1e-3, 1e-4)
MOST_PAIRS = 5_000_000
"""More pairs than this are not made of a data set; its faces are thinned evenly over people."""

_CURVE_POINTS = 300
_CENTRE_BLOCKS = 24
_TAIL = 4.0


@dataclass(frozen=True)
class Pairs:
    """Compared faces.

    Attributes:
        score: (n,) similarities.
        same: (n,) whether both are one person's.
        first, second: (n,) number of the person on either side, from 0.
    """

    score: Scores
    same: Flags
    first: Numbers
    second: Numbers

    def __len__(self) -> int:
        return len(self.score)

    @property
    def genuine(self) -> Scores:
        """Scores of pairs of one person."""
        return self.score[self.same]

    @property
    def impostor(self) -> Scores:
        """Scores of pairs of two people."""
        return self.score[~self.same]

    @property
    def people(self) -> int:
        """How many people take part."""
        return len(np.union1d(self.first, self.second))


@dataclass(frozen=True)
class Curve:
    """Error rates over all thresholds, thinned: FMR rises, threshold falls."""

    fmr: list[float]
    tar: list[float]
    threshold: list[float]


@dataclass(frozen=True)
class TarAtFmr:
    """True accepts at a rate of false matches.

    Attributes:
        fmr: asked for.
        tar: the share of genuine pairs that reach the threshold; None where the impostor pairs
            cannot support the rate.
        lower_95, upper_95: bootstrapped by subject; None where there are too few people.
        threshold: the lowest that at most that rate of impostor pairs reach.
        errors: how many false matches the rate rests on.
        warning: why the figure is weak or missing; "" where it is sound.
    """

    fmr: float
    tar: float | None
    lower_95: float | None
    upper_95: float | None
    threshold: float | None
    errors: float
    warning: str


@dataclass(frozen=True)
class AtThreshold:
    """What a threshold that was set elsewhere does to these pairs.

    Attributes:
        threshold: the similarity.
        promised_fmr: the rate that it was set for.
        fmr, tar: as measured here.
        fmr_upper_95: upper end of the 95 % interval, by the bootstrap over subjects; None with
            fewer than three errors, of which the bootstrap has no more to see.
        errors: how many impostor pairs reached it.
    """

    threshold: float
    promised_fmr: float
    fmr: float | None
    fmr_upper_95: float | None
    tar: float | None
    errors: int


@dataclass(frozen=True)
class FoldedAccuracy:
    """LFW's figure: mean accuracy over ten folds, each at the other nine's best threshold.

    Attributes:
        mean: of the folds' accuracies.
        standard_error: of that mean.
        folds: the accuracies.
        pairs: how many pairs.
    """

    mean: float
    standard_error: float
    folds: list[float]
    pairs: int


def all_pairs(vectors: Vectors, owner: Numbers, centre: Vectors | None) -> Pairs:
    """Every face against every other.

    Args:
        vectors: (n, d) unit vectors, not centred.
        owner: (n,) whose they are.
        centre: (d) the mean face. None: the mean of everybody but the two people compared, as it
            is for users who took no part in it; people are taken in at most 24 blocks, and a whole
            block is left out at a time.

    Raises:
        ValueError: the centre is to be made of too few people.
    """
    people = numbered(owner)
    first, second = np.triu_indices(len(owner), 1)
    if centre is not None:
        own = unit(vectors - centre)
        score = (own @ own.T)[first, second]
    else:
        score = _without_either(vectors, people)[first, second]
    return Pairs(
        score.astype(np.float32),
        people[first] == people[second],
        people[first],
        people[second],
    )


def _without_either(vectors: Vectors, owner: Numbers) -> Vectors:
    """(n, n) cosines, centred each time on the people of other blocks than the two compared."""
    people = int(owner.max()) + 1
    if people < 3:
        raise ValueError(
            f"It takes at least three people to compare faces with a vectorizer, which has no "
            f"mean face of its own; there {'is' if people == 1 else 'are'} {people}."
        )
    means = person_means(vectors, owner, people)
    blocks = min(people, _CENTRE_BLOCKS)
    block_of = np.arange(people) % blocks
    sums = np.zeros((blocks, vectors.shape[1]))
    np.add.at(sums, block_of, means)
    sizes = np.bincount(block_of)
    members = [np.flatnonzero(block_of[owner] == k) for k in range(blocks)]
    scores = np.empty((len(vectors), len(vectors)), np.float32)
    for a in range(blocks):
        for b in range(a, blocks):
            out = [a] if a == b else [a, b]
            rest = people - sizes[out].sum()
            centre = ((sums.sum(axis=0) - sums[out].sum(axis=0)) / rest).astype(np.float32)
            across = unit(vectors[members[a]] - centre) @ unit(vectors[members[b]] - centre).T
            scores[np.ix_(members[a], members[b])] = across
            scores[np.ix_(members[b], members[a])] = across.T
    return scores


def thinned(owner: Numbers, most_pairs: int, seed: int) -> Numbers:
    """Sorted indices of as many faces as a number of pairs allows, evenly over people.

    Everybody keeps faces where that is possible; where not, people are drawn, two faces each.
    """
    most = int((2 * most_pairs) ** 0.5)
    if len(owner) <= most:
        return np.arange(len(owner))
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(owner))
    order = order[np.argsort(owner[order], kind="stable")]
    counts = np.bincount(owner)
    place = np.empty(len(owner), np.int64)  # of each face among its person's, in drawn order
    place[order] = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    each = 2
    while np.minimum(counts, each + 1).sum() <= most:
        each += 1
    chosen = place < each
    if chosen.sum() > most:
        drawn = generator.permutation(len(counts))
        enough = drawn[np.cumsum(np.minimum(counts, each)[drawn]) <= most]
        chosen &= np.isin(owner, enough)
    return np.flatnonzero(chosen)


def people_of(first: Numbers, second: Numbers, same: Flags, files: int) -> Numbers:
    """(files,) the person of each file, as far as pairs tell: files called the same are linked."""
    links = coo_array((np.ones(int(same.sum())), (first[same], second[same])), shape=(files, files))
    _, person = connected_components(links, directed=False)
    return np.asarray(person, np.int64)


def curve(pairs: Pairs) -> Curve:
    """The ROC and DET curve, thinned to a few hundred points, evenly over FMR's magnitude."""
    fmr, tar, threshold = roc_curve(pairs.same, pairs.score)
    wanted = np.concatenate(
        [[0.0], np.geomspace(1 / max(1, len(pairs.impostor)), 1.0, _CURVE_POINTS)]
    )
    kept = np.unique(np.searchsorted(fmr, wanted, side="right") - 1)
    finite = np.where(np.isfinite(threshold), threshold, threshold[1] if len(threshold) > 1 else 1)
    return Curve(fmr[kept].tolist(), tar[kept].tolist(), finite[kept].astype(float).tolist())


def area(pairs: Pairs) -> float:
    """The area under the ROC curve: how often a genuine pair outscores an impostor pair."""
    return float(roc_auc_score(pairs.same, pairs.score))


def equal_error_rate(pairs: Pairs) -> float:
    """The rate at which false matches and false non-matches are equally frequent."""
    fmr, tar, _ = roc_curve(pairs.same, pairs.score, drop_intermediate=False)
    gap = fmr - (1 - tar)
    k = int(np.searchsorted(gap, 0.0))
    if gap[k] == 0.0 or k == 0:
        return float(fmr[k])
    # The two curves cross between two thresholds.
    share = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float(fmr[k - 1] + share * (fmr[k] - fmr[k - 1]))


class PairBootstrap:
    """The bootstrap by subject, of pairs: each sample draws as many people as there are.

    A pair counts as often as both of its people were drawn together: the product of how often each
    was.

    Args:
        first, second: (n,) number of the person on either side.
        seed: of the draws; the same people and seed give the same samples.
        resamples: how many samples.
    """

    def __init__(
        self, first: Numbers, second: Numbers, seed: int, resamples: int = RESAMPLES
    ) -> None:
        numbers = numbered(np.concatenate([first, second]))
        self.first, self.second = np.split(numbers.astype(np.int32), 2)
        self.people = int(numbers.max(initial=0)) + 1
        self.times = np.array(list(multiplicities(self.people, seed, resamples)), np.float64)

    def weights(self, chosen: Flags) -> NDArray[np.float64]:
        """(resamples,) how much the chosen pairs count in each sample."""
        a, b = self.first[chosen], self.second[chosen]
        shape = (self.people, self.people)
        met = coo_array((np.ones(len(a)), (a, b)), shape=shape).tocsr()
        weights: NDArray[np.float64] = ((self.times @ met) * self.times).sum(axis=1)
        return weights


def tar_at_fmr(pairs: Pairs, targets: Sequence[float] = FMRS, seed: int = 0) -> list[TarAtFmr]:
    """True accepts at each rate of false matches, none where the impostor pairs are too few.

    The interval is of a bootstrap over people, see `resampled_tars`.
    """
    genuine, impostor = pairs.genuine, pairs.impostor
    supported = {rate: support(rate, len(impostor)) for rate in targets}
    quoted = [rate for rate, (sound, _) in supported.items() if sound and len(genuine)]
    drawn = dict(zip(quoted, resampled_tars(pairs, quoted, seed), strict=True))
    results = []
    for rate, (_, warning) in supported.items():
        errors = rate * len(impostor)
        if rate not in drawn:
            results.append(TarAtFmr(rate, None, None, None, None, errors, warning))
            continue
        threshold = upper_quantile(impostor, rate)
        tar = float((genuine >= threshold).mean())
        known = drawn[rate][np.isfinite(drawn[rate])]
        lower, upper = None, None
        if pairs.people > 2 and len(known):
            lower, upper = np.quantile(known, (0.025, 0.975)).tolist()
        results.append(TarAtFmr(rate, tar, lower, upper, threshold, errors, warning))
    return results


def resampled_tars(
    pairs: Pairs, targets: Sequence[float], seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """(targets, resamples) TAR at each FMR in bootstrap samples of people.

    An impostor pair counts as in `PairBootstrap`, a genuine pair as often as its one person was
    drawn. The threshold is set anew in each sample; NaN where a sample has no pairs of a kind.
    """
    found = np.full((len(targets), resamples), np.nan)
    if not targets:
        return found
    bootstrap = PairBootstrap(pairs.first, pairs.second, seed, resamples)
    rising = np.argsort(pairs.genuine)[::-1]
    genuine, of_genuine = pairs.genuine[rising], bootstrap.first[pairs.same][rising]
    order = np.argsort(pairs.impostor)[::-1]
    falling = pairs.impostor[order]
    a, b = bootstrap.first[~pairs.same][order], bootstrap.second[~pairs.same][order]
    # Only the highest scores decide; in a sample a few people may have more than their share of
    # them, so a wider tail is looked at, and all of it where even that is not enough.
    tail = min(len(falling), int(_TAIL * max(targets) * len(falling)) + 1000)
    totals = bootstrap.weights(~pairs.same).tolist()
    for n, (times, total) in enumerate(zip(bootstrap.times, totals, strict=True)):
        accepted_of = times[of_genuine].sum()
        if not accepted_of or not total:
            continue
        running = np.cumsum(times[a[:tail]] * times[b[:tail]])
        for k, rate in enumerate(targets):
            weight = running
            if running[-1] <= rate * total and tail < len(falling):
                weight = np.cumsum(times[a] * times[b])
            place = int(np.searchsorted(weight, rate * total + 1e-9, side="right"))
            rejected = falling[min(place, len(weight) - 1)]
            count = int(np.searchsorted(-genuine, -rejected))  # genuine pairs with higher scores
            found[k, n] = times[of_genuine[:count]].sum() / accepted_of
    return found


def at_threshold(pairs: Pairs, threshold: float, promised_fmr: float, seed: int = 0) -> AtThreshold:
    """What a threshold that was set elsewhere does to these pairs."""
    genuine, impostor = pairs.genuine, pairs.impostor
    accepted = impostor >= np.float32(threshold)
    upper = None
    if accepted.sum() >= ERRORS_TO_MENTION:
        bootstrap = PairBootstrap(pairs.first, pairs.second, seed)
        wrong = np.zeros(len(pairs), bool)
        wrong[~pairs.same] = accepted
        met = bootstrap.weights(~pairs.same)
        rates = bootstrap.weights(wrong)[met > 0] / met[met > 0]
        upper = float(np.quantile(rates, 0.975)) if len(rates) else None
    return AtThreshold(
        threshold=threshold,
        promised_fmr=promised_fmr,
        fmr=float(accepted.mean()) if len(impostor) else None,
        fmr_upper_95=upper,
        tar=float((genuine >= np.float32(threshold)).mean()) if len(genuine) else None,
        errors=int(accepted.sum()),
    )


def folded_accuracy(score: Scores, same: Flags, fold: Numbers) -> FoldedAccuracy:
    """LFW's protocol: each fold's accuracy at the threshold that is best on the others.

    Args:
        score: (n,) similarities; -inf for a pair that could not be compared, which is answered
            "different" as it would be in use.
        same: (n,) whether it is one person.
        fold: (n,) which fold a pair belongs to, at least two of them.
    """
    numbers = np.unique(fold)
    accuracies = []
    for k in numbers:
        test = fold == k
        threshold = _most_accurate(score[~test], same[~test])
        accuracies.append(float(((score[test] >= threshold) == same[test]).mean()))
    spread = float(np.std(accuracies, ddof=1))
    return FoldedAccuracy(
        mean=float(np.mean(accuracies)),
        standard_error=spread / len(accuracies) ** 0.5,
        folds=accuracies,
        pairs=len(score),
    )


def _most_accurate(score: Scores, same: Flags) -> float:
    """The threshold with the most right answers: between two neighbouring scores."""
    order = np.argsort(score)[::-1]
    falling = score[order]
    # Accepting the first k pairs: their genuine ones are right, and all impostors after them.
    gain = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))])
    # Equal scores are accepted together or not at all.
    possible = np.concatenate([[True], falling[1:] < falling[:-1], [True]])
    k = int(np.where(possible, gain, -len(gain) - 1).argmax())
    if k == 0:
        return float(np.nextafter(falling[0], np.float32(np.inf)))
    if k == len(falling) or not np.isfinite(falling[k]):
        return float(falling[k - 1])
    return float((falling[k - 1] + falling[k]) / 2)
