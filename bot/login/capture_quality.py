"""Is this picture of a face good enough for a login? One refusal for each thing to mend.

Knows what the engine measured; knows nothing about whose face it is or where the picture is from.
"""

import math

from bot.telegram.incoming import Reason, Refusal
from engine.login_gates import GATES, Gates
from engine.types import Analysis, Face


def gate(analysis: Analysis, gates: Gates = GATES) -> Face | Refusal:
    """The one face of a photo, or what is to be mended, the most telling first.

    Args:
        analysis: as the engine gave it.
        gates: what a face must be.
    """
    if not analysis.faces:
        return Refusal(Reason.NO_FACE)
    face, *others = analysis.faces
    size = face.quality.size_px
    if any(
        other.probability >= gates.other_probability
        and other.quality.size_px >= gates.other_share * size
        for other in others
    ):
        return Refusal(Reason.SEVERAL_FACES)
    reason = _fault(face, gates)
    return face if reason is None else Refusal(reason)


def _fault(face: Face, gates: Gates) -> Reason | None:
    quality, pose = face.quality, face.pose
    measured = (
        face.probability,
        quality.size_px,
        quality.blur,
        quality.exposure,
        quality.shadow,
        pose.yaw,
        pose.pitch,
    )
    # A number that is none is smaller and larger than nothing: it would pass every gate.
    if not all(map(math.isfinite, measured)):
        return Reason.FACE_UNCLEAR
    darkest, brightest = gates.exposure
    highest, lowest = gates.pitch
    checks = (
        (quality.size_px < gates.size_px, Reason.FACE_TOO_FAR),
        (quality.exposure < darkest, Reason.TOO_DARK),
        (quality.exposure > brightest, Reason.TOO_BRIGHT),
        (abs(pose.yaw) > gates.yaw, Reason.TURNED_AWAY),
        (not highest <= pose.pitch <= lowest, Reason.TILTED),
        (quality.shadow > gates.shadow, Reason.UNEVEN_LIGHT),
        (quality.blur > gates.blur, Reason.FACE_BLURRED),
        (face.probability < gates.probability, Reason.FACE_UNCLEAR),
    )
    return next((reason for failed, reason in checks if failed), None)
