"""What a similarity is worth, measured on people and photos that were held out.

Knows embeddings and owners; knows nothing about photos or files. Every figure says how many
comparisons it rests on. However many faces there are, the number of galleries that are built for
measuring is bounded, and memory beyond the embeddings themselves is too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from engine.bundle import Calibration, IdentificationRecord, PairRecord, RepeatedRecord, TailRecord
from engine.people.gallery import best_per_person
from training.console import Advance, silent
from training.measure import tails
from training.measure.metrics import (
    ERRORS_TO_QUOTE,
    clopper_pearson,
    resampled_rates,
    upper_quantile,
)
from training.vectors import Owners, Vectors, grouped, numbered, person_means, thinned, unit

Prototypes = Callable[[Vectors, Owners, int], tuple[Vectors, Owners]]
"""(centred vectors, owner, people) to (prototypes, their owner)."""

FMR = 1e-3
MANY_PHOTOS = 5
"""Of a stranger, from which on it counts how often the same name comes."""
OFTEN = 0.1
"""The share of a stranger's photos that may get the same name."""
SAME_PERSON = 0.5
"""Above this share of photos with one name, a stranger is taken for that person under another
name, or for a wrong label."""

_AIM = 0.5
"""The part of the rate that the threshold aims at where a tail was fitted: of strangers in three
folds, thresholds that aimed at the whole let through 0.09 and 0.15 %, at 0.7 of it up to 0.11 %,
where 0.1 % is promised. It costs half a point of the right names."""

_FOLDS = 5
_RESAMPLES = 10_000
_QUANTILES = 1001
_PAIR_RATES = (1e-2, 1e-3, 1e-4)
_MOST_PAIRS = 10_000_000
_MOST_COMPARED = 500
"""People whose photos are compared in pairs, at most."""
_MOST_ALONE = 200
"""Up to so many people are left out one by one, more of them in groups."""
_GROUPS = 10
_MOST_QUERIES = 100_000
"""Faces that are looked up, at most: of strangers, and of people held out."""
_MOST_SCORES = 2**24
"""Similarities that are held at the same time, about."""
_BLOCK = 65_536


@dataclass(frozen=True)
class Strangers:
    """Faces of people who are not in the gallery, nor in its centre or its training.

    Attributes:
        vectors: (n, d) unit embeddings, not centred.
        person: (n,) number of whose face it is, from 0 without gaps.
        name: of the data.
    """

    vectors: Vectors
    person: Owners
    name: str


@dataclass(frozen=True)
class _BestMatches:
    """Strangers' best matches.

    Attributes:
        best: (n,) the similarity.
        named: (n,) number of the person of the gallery; None where that is not known.
        person: (n,) number of the stranger, from 0 without gaps.
    """

    best: NDArray[np.float64]
    named: Owners | None
    person: Owners


@dataclass(frozen=True)
class _HeldOut:
    """Photos of the people, looked up in galleries without them.

    Attributes:
        own: (n,) similarity to the right person.
        person: (n,) who that is.
        rank: (n,) how many people are more similar.
        scores: (k, people) all similarities of some of the photos, evenly chosen.
        truth: (k,) whose those are.
    """

    own: Vectors
    person: Owners
    rank: Owners
    scores: Vectors
    truth: Owners


def calibrate(
    vectors: Vectors,
    owner: Owners,
    people: int,
    prototypes: Prototypes,
    advance: Advance = silent,
    *,
    group: Owners | None = None,
    strangers: Strangers | None = None,
) -> tuple[Calibration, dict[str, float]]:
    """Measure everything that a bundle says about similarities.

    - Strangers, where they are given, are compared with the gallery as it is. Otherwise each
      person in turn is left out of the gallery (and of its centre) and compared with it; more than
      200 people are left out a tenth at a time, and what was measured on nine tenths is carried
      over to all as in `scaled`. Their best matches give the percentiles and the threshold of
      "is".
    - Genuine: photos are held out in five folds, near-duplicates together. They give the
      temperature, the true positive rate and top-1 and top-5.

    Args:
        vectors: (n, d) unit embeddings, not centred.
        owner: (n,) index of the person of each.
        people: how many people, at least 3, each with at least one vector.
        prototypes: how the gallery summarises people.
        advance: told how many of the `rounds` are done.
        group: (n,) near-duplicates share one; None where there are none.
        strangers: people outside the gallery.

    Returns:
        The calibration and the metrics of the held-out photos.

    Raises:
        ValueError: there are too few people or photos.
    """
    moments = np.arange(len(owner)) if group is None else group
    if people < 3:
        raise ValueError("it takes at least three people to measure what strangers look like")
    groups = rounds(people, strangers) - _FOLDS
    if strangers is None:
        found = _left_out(vectors, owner, people, prototypes, advance)
        seen = people - -(-people // groups)
    else:
        found = _outside(vectors, owner, prototypes, strangers)
        seen = people - 1
        advance(groups)
    held_out = _held_out(
        vectors, owner, people, moments, prototypes, lambda done: advance(groups + done)
    )
    if not len(held_out.own):
        raise ValueError("it takes people with at least two photos to measure anything")
    compared = pairs(vectors, owner, people, moments)
    calibration, metrics = _assembled(held_out, found, compared, (people - 1) / seen)
    if strangers is not None:
        calibration = calibration.model_copy(update={"strangers": strangers.name})
    return calibration, metrics


def rounds(people: int, strangers: Strangers | None = None) -> int:
    """How many galleries `calibrate` builds to measure with."""
    if strangers is not None:
        return 1 + _FOLDS
    return (people if people <= _MOST_ALONE else _GROUPS) + _FOLDS


def assemble(
    held_out: Vectors,
    truth: Owners,
    best: NDArray[np.float64],
    stranger: Owners,
    thresholds: list[PairRecord],
    fmr: float = FMR,
    *,
    power: float = 1.0,
    named: Owners | None = None,
) -> tuple[Calibration, dict[str, float]]:
    """A calibration out of similarities that were measured on faces nobody learned from.

    Args:
        held_out: (n, people) similarities of photos of the people.
        truth: (n,) whose photos they are.
        best: (m,) best match of each face of a stranger.
        stranger: (m,) number of the stranger, from 0 without gaps.
        thresholds: for two photos, from `pairs`.
        fmr: that the threshold of "is" is set for.
        power: how many times as many people the bundle has as the strangers were compared with;
            the best of more matches is higher, see `scaled`.
        named: (m,) whose match it is; None where that is not known.

    Returns:
        The calibration and the metrics of the held-out photos.
    """
    own = held_out[np.arange(len(truth)), truth]
    rank = (held_out > own[:, None]).sum(axis=1)
    known = _HeldOut(own, truth, rank, held_out, truth)
    return _assembled(known, _BestMatches(best, named, stranger), thresholds, power, fmr)


def _assembled(
    held_out: _HeldOut,
    found: _BestMatches,
    thresholds: list[PairRecord],
    power: float,
    fmr: float = FMR,
) -> tuple[Calibration, dict[str, float]]:
    """See `assemble`; the gallery has `power` times as many people as the strangers met."""
    best, stranger = found.best, found.person
    weight = 1 / np.bincount(stranger)[stranger]
    tail = tails.fit(best, weight)
    rarity = max(1 - (1 - fmr) ** (1 / power), 1 / len(best))
    threshold = upper_quantile(best, rarity)
    if tail is not None:
        # What a handful of faces say about one in a thousand, the whole tail says better; the
        # higher of the two, and a little beyond, keeps the rate for other people than these.
        threshold = max(threshold, tail.level(min(_AIM * rarity, tail.rate)))
    floors = _floors(found, threshold)
    reached = best >= _needed(found.named, floors, threshold)
    named = held_out.own >= _needed(held_out.person, floors, threshold)
    first = held_out.rank == 0
    calibration = Calibration(
        source="own",
        temperature=_temperature(held_out.scores, held_out.truth),
        stranger_quantiles=_weighted_quantiles(best, weight, power),
        tail=None if tail is None else _of_more_people(tail, power),
        identification=IdentificationRecord(
            threshold=threshold,
            fmr=float(1 - (1 - reached.mean()) ** power),
            fmr_upper_95=1 - (1 - _upper_bound(reached, stranger)) ** power,
            strangers=len(best),
            stranger_people=int(stranger.max()) + 1,
            genuine=len(held_out.own),
            true_positive_rate=float((first & named).mean()),
            repeated=None if found.named is None else repeated(reached, found.named, stranger),
        ),
        floors=floors,
        pairs=thresholds,
    )
    metrics = {"top_1": float(first.mean()), "top_5": float((held_out.rank < 5).mean())}
    return calibration, metrics


def _needed(
    person: Owners | None, floors: Mapping[int, float], threshold: float
) -> NDArray[np.float64] | float:
    """(n,) the similarity from which each person of the gallery is named."""
    if person is None or not floors:
        return threshold
    return np.array([floors.get(one, threshold) for one in person.tolist()])


def repeated(named: NDArray[np.bool_], name: Owners, person: Owners) -> RepeatedRecord | None:
    """How many strangers are called the same wrong name in more than a tenth of their photos.

    Args:
        named: (n,) whether each face of a stranger is called by a name.
        name: (n,) by which.
        person: (n,) whose face it is, from 0.

    Returns:
        None where nobody has five photos.
    """
    photos = np.bincount(person)
    many = np.flatnonzero(photos >= MANY_PHOTOS)
    if not len(many):
        return None
    often = [
        int(np.bincount(name[(person == one) & named], minlength=1).max()) > OFTEN * photos[one]
        for one in many
    ]
    _, upper = clopper_pearson(sum(often), len(often), 0.9)
    return RepeatedRecord(people=len(often), share=float(np.mean(often)), share_upper_95=upper)


def _floors(found: _BestMatches, threshold: float) -> dict[int, float]:
    """Higher thresholds for the names that a stranger with many photos gets again and again.

    Raising the threshold for everybody would cost everybody; the likeness is of two people.

    Args:
        found: strangers' best matches.
        threshold: of everybody.

    Returns:
        The number of a person of the gallery to the lowest threshold at which nobody with five
        photos or more gets that name in more than a tenth of them. Whoever gets one name in more
        than half of them does not count: that is the person of that name, or a wrong label, and
        should be looked at.
    """
    floors: dict[int, float] = {}
    if found.named is None:
        return floors
    photos = np.bincount(found.person)
    called = found.best >= threshold
    for one in np.unique(found.person[called]).tolist():
        if photos[one] < MANY_PHOTOS:
            continue
        own, allowed = called & (found.person == one), int(OFTEN * photos[one])
        for name in np.unique(found.named[own]).tolist():
            falling = -np.sort(-found.best[own & (found.named == name)])
            if allowed < len(falling) <= SAME_PERSON * photos[one]:
                above = float(np.nextafter(np.float32(falling[allowed]), np.float32(2.0)))
                floors[name] = max(floors.get(name, threshold), above)
    return floors


def _of_more_people(tail: TailRecord, power: float) -> TailRecord:
    """The tail of the best of `power` times as many matches, see `scaled`.

    Far out, F to a power has the same tail, so many times as heavy: it is begun where the same
    share as before lies above it. (Beyond any point of its own, a generalised Pareto distribution
    is one of the same shape.)
    """
    start = tail.level(1 - (1 - tail.rate) ** (1 / power))
    return tail.model_copy(
        update={"start": start, "scale": tail.scale + tail.shape * (start - tail.start)}
    )


def scaled(theirs: Calibration, measured_on: int, people: int) -> Calibration:
    """A borrowed calibration for a gallery of more people than it was measured on.

    The best of more matches is higher: with the lender's strangers compared with m people, and
    people taken as independent (which errs on the safe side), their best match over n has the
    distribution function F to the power n/m. The tail of F is the fitted one as far as it was
    measured: to where one of the lender's strangers lies beyond. From there, and above the 95th
    percentile where none was fitted, it is taken as exponential, longer than that of any bounded
    score. A gallery of fewer people keeps the lender's figures, which then err on the safe side as
    well.

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
    tail = quantiles[quantiles > start] - start
    scale = float(tail.mean()) if len(tail) else 0.0
    # What the threshold was set for: floors lower the rate, and few strangers support no low one.
    rate = max(FMR, identification.fmr, 1 / identification.strangers)
    rarity = 1 - (1 - rate) ** (1 / power)
    if theirs.tail is not None:
        measured = min(theirs.tail.rate, max(rarity, 1 / identification.strangers))
        level = theirs.tail.level(measured) + scale * max(0.0, float(np.log(measured / rarity)))
    else:
        level = start + scale * float(np.log(0.05 / rarity))
    threshold = max(identification.threshold, level)
    best = np.interp(steps ** (1 / power), steps, quantiles)
    return theirs.model_copy(
        update={
            "stranger_quantiles": [round(float(value), 5) for value in best],
            "tail": theirs.tail and _of_more_people(theirs.tail, power),
            "identification": identification.model_copy(
                update={
                    "threshold": threshold,
                    "fmr": rate,
                    "fmr_upper_95": 1 - (1 - identification.fmr_upper_95) ** power,
                }
            ),
        }
    )


@dataclass(frozen=True)
class _PartialGallery:
    """Some of the faces, summarised as the bundle would summarise them."""

    centre: Vectors
    prototypes: Vectors
    owner: Owners
    people: int

    def scores(self, queries: Vectors) -> Iterator[Vectors]:
        """(k, people) similarities, a bounded number of queries at a time."""
        size = max(1, _MOST_SCORES // max(self.people, len(self.prototypes)))
        made, owner = torch.from_numpy(self.prototypes), torch.from_numpy(self.owner)
        for start in range(0, len(queries), size):
            part = torch.from_numpy(unit(queries[start : start + size] - self.centre))
            yield best_per_person(part, made, owner, self.people).numpy()


def _gallery(
    vectors: Vectors, owner: Owners, kept: Owners, prototypes: Prototypes
) -> _PartialGallery:
    """A gallery of the faces `kept`, of the people who have any, numbered without gaps.

    Only a block of whole people is copied at a time.
    """
    ordered = kept[np.argsort(owner[kept], kind="stable")]
    starts = np.flatnonzero(np.diff(owner[ordered], prepend=-1))
    ends = np.append(starts[1:], len(ordered))
    blocks: list[tuple[int, int]] = []
    first = 0
    for person in range(1, len(starts) + 1):
        if person == len(starts) or ends[person] - starts[first] > _BLOCK:
            blocks.append((first, person))
            first = person
    means = np.empty((len(starts), vectors.shape[1]), np.float32)
    for first, last in blocks:
        exact = vectors[ordered[starts[first] : ends[last - 1]]].astype(np.float64)
        sums = np.add.reduceat(exact, starts[first:last] - starts[first])
        means[first:last] = sums / (ends[first:last] - starts[first:last])[:, None]
    centre = means.mean(axis=0)
    made, made_owner = [], []
    for first, last in blocks:
        part = unit(vectors[ordered[starts[first] : ends[last - 1]]] - centre)
        whose = np.repeat(np.arange(last - first), ends[first:last] - starts[first:last])
        found, found_owner = prototypes(part, whose, last - first)
        made.append(found)
        made_owner.append(found_owner + first)
    return _PartialGallery(centre, np.concatenate(made), np.concatenate(made_owner), len(starts))


def _outside(
    vectors: Vectors, owner: Owners, prototypes: Prototypes, strangers: Strangers
) -> _BestMatches:
    """The best match of each stranger's face in the gallery of everybody."""
    asked = thinned(np.arange(len(strangers.person)), _MOST_QUERIES)
    whole = _gallery(vectors, owner, np.arange(len(owner)), prototypes)
    best, named = _best(whole, strangers.vectors[asked])
    return _BestMatches(best, named, numbered(strangers.person[asked]))


def _best(gallery: _PartialGallery, queries: Vectors) -> tuple[NDArray[np.float64], Owners]:
    """(n,) the highest similarity of each query and (n,) whose it is."""
    best, named = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for scores in gallery.scores(queries):
        best.append(scores.max(axis=1))
        named.append(scores.argmax(axis=1))
    return np.concatenate(best).astype(np.float64), np.concatenate(named)


def _left_out(
    vectors: Vectors, owner: Owners, people: int, prototypes: Prototypes, advance: Advance
) -> _BestMatches:
    """Each face's best match in a gallery without its person."""
    groups = rounds(people) - _FOLDS
    parts = []
    for group in range(groups):
        out = owner % groups == group
        asked = thinned(np.flatnonzero(out), _MOST_QUERIES // groups)
        without = _gallery(vectors, owner, np.flatnonzero(~out), prototypes)
        found, whose = _best(without, vectors[asked])
        parts.append((found, np.unique(owner[~out])[whose], owner[asked]))
        advance(group + 1)
    best, named, stranger = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _BestMatches(best, named, numbered(stranger))


def _held_out(
    vectors: Vectors,
    owner: Owners,
    people: int,
    group: Owners,
    prototypes: Prototypes,
    advance: Advance,
) -> _HeldOut:
    """Photos looked up in a gallery built without them and without their near-duplicates."""
    fold = np.empty(len(owner), np.int64)
    for members in grouped(owner, people):
        _, first, moment = np.unique(group[members], return_index=True, return_inverse=True)
        turn = np.argsort(np.argsort(first))  # in order of appearance
        # A person's only photo always stays in the gallery.
        fold[members] = turn[moment] % _FOLDS if len(first) > 1 else -1
    scored, nobody = np.zeros((0, people), np.float32), np.zeros(0, np.int64)
    parts = [(scored[:, 0], nobody, nobody, scored, nobody)]
    for k in range(_FOLDS):
        test = fold == k
        asked = thinned(np.flatnonzero(test), _MOST_QUERIES // _FOLDS)
        if len(asked):
            kept = np.zeros(len(asked), bool)
            kept[thinned(np.arange(len(asked)), max(1, _MOST_SCORES // (people * _FOLDS)))] = True
            rest = _gallery(vectors, owner, np.flatnonzero(~test), prototypes)
            start = 0
            for scores in rest.scores(vectors[asked]):
                part = slice(start, start + len(scores))
                right = owner[asked[part]]
                own = scores[np.arange(len(scores)), right]
                rank = (scores > own[:, None]).sum(axis=1)
                parts.append((own, right, rank, scores[kept[part]], right[kept[part]]))
                start += len(scores)
        advance(k + 1)
    return _HeldOut(*(np.concatenate(column) for column in zip(*parts, strict=True)))


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
    _, exact = clopper_pearson(int(wrong.sum()), len(wrong), 0.9)
    rates = resampled_rates(errors, faces, 0, _RESAMPLES)
    return max(exact, float(np.quantile(rates, 0.95)))


def _weighted_quantiles(
    values: NDArray[np.float64], weight: NDArray[np.float64], power: float
) -> list[float]:
    """Evenly spaced quantiles of the distribution of the values to the power of `power`."""
    order = np.argsort(values, kind="stable")
    position = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    steps = np.linspace(0, 1, _QUANTILES) ** (1 / power)
    return [round(float(value), 5) for value in np.interp(steps, position, values[order])]


def pairs(
    vectors: Vectors, owner: Owners, people: int, group: Owners | None = None
) -> list[PairRecord]:
    """Thresholds for two photos, centred without the people compared.

    Args:
        vectors: (n, d) unit embeddings, not centred.
        owner: (n,) index of the person of each.
        people: how many people, at least 3.
        group: (n,) near-duplicates share one, and are not compared; None where there are none.
    """
    moments = np.arange(len(owner)) if group is None else group
    means = person_means(vectors, owner, people)
    total = means.sum(axis=0)
    # Enough people, and enough of each, evenly over their photos, for a bounded number of pairs.
    compared = thinned(np.arange(people), _MOST_COMPARED).tolist()
    most = max(2, int((2 * _MOST_PAIRS) ** 0.5 / len(compared)))
    everybody = grouped(owner, people)
    members = {person: thinned(everybody[person], most) for person in compared}
    genuine, impostor = [], []
    for position, a in enumerate(compared):
        own = unit(vectors[members[a]] - (total - means[a]) / (people - 1))
        first, second = np.triu_indices(len(own), 1)
        apart = moments[members[a]][first] != moments[members[a]][second]
        genuine.append((own @ own.T)[first[apart], second[apart]])
        for b in compared[position + 1 :]:
            centre = (total - means[a] - means[b]) / (people - 2)
            across = unit(vectors[members[a]] - centre) @ unit(vectors[members[b]] - centre).T
            impostor.append(across.ravel())
    same, other = np.concatenate(genuine), np.concatenate(impostor)
    records: list[PairRecord] = []
    for rate in _PAIR_RATES:
        if records and rate * len(other) < ERRORS_TO_QUOTE:
            break
        threshold = upper_quantile(other, max(rate, 1 / len(other)))
        records.append(
            PairRecord(
                threshold=threshold,
                fmr=max(rate, 1 / len(other)),
                impostor_pairs=len(other),
                genuine_pairs=len(same),
                people=len(compared),
                true_accept_rate=float((same >= threshold).mean()) if len(same) else 0.0,
            )
        )
    return records
