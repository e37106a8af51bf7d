"""The engine's values as plain JSON values, and back. Knows nothing about who reads them.

What cannot be read back is a `ValueError`, a `KeyError` or a `TypeError`: whoever asked knows what
to say. Numbers that are not finite are null, because JSON has none.
"""

import base64
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import decision, errors
from engine.errors import Busy, EngineError
from engine.types import (
    Analysis,
    EngineInfo,
    Face,
    Frame,
    Match,
    Person,
    Pose,
    Quality,
    Track,
    Verdict,
)
from engine.vision.fingerprint import PATTERN_BYTES

PROBLEM_PREFIX = "urn:face-matcher:problem:"
"""Before a fault's code, in a problem's `type` (RFC 9457)."""

COUNTRY = re.compile("([A-Z]{2})?")
"""A country as `Person` tells it."""

ANSWER_MAX_BYTES = 48 * 2**20
"""Of an answer's JSON: a service sends no more, a client reads no more.

What may be asked fits. 32 faces with 100 people each, whose pictures are noise (10,081 bytes where
`training.bundles.gallery` makes them), and embeddings of 512 numbers come to 43 MiB. Of bundles
with larger pictures, what does not fit is refused.
"""


def face_to_json(face: Face, *, thumbnails: bool = False) -> dict[str, Any]:
    """A face as the command line and the service print it; thumbnails when they are asked for."""
    record: dict[str, Any] = {
        "box": [round(value, 2) for value in face.box],
        "landmarks": [[round(x, 2), round(y, 2)] for x, y in face.landmarks],
        "probability": face.probability,
        "quality": {
            "size_px": face.quality.size_px,
            "blur": face.quality.blur,
            "exposure": face.quality.exposure,
            "shadow": face.quality.shadow,
        },
        "pose": {"yaw": _finite(face.pose.yaw), "pitch": _finite(face.pose.pitch)},
        "matches": [_match_to_json(match, thumbnails) for match in face.matches],
    }
    if face.embedding is not None:
        record["embedding"] = face.embedding.tolist()
    if face.pattern is not None:
        record["pattern"] = base64.b64encode(face.pattern).decode("ascii")
    return record


def analysis_to_json(analysis: Analysis, *, thumbnails: bool = False) -> dict[str, Any]:
    """An analysis as the service answers it."""
    record: dict[str, Any] = {
        "bundle": analysis.bundle,
        "width_px": analysis.width_px,
        "height_px": analysis.height_px,
        "queue_s": analysis.queue_s,
        "compute_s": analysis.compute_s,
        "turned": analysis.turned,
    }
    if analysis.picture is not None:
        record["picture"] = base64.b64encode(analysis.picture).decode("ascii")
    record["faces"] = [face_to_json(face, thumbnails=thumbnails) for face in analysis.faces]
    return record


def analysis_from_json(record: Mapping[str, Any]) -> Analysis:
    """The analysis that `analysis_to_json` made it of; boxes and landmarks in hundredths.

    An engine that turns no photos says nothing about it.
    """
    picture = record.get("picture")
    return Analysis(
        faces=tuple(map(_face_from_json, _list(record["faces"]))),
        width_px=int(_number(record["width_px"])),
        height_px=int(_number(record["height_px"])),
        bundle=_text(record["bundle"]),
        queue_s=_number(record["queue_s"]),
        compute_s=_number(record["compute_s"]),
        turned=_turned(record.get("turned", 0)),
        picture=None if picture is None else base64.b64decode(picture, validate=True),
    )


def track_to_json(track: Track) -> dict[str, Any]:
    """A track as the service answers it."""
    return {
        "bundle": track.bundle,
        "width_px": track.width_px,
        "height_px": track.height_px,
        "duration_s": track.duration_s,
        "queue_s": track.queue_s,
        "compute_s": track.compute_s,
        "frames": [
            {
                "time_s": frame.time_s,
                "face": None if frame.face is None else face_to_json(frame.face),
                "others": frame.others,
                "turned_deg": frame.turned_deg and list(frame.turned_deg),
            }
            for frame in track.frames
        ],
    }


def track_from_json(record: Mapping[str, Any]) -> Track:
    """The track that `track_to_json` made it of; boxes and landmarks in hundredths."""
    return Track(
        frames=tuple(map(_frame_from_json, _list(record["frames"]))),
        width_px=int(_number(record["width_px"])),
        height_px=int(_number(record["height_px"])),
        duration_s=_number(record["duration_s"]),
        bundle=_text(record["bundle"]),
        queue_s=_number(record["queue_s"]),
        compute_s=_number(record["compute_s"]),
    )


def info_to_json(info: EngineInfo) -> dict[str, Any]:
    """What an engine is made of, as the service answers it."""
    return {
        "version": info.version,
        "bundle": info.bundle,
        "embedder": info.embedder,
        "people": info.people,
        "device": info.device,
        "login": None if info.login is None else decision.to_json(info.login),
    }


def info_from_json(record: Mapping[str, Any]) -> EngineInfo:
    """What `info_to_json` made it of; an engine that knows of no login says nothing about it."""
    login = record.get("login")
    return EngineInfo(
        version=_text(record["version"]),
        bundle=_text(record["bundle"]),
        embedder=_text(record["embedder"]),
        people=int(_number(record["people"])),
        device=_text(record["device"]),
        login=None if login is None else decision.from_json(login),
    )


def person_to_json(person: Person) -> dict[str, Any]:
    """One person as the service answers it."""
    return {
        "name": person.name,
        "country": person.country,
        "known_for": dict(person.known_for),
    }


def people_to_json(people: Iterable[Person]) -> dict[str, Any]:
    """Whom a bundle knows, as the service answers it."""
    return {"people": [person_to_json(person) for person in people]}


def people_from_json(record: Mapping[str, Any]) -> tuple[Person, ...]:
    """The people that `people_to_json` made it of."""
    return tuple(map(_person_from_json, _list(record["people"])))


def _person_from_json(record: Mapping[str, Any]) -> Person:
    country, known_for = _text(record["country"]), record["known_for"]
    if not COUNTRY.fullmatch(country):
        raise ValueError("a country that is no code of two letters")
    if not isinstance(known_for, Mapping):
        raise TypeError(f"{type(known_for).__name__} where texts by language belong")
    words = {_text(language): _text(text) for language, text in known_for.items()}
    return Person(_text(record["name"]), country, words)


def _match_to_json(match: Match, thumbnails: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": match.name,
        "probability": match.probability,
        "similarity": match.similarity,
        "percentile": match.percentile,
        "verdict": match.verdict.value,
    }
    if thumbnails and match.thumbnail is not None:
        record["thumbnail"] = base64.b64encode(match.thumbnail).decode("ascii")
    return record


def _match_from_json(record: Mapping[str, Any]) -> Match:
    thumbnail = record.get("thumbnail")
    return Match(
        name=_text(record["name"]),
        probability=_number(record["probability"]),
        similarity=_number(record["similarity"]),
        percentile=_number(record["percentile"]),
        verdict=Verdict(record["verdict"]),
        thumbnail=None if thumbnail is None else base64.b64decode(thumbnail, validate=True),
    )


def _frame_from_json(record: Mapping[str, Any]) -> Frame:
    face, turned = record["face"], record["turned_deg"]
    return Frame(
        time_s=_number(record["time_s"]),
        face=None if face is None else _face_from_json(face),
        others=int(_number(record["others"])),
        turned_deg=None if turned is None else _turn_from_json(turned),
    )


def _turn_from_json(record: Any) -> tuple[float, float]:
    yaw_deg, pitch_deg = map(_number, _list(record))
    return yaw_deg, pitch_deg


def _face_from_json(record: Mapping[str, Any]) -> Face:
    x1, y1, x2, y2 = map(_number, record["box"])
    a, b, c, d, e = ((_number(x), _number(y)) for x, y in record["landmarks"])
    quality, pose = record["quality"], record["pose"]
    embedding = record.get("embedding")
    return Face(
        box=(x1, y1, x2, y2),
        landmarks=(a, b, c, d, e),
        probability=_number(record["probability"]),
        quality=Quality(
            _number(quality["size_px"]),
            _number(quality["blur"]),
            _number(quality["exposure"]),
            _number(quality["shadow"]),
        ),
        pose=Pose(_number_or_nan(pose["yaw"]), _number_or_nan(pose["pitch"])),
        matches=tuple(map(_match_from_json, _list(record["matches"]))),
        embedding=None if embedding is None else _vector(embedding),
        # An engine that tells none would let copies pass.
        pattern=None if embedding is None else _pattern(record["pattern"]),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number_or_nan(value: float | None) -> float:
    return math.nan if value is None else _number(value)


# Python would take much for what it is not: an object for a list of no faces, a list for a name.


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{type(value).__name__} where a number belongs")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text belongs")
    return value


def _turned(value: object) -> int:
    degrees = int(_number(value))
    if degrees != value or degrees not in (0, 90, 180, 270):
        raise ValueError("a photo turned by another angle than a quarter, a half or three quarters")
    return degrees


def _pattern(value: object) -> bytes:
    pattern = base64.b64decode(_text(value), validate=True)
    if len(pattern) != PATTERN_BYTES:
        raise ValueError("a pattern of another length")
    return pattern


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} where a list belongs")
    return value


def _vector(value: object) -> NDArray[np.float32]:
    vector = np.asarray(_list(value), np.float32)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ValueError("an embedding that is no vector of numbers")
    return vector


# --- Faults ---


def error_to_json(error: EngineError) -> dict[str, str]:
    """A fault as the command line prints it."""
    return {"code": error.code, "message": error.message}


@dataclass(frozen=True, slots=True)
class Problem:
    """How a fault crosses HTTP.

    Attributes:
        status: of the HTTP response.
        title: the same words for every fault of this code.
        error: what it is on both sides.
    """

    status: int
    title: str
    error: type[EngineError]


PROBLEMS: Mapping[str, Problem] = {
    "empty_image": Problem(400, "Empty image", errors.EmptyImage),
    "invalid_request": Problem(400, "Invalid request", errors.InvalidRequest),
    "unsupported_body": Problem(415, "Unsupported body", errors.UnsupportedBody),
    "unauthorized": Problem(401, "Unauthorized", errors.Unauthorized),
    "forbidden": Problem(403, "Forbidden", errors.Forbidden),
    "not_found": Problem(404, "Not found", errors.NotFound),
    "method_not_allowed": Problem(405, "Method not allowed", errors.MethodNotAllowed),
    "file_too_large": Problem(413, "File too large", errors.FileTooLarge),
    "not_an_image": Problem(415, "Not an image", errors.NotAnImage),
    "unsupported_format": Problem(415, "Unsupported image format", errors.UnsupportedFormat),
    "broken_image": Problem(422, "Broken image", errors.BrokenImage),
    "too_many_pixels": Problem(422, "Too many pixels", errors.TooManyPixels),
    "image_too_demanding": Problem(422, "Image too demanding", errors.ImageTooDemanding),
    "clip_too_large": Problem(413, "Clip too large", errors.ClipTooLarge),
    "not_a_video": Problem(415, "Not a video", errors.NotAVideo),
    "unsupported_video": Problem(415, "Unsupported video format", errors.UnsupportedVideo),
    "broken_video": Problem(422, "Broken video", errors.BrokenVideo),
    "video_too_long": Problem(422, "Video too long", errors.VideoTooLong),
    "too_many_frames": Problem(422, "Too many frames", errors.TooManyFrames),
    "too_many_video_pixels": Problem(422, "Too many video pixels", errors.TooManyVideoPixels),
    "video_too_demanding": Problem(422, "Video too demanding", errors.VideoTooDemanding),
    "settings_invalid": Problem(409, "Invalid settings", errors.ConfigurationError),
    "bundle_missing": Problem(409, "Bundle missing", errors.BundleError),
    "bundle_incomplete": Problem(409, "Bundle incomplete", errors.BundleError),
    "bundle_corrupt": Problem(409, "Bundle corrupt", errors.BundleError),
    "bundle_unconverted": Problem(409, "Bundle not converted", errors.BundleError),
    "bundle_mismatch": Problem(409, "Bundle does not fit", errors.BundleError),
    "weights_missing": Problem(409, "Weights missing", errors.WeightsError),
    "weights_corrupt": Problem(409, "Weights corrupt", errors.WeightsError),
    "weights_unreadable": Problem(409, "Weights unreadable", errors.WeightsError),
    "device_missing": Problem(409, "Device missing", errors.DeviceError),
    "internal": Problem(500, "Internal error", errors.InternalError),
    "busy": Problem(503, "Busy", errors.Busy),
    "unavailable": Problem(503, "Unavailable", errors.Unavailable),
    "deadline_exceeded": Problem(504, "Deadline exceeded", errors.DeadlineExceeded),
}
"""By code; what is not here is our own bug, and "internal"."""


def problem(error: EngineError) -> dict[str, Any]:
    """A fault as problem+json (RFC 9457)."""
    code = error.code if error.code in PROBLEMS else errors.InternalError.code
    kind = PROBLEMS[code]
    record: dict[str, Any] = {
        "type": PROBLEM_PREFIX + code,
        "title": kind.title,
        "status": kind.status,
        "detail": error.message,
        "code": code,
    }
    if isinstance(error, Busy):
        record["retry_after_s"] = error.retry_after_s
    return record


def error_from_problem(record: Mapping[str, Any]) -> EngineError:
    """The fault that `problem` made it of; of a code that is unknown here, an InternalError."""
    code, message = _text(record["code"]), _text(record["detail"])
    if code == Busy.code:
        return Busy(message, retry_after_s=_number(record["retry_after_s"]))
    kind = PROBLEMS[code].error if code in PROBLEMS else errors.InternalError
    return kind(message, code=code)
