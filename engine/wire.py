"""The service's JSON: what `engine.types` describes, and faults. Knows nothing about who reads it.

What cannot be read back is `Unreadable`, which says where and repeats nothing of what was read.
Numbers that are not finite are written as null, because JSON has none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from engine import errors
from engine.errors import Busy, EngineError, InvalidRequest
from engine.record import LEFT_OUT, MAY_LACK, Record, Series
from engine.types import Analysis, EngineInfo, Face, Person, Track
from engine.vision.fingerprint import PATTERN_BYTES

PROBLEM_PREFIX = "urn:face-matcher:problem:"
"""Before a fault's code, in a problem's `type` (RFC 9457)."""

ANSWER_MAX_BYTES = 48 * 2**20
"""Of an answer's JSON: a service sends no more, a client reads no more.

What may be asked fits. 32 faces with 100 people each, whose pictures are noise (10,081 bytes where
`training.bundles.gallery` makes them), and embeddings of 512 numbers come to 43 MiB. Of bundles
with larger pictures, what does not fit is refused.
"""

Value = TypeVar("Value")


class Unreadable(ValueError):
    """JSON that is not what was expected."""


@dataclass(frozen=True, slots=True)
class PeopleList(Record):
    """Whom a bundle knows.

    Attributes:
        people: in the order of the class indices.
    """

    people: Series[Person]


_ANALYSES = TypeAdapter(Analysis)
_FACES = TypeAdapter(Face)
_TRACKS = TypeAdapter(Track)
_INFOS = TypeAdapter(EngineInfo)
_PEOPLE = TypeAdapter(PeopleList)
_PERSONS = TypeAdapter(Person)

_THUMBNAILS: Any = {"matches": {"__all__": {"thumbnail"}}}
_THUMBNAILS_OF_A_TRACK: Any = {"frames": {"__all__": {"face": _THUMBNAILS}}}


def face_to_json(face: Face) -> dict[str, Any]:
    """A face as plain JSON values, without thumbnails, as the command line prints it."""
    plain: dict[str, Any] = _FACES.dump_python(face, mode="json", exclude=_THUMBNAILS)
    return plain


def write_analysis(analysis: Analysis, *, thumbnails: bool = False) -> bytes:
    """An analysis as JSON; its people's thumbnails when they are asked for.

    Raises:
        InvalidRequest: it would have more than `ANSWER_MAX_BYTES`.
    """
    left_out = None if thumbnails else _THUMBNAILS
    faces = (_FACES.dump_json(face, exclude=left_out) for face in analysis.faces)
    rest = _ANALYSES.dump_json(analysis, exclude={"faces"})
    advice = "ask for fewer people (top_k), or for less about them"
    return _bounded(b'{"faces":[', faces, b"]," + rest.removeprefix(b"{"), advice)


def read_analysis(text: bytes) -> Analysis:
    """The analysis that `write_analysis` made it of; boxes and landmarks in hundredths."""
    analysis = _read(_ANALYSES, text)
    _require_patterns(analysis.faces)
    return analysis


def write_track(track: Track) -> bytes:
    """A track as JSON."""
    return _TRACKS.dump_json(track, exclude=_THUMBNAILS_OF_A_TRACK)


def read_track(text: bytes) -> Track:
    """The track that `write_track` made it of; boxes and landmarks in hundredths."""
    track = _read(_TRACKS, text)
    _require_patterns(frame.face for frame in track.frames if frame.face is not None)
    return track


def write_info(info: EngineInfo) -> bytes:
    """What an engine is made of, as JSON."""
    return _INFOS.dump_json(info)


def read_info(text: bytes) -> EngineInfo:
    """What `write_info` made it of."""
    return _read(_INFOS, text)


def write_people(people: Sequence[Person]) -> bytes:
    """Whom a bundle knows, as JSON.

    Raises:
        InvalidRequest: it would have more than `ANSWER_MAX_BYTES`.
    """
    advice = f"say less about each of the bundle's {len(people)} people"
    return _bounded(b'{"people":[', map(_PERSONS.dump_json, people), b"]}", advice)


def read_people(text: bytes) -> tuple[Person, ...]:
    """The people that `write_people` made it of."""
    return _read(_PEOPLE, text).people


def _bounded(start: bytes, items: Iterable[bytes], end: bytes, advice: str) -> bytes:
    """An object with a list, written item by item: other threads run in between."""
    text = bytearray(start)
    for number, item in enumerate(items):
        text += b"," + item if number else item
        if len(text) + len(end) > ANSWER_MAX_BYTES:
            raise InvalidRequest(
                f"The answer would have more than the {ANSWER_MAX_BYTES / 2**20:g} MB that are "
                f"sent: {advice}."
            )
    return bytes(text + end)


def _read(adapter: TypeAdapter[Value], text: bytes) -> Value:
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "JSON"
    # Without a cause: its text repeats what was read.
    raise Unreadable(f"{place}: {first['msg']}")


def _require_patterns(faces: Iterable[Face]) -> None:
    """Raise Unreadable where copies of a shot could not be told."""
    for face in faces:
        length = None if face.embedding is None else PATTERN_BYTES
        if length != (None if face.pattern is None else len(face.pattern)):
            raise Unreadable("a face's pattern is missing, or of another length")


# --- Faults ---


@dataclass(frozen=True, slots=True)
class Kind:
    """How faults of a code cross HTTP.

    Attributes:
        status: of the HTTP response.
        title: the same words for every fault of this code.
        error: what it is on both sides.
    """

    status: int
    title: str
    error: type[EngineError]


PROBLEMS: Mapping[str, Kind] = {
    "empty_image": Kind(400, "Empty image", errors.EmptyImage),
    "invalid_request": Kind(400, "Invalid request", errors.InvalidRequest),
    "unsupported_body": Kind(415, "Unsupported body", errors.UnsupportedBody),
    "unauthorized": Kind(401, "Unauthorized", errors.Unauthorized),
    "forbidden": Kind(403, "Forbidden", errors.Forbidden),
    "not_found": Kind(404, "Not found", errors.NotFound),
    "method_not_allowed": Kind(405, "Method not allowed", errors.MethodNotAllowed),
    "file_too_large": Kind(413, "File too large", errors.FileTooLarge),
    "not_an_image": Kind(415, "Not an image", errors.NotAnImage),
    "unsupported_format": Kind(415, "Unsupported image format", errors.UnsupportedFormat),
    "broken_image": Kind(422, "Broken image", errors.BrokenImage),
    "too_many_pixels": Kind(422, "Too many pixels", errors.TooManyPixels),
    "image_too_demanding": Kind(422, "Image too demanding", errors.ImageTooDemanding),
    "clip_too_large": Kind(413, "Clip too large", errors.ClipTooLarge),
    "not_a_video": Kind(415, "Not a video", errors.NotAVideo),
    "unsupported_video": Kind(415, "Unsupported video format", errors.UnsupportedVideo),
    "broken_video": Kind(422, "Broken video", errors.BrokenVideo),
    "video_too_long": Kind(422, "Video too long", errors.VideoTooLong),
    "too_many_frames": Kind(422, "Too many frames", errors.TooManyFrames),
    "too_many_video_pixels": Kind(422, "Too many video pixels", errors.TooManyVideoPixels),
    "video_too_demanding": Kind(422, "Video too demanding", errors.VideoTooDemanding),
    "settings_invalid": Kind(409, "Invalid settings", errors.ConfigurationError),
    "bundle_missing": Kind(409, "Bundle missing", errors.BundleError),
    "bundle_incomplete": Kind(409, "Bundle incomplete", errors.BundleError),
    "bundle_corrupt": Kind(409, "Bundle corrupt", errors.BundleError),
    "bundle_unconverted": Kind(409, "Bundle not converted", errors.BundleError),
    "bundle_mismatch": Kind(409, "Bundle does not fit", errors.BundleError),
    "weights_missing": Kind(409, "Weights missing", errors.WeightsError),
    "weights_corrupt": Kind(409, "Weights corrupt", errors.WeightsError),
    "weights_unreadable": Kind(409, "Weights unreadable", errors.WeightsError),
    "device_missing": Kind(409, "Device missing", errors.DeviceError),
    "internal": Kind(500, "Internal error", errors.InternalError),
    "busy": Kind(503, "Busy", errors.Busy),
    "unavailable": Kind(503, "Unavailable", errors.Unavailable),
    "deadline_exceeded": Kind(504, "Deadline exceeded", errors.DeadlineExceeded),
}
"""By code; what is not here is our own bug, and "internal"."""


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """A fault (RFC 9457).

    Attributes:
        code: which fault.
        detail: what happened and what to do, in English.
        type, title, status: the same for every fault of this code.
        retry_after_s: when to come back, where it is known.
    """

    code: Annotated[str, Field(json_schema_extra={"enum": [*sorted(PROBLEMS)]})]
    detail: str
    type: str = field(default="about:blank", metadata=MAY_LACK)
    title: str = field(default="", metadata=MAY_LACK)
    status: int = field(default=500, metadata=MAY_LACK)
    retry_after_s: Annotated[float | None, LEFT_OUT] = None


_PROBLEMS = TypeAdapter(Problem)


def problem(error: EngineError) -> dict[str, Any]:
    """A fault as problem+json."""
    code = error.code if error.code in PROBLEMS else errors.InternalError.code
    kind = PROBLEMS[code]
    record = Problem(code, error.message, PROBLEM_PREFIX + code, kind.title, kind.status)
    if isinstance(error, Busy):
        record = replace(record, retry_after_s=error.retry_after_s)
    plain: dict[str, Any] = _PROBLEMS.dump_python(record, mode="json")
    return plain


def read_problem(text: bytes) -> EngineError:
    """The fault that `problem` made it of; of a code that is unknown here, an InternalError."""
    record = _read(_PROBLEMS, text)
    if record.code == Busy.code:
        if record.retry_after_s is None:
            raise Unreadable("retry_after_s is missing")
        return Busy(record.detail, retry_after_s=record.retry_after_s)
    kind = PROBLEMS[record.code].error if record.code in PROBLEMS else errors.InternalError
    return kind(record.detail, code=record.code)
