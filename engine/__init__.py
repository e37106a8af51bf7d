"""The engine: photos in, faces and their matches out; clips in, one face's way through them out.

Importing this package loads no torch: it offers the types, the errors and nothing that computes.
Heavy modules load when an engine is built. The engine knows nothing about Telegram, accounts or
the people who send photos; it keeps no state about anybody.
"""

from engine import errors
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

__version__ = "0.2.0"

__all__ = [
    "Analysis",
    "EngineInfo",
    "Face",
    "Frame",
    "Match",
    "Person",
    "Pose",
    "Quality",
    "Track",
    "Verdict",
    "errors",
]
