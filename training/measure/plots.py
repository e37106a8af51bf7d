"""Pictures of results: one style, one function a picture.

Figures are made without pyplot, so that nothing is shared and no window is opened. Knows the
records of results; knows nothing about where they come from.
"""

import colorsys
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from engine.files import replacing
from training.measure.evaluation import Matrix, OpenSet, Stratum
from training.measure.metrics import Bin
from training.measure.verification import Curve

INK = "#1b1d22"
MUTED = "#7a808a"
GRID = "#dfe2e7"
ACCENT = "#2f6fde"
BAD = "#d9573b"
GOOD = "#2c9a6b"
SERIES = (ACCENT, BAD, GOOD, "#b07a10", "#8a5bd0", "#14909c")

SUFFIXES = (".png", ".svg", ".pdf")

_DPI = 160
_ENOUGH_ANSWERS = 10
_ROOM = np.array([1.0, 1.3])  # of a picture with its name below, in sides
_DIAGONAL: Any = {"color": MUTED, "linewidth": 1, "linestyle": (0, (3, 3))}
_OFFSET: Any = {"textcoords": "offset points"}
_STYLE: Any = {
    "font.family": ["Inter", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": _DPI,
    "svg.hashsalt": "face-matcher",
    # Names are names: no dollar sign in one starts a formula.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet.

    Attributes:
        picture: (height, width, 3) RGB.
        mark: what is doubted about it; "" where nothing is.
    """

    picture: NDArray[np.uint8]
    mark: str


@dataclass(frozen=True)
class Place:
    """One person on a map.

    Attributes:
        name: the person's.
        points: (n, 2) where their faces are.
        medoid: (2,) the face in their middle.
        picture: its crop.
    """

    name: str
    points: NDArray[np.float64]
    medoid: NDArray[np.float64]
    picture: NDArray[np.uint8]


@contextmanager
def style() -> Iterator[None]:
    """Everything drawn or saved in here looks alike."""
    _know_inter()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that no font of the machine has is drawn as boxes; that is no failure.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield


@cache
def _know_inter() -> None:
    folder = Path(str(files("fontpkg_inter") / "files"))
    for path in sorted(folder.glob("Inter[[]*.ttf")):
        font_manager.fontManager.addfont(path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the suffix names, atomically; same figure, same bytes.

    Raises:
        ValueError: the suffix names no format.
        OSError: it cannot be written.
    """
    check_suffix(path)
    kind = path.suffix[1:].lower()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    with style(), replacing(path) as file:
        figure.savefig(file, format=kind, metadata=metadata[kind])


def check_suffix(path: Path) -> None:
    """Raise ValueError where a picture's suffix names no format that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path} must end in one of {', '.join(SUFFIXES)}: the suffix says what to write."
        )


def inline(figure: Figure) -> str:
    """A figure as an SVG element for a page, in the page's own colours."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in ((INK, "--ink"), (MUTED, "--muted"), (GRID, "--grid")):
        text = text.replace(colour, f"var({variable})")
    return text


def roc(curves: Mapping[str, Curve]) -> Figure:
    """True accepts over false matches, logarithmic: the left edge is what a login needs."""
    with _axes((5.6, 4.2)) as (figure, axes):
        lowest = 1.0
        for name, curve in curves.items():
            # The axis has no zero: a rate without errors stands at half of the first error.
            first = next((rate for rate in curve.fmr if rate > 0), 1.0)
            fmr = np.maximum(curve.fmr, first / 2)
            lowest = min(lowest, first / 2)
            axes.plot(fmr, curve.tar, label=name, drawstyle="steps-post")
        _rates(axes, "x")
        _shares(axes.yaxis)
        axes.set(
            xlim=(lowest, 1),
            ylim=(0, 1.005),
            xlabel="false match rate: two people taken for one",
            ylabel="true accept rate: one person recognised",
            title="ROC: how many genuine pairs pass at each false match rate",
        )
        if len(curves) > 1:
            axes.legend(loc="lower right")
    return figure


def det(curves: Mapping[str, Curve]) -> Figure:
    """False non-matches over false matches, both logarithmic (ISO/IEC 19795-1)."""
    with _axes((5.6, 4.2)) as (figure, axes):
        for name, curve in curves.items():
            fmr, fnmr = np.array(curve.fmr), 1 - np.array(curve.tar)
            seen = (fmr > 0) & (fnmr > 0)
            axes.plot(fmr[seen], fnmr[seen], label=name)
        _rates(axes, "x")
        _rates(axes, "y")
        axes.set_xlim(right=1)
        axes.set_ylim(top=1)
        low = max(axes.get_xlim()[0], axes.get_ylim()[0])
        axes.plot([low, 1], [low, 1], **_DIAGONAL, zorder=1)
        axes.annotate("equal errors", (low, low), (16, 4), **_OFFSET, color=MUTED, fontsize=8)
        axes.set(
            xlabel="false match rate",
            ylabel="false non-match rate",
            title="DET: both kinds of error",
        )
        if len(curves) > 1:
            axes.legend(loc="upper right")
    return figure


def open_set(found: OpenSet) -> Figure:
    """Known people missed over strangers named, with the bundle's own threshold."""
    with _axes((5.6, 4.2)) as (figure, axes):
        fpir, fnir, threshold = np.array([astuple(point) for point in found.curve])[:, [1, 2, 0]].T
        least = 0.5 / found.false_is.count
        axes.plot(np.maximum(fpir, least), fnir, drawstyle="steps-post")
        missed = fnir[int(np.abs(threshold - found.threshold).argmin())]
        own = (max(found.false_is.value, least), missed)
        axes.plot([own[0]], [own[1]], "o", color=BAD, markersize=7, clip_on=False)
        right = found.false_is.value > 0.03
        axes.annotate(
            "the bundle's threshold",
            own,
            (-9 if right else 9, 9),
            **_OFFSET,
            color=BAD,
            ha="right" if right else "left",
        )
        _rates(axes, "x")
        _shares(axes.yaxis)
        axes.set(
            xlim=(least, 1),
            ylim=(0, max(0.05, min(1.0, float(fnir.max()) * 1.15))),
            xlabel="FPIR: strangers called by somebody's name",
            ylabel="FNIR: known people not called by theirs",
            title="Open set: what a stricter threshold costs",
        )
    return figure


def reliability(bins: Sequence[Bin], ece: float) -> Figure:
    """How often answers of each confidence are right, and how many there are."""
    with style():
        figure = Figure(figsize=(5.6, 4.6))
        axes, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        centres = [(one.lower + one.upper) / 2 for one in bins]
        width = 0.92 / len(bins)
        seen = [one for one in bins if one.count]
        axes.plot([0, 1], [0, 1], **_DIAGONAL)
        bars = axes.bar(centres, [one.accuracy for one in bins], width, color=ACCENT)
        for bar, one in zip(bars, bins, strict=True):
            # A handful of answers proves little, and looks it.
            bar.set_alpha(0.4 if one.count >= _ENOUGH_ANSWERS else 0.13)
        axes.scatter(
            [one.confidence for one in seen],
            [one.accuracy for one in seen],
            [12 + 70 * one.count / max(one.count for one in seen) for one in seen],
            color=ACCENT,
            zorder=3,
        )
        title = f"Reliability: on the diagonal, probabilities are true (ECE {ece:.3f})"
        axes.set(ylim=(0, 1.03), ylabel="right answers", title=title)
        _shares(axes.yaxis)
        counts.bar(centres, [one.count for one in bins], width, color=MUTED)
        counts.set(xlim=(0, 1), xlabel="probability given to the answer", ylabel="faces")
        _shares(counts.xaxis)
    return figure


def confusion(matrix: Matrix) -> Figure:
    """Who is taken for whom, as shares of a person's faces."""
    names = [_short(name) for name in matrix.people]
    side = 2.6 + 0.27 * len(names)
    with _axes((side + 0.6, side)) as (figure, axes):
        counts = np.array(matrix.counts, float)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(_shaded(share, np.eye(len(names), dtype=bool)))
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if share[row, column] > 0.5 else INK
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
        axes.set(xlabel="taken for", ylabel="really", title="Who is taken for whom (faces)")
    return figure


def _shaded(share: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, n, 4) colours: right answers in one hue, wrong ones in another, as strong as frequent."""
    picture = np.zeros((*share.shape, 4))
    for colour, chosen in ((ACCENT, right), (BAD, ~right)):
        picture[chosen, :3] = mpl.colors.to_rgb(colour)
    # A single mistake must be seen, too.
    picture[..., 3] = np.where(share > 0, 0.15 + 0.85 * share, 0.0)
    return picture


def strata(found: Sequence[Stratum]) -> Figure:
    """Rates by quality of the face, with their intervals."""
    with _axes((6.6, 1.4 + 0.36 * len(found))) as (figure, axes):
        rows = np.arange(len(found))[::-1]
        for shift, colour, label, rates in (
            (0.14, ACCENT, "right person first", [one.top_1 for one in found]),
            (-0.14, GOOD, "called by name", [one.named for one in found]),
        ):
            values = np.array([rate.value for rate in rates])
            spread = np.array(
                [[rate.value - rate.lower_95, rate.upper_95 - rate.value] for rate in rates]
            ).T.clip(0)
            form: Any = {"fmt": "o", "color": colour, "markersize": 5, "elinewidth": 1.3}
            axes.errorbar(values, rows + shift, xerr=spread, label=label, **form)
        axes.set_yticks(
            rows, [f"{one.quality}: {one.label} ({one.top_1.count:,})" for one in found]
        )
        axes.set_ylim(-0.7, len(found) - 0.3)
        axes.set_xlim(right=1.005)
        axes.grid(visible=False, axis="y")
        _shares(axes.xaxis)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def history(columns: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Figure:
    """A training run, epoch by epoch: losses above, rates below.

    Args:
        columns: from the column's name to (epoch, value) points, as the logs name them.
        title: the run's name.
    """
    losses = {name: points for name, points in columns.items() if "loss" in name.lower()}
    rates = {name: points for name, points in columns.items() if name not in losses}
    panels = [part for part in (losses, rates) if part]
    with style():
        figure = Figure(figsize=(6.4, 1.0 + 2.6 * len(panels)))
        all_axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
        for axes, part in zip(all_axes, panels, strict=True):
            colours: dict[str, str] = {}
            for name, points in sorted(part.items()):
                training = name.lower().startswith("train")
                base = name.lower().removeprefix("train").removeprefix("val").strip("_/ ")
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o" if len(points) < 30 else "",
                    markersize=3.5,
                    color=colours.setdefault(base, SERIES[len(colours) % len(SERIES)]),
                    linestyle=(0, (3, 2)) if training else "-",
                    label=name.replace("_", " "),
                )
            axes.legend(loc="best", fontsize=8.5)
            axes.set_ylabel("loss" if part is losses else "rate")
        all_axes[0].set_title(title)
        all_axes[-1].set_xlabel("epoch")
        all_axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def face_map(places: Sequence[Place], pictures: int, title: str) -> Figure:
    """Everybody's faces as points, with a picture of the middle one of each person beside theirs.

    Args:
        places: the people.
        pictures: how many of them get a picture and a name; pictures that would lie on one another
            are left out as well.
        title: of the picture.
    """
    everything = np.concatenate([place.points for place in places])
    low, high = everything.min(axis=0), everything.max(axis=0)
    reach = max(np.maximum(high - low, 1e-6))
    side = reach * min(0.06, 0.3 / max(1, min(len(places), pictures)) ** 0.5)
    margin = side * np.array([1.2, 1.0])
    span = high - low + 2 * margin + np.array([0, side])
    size = (9.6, 0.5 + 9.6 * float(np.clip(span[1] / span[0], 0.5, 1.4)))
    with _axes(size) as (figure, axes):
        axes.set_axis_off()
        colours = [_hue(i) for i in range(len(places))]
        for place, colour in zip(places, colours, strict=True):
            axes.scatter(
                place.points[:, 0], place.points[:, 1], s=9, color=colour, alpha=0.55, linewidths=0
            )
        shown: list[NDArray[np.float64]] = []
        # Those with most faces first.
        for i in sorted(range(len(places)), key=lambda i: (-len(places[i].points), i)):
            place = places[i]
            # Above the person's points, not on them.
            top = float(np.quantile(place.points[:, 1], 0.9))
            spot = np.array([place.medoid[0], top + 0.7 * side])
            near = [bool((np.abs(other - spot) < side * _ROOM).all()) for other in shown]
            if len(shown) == pictures or any(near):
                continue
            shown.append(spot)
            _picture(axes, place.picture, spot - side / 2, side, colours[i], 2)
            axes.annotate(
                _short(place.name),
                (spot[0], spot[1] + side / 2),
                (0, 4),
                **_OFFSET,
                ha="center",
                va="bottom",
                fontsize=8,
                zorder=5,
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
            )
        axes.set(
            aspect="equal",
            xlim=(low[0] - margin[0], high[0] + margin[0]),
            ylim=(low[1] - margin[1], high[1] + margin[1] + side),
            title=title,
        )
    return figure


def samples(people: Mapping[str, Sequence[Tile]], columns: int, title: str) -> Figure:
    """A contact sheet: a row of faces a person, what is doubted framed and named."""
    with _axes((2.4 + 1.05 * columns, 0.7 + 1.25 * len(people))) as (figure, axes):
        axes.set_axis_off()
        for row, (name, tiles) in enumerate(people.items()):
            top = -1.2 * row
            axes.text(-0.15, top - 0.5, _short(name), ha="right", va="center", fontsize=9.5)
            for column, tile in enumerate(tiles):
                corner = np.array([column, top - 0.96])
                _picture(axes, tile.picture, corner, 0.96, BAD if tile.mark else None, 2.5)
                if tile.mark:
                    mark, place = tile.mark.replace("_", " "), (column + 0.48, top - 0.99)
                    axes.text(*place, mark, ha="center", va="top", fontsize=7, color=BAD)
        axes.set(aspect="equal", xlim=(-2.2, columns), ylim=(-1.2 * len(people), 0.05), title=title)
    return figure


@contextmanager
def _axes(size: tuple[float, float]) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many inches with one pair of axes, in the common style."""
    with style():
        figure = Figure(figsize=size)
        yield figure, figure.subplots()


def _picture(
    axes: Axes,
    picture: NDArray[np.uint8],
    corner: NDArray[np.float64],
    side: float,
    colour: Any,
    width: float,
) -> None:
    """A picture from its lower left corner on, framed where a colour is given."""
    x, y = corner
    extent = (x, x + side, y, y + side)
    axes.imshow(picture, extent=extent, zorder=3, interpolation="bilinear")
    if colour is not None:
        frame: Any = {"fill": False, "edgecolor": colour, "linewidth": width, "zorder": 4}
        axes.add_patch(mpl.patches.Rectangle((x, y), side, side, **frame))


def _shares(axis: Axis) -> None:
    """Shares as per cent."""
    axis.set_major_formatter(FuncFormatter(_per_cent))


def _rates(axes: Axes, which: Literal["x", "y"]) -> None:
    """Rare errors: a logarithmic axis in per cent, each tick as short as it can be."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    _shares(axis)
    axis.set_minor_formatter(NullFormatter())


def _per_cent(value: float, _: object = None) -> str:
    return f"{100 * value:.6g} %"


def _hue(number: int) -> tuple[float, float, float]:
    """A colour for each of many: hues a golden section apart are never close for long."""
    return colorsys.hls_to_rgb((0.6 + number * 0.618034) % 1.0, 0.48 + 0.1 * (number % 2), 0.6)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
