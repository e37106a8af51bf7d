"""What a similarity is worth, measured on people and photos that were held out.

Knows embeddings and owners; knows nothing about photos or files. Every figure says how many
comparisons it rests on.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from engine.bundle import Calibration, IdentificationRecord, PairRecord
from engine.gallery import best_per_person
from training.audit import mean_of_means, unit

Vectors = NDArray[np.float32]
Owners = NDArray[np.int64]
Prototypes = Callable[[Vectors, Owners, int], tuple[Vectors, Owners]]
"""(centred vectors, owner, people) to (prototypes, their owner)."""

FMR = 1e-3
_FOLDS = 5
_RESAMPLES = 10_000
_QUANTILES = 1001
_PAIR_RATES = (1e-2, 1e-3, 1e-4)
_MOST_PAIRS = 10_000_000
_MOST_LEFT_OUT = 200
_ERRORS_TO_QUOTE = 30
"""A rate is quoted only where at least so many errors of its kind were seen."""


def calibrate(
    vectors: Vectors, owner: Owners, people: int, prototypes: Prototypes
) -> tuple[Calibration, dict[str, float]]:
    """Measure everything that a bundle says about similarities.

    - Strangers: each person in turn (of more than 200, 200 of them) is left out of the gallery
      (and of its centre) and compared with it. Their best matches give the percentiles and the
      threshold of "is".
    - Genuine: photos are held out in five folds. They give the temperature, the true positive
      rate and top-1 and top-5.

    Args:
        vectors: (n, d) unit embeddings, not centred.
        owner: (n,) index of the person of each.
        people: how many people, at least 3, each with at least one vector.
        prototypes: how the gallery summarises people.

    Returns:
        The calibration and the metrics of the held-out photos.

    Raises:
        ValueError: there are too few people or photos.
    """
    if people < 3:
        raise ValueError("it takes at least three people to measure what strangers look like")
    best, stranger = _strangers(vectors, owner, people, prototypes)
    held_out, truth = _held_out(vectors, owner, people, prototypes)
    if not len(truth):
        raise ValueError("it takes people with at least two photos to measure anything")
    fmr = max(FMR, 1 / len(best))
    threshold = _upper_quantile(best, fmr)
    own = held_out[np.arange(len(truth)), truth]
    rank = (held_out > own[:, None]).sum(axis=1)
    first = rank == 0
    calibration = Calibration(
        source="own",
        temperature=_temperature(held_out, truth),
        stranger_quantiles=_weighted_quantiles(best, 1 / np.bincount(stranger)[stranger]),
        identification=IdentificationRecord(
            threshold=threshold,
            fmr=float((best >= threshold).mean()),
            fmr_upper_95=_upper_bound(best >= threshold, stranger),
            strangers=len(best),
            stranger_people=int(stranger.max()) + 1,
            genuine=len(truth),
            true_positive_rate=float((first & (own >= threshold)).mean()),
        ),
        pairs=_pairs(vectors, owner, people),
    )
    metrics = {"top_1": float(first.mean()), "top_5": float((rank < 5).mean())}
    return calibration, metrics


def scaled(theirs: Calibration, measured_on: int, people: int) -> Calibration:
    """A borrowed calibration for a gallery of more people than it was measured on.

    The best of more matches is higher: with the lender's strangers compared with m people, and
    people taken as independent (which errs on the safe side), their best match over n has the
    distribution function F to the power n/m. Beyond what was measured, the tail of F is taken as
    exponential above its 95th percentile, longer than that of any bounded score. A gallery of
    fewer people keeps the lender's figures, which then err on the safe side as well.

    Args:
        theirs: the lender's.
        measured_on: how many people its strangers were compared with.
        people: how many the borrowing gallery has.
    """
    identification = theirs.identification
    power = max(1.0, people / measured_on)
    if power == 1.0:
        return theirs
    quantiles = np.asarray(theirs.stranger_quantiles)
    steps = np.linspace(0, 1, len(quantiles))
    start = float(np.interp(0.95, steps, quantiles))
    scale = float((quantiles[quantiles > start] - start).mean())
    rarity = 1 - (1 - FMR) ** (1 / power)
    threshold = max(identification.threshold, start + scale * float(np.log(0.05 / rarity)))
    best = np.interp(steps ** (1 / power), steps, quantiles)
    return theirs.model_copy(
        update={
            "stranger_quantiles": [round(float(value), 5) for value in best],
            "identification": identification.model_copy(
                update={
                    "threshold": threshold,
                    "fmr": FMR,
                    "fmr_upper_95": 1 - (1 - identification.fmr_upper_95) ** power,
                }
            ),
        }
    )


def _scores(
    queries: Vectors, vectors: Vectors, owner: Owners, people: int, prototypes: Prototypes
) -> Vectors:
    """(queries, people) similarities to a gallery of the given vectors."""
    centre = mean_of_means(vectors, owner, people).mean(axis=0)
    made, made_owner = prototypes(unit(vectors - centre), owner, people)
    scores: Vectors = best_per_person(
        torch.from_numpy(unit(queries - centre)),
        torch.from_numpy(made),
        torch.from_numpy(made_owner),
        people,
    ).numpy()
    return scores


def _strangers(
    vectors: Vectors, owner: Owners, people: int, prototypes: Prototypes
) -> tuple[NDArray[np.float64], Owners]:
    """Each face's best match in a gallery without its person, and whose face it is."""
    best, stranger = [], []
    for person in np.unique(np.linspace(0, people - 1, min(people, _MOST_LEFT_OUT)).astype(int)):
        out = owner == person
        others = owner[~out] - (owner[~out] > person)
        scores = _scores(vectors[out], vectors[~out], others, people - 1, prototypes)
        best.append(scores.max(axis=1).astype(np.float64))
        stranger.append(owner[out])
    _, numbered = np.unique(np.concatenate(stranger), return_inverse=True)
    return np.concatenate(best), numbered.astype(np.int64)


def _held_out(
    vectors: Vectors, owner: Owners, people: int, prototypes: Prototypes
) -> tuple[Vectors, Owners]:
    """Scores of photos against a gallery built without them, and whose they are."""
    fold = np.zeros(len(owner), np.int64)
    for person in range(people):
        members = np.flatnonzero(owner == person)
        # A person's only photo always stays in the gallery.
        fold[members] = np.arange(len(members)) % _FOLDS if len(members) > 1 else -1
    scores, truth = [], []
    for k in range(_FOLDS):
        test = fold == k
        if test.any():
            scores.append(_scores(vectors[test], vectors[~test], owner[~test], people, prototypes))
            truth.append(owner[test])
    if not truth:
        return np.zeros((0, people), np.float32), np.zeros(0, np.int64)
    return np.concatenate(scores), np.concatenate(truth)


def _temperature(scores: Vectors, truth: Owners) -> float:
    """Of the softmax over people that makes the true people likeliest (Guo et al. 2017)."""
    exact = scores.astype(np.float64)

    def loss(log_temperature: float) -> float:
        logits = exact / np.exp(log_temperature)
        top = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return float((total - logits[np.arange(len(truth)), truth]).mean())

    found = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1.0)), method="bounded")
    return round(float(np.exp(found.x)), 5)


def _upper_bound(wrong: NDArray[np.bool_], stranger: Owners) -> float:
    """One-sided 95 % bound of an error rate: the looser of two.

    Clopper and Pearson's takes the faces as independent, which those of one person are not; the
    bootstrap by subject takes whole people, but sees no further than the errors that were made.
    """
    errors, faces = np.bincount(stranger, wrong), np.bincount(stranger)
    people = len(faces)
    exact = float(beta.ppf(0.95, wrong.sum() + 1, len(wrong) - wrong.sum()))
    drawn = np.random.default_rng(0).integers(0, people, (_RESAMPLES, people))
    rates = errors[drawn].sum(axis=1) / faces[drawn].sum(axis=1)
    return max(exact, float(np.quantile(rates, 0.95)))


def _upper_quantile(values: NDArray[np.floating], rate: float) -> float:
    """The lowest threshold that at most a `rate` of the values reach."""
    ordered = np.sort(values)
    allowed = int(rate * len(ordered) + 1e-9)
    return float(np.nextafter(ordered[len(ordered) - 1 - allowed], np.inf))


def _weighted_quantiles(values: NDArray[np.float64], weight: NDArray[np.float64]) -> list[float]:
    order = np.argsort(values, kind="stable")
    position = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    steps = np.linspace(0, 1, _QUANTILES)
    return [round(float(value), 5) for value in np.interp(steps, position, values[order])]


def _thinned(members: Owners, most: int) -> Owners:
    chosen = np.linspace(0, len(members) - 1, min(len(members), most)).astype(int)
    thinned: Owners = members[chosen]
    return thinned


def _pairs(vectors: Vectors, owner: Owners, people: int) -> list[PairRecord]:
    """Thresholds for two photos, centred without the people compared."""
    means = mean_of_means(vectors, owner, people)
    total = means.sum(axis=0)
    # Enough of each person, evenly over their photos, for a bounded number of pairs.
    most = max(2, int((2 * _MOST_PAIRS) ** 0.5 / people))
    members = [_thinned(np.flatnonzero(owner == person), most) for person in range(people)]
    genuine, impostor = [], []
    for a in range(people):
        own = unit(vectors[members[a]] - (total - means[a]) / (people - 1))
        genuine.append((own @ own.T)[np.triu_indices(len(own), 1)])
        for b in range(a + 1, people):
            centre = (total - means[a] - means[b]) / (people - 2)
            across = unit(vectors[members[a]] - centre) @ unit(vectors[members[b]] - centre).T
            impostor.append(across.ravel())
    same, other = np.concatenate(genuine), np.concatenate(impostor)
    records: list[PairRecord] = []
    for rate in _PAIR_RATES:
        if rate * len(other) < _ERRORS_TO_QUOTE and records:
            break
        threshold = _upper_quantile(other, max(rate, 1 / len(other)))
        records.append(
            PairRecord(
                threshold=threshold,
                fmr=max(rate, 1 / len(other)),
                impostor_pairs=len(other),
                genuine_pairs=len(same),
                people=people,
                true_accept_rate=float((same >= threshold).mean()) if len(same) else 0.0,
            )
        )
    return records
