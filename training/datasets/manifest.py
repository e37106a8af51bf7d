"""The manifest of a prepared dataset: one line of JSON for every face and every refused file.

`prepare` writes it, people may overrule it, everything else reads it. Knows the format; knows
nothing about how the decisions were made.
"""

import json
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from engine.files import write_lines
from engine.vision.align import ARCFACE, Template

NAME = "manifest.jsonl"
FORMAT = 1

CROP = Template(224, ARCFACE * 1.7 + 17.0)
"""The crops that `prepare` cuts: the ArcFace template with a margin, so that every embedder's crop
can be cut out of it."""


class Status(StrEnum):
    """Whether a face is learned from."""

    KEEP = "keep"
    DROP = "drop"


class Code(StrEnum):
    """Kinds of reason. All but `SEVERAL_FACES` and `OPERATOR` are reasons to drop."""

    SEVERAL_FACES = "several_faces"
    OPERATOR = "operator"
    UNREADABLE = "unreadable"
    NO_FACE = "no_face"
    SMALL = "small"
    BLURRED = "blurred"
    MISLABEL = "mislabel"
    STRAY = "stray"
    COPY = "copy"
    NEAR_COPY = "near_copy"


def _is_inside(crop: str) -> str:
    if crop.startswith("/") or ".." in crop.split("/"):
        raise ValueError("it must be a file below the manifest's folder")
    return crop


_Name = Annotated[str, Field(min_length=1)]
_Inside = Annotated[_Name, AfterValidator(_is_inside)]
"""One of the dataset's own files: manifests are handed on."""
_Whole = Annotated[int, Field(gt=-(2**63), lt=2**63)]
_Point = Annotated[list[float], Field(min_length=2, max_length=2)]
_LANDMARKS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One face, or one file without a usable face.

    Attributes:
        id: of the face; the same photo gives the same id. Caches are keyed by it.
        path: the photo, relative to the dataset's folder.
        person: whose folder it was in.
        status: what `prepare` decided.
        code: kind of reason, one of `Code`; "" where there is nothing to say.
        reason: the decision in words.
        override: an operator's word against `status`; None where there is none. `prepare` never
            changes it.
        override_person: an operator's word against `person`.
        override_face: an operator's word against the choice among several faces: the id of the
            right one, as the report of doubts shows it. It takes effect when `prepare` runs again.
        twin: path of the photo that stays in this one's place, where this is a copy.
        likely: whose face it looks like, where it is likely mislabelled.
        faces: how many faces the photo shows.
        crop: the face's picture, relative to the manifest's folder; None without a face.
        landmarks: (5, 2) in the crop's pixels; empty without a face.
        group: faces with the same number are near-duplicates: they must not be split between
            training and validation; negative where it was not looked for any.
        size_px, blur, exposure, yaw, pitch: see `engine.types`; None without a face or where they
            cannot be told.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    id: _Name
    path: _Name
    person: _Name
    status: Status
    code: str = ""
    reason: str = ""
    override: Status | None = None
    override_person: _Name | None = None
    override_face: _Name | None = None
    twin: _Name | None = None
    likely: _Name | None = None
    faces: _Whole = 0
    crop: _Inside | None = None
    landmarks: list[_Point] = field(default_factory=list)
    group: _Whole = -1
    size_px: float | None = None
    blur: float | None = None
    exposure: float | None = None
    yaw: float | None = None
    pitch: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the face is learned from, the operator's word included."""
        return self.crop is not None and (self.override or self.status) is Status.KEEP

    @property
    def owner(self) -> str:
        """Whose face it is, the operator's word included."""
        return self.override_person or self.person


_ROW = TypeAdapter(Row)


def locate(source: Path) -> Path:
    """The manifest's path: `source` itself, or the one in the folder `source`."""
    return source / NAME if source.is_dir() else source


def read(path: Path) -> Iterator[Row]:
    """The rows of a manifest, one at a time.

    Raises:
        ValueError: a line is not a row; the message gives its number.
        OSError: the file cannot be read.
    """
    for _, row in lines(path):
        yield row


def lines(path: Path) -> Iterator[tuple[bytes, Row]]:
    """The lines of a manifest with their rows; see `read`."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield line, _parse(line, path, number)


def parse(line: bytes | bytearray) -> Row:
    """The row of a line that `lines` has given."""
    return _ROW.validate_json(line)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest atomically."""
    write_lines(path, (json.dumps(asdict(row), ensure_ascii=False) for row in rows))


def _parse(line: bytes, path: Path, number: int) -> Row:
    place = f"{path}, line {number}"
    try:
        row = parse(line)
    except ValidationError as error:
        first = error.errors()[0]
        name, told = ".".join(map(str, first["loc"])), first["msg"]
        if first["type"] in ("json_invalid", "missing", "dataclass_type"):
            raise ValueError(
                f"{place} is not a face's record ({name + ': ' if name else ''}{told}). Mend it, "
                "or delete the file and run prepare again."
            ) from error
        if first["type"] == "unexpected_keyword_argument":
            raise ValueError(f"{place} has the unknown field {name!r}. Mend it.") from error
        raise ValueError(
            f"{place}: {name} cannot be {reprlib.repr(first['input'])} ({told}). Mend it."
        ) from error
    if row.crop and len(row.landmarks) != _LANDMARKS:
        raise ValueError(f"{place}: landmarks must be five points. Run prepare again.")
    return row
