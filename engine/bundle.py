"""The only reader and writer of the bundles in run/models.

A bundle is two files: `NAME.pth`, a dictionary of tensors, and `NAME.json`, which says what they
are. Both or nothing: the `.json` carries the `.pth`'s sha256. Somebody else may have made them, so
that every text, number and size in them has bounds. Knows the format and its checks; knows nothing
about how the numbers were made or are used.
"""

import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from torch import Tensor

from engine import controls, tensors
from engine.decision import LoginCalibration
from engine.errors import BundleError
from engine.files import replacing, write_text

FORMAT = 1
_STRAIGHT = 1e-9
"""A generalised Pareto distribution of a smaller shape is an exponential one."""

PREPROCESSING = 1
"""Version of detection, alignment and normalisation together. Vectors made under another version
are not comparable: raise it when any of them changes."""

_JSON_BYTES = 64 * 2**20
_PTH_BYTES = 4 * 2**30
"""The most that a bundle's files may have: a hundred thousand people take 15 MiB of JSON, and the
largest of torchvision's networks 2.5 GiB."""

_MOST_PEOPLE = 1_000_000
_NAME_LENGTH = 300
_LARGEST = 2**53
"""Of whole numbers: JSON readers of other languages are exact up to it."""

_SIZES = {"dimension": 8192, "input_px": 1024}
"""The most that an architecture may say of what memory is taken for before tensors are compared."""

FOLDER = Path(__file__).resolve().parent.parent / "run" / "models"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Similarity = Annotated[float, Field(ge=-1, le=1)]
Threshold = Annotated[float, Field(ge=0.01, le=2)]
"""Of a similarity. That of a network that has hardly been trained is 0.03; what lies above 1 is
reached by nobody."""


class EmbedderRecord(_Part):
    """Which embedder made the vectors."""

    id: str
    weights_sha256: str
    dimension: int = Field(gt=0, le=_SIZES["dimension"])


class RepeatedRecord(_Part):
    """How often one stranger is called the same wrong name again and again.

    Attributes:
        people: strangers with five photos or more.
        share: those of them of whom more than a tenth of the photos get the same name.
        share_upper_95: its one-sided 95 % bound.
    """

    people: int = Field(ge=1)
    share: Share
    share_upper_95: Share


class TailRecord(_Part):
    """The far end of strangers' best matches: a generalised Pareto distribution (Pickands 1975).

    Above `start`, the share of strangers whose best match is more similar than x is
    `rate * (1 + shape * (x - start) / scale) ** (-1 / shape)`, and 0 beyond the end that a negative
    shape has.
    """

    start: Similarity
    rate: float = Field(gt=0, lt=1)
    shape: float = Field(ge=-1, le=0)
    scale: float = Field(gt=0)

    def share_above(self, similarity: float) -> float:
        """The share of strangers above a similarity of at least `start`."""
        away = (similarity - self.start) / self.scale
        if abs(self.shape) < _STRAIGHT:
            return self.rate * math.exp(-away)
        return float(self.rate * max(0.0, 1 + self.shape * away) ** (-1 / self.shape))

    def level(self, share: float) -> float:
        """The similarity that a share (above 0, at most `rate`) of strangers reach."""
        part = share / self.rate
        if abs(self.shape) < _STRAIGHT:
            return self.start - self.scale * math.log(part)
        return float(self.start + self.scale * (part**-self.shape - 1) / self.shape)


class IdentificationRecord(_Part):
    """When a face may be called a person of the gallery ("is").

    The rate is that of the whole decision: of faces of people outside the gallery, the share whose
    best match over everybody in it reaches the threshold.
    """

    threshold: Threshold
    fmr: Share
    fmr_upper_95: Share
    strangers: int = Field(ge=1)
    stranger_people: int = Field(ge=2)
    genuine: Count
    true_positive_rate: Share
    repeated: RepeatedRecord | None = None


class PairRecord(_Part):
    """When two photos may be called the same person: one embedding against one embedding.

    The upper bound is None where only the rate itself was measured.
    """

    threshold: Threshold
    fmr: float = Field(gt=0, le=1)
    fmr_upper_95: Share | None = None
    impostor_pairs: Count
    genuine_pairs: Count
    people: Count
    true_accept_rate: Share


class Calibration(_Part):
    """What a similarity is worth.

    Attributes:
        source: "own", or the bundle it was borrowed from where this one is too small to measure.
        temperature: similarities divided by it are the logits of the probability.
        stranger_quantiles: evenly spaced quantiles (0 to 1) of the similarity between people
            outside the gallery and their best match in it, each person weighing the same.
        tail: the highest of them, smoothed; None where the strangers were too few to fit it.
        people: how many people the strangers were compared with; 0 where that is everybody in the
            bundle (but themselves, where they are its own people).
        strangers: whose the strangers are, as the data's name; "" where they are the bundle's own
            people, left out in turn.
        identification: the threshold of the verdict "is".
        floors: class index to a higher threshold of "is", for people whose name a stranger with
            many photos would get in more than a tenth of them otherwise.
        pairs: thresholds for comparing two photos, from the loosest rate to the strictest.
    """

    source: str
    temperature: float = Field(ge=1e-6, le=1e3)
    stranger_quantiles: list[float] = Field(min_length=2)
    tail: TailRecord | None = None
    people: Count = 0
    strangers: str = ""
    identification: IdentificationRecord
    floors: dict[int, Threshold] = Field(default_factory=dict)
    pairs: list[PairRecord] = Field(min_length=1)

    def threshold_of(self, person: int) -> float:
        """The similarity from which a face is called by the name of a person, given by number."""
        return self.floors.get(person, self.identification.threshold)

    @field_validator("stranger_quantiles")
    @classmethod
    def _quantiles_rise(cls, values: list[float]) -> list[float]:
        if not all(a <= b for a, b in pairwise([-2.0, *values, 2.0])):  # false for NaN, too
            raise ValueError("quantiles must rise from -1 to 1")
        return values


class AboutRecord(_Part):
    """What is said about a person besides the name.

    Attributes:
        country: ISO 3166-1 alpha-2 code, "" where none is told.
        known_for: language code ("es", "en") to a few words.
    """

    country: str = Field(default="", pattern="^([A-Z]{2})?$")
    known_for: dict[str, str] = Field(default_factory=dict)


class DatasetRecord(_Part):
    """What the bundle was made from."""

    name: str
    licence: str
    people: Count
    photos: Count
    faces: Count
    dropped: dict[str, Count]


class Manifest(_Part):
    """The `.json` of a bundle.

    Attributes:
        kind: "gallery" and "classifier" name people; a "vectorizer" is an embedder.
        embedder: which one made the vectors, or a vectorizer started from; None for a vectorizer
            trained from nothing.
        people: class index to person; of a vectorizer, nobody: it tells faces apart, not people.
        about: class index to what is said about the person, where anything is.
        calibration: None for a vectorizer; what is built with it has its own.
        lends: what cluster means of the same faces would be worth, where `calibration` is that of
            trained directions: galleries too small to measure anything borrow it.
        login: thresholds for a login, of the bundle's embedder, weights and preprocessing; None
            where nobody has measured any.
        login_absent: why there is none, "" where there is one or nobody asked.
    """

    format: Literal[1]
    kind: Literal["gallery", "classifier", "vectorizer"]
    created: str
    people: dict[int, Annotated[str, Field(min_length=1, max_length=_NAME_LENGTH)]] = Field(
        max_length=_MOST_PEOPLE
    )
    about: dict[int, AboutRecord] = Field(default_factory=dict)
    embedder: EmbedderRecord | None
    preprocessing: int
    architecture: dict[str, Any]
    calibration: Calibration | None
    lends: Calibration | None = None
    login: LoginCalibration | None = None
    login_absent: str = ""
    metrics: dict[str, float]
    dataset: DatasetRecord
    pth_sha256: str

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "vectorizer":
            if self.people or self.calibration:
                raise ValueError("a vectorizer has neither people nor a calibration")
        elif self.embedder is None or self.calibration is None:
            raise ValueError(f"a {self.kind} needs an embedder and a calibration")
        elif not self.people or min(self.people) != 0 or max(self.people) != len(self.people) - 1:
            raise ValueError("people must be numbered from 0, without a gap")
        calibrations = [part for part in (self.calibration, self.lends) if part is not None]
        numbers = {*self.about, *(number for part in calibrations for number in part.floors)}
        if not numbers <= self.people.keys():
            raise ValueError(f"there is no person {min(numbers - self.people.keys())}")
        if self.login is not None:
            self._require_own(self.login)
        return self

    @field_validator("architecture")
    @classmethod
    def _sizes_are_modest(cls, architecture: dict[str, Any]) -> dict[str, Any]:
        for name, most in _SIZES.items():
            size = architecture.get(name, 1)
            if type(size) is not int or not 1 <= size <= most:
                raise ValueError(f"{name} must be a whole number from 1 to {most}")
        return architecture

    def _require_own(self, login: LoginCalibration) -> None:
        """Model, preprocessing and threshold are one version."""
        theirs = self.embedder
        if self.kind == "vectorizer" or theirs is None:
            raise ValueError("a vectorizer has no login; what is built with it has its own")
        measured = (login.embedder, login.weights_sha256, login.preprocessing, len(login.centre))
        if measured != (theirs.id, theirs.weights_sha256, self.preprocessing, theirs.dimension):
            raise ValueError(
                "the login was measured with another embedder, other weights or another "
                "preprocessing; measure it anew with `python -m training calibrate --login`"
            )


@dataclass(frozen=True)
class Bundle:
    """A checked pair of files.

    Attributes:
        name: the files' common stem.
        manifest: the `.json`.
        tensors: the `.pth`, on the CPU.
    """

    name: str
    manifest: Manifest
    tensors: Mapping[str, Tensor]

    @property
    def id(self) -> str:
        """Name and first digits of the weights' sha256: what an answer was made with."""
        return f"{self.name}@{self.manifest.pth_sha256[:8]}"

    @property
    def embedder(self) -> EmbedderRecord:
        """Which embedder made the vectors of a gallery or classifier."""
        assert self.manifest.embedder is not None
        return self.manifest.embedder

    @property
    def calibration(self) -> Calibration:
        """What a gallery's or classifier's similarities are worth."""
        assert self.manifest.calibration is not None
        return self.manifest.calibration

    def made_with(self, embedder_id: str, weights_sha256: str) -> bool:
        """Whether the bundle's vectors may be compared with an embedder's."""
        theirs = self.manifest.embedder
        return theirs is not None and (
            (theirs.id, theirs.weights_sha256) == (embedder_id, weights_sha256)
        )

    def require_made_with(self, embedder_id: str, weights_sha256: str) -> None:
        """Raise BundleError where its vectors may not be compared with an embedder's."""
        if not self.made_with(embedder_id, weights_sha256):
            raise BundleError(
                f"{self.name} was made with other weights of {self.embedder.id} than the ones here "
                f"({embedder_id}); their vectors are not comparable. Build the bundle again.",
                code="bundle_mismatch",
            )


def locate(name_or_path: str | Path, folder: Path = FOLDER) -> Path:
    """The path of a bundle without its suffix.

    A bare name, as a string, stands for a bundle in `folder`; "./NAME" and any `Path` are paths.

    Raises:
        BundleError: it ends in no name, as "." and "models/.." do.
    """
    path = Path(name_or_path)
    if path.name in {"", ".."}:
        raise BundleError(
            f"'{name_or_path}' names no bundle. Give its name, or its path without suffix, as in "
            "run/models/NAME.",
            code="bundle_missing",
        )
    # A path object is a path, and so is whatever is written like one ("./NAME").
    named = isinstance(name_or_path, str) and path.name == name_or_path
    if path.suffix in {".pth", ".json"}:
        path = path.with_suffix("")
    return folder / path if named else path


def load(name_or_path: str | Path, folder: Path = FOLDER) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: a file is missing (bundle_missing, bundle_incomplete), the two do not belong
            together or are damaged (bundle_corrupt), it is a hand-made pair that wants conversion
            (bundle_unconverted), or another version of face-matcher made it (bundle_mismatch).
    """
    stem = locate(name_or_path, folder)
    weights_path, manifest_path = _paths(stem)
    _require_both(weights_path, manifest_path)
    manifest = _read_manifest(manifest_path)
    data = _read(weights_path, _PTH_BYTES)
    if hashlib.sha256(data).hexdigest() != manifest.pth_sha256:
        raise BundleError(
            f"{weights_path} is not the file that {manifest_path} describes (its sha256 is "
            "another). Copy both files again, or build the bundle again.",
            code="bundle_corrupt",
        )
    if manifest.preprocessing != PREPROCESSING:
        raise BundleError(
            f"{manifest_path} was made with preprocessing {manifest.preprocessing}; this version "
            f"of face-matcher has {PREPROCESSING}, and their vectors are not comparable. Build the "
            "bundle again from its photos.",
            code="bundle_mismatch",
        )
    try:
        return Bundle(stem.name, manifest, tensors.read(data))
    except ValueError as error:
        raise BundleError(f"{weights_path} {error}. Build the bundle again.") from error


def save(stem: Path, manifest: Mapping[str, Any], state: Mapping[str, Tensor]) -> Bundle:
    """Write a bundle atomically, the `.json` last; the same input gives the same bytes.

    Args:
        stem: path without suffix; its folder is created.
        manifest: `Manifest`'s fields but `format`, `preprocessing` and `pth_sha256`.
        state: what goes into the `.pth`.

    Returns:
        The bundle as it is read back.

    Raises:
        ValueError: a tensor holds infinity or NaN, as after a training that has diverged, or the
            description would be refused when it is read. Nothing was written.
        OSError: it cannot be written.
    """
    if not all(map(tensors.is_finite, state.values())):
        raise ValueError(
            f"The numbers of {stem.name} are not finite: its training has diverged. Nothing was "
            "written; train again at a lower rate."
        )
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous() for name, tensor in state.items()}, buffer)
    data = buffer.getvalue()
    record = Manifest(
        format=FORMAT,
        preprocessing=PREPROCESSING,
        pth_sha256=hashlib.sha256(data).hexdigest(),
        **manifest,
    )
    weights_path, manifest_path = _paths(stem)
    text = _text(record)
    with replacing(manifest_path) as description, replacing(weights_path) as weights:
        weights.write(data)
        description.write(f"{text}\n".encode())
        description.flush()  # where the disk is full, neither takes the other's place
    return Bundle(stem.name, record, dict(state))


def rewrite(stem: Path, manifest: Manifest) -> None:
    """Write a bundle's `.json` anew, atomically; its `.pth` stays.

    Args:
        stem: path without suffix.
        manifest: of the `.pth` that is there.

    Raises:
        BundleError: another `.pth` has come in the meantime.
    """
    weights_path, manifest_path = _paths(stem)
    if hashlib.sha256(weights_path.read_bytes()).hexdigest() != manifest.pth_sha256:
        raise BundleError(
            f"{weights_path} was replaced while its description was being made. Try again.",
            code="bundle_mismatch",
        )
    write_text(manifest_path, _text(manifest) + "\n")


def _text(manifest: Manifest) -> str:
    """A description as JSON that `load` accepts.

    Raises:
        ValueError: it would be refused, as a number that is not finite is, or a name with a
            control character.
    """
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    content = json.loads(text)
    problem = _problem(content)
    if problem:
        raise ValueError(
            f"The bundle was not written: {problem}. Take it out of the names and texts that the "
            "bundle is made of."
        )
    try:
        Manifest.model_validate(content)
    except ValidationError as error:
        raise ValueError(
            f"The bundle was not written, because it could not be read again: {_first(error)}. "
            "This is a fault of face-matcher; please report it."
        ) from error
    return text


def _first(error: ValidationError) -> str:
    """The first thing that is wrong with a description."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the whole file"
    return f"{place}: {first['msg']}"


def _paths(stem: Path) -> tuple[Path, Path]:
    # Not with_suffix: a name may have a dot in it.
    return stem.parent / f"{stem.name}.pth", stem.parent / f"{stem.name}.json"


def _require_both(weights_path: Path, manifest_path: Path) -> None:
    present = [path for path in (weights_path, manifest_path) if path.is_file()]
    if not present:
        others = sorted(path.stem for path in manifest_path.parent.glob("*.json"))
        raise BundleError(
            f"There is no bundle {manifest_path.stem!r} in {manifest_path.parent}. "
            + (f"It has: {', '.join(others)}. " if others else "")
            + "Build one with `python -m training gallery DIR --out run/models/NAME`.",
            code="bundle_missing",
        )
    if len(present) == 1:
        missing = manifest_path if present == [weights_path] else weights_path
        raise BundleError(
            f"{present[0]} is there but {missing} is not; a bundle needs both. Copy the missing "
            "file beside it, or build the bundle again.",
            code="bundle_incomplete",
        )


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= most:
                return file.read()
    except OSError as error:
        raise BundleError(
            f"{path} could not be read ({error.strerror}): mend its permissions, or copy it again."
        ) from error
    raise BundleError(
        f"{path} has {size:,} bytes, more than the {most:,} that are accepted: it is no bundle of "
        "face-matcher's. Copy it again, or build the bundle again."
    )


def _read_manifest(path: Path) -> Manifest:
    data = _read(path, _JSON_BYTES)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} could not be read as JSON ({error}). Copy it again, or build the bundle again."
        ) from error
    problem = _problem(content)
    if problem:
        raise BundleError(f"{path} is not a bundle's description: {problem}. Build it again.")
    if isinstance(content, dict) and content and all(str(key).isdigit() for key in content):
        raise BundleError(
            f"{path} is only a map from class index to person, without what says how to use the "
            "weights beside it. Build a bundle from the same photos with `python -m training "
            "gallery DIR --out run/models/NAME`, DIR having one folder per person.",
            code="bundle_unconverted",
        )
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise BundleError(
            f"{path} has format {content['format']}; this version of face-matcher reads {FORMAT}. "
            "Build the bundle again, or update face-matcher.",
            code="bundle_mismatch",
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(
            f"{path} is not a bundle's description: {_first(error)}. Build the bundle again."
        ) from error


def _problem(content: object) -> str:
    """Where a description has a text that is more than text, or a number beyond measure, if any."""
    for place, value in _leaves(content):
        if isinstance(value, str) and (found := controls.first(value)):
            return f"{_spelled(place)} has the control character {found}"
        # NaN is at most nothing.
        if isinstance(value, float) and not abs(value) <= sys.float_info.max:
            return f"{_spelled(place)} is not a finite number"
        if isinstance(value, int) and abs(value) > _LARGEST:
            return f"{_spelled(place)} is larger than any number in a bundle"
    return ""


def _leaves(content: object) -> Iterator[tuple[tuple[object, ...], object]]:
    """Where each key and value stands that holds no others, and what it is."""
    # Not by recursion: somebody else decides how deep it goes.
    rest: list[tuple[tuple[object, ...], object]] = [((), content)]
    while rest:
        place, value = rest.pop()
        if isinstance(value, dict):
            rest += [((*place, "a key"), key) for key in value]
            rest += [((*place, key), entry) for key, entry in value.items()]
        elif isinstance(value, list):
            rest += [((*place, i), entry) for i, entry in enumerate(value)]
        else:
            yield place, value


def _spelled(place: tuple[object, ...]) -> str:
    return controls.escape(".".join(map(str, place))) or "the whole file"
