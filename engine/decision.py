"""Is this the person who enrolled? Templates and probes to yes or no, at measured thresholds.

Pure numpy, so that a bot without torch can decide. Knows vectors and a calibration; knows nothing
about photos, clips, users or how the calibration was measured (`training.measure.login` does that).

What is compared is centred: an embedding less the mean face, of unit length. Means are taken of
centred vectors and made of unit length again, so that a score is always a cosine.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, TypeAdapter

from engine.record import Record, Series, Vector

PHOTO = "photo"
VIDEO = "video"

NO_VETO = -1.0
"""A template floor that everything reaches."""

LEAST_THRESHOLD = 0.05
"""No threshold is lower: of directions drawn at random among 512 numbers, every eighth pair is more
alike, and of two strangers' faces many more."""

_BUCKETS = 10
_SMALLEST = 1e-6
"""A mean shorter than this has no direction."""

_UNIT = 0.01
"""How far from 1 an embedding's length may be; what is farther is none."""

Vectors = NDArray[np.float32]

Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Number = Annotated[int, Field(ge=1)]


def _shortest(vector: Vectors) -> list[float]:
    """For each number the decimal one with the fewest digits that is the same as a float32."""
    return [float(str(number)) for number in vector]


@dataclass(frozen=True, slots=True)
class OperatingPoint(Record):
    """One way of asking, and what it is worth.

    Attributes:
        level: `PHOTO` or `VIDEO`.
        templates: how many enrolled vectors it was measured with.
        probes: how many fresh ones. Of a clip's frames, which are of one moment, only so many
            count as if they were different photos.
        threshold: lowest cosine of the mean of the templates and the mean of the probes.
        template_floor: lowest cosine of each single template and the mean of the probes;
            `NO_VETO` where a veto was measured to cost more than it is worth.
        turn_threshold: lowest cosine of the mean of the templates and the mean of each turn's
            faces; None where no turns are looked at.
        fmr: share of strangers who are taken for somebody else, all of their `attempts` included.
        fmr_upper_95: its one-sided 95 % bound.
        fnmr: share of single attempts of the right person that are refused.
        people: how many it was measured on.
        impostor_trials: strangers' sessions that `fmr` rests on.
        genuine_trials: attempts that `fnmr` rests on.
    """

    level: Annotated[str, Field(json_schema_extra={"enum": [PHOTO, VIDEO]})]
    templates: Number
    probes: Number
    threshold: Cosine
    template_floor: Cosine
    turn_threshold: Cosine | None
    fmr: Share
    fmr_upper_95: Share
    fnmr: Share
    people: Number
    impostor_trials: Number
    genuine_trials: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCalibration(Record):
    """Everything that a login's decision needs: model, preprocessing and thresholds as one version.

    Attributes:
        embedder: whose vectors it is about.
        weights_sha256: of that embedder.
        preprocessing: version of detection, alignment and normalisation.
        captures: how many enrolment captures the measurement recommends.
        probes: how many photos a check by photo should ask for, likewise.
        attempts: how many attempts a stranger has in the points' `fmr`.
        agreement: lowest cosine that any two enrolment captures of one person must have.
        source: "own", or the bundle that it was borrowed from.
        points: the ways of asking that were measured.
        centre: (d,) float32, the mean face.
    """

    embedder: str
    weights_sha256: str
    preprocessing: Number
    captures: Number = 3
    probes: Number = 3
    attempts: Number = 5
    agreement: Cosine
    source: str = "own"
    points: Series[OperatingPoint]
    centre: Annotated[Vector, PlainSerializer(_shortest)] = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what the fields' types do not.

        Raises:
            ValueError: the centre is no vector of finite numbers, a threshold would let anybody
                in, or a rate is no number from 0 to 1.
        """
        centre = np.array(self.centre, np.float32)
        if centre.ndim != 1 or not len(centre) or not np.isfinite(centre).all():
            raise ValueError("a login's centre must be a vector of finite numbers")
        if not self.points or not all(
            LEAST_THRESHOLD <= point.threshold <= 1 for point in self.points
        ):
            raise ValueError(
                f"a login's thresholds must be {LEAST_THRESHOLD} to 1: strangers reach lower ones"
            )
        rates = [
            rate for point in self.points for rate in (point.fmr, point.fmr_upper_95, point.fnmr)
        ]
        if not all(0 <= rate <= 1 for rate in rates):  # false for NaN, too
            raise ValueError("a login's rates must be numbers from 0 to 1")
        centre.setflags(write=False)
        object.__setattr__(self, "centre", centre)

    @property
    def version(self) -> str:
        """Short id of everything that decides, for the log and the audit trail."""
        content = to_json(self)
        del content["source"]  # a borrowed one decides alike
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def point(self, level: str, templates: int, probes: int) -> OperatingPoint:
        """The operating point for so many templates and probes, or the next smaller one.

        Raises:
            ValueError: nothing was measured with so few.
        """
        fitting = [
            point
            for point in self.points
            if point.level == level and point.templates <= templates and point.probes <= probes
        ]
        if not fitting:
            raise ValueError(
                f"no login by {level} was measured with {templates} template(s) and {probes} "
                "probe(s)"
            )
        return max(fitting, key=lambda point: (point.templates, point.probes))


_CALIBRATIONS = TypeAdapter(LoginCalibration)


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict.

    Attributes:
        accepted: whether it is the person.
        reason: "match", "no_match", "template_veto", "turn_mismatch" or "not_comparable" (a
            vector is no embedding: not finite, not of unit length, or the mean face itself).
        bucket: 0 (nothing alike) to 9, coarse and for the log only: exact scores help a stranger
            to climb.
    """

    accepted: bool
    reason: str
    bucket: int


def decide(
    calibration: LoginCalibration,
    level: str,
    templates: Vectors,
    probes: Vectors,
    turns: Sequence[Vectors] = (),
) -> Decision:
    """Whether the probes show the person of the templates.

    No more templates and probes are looked at than the operating point was measured with; the
    first ones count, so the best come first. Of a clip all frames count: they are averaged, and
    the point's `probes` says what they are worth.

    Args:
        calibration: of the embedder that made the vectors.
        level: `PHOTO` or `VIDEO`.
        templates: (k, d) unit embeddings from enrolment.
        probes: (m, d) fresh ones; of a clip, those of the neutral frames.
        turns: (t, d) embeddings inside each turn of a clip, for every turn.

    Raises:
        ValueError: there are fewer templates or probes than anything was measured with, or they
            are not of the calibration's dimension.
    """
    stored = _rows(calibration, templates, "templates")
    fresh = _rows(calibration, probes, "probes")
    inside = [_rows(calibration, turn, "turns") for turn in turns]
    point = calibration.point(level, len(stored), len(fresh))
    stored = stored[: point.templates]
    if level == PHOTO:
        fresh = fresh[: point.probes]
    own, asked = _centred(calibration, stored), _mean(_centred(calibration, fresh))
    mean = _mean(own)
    turned = [_mean(_centred(calibration, turn)) for turn in inside]
    if own is None or mean is None or asked is None or any(turn is None for turn in turned):
        return Decision(accepted=False, reason="not_comparable", bucket=0)
    score = float(mean @ asked)
    bucket = _bucket(score)
    # Written so that NaN, which is no less than anything, cannot pass.
    if not score >= point.threshold:
        return Decision(accepted=False, reason="no_match", bucket=bucket)
    if not float((own @ asked).min()) >= point.template_floor:
        return Decision(accepted=False, reason="template_veto", bucket=bucket)
    # Where turns are to be looked at, a clip without any has not shown one.
    if point.turn_threshold is not None and not (
        turned
        and all(turn is not None and float(mean @ turn) >= point.turn_threshold for turn in turned)
    ):
        return Decision(accepted=False, reason="turn_mismatch", bucket=bucket)
    return Decision(accepted=True, reason="match", bucket=bucket)


def agree(calibration: LoginCalibration, vectors: Vectors) -> bool:
    """Whether all of some captures, taken two by two, are of one person.

    Args:
        calibration: of the embedder that made the vectors.
        vectors: (k, d) unit embeddings; fewer than two always agree, if they are sound.

    Raises:
        ValueError: they are not of the calibration's dimension.
    """
    own = _centred(calibration, _rows(calibration, vectors, "captures"))
    return own is not None and bool((own @ own.T >= calibration.agreement).all())


def centred(vectors: Vectors, centre: Vectors) -> Vectors:
    """(n, d) directions from the mean face, of unit length; see `engine.people.gallery.centred`."""
    away = np.asarray(vectors, np.float64) - np.asarray(centre, np.float64)
    length = np.linalg.norm(away, axis=-1, keepdims=True)
    return np.asarray(away / np.maximum(length, _SMALLEST), np.float32)


def to_json(calibration: LoginCalibration) -> dict[str, Any]:
    """A calibration as plain JSON values."""
    plain: dict[str, Any] = _CALIBRATIONS.dump_python(calibration, mode="json")
    return plain


def _rows(calibration: LoginCalibration, vectors: Vectors, what: str) -> Vectors:
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or rows.shape[1] != len(calibration.centre):
        raise ValueError(
            f"the {what} are of shape {rows.shape}, but vectors of {calibration.embedder} have "
            f"{len(calibration.centre)} numbers each; people enrolled with another embedder must "
            "enroll again"
        )
    return rows


def _centred(calibration: LoginCalibration, rows: Vectors) -> Vectors | None:
    """See `centred`; None where a vector is not sound."""
    exact = rows.astype(np.float64)
    if not np.isfinite(exact).all():
        return None
    length = np.linalg.norm(exact, axis=1)
    away = np.linalg.norm(exact - calibration.centre, axis=1)
    if (np.abs(length - 1) > _UNIT).any() or (away < _SMALLEST).any():
        return None
    return centred(rows, calibration.centre)


def _mean(rows: Vectors | None) -> Vectors | None:
    """(d,) the direction of the rows' mean; None where there is none."""
    if rows is None or not len(rows):
        return None
    mean = rows.astype(np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length, np.float32) if length > _SMALLEST else None


def _bucket(score: float) -> int:
    return min(_BUCKETS - 1, max(0, int(score * _BUCKETS)))
