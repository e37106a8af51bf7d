"""The manifest of a prepared dataset: one line of JSON for every face and every refused file.

`prepare` writes it, people may overrule it, everything else reads it. Knows the format; knows
nothing about how the decisions were made.
"""

import json
import math
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

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

    id: str
    path: str
    person: str
    status: Status
    code: str = ""
    reason: str = ""
    override: Status | None = None
    override_person: str | None = None
    override_face: str | None = None
    twin: str | None = None
    likely: str | None = None
    faces: int = 0
    crop: str | None = None
    landmarks: list[list[float]] = field(default_factory=list)
    group: int = -1
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


_FIELDS = {entry.name for entry in fields(Row)}
_NAMES = {"id", "path", "person"}
_WORDS = {"override_person", "override_face", "twin", "likely", "crop"}
_WHOLE = {"faces", "group"}
_MEASURES = {"size_px", "blur", "exposure", "yaw", "pitch"}


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
    return _row(json.loads(line))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest atomically."""
    write_lines(path, (json.dumps(asdict(row), ensure_ascii=False) for row in rows))


def _parse(line: bytes, path: Path, number: int) -> Row:
    place = f"{path}, line {number}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{place} is not JSON ({error}). Mend it, or delete the file and run prepare again."
        ) from error
    if not isinstance(record, dict) or not {"id", "path", "person", "status"} <= record.keys():
        raise ValueError(
            f"{place} is not a face's record. Mend it, or delete the file and prepare again."
        )
    unknown = sorted(record.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"{place} has the unknown field {unknown[0]!r}. Mend it.")
    for name in ("status", "override"):
        if record.get(name) not in (*Status, None) or (name == "status" and not record[name]):
            raise ValueError(
                f"{place}: {name} is {record.get(name)!r}; it can be 'keep' or 'drop'"
                + (", or null." if name == "override" else ".")
            )
    for name, value in record.items():
        if not _fits(name, value):
            raise ValueError(f"{place}: {name} cannot be {reprlib.repr(value)}. Mend it.")
    if not _is_inside(record.get("crop")):
        raise ValueError(f"{place}: crop must be a file below the manifest's folder.")
    if record.get("crop") and not _is_five_points(record.get("landmarks")):
        raise ValueError(f"{place}: landmarks must be five points. Run prepare again.")
    return _row(record)


def _fits(name: str, value: Any) -> bool:
    """Whether a field can have a value, by its kind alone."""
    if name in _NAMES or (name in _WORDS and value is not None):
        return isinstance(value, str) and value != "" and _is_utf8(value)
    if name in _WHOLE:
        return type(value) is int and abs(value) < 2**63
    if name in _MEASURES:
        return value is None or (type(value) in (int, float) and math.isfinite(value))
    return True


def _is_utf8(text: str) -> bool:
    """Whether a text is whole: JSON can hold halves of letters, files and screens cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_five_points(landmarks: object) -> bool:
    try:
        points = np.array(landmarks, np.float64)
    except (TypeError, ValueError):
        return False
    return points.shape == (5, 2) and bool(np.isfinite(points).all())


def _is_inside(crop: object) -> bool:
    """Whether a crop is one of the dataset's own files: manifests are handed on."""
    if crop is None:
        return True
    return isinstance(crop, str) and not crop.startswith("/") and ".." not in crop.split("/")


def _row(record: dict[str, Any]) -> Row:
    for name in ("status", "override"):
        if record.get(name) is not None:
            record[name] = Status(record[name])
    return Row(**record)
