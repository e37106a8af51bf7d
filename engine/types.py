"""What crosses the engine's wall: frozen values, no tensors.

They are also the description of the service's JSON (`engine.record`). This module knows nothing
about how any of the values are computed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from engine.decision import LoginCalibration
from engine.record import LEFT_OUT, MAY_LACK, Base64, Count, Record, Series, Vector

MAX_TOP_K = 100
"""People that may be named for each face."""

_FourNumbers = tuple[float, float, float, float]
_Point = tuple[float, float]
_FivePoints = tuple[_Point, _Point, _Point, _Point, _Point]


def _rounded(numbers: _FourNumbers | _Point) -> tuple[float, ...]:
    return tuple(round(number, 2) for number in numbers)


def _rounded_points(points: _FivePoints) -> tuple[tuple[float, ...], ...]:
    return tuple(map(_rounded, points))


Box = Annotated[_FourNumbers, PlainSerializer(_rounded, return_type=_FourNumbers)]
"""(x1, y1, x2, y2) in pixels of the upright original photo, within it: 0 <= x1 < x2 <= its width,
0 <= y1 < y2 <= its height. Of a face that the photo's edge cuts, it is the part that shows. In
JSON in hundredths."""

Landmarks = Annotated[_FivePoints, PlainSerializer(_rounded_points, return_type=_FivePoints)]
"""Five (x, y) points in pixels of the upright original, in the order left eye, right eye, nose,
left mouth corner, right mouth corner; left and right as seen in the image. In
JSON in hundredths."""


def _null_is_nan(value: float | None, read: ValidatorFunctionWrapHandler) -> float:
    return math.nan if value is None else float(read(value))


Proxy = Annotated[
    float,
    WrapValidator(_null_is_nan),
    PlainSerializer(lambda v: v if math.isfinite(v) else None, return_type=float | None),
]
"""A number that stands for another; NaN, in JSON null, where that cannot be told."""


def _only_texts(value: object) -> object:
    if isinstance(value, Mapping) and not all(isinstance(text, str) for text in value.values()):
        raise ValueError("must be texts by language")
    return value


class Verdict(StrEnum):
    """What a similarity may be called in words, strongest first.

    Every match has one: somebody of the gallery is always the nearest. The percentages are of
    strangers, people outside the gallery, each compared with their own best match in it; see
    `engine.people.scoring` for the figures.

    IS: the same person, at the threshold whose false match rate was measured as 1e-3.
    STRONG: a striking resemblance, at least as close as 95 % of strangers have it.
    GOOD: a resemblance, at least as close as 60 % of strangers have it.
    SOME: something of the person, at least as close as 8 % of strangers have it: nothing unusual.
    FAINT: hardly anything of the person; no more than that nobody of the gallery is nearer.
    """

    IS = "is"
    STRONG = "strong"
    GOOD = "good"
    SOME = "some"
    FAINT = "faint"


@dataclass(frozen=True, slots=True)
class Person(Record):
    """One person whom a bundle knows.

    Attributes:
        name: as the bundle spells it.
        country: ISO 3166-1 alpha-2 code, "" where none is told.
        known_for: language code ("es", "en") to a few words in that language.
    """

    name: str
    country: Annotated[str, Field(pattern="^([A-Z]{2})?$")] = ""
    known_for: Annotated[Mapping[str, str], BeforeValidator(_only_texts)] = field(
        default_factory=dict, hash=False
    )


@dataclass(frozen=True, slots=True)
class Match(Record):
    """One person of the gallery, compared with one face.

    Attributes:
        name: the person, as the bundle spells it.
        probability: share of belief over the people of the bundle, 0 to 1; sums to 1 over all.
        similarity: cosine of the centred embeddings, -1 to 1.
        percentile: percentage (0 to 100) of strangers whose best match in the gallery is less
            similar than this one.
        verdict: what the similarity may be called.
        thumbnail: a small JPEG of the person, when the bundle carries one.
    """

    name: str
    probability: float
    similarity: float
    percentile: float
    verdict: Verdict
    thumbnail: Annotated[Base64 | None, LEFT_OUT] = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Quality(Record):
    """How usable a face is.

    Attributes:
        size_px: shorter side of the face's box in pixels of the original, > 0.
        blur: 0 (sharp) to 1 (nothing but blur), after Crete et al. 2007; see
            `engine.vision.quality`.
        exposure: mean luminance of the face, 0 (black) to 1 (white).
        shadow: how much darker one half of the face is than the other, left and right: 0 where both
            are alike, 1 where one is black.
    """

    size_px: float
    blur: float
    exposure: float
    shadow: float = 0.0


@dataclass(frozen=True, slots=True)
class Pose(Record):
    """Where a face looks, as proxies from five landmarks (`engine.vision.pose`); not in degrees.

    Attributes:
        yaw: 0 is frontal; about 0.085 at 10 degrees, 0.17 at 20, 0.27 at 30, 0.47 at 45; the
            sign is that of the direction in the image and flips in a mirror.
        pitch: about 0.56 is level; about 0.085 more per 10 degrees of looking down.
    """

    yaw: Proxy
    pitch: Proxy


@dataclass(frozen=True, slots=True)
class Face(Record):
    """One face of a photo.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the upright original; see `Box`.
        landmarks: left eye, right eye, nose, left and right corner of the mouth; see `Landmarks`.
        probability: the detector's belief that this is a face, 0 to 1.
        quality: see `Quality`.
        pose: see `Pose`.
        matches: the most similar people, best first, at most top_k.
        embedding: unit-length float32 vector, present when asked for.
        pattern: of light and dark, by which copies of a shot are told; present where the embedding
            is. See `engine.vision.fingerprint`.
    """

    box: Box
    landmarks: Landmarks
    probability: float
    quality: Quality
    pose: Pose
    matches: Series[Match] = ()
    embedding: Annotated[Vector | None, LEFT_OUT] = field(default=None, repr=False, compare=False)
    pattern: Annotated[Base64 | None, LEFT_OUT] = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Analysis(Record):
    """What the engine saw in one photo.

    Attributes:
        faces: largest first; empty when nobody was found.
        width_px: width of the upright photo, after it was turned.
        height_px: height of the upright photo, after it was turned.
        bundle: the bundle that answered, as "name@first eight digits of its sha256".
        queue_s: seconds the photo waited for the device.
        compute_s: seconds its batch took.
        turned: degrees clockwise, 0, 90, 180 or 270, by which the photo was turned after it was
            made upright by its Exif orientation, because faces show only so. All boxes and
            landmarks are in pixels of the turned photo.
        picture: the photo as an upright JPEG, at most 1,600 px on its longer side, present when
            asked for. What shows it needs to decode nothing that a stranger sent.
    """

    faces: Series[Face]
    width_px: Count
    height_px: Count
    bundle: str
    queue_s: float = 0.0
    compute_s: float = 0.0
    turned: Annotated[int, Field(ge=0, le=270, multiple_of=90)] = field(
        default=0, metadata=MAY_LACK
    )
    picture: Annotated[Base64 | None, LEFT_OUT] = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Frame(Record):
    """One moment of a clip.

    Attributes:
        time_s: since the clip's first frame.
        face: the face that is followed through the clip, None where it is not seen; every second
            frame's carries its embedding and its pattern.
        others: how many more faces there are, of those at least half as large.
        turned_deg: degrees of yaw and pitch, whichever way, that the head surely turned since
            three frames before, 0 or more, told by depth: about 0 of a picture that is shifted,
            turned in its plane, scaled or sheared as a whole; see `engine.vision.parallax`. None
            where the face is not seen in both frames.
    """

    time_s: float
    face: Face | None
    others: Count
    turned_deg: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Track(Record):
    """What the engine saw in a clip: one face, about ten times a second.

    Attributes:
        frames: in their order.
        width_px: width of the upright clip.
        height_px: height of the upright clip.
        duration_s: from its first frame to the end of its last, as decoded.
        bundle: see `Analysis.bundle`.
        queue_s: seconds its frames waited for the device, all together.
        compute_s: seconds their batches took, all together.
        calibration: the version of the bundle's `LoginCalibration`; None where it has none, or
            where an engine of an older version saw the clip.
    """

    frames: Series[Frame]
    width_px: Count
    height_px: Count
    duration_s: float
    bundle: str
    queue_s: float = 0.0
    compute_s: float = 0.0
    calibration: str | None = field(default=None, metadata=MAY_LACK)


@dataclass(frozen=True, slots=True)
class EngineInfo(Record):
    """What an engine is made of.

    Attributes:
        version: of face-matcher.
        bundle: as in `Analysis.bundle`.
        embedder: the embedder's id.
        people: how many people the bundle knows.
        device: where it computes, "cpu" or "cuda:0".
        login: how it is decided whether two sets of embeddings are one person's; None where the
            bundle was not calibrated for that, and nobody can be let in.
    """

    version: str
    bundle: str
    embedder: str
    people: Count
    device: str
    login: LoginCalibration | None = field(default=None, metadata=MAY_LACK)
