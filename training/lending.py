"""Who lends to datasets too small to measure anything. Knows nothing about faces."""

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.decision import LoginCalibration
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from engine.embed import Specification

LENDER = "celebrities"
"""The default bundle, from which is borrowed where nobody chose another."""


def lender(name: str) -> "Bundle | None":
    """The bundle to borrow from; None where it is the default one and cannot be had.

    Raises:
        BundleError: another one was chosen, and is missing or damaged.
    """
    from engine import bundle

    try:
        return bundle.load(name)
    except EngineError:
        if name != LENDER:
            raise
        return None


def login(name: str, embedder: "Specification") -> LoginCalibration | None:
    """How a bundle decides logins, for another one of the same embedder.

    Thresholds of a login are of an embedder, not of a bundle's people: whoever logs in is among
    neither's.

    Args:
        name: of the bundle to borrow from.
        embedder: of the bundle that borrows.

    Returns:
        None where the lender has nothing to lend, has other vectors or cannot be had.
    """
    from engine import bundle

    try:
        theirs = bundle.load(name)
    except EngineError:
        return None
    lent = theirs.manifest.login
    if lent is None or not theirs.made_with(embedder.id, embedder.weights_sha256):
        return None
    return replace(lent, source=theirs.id) if lent.source.startswith("own") else lent


def login_line(bundle: "Bundle") -> str:
    """What an operator should know about a bundle's logins; "" where there is nothing."""
    login = bundle.manifest.login
    if login is None:
        return (
            "Too few faces to measure a login by, and none to borrow: a bot with this bundle lets "
            "nobody in. Measure it with `python -m training calibrate BUNDLE DIR --login`."
        )
    if not login.source.startswith("own"):
        return f"Too few faces to measure a login by: logins are decided as by {login.source}."
    return ""
