"""An evaluation as one HTML page that anybody can read and that needs nothing beside it.

Knows the record and the page; knows nothing about how anything was measured.
"""

import math
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from training.measure import plots
from training.measure.evaluation import Evaluation, Verification
from training.measure.metrics import Rate
from training.measure.verification import TarAtFmr

_TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
_LOGIN_FMR = 1e-3
_CONFIDENT_ECE = 0.05


def page(evaluation: Evaluation) -> str:
    """The whole page."""
    return (
        _environment()
        .get_template("evaluation.html")
        .render(
            e=evaluation,
            figures=_figures(evaluation),
            login=login_point(evaluation),
            is_calibrated=_is_calibrated(evaluation),
        )
    )


def per_cent(share: float) -> str:
    """A share in per cent, with as many digits as it takes not to round an error away."""
    value = 100 * share
    left = min(value, 100 - value)
    if left <= 0:
        return f"{value:.0f} %"
    digits = min(5, max(1, 1 - math.floor(math.log10(left))))
    return f"{value:.{digits}f} %"


def of_hundred(share: float) -> str:
    """A share as a number of 100, for a sentence; no error is rounded away: "fewer than 1"."""
    if 0 < share < 0.005:
        return "fewer than 1"
    return "more than 99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def one_in(rate: float) -> str:
    """A rate of errors in words: "1 in 1,000"."""
    return f"1 in {1 / rate:,.0f}"


def interval(rate: Rate) -> str:
    """The limits of a rate."""
    return f"{per_cent(rate.lower_95)} to {per_cent(rate.upper_95)}"


def login_point(evaluation: Evaluation) -> TarAtFmr | None:
    """What stands for a login: true accepts at 1 in 1,000, or at the strictest rate there is."""
    measured = evaluation.verification or (evaluation.pairs and evaluation.pairs.verification)
    if not measured:
        return None
    quoted = [point for point in measured.tar if point.tar is not None]
    at_least = [point for point in quoted if point.fmr >= _LOGIN_FMR * 0.999]
    return min(at_least or quoted, key=lambda point: point.fmr, default=None)


def _is_calibrated(evaluation: Evaluation) -> bool:
    known = evaluation.recognition
    return bool(known and known.reliability and known.reliability.ece <= _CONFIDENT_ECE)


def _figures(evaluation: Evaluation) -> dict[str, Markup]:
    """The page's pictures as SVG, by name."""
    figures = {}
    verified: dict[str, Verification] = {}
    if evaluation.verification:
        verified["every face with every other"] = evaluation.verification
    if evaluation.pairs:
        verified["the given pairs"] = evaluation.pairs.verification
    if verified:
        curves = {name: one.curve for name, one in verified.items()}
        figures["roc"] = plots.roc(curves)
        figures["det"] = plots.det(curves)
    found = evaluation.recognition
    if found and found.open_set and found.open_set.curve:
        figures["open_set"] = plots.open_set(found.open_set)
    if found and found.reliability:
        figures["reliability"] = plots.reliability(found.reliability.bins, found.reliability.ece)
    if found and found.matrix and found.mixups:
        figures["confusion"] = plots.confusion(found.matrix)
    if found and found.strata:
        figures["strata"] = plots.strata(found.strata)
    # Names in these pictures are escaped by matplotlib, which writes XML.
    return {name: Markup(plots.inline(figure)) for name, figure in figures.items()}  # noqa: S704


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "per_cent": per_cent,
        "of_hundred": of_hundred,
        "one_in": one_in,
        "interval": interval,
        "count": lambda number: f"{number:,}",
    }
    return environment
