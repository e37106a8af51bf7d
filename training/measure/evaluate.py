"""How good a bundle is, on faces that it has not seen.

Ties what the bundle sees to the rates of `training.measure.metrics` and
`training.measure.verification`; knows nothing about photos, reports or the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from engine.bundle import Bundle
from training.console import progress
from training.datasets import probes
from training.datasets.manifest import Row
from training.datasets.probes import Probes
from training.measure import metrics, verification
from training.measure.calibration import repeated
from training.measure.evaluation import (
    FORMAT,
    DataSummary,
    Evaluation,
    Identification,
    Lfw,
    ListedPairs,
    Matrix,
    OpenSet,
    Recognition,
    Reliability,
    Repeated,
    Stratum,
    Subject,
    Verification,
)
from training.measure.metrics import Scores
from training.measure.pairs import LfwPairs, PairList, stem
from training.measure.sight import FaceScorer, FaceScores
from training.measure.verification import Pairs
from training.vectors import Flags, Numbers, Vectors, mean_face, numbered, unit

FPIRS = (1e-1, 1e-2, 1e-3)

_CONFUSED = 20
_MATRIX = 25
_NAMES_SHOWN = 5
_FEW_PEOPLE = 10
_SIZES_PX = (40, 80, 160)
_YAWS = (0.085, 0.17, 0.27)
_DEGREES = (10, 20, 30)  # of those proxies, see engine.types.Pose


@dataclass(frozen=True)
class EmbeddedProbes:
    """Faces and what the bundle makes of them.

    Attributes:
        probes: the faces.
        vectors: (n, d) unit vectors, not centred.
    """

    probes: Probes
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def part(self, index: Numbers) -> "EmbeddedProbes":
        """Some of the faces."""
        return EmbeddedProbes(self.probes.part(index), self.vectors[index])

    @property
    def owner(self) -> Numbers:
        """(n,) number of each face's person in the data."""
        return self.probes.faces.owner


def seen(sight: FaceScorer, source: Path, *, aligned: bool) -> EmbeddedProbes:
    """The faces of whatever an operator gives, as a bundle sees them, with a progress bar.

    Args:
        sight: the bundle's.
        source: see `training.datasets.probes.of`.
        aligned: the photos of a folder of people are crops on the ArcFace template.

    Raises:
        ValueError, OSError: the faces cannot be had.
    """
    found = probes.of(source, lambda: sight.tools, aligned=aligned)
    with progress(f"Seeing {found.faces.name}", len(found.faces)) as advance:
        return EmbeddedProbes(found, sight.vectors(found.faces, advance))


@dataclass(frozen=True)
class EmbeddedPairs:
    """A list of pairs and what the bundle makes of its photos.

    Attributes:
        name: the list's.
        pairs: the list.
        vectors: (files, d) unit vectors, not centred.
        found: (files,) whether a face was found.
    """

    name: str
    pairs: PairList
    vectors: Vectors
    found: Flags


@dataclass(frozen=True)
class _Outside:
    """What the bundle says about faces of people whom it does not know.

    Attributes:
        best: (n,) similarity to the most similar person.
        taken_for: (n,) who that is.
        person: (n,) number of whose face it is.
        doubted: (n,) see `Probes`.
    """

    best: Scores
    taken_for: Numbers
    person: Numbers
    doubted: Flags

    def __len__(self) -> int:
        return len(self.best)

    def part(self, index: Flags) -> "_Outside":
        return _Outside(
            self.best[index], self.taken_for[index], self.person[index], self.doubted[index]
        )


def evaluate(
    sight: FaceScorer,
    data: EmbeddedProbes,
    *,
    created: str,
    strangers: EmbeddedProbes | None = None,
    listed: EmbeddedPairs | None = None,
    lfw: LfwPairs | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure everything that the data can tell about a bundle.

    Args:
        sight: the bundle's.
        data: faces with names.
        created: the date to write down.
        strangers: faces of people whom the bundle does not know, beside those in `data`.
        listed: pairs of photos.
        lfw: LFW's pairs, of faces in `data`.
        seed: of bootstraps, and of the choice of faces where there are too many pairs.

    Raises:
        ValueError: nothing can be measured with the data.
    """
    once = data.part(np.flatnonzero(~data.probes.copy))
    truth = known_numbers(once, sight.bundle)
    notes = _notes(sight.bundle, data, once, truth, strangers)
    verified = _verify_all(sight, once, seed, notes)
    sure = np.flatnonzero(~once.probes.doubted)
    undoubted = _verify_all(sight, once.part(sure), seed, []) if len(sure) < len(once) else None
    recognition, outside = None, np.zeros(0, np.int64)
    if sight.knows_people:
        others = _outside(sight, once, truth, strangers)
        recognition, outside = _recognise(sight, once, truth, others, seed, notes), others.person
        if 0 < len(np.unique(outside)) < _FEW_PEOPLE:
            notes.append(
                f"The strangers are {_counted(len(np.unique(outside)), 'person', 'people')} only: "
                "one look-alike among others would change their figures."
            )
    pairs = None if listed is None else _verify_listed(sight, listed, seed, notes)
    if not verified and not pairs and recognition is None:
        raise ValueError(f"There is nothing to measure: {' '.join(notes)}")
    known = truth >= 0
    return Evaluation(
        format=FORMAT,
        created=created,
        bundle=_subject(sight.bundle),
        data=DataSummary(
            name=once.probes.faces.name,
            faces=len(once),
            people=len(np.unique(once.owner)),
            known_faces=int(known.sum()),
            known_people=len(np.unique(once.owner[known])),
            stranger_faces=len(outside),
            stranger_people=len(np.unique(outside)),
            copies=len(data) - len(once),
            doubts=dict(once.probes.doubts),
            left_out=dict(once.probes.faces.dropped),
        ),
        notes=notes,
        recognition=recognition,
        verification=verified,
        verification_undoubted=undoubted,
        pairs=pairs,
        lfw=None if lfw is None else _verify_lfw(sight, data, lfw, notes),
    )


def known_numbers(seen: EmbeddedProbes, bundle: Bundle) -> Numbers:
    """(n,) the number that a bundle gives each face's person; -1 for a stranger."""
    return probes.number_of(seen.probes.faces.people, bundle.manifest.people)[seen.owner]


def _outside(
    sight: FaceScorer, once: EmbeddedProbes, truth: Numbers, strangers: EmbeddedProbes | None
) -> _Outside:
    """The data's strangers, and those of the open set whom the bundle does not know either."""
    parts = [once.part(np.flatnonzero(truth < 0))]
    if strangers is not None:
        other = (known_numbers(strangers, sight.bundle) < 0) & ~strangers.probes.copy
        # The same photo in both is one photo.
        ids = {row.id for row in once.probes.faces.rows}
        other &= np.array([row.id not in ids for row in strangers.probes.faces.rows])
        parts.append(strangers.part(np.flatnonzero(other)))
    names = [part.probes.faces.people[i] for part in parts for i in part.owner]
    answers = [_answers(sight, part, np.full(len(part), -1)) for part in parts]
    return _Outside(
        np.concatenate([found.best for found in answers]),
        np.concatenate([found.person for found in answers]),
        numbered(names),
        np.concatenate([part.probes.doubted for part in parts]),
    )


def _answers(sight: FaceScorer, seen: EmbeddedProbes, truth: Numbers) -> FaceScores:
    return sight.answers(seen.probes.faces, seen.vectors, truth)


def _recognise(
    sight: FaceScorer,
    once: EmbeddedProbes,
    truth: Numbers,
    outside: _Outside,
    seed: int,
    notes: list[str],
) -> Recognition:
    """Everything about names."""
    thresholds = _thresholds(sight.bundle)
    names = [sight.bundle.manifest.people[i] for i in range(len(sight.bundle.manifest.people))]
    known = once.part(np.flatnonzero(truth >= 0))
    right = truth[truth >= 0]
    answers = _answers(sight, known, right)
    named = np.asarray(answers.best >= thresholds[answers.person])
    if len(known) and not named.any():
        notes.append(
            "No photo of a known person is similar enough to be called by name. Look whether the "
            "photos were prepared as those of the bundle were (--aligned or not)."
        )
    sure = np.flatnonzero(~known.probes.doubted)
    surely = answers.part(sure)
    doubts = len(sure) < len(known)
    chosen = _worst_people(right, answers.person)
    first = answers.rank == 0
    return Recognition(
        identification=_identification(answers, right, thresholds, seed),
        identification_undoubted=_identification(surely, right[sure], thresholds, seed)
        if doubts
        else None,
        open_set=_open_set(sight.bundle, answers, outside, seed),
        open_set_undoubted=_open_set(sight.bundle, surely, outside.part(~outside.doubted), seed)
        if doubts or outside.doubted.any()
        else None,
        people=metrics.per_person(right, answers.person, named, names),
        mixups=metrics.most_confused(right, answers.person, _CONFUSED, names),
        matrix=Matrix(
            [names[person] for person in chosen],
            metrics.confusion_matrix(right, answers.person, chosen).tolist(),
        )
        if chosen
        else None,
        reliability=_reliability(sight.bundle, answers.confidence, first) if len(known) else None,
        strata=_strata(known.probes.faces.rows, first, named & first, right, seed),
    )


def _thresholds(bundle: Bundle) -> Scores:
    """(people,) the similarity from which each is named."""
    calibration = bundle.calibration
    people = len(bundle.manifest.people)
    return np.array([calibration.threshold_of(person) for person in range(people)], np.float32)


def _identification(
    answers: FaceScores, truth: Numbers, thresholds: Scores, seed: int
) -> Identification | None:
    named = answers.best >= thresholds[answers.person]
    rates = [
        metrics.rate(hit, truth, seed)
        for hit in (
            (answers.rank == 0),
            (answers.rank < 5),
            (answers.rank == 0) & named,
            (answers.person != truth) & named,
        )
    ]
    found = [rate for rate in rates if rate is not None]
    if not found:
        return None
    top_1, top_5, rightly, wrongly = found
    return Identification(top_1=top_1, top_5=top_5, named=rightly, misnamed=wrongly)


def _open_set(bundle: Bundle, answers: FaceScores, outside: _Outside, seed: int) -> OpenSet | None:
    own = bundle.calibration.identification
    called = np.asarray(outside.best >= _thresholds(bundle)[outside.taken_for])
    false_is = metrics.rate(called, outside.person, seed)
    if false_is is None:
        return None
    often = repeated(called, outside.taken_for, outside.person)
    mated: Scores = np.where(answers.rank == 0, answers.own, -np.inf).astype(np.float32)
    return OpenSet(
        threshold=own.threshold,
        promised_fpir=own.fmr,
        promised_upper_95=own.fmr_upper_95,
        false_is=false_is,
        repeated=None
        if often is None
        else Repeated(often.people, often.share, often.share_upper_95),
        curve=metrics.open_set(mated, outside.best),
        rates=metrics.open_set_rates(mated, outside.best, FPIRS),
    )


def _reliability(bundle: Bundle, confidence: Scores, right: Flags) -> Reliability:
    bins = metrics.reliability(confidence, right)
    return Reliability(
        ece=metrics.expected_calibration_error(bins),
        temperature=bundle.calibration.temperature,
        bins=bins,
    )


def _worst_people(truth: Numbers, answer: Numbers) -> list[int]:
    """Everybody who is looked up or answered; of many, those with most mistakes, by number."""
    people = np.union1d(truth, answer)
    if len(people) > _MATRIX:
        wrong = truth != answer
        mistakes = np.bincount(
            np.concatenate([truth[wrong], answer[wrong]]), minlength=int(people.max()) + 1
        )
        people = np.sort(people[np.argsort(-mistakes[people], kind="stable")[:_MATRIX]])
    return [int(person) for person in people]


def _strata(
    rows: Sequence[Row], first: Flags, named: Flags, subject: Numbers, seed: int
) -> list[Stratum]:
    """Rates by size, blur and pose; a quality that is the same for all faces tells nothing."""
    found = []
    size = _values([row.size_px for row in rows])
    blur = _values([row.blur for row in rows])
    yaw = np.abs(_values([row.yaw for row in rows]))
    thirds = np.quantile(blur[np.isfinite(blur)], (1 / 3, 2 / 3)) if np.isfinite(blur).any() else ()
    for quality, values, edges, labels in (
        ("size", size, _SIZES_PX, _between(_SIZES_PX, "px")),
        (
            "blur",
            blur,
            thirds,
            [
                f"{third} third ({limit})"
                for third, limit in zip(
                    ("sharpest", "middle", "most blurred"),
                    _between([round(float(edge), 2) for edge in thirds], ""),
                    strict=False,
                )
            ],
        ),
        ("pose", yaw, _YAWS, _between(_DEGREES, "degrees aside")),
    ):
        stratum = np.digitize(values, edges)
        stratum[~np.isfinite(values)] = -1
        present = [k for k in range(len(edges) + 1) if (stratum == k).any()]
        if len(present) < 2:
            continue
        for k in present:
            own = stratum == k
            top_1 = metrics.rate(first[own], subject[own], seed)
            rightly = metrics.rate(named[own], subject[own], seed)
            assert top_1 is not None
            assert rightly is not None
            found.append(Stratum(quality, labels[k], top_1, rightly))
    return found


def _values(values: Sequence[float | None]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _between(edges: Sequence[float], unit: str) -> list[str]:
    """Edges to words: "under 40 px", "40 to 80 px", "80 px and more"."""
    if not len(edges):
        return []
    suffix = f" {unit}" if unit else ""
    return [
        f"under {edges[0]}{suffix}",
        *(f"{a} to {b}{suffix}" for a, b in pairwise(edges)),
        f"{edges[-1]}{suffix} and more",
    ]


def _verify_all(
    sight: FaceScorer, seen: EmbeddedProbes, seed: int, notes: list[str]
) -> Verification | None:
    """Every face with every other; None, with a note, where that tells nothing."""
    chosen = verification.thinned(seen.owner, verification.MOST_PAIRS, seed)
    if len(np.unique(seen.owner[chosen])) < (3 if sight.centre is None else 2):
        notes.append(
            "Faces are not compared with each other: it takes two people"
            + (
                ", and with a vectorizer, which has no mean face of its own, three."
                if sight.centre is None
                else "."
            )
        )
        return None
    if np.bincount(seen.owner[chosen]).max() < 2:
        notes.append("Faces are not compared with each other: nobody has two photos.")
        return None
    if len(chosen) < len(seen):
        notes.append(
            f"Faces are compared with each other for {len(chosen):,} of {len(seen):,} faces, "
            "evenly over people; all of them would make too many pairs."
        )
    pairs = verification.all_pairs(seen.vectors[chosen], seen.owner[chosen], sight.centre)
    return _verification(sight.bundle, pairs, len(chosen), seed)


def _verification(bundle: Bundle, pairs: Pairs, faces: int, seed: int) -> Verification:
    calibration = bundle.manifest.calibration
    return Verification(
        faces=faces,
        people=pairs.people,
        genuine_pairs=len(pairs.genuine),
        impostor_pairs=len(pairs.impostor),
        auc=verification.area(pairs),
        eer=verification.equal_error_rate(pairs),
        tar=verification.tar_at_fmr(pairs, seed=seed),
        own=[
            verification.at_threshold(pairs, record.threshold, record.fmr, seed)
            for record in (calibration.pairs if calibration else ())
        ],
        curve=verification.curve(pairs),
    )


def _verify_listed(
    sight: FaceScorer, listed: EmbeddedPairs, seed: int, notes: list[str]
) -> ListedPairs:
    """The pairs of a list. Who is who follows from which files are called the same."""
    given = listed.pairs
    people = verification.people_of(given.first, given.second, given.same, len(given.files))
    contradiction = ~given.same & (people[given.first] == people[given.second])
    if contradiction.any():
        notes.append(
            f"{int(contradiction.sum())} pairs of {listed.name} are called different while other "
            "pairs link the same photos as one person; they are measured as they are called."
        )
    compared = listed.found[given.first] & listed.found[given.second]
    first, second = given.first[compared], given.second[compared]
    same = given.same[compared]
    if not same.any() or same.all():
        raise ValueError(
            f"{listed.name} needs pairs of one person and pairs of two that can be compared; it "
            f"has {int(same.sum())} and {int((~same).sum())}."
        )
    centre = sight.centre
    if centre is None:
        centre = mean_face(listed.vectors[listed.found], people[listed.found])
    own = unit(listed.vectors - centre)
    score = (own[first] * own[second]).sum(axis=1).astype(np.float32)
    pairs = Pairs(score, same, people[first], people[second])
    return ListedPairs(
        name=listed.name,
        verification=_verification(sight.bundle, pairs, len(np.union1d(first, second)), seed),
        not_compared=int((~compared).sum()),
    )


def _verify_lfw(
    sight: FaceScorer, data: EmbeddedProbes, lfw: LfwPairs, notes: list[str]
) -> Lfw | None:
    """LFW's ten folds, as far as its photos are in the data (copies are as good as others)."""
    place = {
        row.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]: i
        for i, row in enumerate(data.probes.faces.rows)
    }
    first = np.array([place.get(stem(*photo), -1) for photo in lfw.first])
    second = np.array([place.get(stem(*photo), -1) for photo in lfw.second])
    compared = (first >= 0) & (second >= 0)
    if compared.mean() < 0.5:
        notes.append(
            f"LFW's protocol is left out: only {int(compared.sum())} of its {len(lfw)} pairs have "
            "both photos in the data."
        )
        return None
    centre = sight.centre
    if centre is None:
        centre = mean_face(data.vectors, data.owner)
    own = unit(data.vectors - centre)
    score = np.full(len(lfw), -np.inf, np.float32)
    score[compared] = (own[first[compared]] * own[second[compared]]).sum(axis=1)
    return Lfw(
        accuracy=verification.folded_accuracy(score, lfw.same, lfw.fold),
        not_compared=int((~compared).sum()),
    )


def _subject(bundle: Bundle) -> Subject:
    record = bundle.manifest
    return Subject(
        id=bundle.id,
        name=bundle.name,
        kind=record.kind,
        created=record.created,
        people=len(record.people),
        embedder=record.embedder.id if record.embedder else None,
        dataset=record.dataset.name,
        licence=record.dataset.licence,
    )


def _notes(
    bundle: Bundle,
    data: EmbeddedProbes,
    once: EmbeddedProbes,
    truth: Numbers,
    strangers: EmbeddedProbes | None,
) -> list[str]:
    """What one must know to read the figures rightly."""
    notes = []
    faces = once.probes.faces
    if bundle.manifest.dataset.name == faces.name:
        notes.append(
            f"The bundle was made from data called '{faces.name}', too. If these are the same "
            "photos, every figure here is too good to be true: hold photos out before building."
        )
    if len(data) > len(once):
        notes.append(f"{_counted(len(data) - len(once), 'copy', 'copies')} left out.")
    if once.probes.doubted.any():
        codes = ", ".join(f"{count} {code}" for code, count in once.probes.doubts.items())
        faces_doubted = _counted(int(once.probes.doubted.sum()), "face", "faces")
        notes.append(
            f"The figures include {faces_doubted} that prepare doubts ({codes}), because a bot "
            "meets such faces as well; beside them stands what they are without. Overrule in the "
            "manifest what is no face of the person."
        )
    if bundle.manifest.kind == "vectorizer":
        notes.append("A vectorizer knows nobody: only whether two faces are one person's.")
    else:
        notes += _about_people(bundle, once, truth, strangers)
    if len(np.unique(once.owner)) < _FEW_PEOPLE:
        notes.append(
            f"With {len(np.unique(once.owner))} people, other people may well give other figures."
        )
    return notes


def _about_people(
    bundle: Bundle, once: EmbeddedProbes, truth: Numbers, strangers: EmbeddedProbes | None
) -> list[str]:
    notes = []
    names = once.probes.faces.people
    unknown = [names[i] for i in np.unique(once.owner[truth < 0])]
    if not (truth >= 0).any():
        notes.append(
            "The data has nobody whom the bundle knows, by name: all its people count as "
            "strangers, and nothing is said about recognising anybody."
        )
    elif unknown:
        notes.append(
            f"The bundle does not know {len(unknown)} of the data's people ({_shown(unknown)}); "
            "their faces count as strangers'."
        )
    if strangers is not None:
        other = known_numbers(strangers, bundle)
        if (other >= 0).any():
            theirs = strangers.probes.faces.people
            shown = _shown([theirs[i] for i in np.unique(strangers.owner[other >= 0])])
            notes.append(
                f"{_counted(int((other >= 0).sum()), 'face', 'faces')} of the open set left out: "
                f"the bundle knows {shown}."
            )
    if bundle.calibration.source not in ("own", ""):
        notes.append(
            f"The bundle's thresholds and probabilities come from: {bundle.calibration.source}."
        )
    return notes


def _shown(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
