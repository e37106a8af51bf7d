"""`python -m training calibrate`: a bundle's thresholds and probabilities, on held-out faces."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from engine import threads
from training.console import emit, failures, progress, results, today

if TYPE_CHECKING:
    from engine.bundle import Calibration
    from training.evaluate import Seen
    from training.recalibrate import Recalibration


def calibrate(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A name in run/models, or a path.")
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="One folder per person, or a manifest: photos that the bundle was not made from, "
            "of its people (matched by name) and of strangers.",
        ),
    ],
    openset: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="More strangers: one folder per person, or a manifest."),
    ] = None,
    fmr: Annotated[
        float,
        typer.Option(min=1e-6, max=0.5, help="Share of strangers who may be called by a name."),
    ] = 1e-3,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The files are crops on the ArcFace template.")
    ] = False,
    created: Annotated[
        str | None,
        typer.Option(help="Date to write down. Default: SOURCE_DATE_EPOCH or today."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstraps.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure temperature, thresholds and percentiles anew, and write them into the .json."""
    threads.configure()
    with failures():
        found = _calibrate(bundle, data, openset, fmr, aligned, created or today(), seed)
    if as_json:
        emit({"before": _plain(found.before), "after": _plain(found.after)})
    else:
        _show(bundle, found)


def _calibrate(
    name: str,
    source: Path,
    openset: Path | None,
    fmr: float,
    aligned: bool,
    created: str,
    seed: int,
) -> "Recalibration":
    from engine import bundle, recogniser
    from training import probes, sight
    from training.evaluate import Seen
    from training.recalibrate import recalibrate, renewed

    chosen = bundle.load(name)
    recogniser.require_people(chosen)
    eyes = sight.for_bundle(chosen, name)

    def see(path: Path) -> "Seen":
        found = probes.of(path, lambda: eyes.tools, aligned=aligned)
        with progress(f"Seeing {found.faces.name}", len(found.faces)) as advance:
            return Seen(found, eyes.vectors(found.faces, advance))

    found = recalibrate(
        eyes,
        see(source),
        created=created,
        strangers=see(openset) if openset else None,
        fmr=fmr,
        seed=seed,
    )
    bundle.rewrite(bundle.locate(name), renewed(chosen.manifest, found.after))
    return found


def _plain(calibration: "Calibration") -> dict[str, Any]:
    return calibration.model_dump(mode="json", exclude={"stranger_quantiles"})


def _show(name: str, found: "Recalibration") -> None:
    table = Table("", "before", "now", box=None, pad_edge=False)
    before, after = found.before, found.after
    table.add_row("temperature", f"{before.temperature:.4f}", f"{after.temperature:.4f}")
    rows = (
        ('similarity from which it says "is"', "threshold", ".3f"),
        ("strangers called by a name", "fmr", ".3%"),
        ("at most (95 %)", "fmr_upper_95", ".3%"),
        ("known people called by name", "true_positive_rate", ".1%"),
    )
    for label, key, form in rows:
        values = (format(getattr(one.identification, key), form) for one in (before, after))
        table.add_row(label, *values)
    middle = len(after.stranger_quantiles) // 2
    table.add_row(
        "a stranger's best match (median)",
        f"{before.stranger_quantiles[len(before.stranger_quantiles) // 2]:.3f}",
        f"{after.stranger_quantiles[middle]:.3f}",
    )
    old = {record.fmr: record for record in before.pairs}
    for record in after.pairs:
        earlier = old.get(record.fmr)
        bound = "" if record.fmr_upper_95 is None else f" (at most {record.fmr_upper_95:.3%})"
        table.add_row(
            f"two photos, one person: FMR {record.fmr:g}",
            f"{earlier.threshold:.3f}" if earlier else "",
            f"{record.threshold:.3f}{bound}",
        )
    results.print(table)
    if not found.pairs_measured:
        results.print("Too few pairs of faces: the thresholds for two photos stay as they were.")
    results.print(
        escape(f"Wrote the .json of {name}: {after.source}."), highlight=False, soft_wrap=True
    )
