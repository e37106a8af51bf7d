"""What an evaluation found: the record behind evaluation.json, its report and its plots.

Knows the form; knows nothing about how anything is measured.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from training.measure.metrics import Bin, Confusion, OpenSetPoint, OpenSetRate, PersonResult, Rate
from training.measure.verification import AtThreshold, Curve, FoldedAccuracy, TarAtFmr

FORMAT = 1
NAME = "evaluation.json"


@dataclass(frozen=True)
class DataSummary:
    """What was measured with.

    Attributes:
        name: of the data.
        faces, people: how many, copies counted once.
        known_faces, known_people: those whom the bundle knows.
        stranger_faces, stranger_people: the others, with the open set's.
        copies: faces left out because they are there already.
        doubts: faces that `prepare` would not learn from, by code; they are measured with.
        left_out: files without a face and faces that the operator dropped, by code.
    """

    name: str
    faces: int
    people: int
    known_faces: int
    known_people: int
    stranger_faces: int
    stranger_people: int
    copies: int
    doubts: dict[str, int]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Identification:
    """Whom the bundle takes people for whom it knows.

    Attributes:
        top_1, top_5: the right person is (among) the most similar.
        named: called by the right name, with the verdict "is".
        misnamed: called by a wrong one.
    """

    top_1: Rate
    top_5: Rate
    named: Rate
    misnamed: Rate


@dataclass(frozen=True)
class Matrix:
    """Who is taken for whom, among the people most often confused: rows are the right ones."""

    people: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class Repeated:
    """Strangers who get the same wrong name in more than a tenth of their photos.

    Attributes:
        people: strangers with five photos or more.
        share: those of them who do.
        share_upper_95: its one-sided 95 % bound.
    """

    people: int
    share: float
    share_upper_95: float


@dataclass(frozen=True)
class OpenSet:
    """What happens to strangers.

    Attributes:
        threshold: the bundle's own, of the verdict "is".
        promised_fpir, promised_upper_95: what the bundle says about it.
        false_is: strangers called by somebody's name.
        repeated: who of them get the same name again and again; None where nobody has five photos.
        curve: FPIR and FNIR over all thresholds; empty without known people.
        rates: FNIR at a few FPIRs.
    """

    threshold: float
    promised_fpir: float
    promised_upper_95: float
    false_is: Rate
    curve: list[OpenSetPoint]
    rates: list[OpenSetRate]
    repeated: Repeated | None = None


@dataclass(frozen=True)
class Verification:
    """Whether two faces are one person's.

    Attributes:
        faces, people: compared, each with every other or by a list.
        genuine_pairs, impostor_pairs: how many comparisons.
        auc: area under the ROC curve.
        eer: equal error rate.
        tar: true accepts at rates of false matches.
        own: what the bundle's own thresholds do.
        curve: over all thresholds.
    """

    faces: int
    people: int
    genuine_pairs: int
    impostor_pairs: int
    auc: float
    eer: float
    tar: list[TarAtFmr]
    own: list[AtThreshold]
    curve: Curve


@dataclass(frozen=True)
class Reliability:
    """Whether a probability of 80 % is right in 80 of 100 cases.

    Attributes:
        ece: expected calibration error of the most similar person's probability.
        temperature: the bundle's.
        bins: by confidence.
    """

    ece: float
    temperature: float
    bins: list[Bin]


@dataclass(frozen=True)
class Stratum:
    """The faces of one quality.

    Attributes:
        quality: "size", "blur" or "pose".
        label: which of its strata, in words.
        top_1, named: see `Identification`.
    """

    quality: str
    label: str
    top_1: Rate
    named: Rate


@dataclass(frozen=True)
class Recognition:
    """What a bundle that knows people says about faces.

    Attributes:
        identification: of the people it knows; None where the data has none of them.
        identification_undoubted: the same without the faces that `prepare` doubts; None where
            there are none, or it would be the same.
        open_set, open_set_undoubted: of strangers; likewise.
        people: a row for each known person, worst first.
        mixups: who is taken for whom, most often first.
        matrix: the same as a table of counts.
        reliability: of the probabilities.
        strata: by quality of the face.
    """

    identification: Identification | None
    identification_undoubted: Identification | None
    open_set: OpenSet | None
    open_set_undoubted: OpenSet | None
    people: list[PersonResult]
    mixups: list[Confusion]
    matrix: Matrix | None
    reliability: Reliability | None
    strata: list[Stratum]


@dataclass(frozen=True)
class ListedPairs:
    """A list of pairs of photos.

    Attributes:
        name: the list's.
        verification: of the pairs that could be compared.
        not_compared: how many could not, for want of a face.
    """

    name: str
    verification: Verification
    not_compared: int


@dataclass(frozen=True)
class Lfw:
    """LFW's ten folds.

    Attributes:
        accuracy: see `FoldedAccuracy`.
        not_compared: pairs with a photo that has no face here, answered "different".
    """

    accuracy: FoldedAccuracy
    not_compared: int


@dataclass(frozen=True)
class Subject:
    """What was measured: a bundle, by its own words."""

    id: str
    name: str
    kind: str
    created: str
    people: int
    embedder: str | None
    dataset: str
    licence: str


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; what the data cannot tell is None.

    Attributes:
        format: of the JSON that this becomes.
        created: date.
        bundle: what was measured.
        data: with what.
        notes: what one must know to read the figures rightly.
        recognition: None for a vectorizer, which knows nobody.
        verification: every face with every other; None where there are too few.
        verification_undoubted: without the faces that `prepare` doubts; None where there are none.
        pairs: the list of pairs that was given.
        lfw: LFW's protocol, where the data has it.
    """

    format: int
    created: str
    bundle: Subject
    data: DataSummary
    notes: list[str]
    recognition: Recognition | None
    verification: Verification | None
    verification_undoubted: Verification | None
    pairs: ListedPairs | None
    lfw: Lfw | None


def read(path: Path) -> Evaluation:
    """The evaluation in a file, or in the folder that `evaluate` wrote.

    Raises:
        ValueError: it is something else.
        OSError: it cannot be read.
    """
    file = path / NAME if path.is_dir() else path
    try:
        found = TypeAdapter(Evaluation).validate_json(file.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{file} is not an evaluation of this version of face-matcher. Make one with `python "
            "-m training evaluate BUNDLE DATA`."
        ) from error
    if found.format != FORMAT:
        raise ValueError(
            f"{file} has format {found.format}; this version of face-matcher reads {FORMAT}. "
            "Evaluate again."
        )
    return found
