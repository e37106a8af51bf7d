"""What a face must be for a login: the bot refuses others, and logins are measured with such.

Knows nothing about whose face it is or where the picture is from.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gates:
    """The limits. Of good selfies all pass; see `tests/benchmarks/gates.py`.

    Attributes:
        size_px: shorter side of its box, at least.
        probability: the detector's belief, at least.
        yaw: how far it may be turned to either side, as `engine.types.Pose` counts.
        pitch: how far it may look down or up, likewise.
        blur: at most.
        exposure: of the face, at least and at most.
        shadow: how much darker one half may be than the other.
        other_share: a second face of at least this share of the first one's size is one too many.
        other_probability: the detector's belief in a second face that counts.
    """

    size_px: float = 80.0
    probability: float = 0.99
    yaw: float = 0.12
    pitch: tuple[float, float] = (0.40, 0.72)
    blur: float = 0.63
    exposure: tuple[float, float] = (0.17, 0.83)
    shadow: float = 0.5
    other_share: float = 1 / 3
    other_probability: float = 0.9


GATES = Gates()
