"""Who lends to datasets too small to measure anything. Knows nothing about faces."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.decision import LoginCalibration
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from engine.vision.embed import Specification

LENDER = "celebrities"
"""The default bundle, from which is borrowed where nobody chose another; of another embedder its
twin, `celebrities-EMBEDDER`."""


@dataclass(frozen=True)
class Decided:
    """How a bundle decides logins.

    Attributes:
        login: the calibration, measured or lent; None where there is none.
        absent: why there is none, as a sentence; "" where there is one.
    """

    login: LoginCalibration | None
    absent: str = ""


def lender_for(embedder_id: str) -> str:
    """The name of the default bundle of an embedder, whether it is there or not."""
    from engine.vision.embed import DEFAULT

    return LENDER if embedder_id == DEFAULT else f"{LENDER}-{embedder_id}"


def lender(name: str | None, embedder: "Specification") -> "Bundle | None":
    """The bundle to borrow from.

    Args:
        name: of the bundle; None is the default one of the embedder.
        embedder: of the bundle that borrows.

    Returns:
        None where the default one cannot be had.

    Raises:
        BundleError: another one was chosen, and is missing or damaged.
    """
    from engine import bundle

    try:
        return bundle.load(name or lender_for(embedder.id))
    except EngineError:
        if name is not None:
            raise
        return None


def login(lender: "Bundle | None", embedder: "Specification") -> LoginCalibration | None:
    """How a bundle decides logins, for another one of the same embedder.

    Thresholds of a login are of an embedder, not of a bundle's people: whoever logs in is among
    neither's.

    Args:
        lender: the bundle to borrow from; None where there is none.
        embedder: of the bundle that borrows.

    Returns:
        None where the lender has nothing to lend or has other vectors.
    """
    lent = None if lender is None else lender.manifest.login
    if lender is None or lent is None:
        return None
    if not lender.made_with(embedder.id, embedder.weights_sha256):
        return None
    return replace(lent, source=lender.id) if lent.source.startswith("own") else lent


def report(bundle: "Bundle") -> list[str]:
    """What an operator should know about a bundle's logins and similarities, in sentences."""
    login, lines = bundle.manifest.login, []
    if login is None:
        why = bundle.manifest.login_absent or "There was nothing to measure a login by."
        lines.append(
            f"{why} None could be borrowed either: a bot with this bundle lets nobody in. Measure "
            "it with `python -m training calibrate BUNDLE DIR --login`."
        )
    elif not login.source.startswith("own"):
        lines.append(
            f"Too few faces to measure a login by: logins are decided as by {login.source}."
        )
    if bundle.calibration.source != "own":
        lines.append(
            "Too few faces to measure similarities; calibration borrowed from "
            f"{bundle.calibration.source}."
        )
        return lines
    found, metrics = bundle.calibration.identification, bundle.manifest.metrics
    whose = bundle.calibration.strangers
    lines.append(
        f"Held-out photos: top-1 {metrics['top_1']:.2%}, top-5 {metrics['top_5']:.2%}; "
        f"{found.true_positive_rate:.1%} called by name, and {found.fmr:.2%} of "
        f"{found.strangers} faces of {found.stranger_people} strangers"
        + (f" ({whose})" if whose else " (its own people, left out in turn)")
        + f" (95 % upper bound {found.fmr_upper_95:.2%})."
    )
    if found.repeated is not None:
        lines.append(
            f"Strangers with five photos or more who get the same name in more than a tenth of "
            f"them: {found.repeated.share:.1%} of {found.repeated.people} (95 % upper bound "
            f"{found.repeated.share_upper_95:.1%})."
        )
    return lines
