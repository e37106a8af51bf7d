"""`python -m training gallery`: a folder of faces to a gallery bundle."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from engine import threads
from engine.errors import EngineError
from training.console import emit, failures, progress, results, today

if TYPE_CHECKING:
    from training.gallery import Report

_BORROWED_FROM = "celebrities"
_SHOWN = 20


def gallery(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="One folder per person, photos inside.")
    ],
    out: Annotated[
        Path, typer.Option(help="Bundle to write, without suffix.", metavar="run/models/NAME")
    ],
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The files are crops on the ArcFace template.")
    ] = False,
    embedder: Annotated[
        str, typer.Option(help="Which embedder: dlib-resnet29 or facenet-vggface2.")
    ] = "dlib-resnet29",
    thumbnails: Annotated[
        bool,
        typer.Option("--thumbnails", help="Put a small picture of each person into the bundle."),
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help="The data's name. [default: the folder's]")
    ] = None,
    licence: Annotated[str, typer.Option(help="The data's licence.")] = "unknown",
    created: Annotated[
        str | None,
        typer.Option(help="Date to write into the bundle. [default: SOURCE_DATE_EPOCH or today]"),
    ] = None,
    calibration_from: Annotated[
        str,
        typer.Option(help="Bundle to borrow from when there are too few faces to measure."),
    ] = _BORROWED_FROM,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Build a gallery bundle: whom the engine can recognise, without training a network."""
    threads.configure()
    with failures():
        report = _build(
            folder, out, aligned, embedder, thumbnails, dataset, licence, created, calibration_from
        )
    if as_json:
        emit(_as_json(report))
    else:
        _show(report, out)


def _build(
    folder: Path,
    out: Path,
    aligned: bool,
    embedder_id: str,
    thumbnails: bool,
    dataset: str | None,
    licence: str,
    created: str | None,
    calibration_from: str,
) -> "Report":
    from engine import bundle, embed, settings
    from engine.detect import Detector
    from engine.device import choose_device
    from training import faces
    from training.gallery import build

    samples = faces.walk(folder)
    chosen = settings.load(os.environ)
    device = choose_device(chosen.engine_device)
    embedder = embed.load(embedder_id, device, chosen.face_weights_dir)
    with progress("Reading faces", len(samples)) as advance:
        found = faces.read(samples, Detector(device), embedder, aligned=aligned, progress=advance)
    try:
        lender = bundle.load(calibration_from)
    except EngineError:
        if calibration_from != _BORROWED_FROM:
            raise
        lender = None
    return build(
        found,
        embedder.specification,
        bundle.locate(out),
        created=created or today(),
        dataset=dataset or folder.resolve().name,
        licence=licence,
        thumbnails=thumbnails,
        borrow=lender,
    )


def _as_json(report: "Report") -> dict[str, object]:
    manifest = report.bundle.manifest
    return {
        "bundle": report.bundle.id,
        "people": dict(report.people),
        "missing": report.missing,
        "rejected": [{"path": str(r.path), "reason": r.reason} for r in report.rejected],
        "dropped": [{"path": str(r.path), "reason": r.reason} for r in report.dropped],
        "metrics": manifest.metrics,
        "calibration": report.bundle.calibration.model_dump(exclude={"stranger_quantiles"}),
    }


def _show(report: "Report", out: Path) -> None:
    manifest = report.bundle.manifest
    left_out = [*report.rejected, *report.dropped]
    if left_out:
        table = Table("photo", "left out because", title="Left out", title_justify="left")
        for rejection in left_out[:_SHOWN]:
            place = f"{rejection.path.parent.name}/{rejection.path.name}"
            table.add_row(escape(place), escape(rejection.reason))
        results.print(table)
        if len(left_out) > _SHOWN:
            results.print(f"... and {len(left_out) - _SHOWN} more; --json lists all of them.")
    few = [name for name, count in report.people.items() if count < 3]
    if few:
        results.print(
            escape(f"Fewer than 3 photos, so often missed: {', '.join(few)}"), soft_wrap=True
        )
    if report.missing:
        names = escape(", ".join(report.missing))
        results.print(f"[yellow]Left out, for want of a face:[/] {names}", soft_wrap=True)
    results.print(
        f"{len(report.people)} people from {manifest.dataset.faces} faces: "
        + escape(f"{out}.pth and {out}.json ({report.bundle.id})"),
        highlight=False,
        soft_wrap=True,
    )
    measured = report.bundle.calibration.identification
    if report.bundle.calibration.source != "own":
        results.print(
            f"Too few faces to measure similarities; calibration borrowed from "
            f"{report.bundle.calibration.source}.",
            soft_wrap=True,
        )
        return
    results.print(
        f"Held-out photos: top-1 {manifest.metrics['top_1']:.2%}, "
        f"top-5 {manifest.metrics['top_5']:.2%}; {measured.true_positive_rate:.1%} called by name, "
        f"and {measured.fmr:.2%} of {measured.strangers} faces of strangers "
        f"(95 % upper bound {measured.fmr_upper_95:.2%}).",
        soft_wrap=True,
    )
