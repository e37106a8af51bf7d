"""`python -m training prepare`: a folder of people to crops and a manifest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from engine import threads
from training.console import emit, failures, results, show
from training.options import AlignedOption, JsonOption

if TYPE_CHECKING:
    from training.datasets.prepare import Summary

_SHOWN = 20

_MEANINGS = {
    "": "kept, nothing to say",
    "several_faces": "kept: of several faces the one like the person's other photos",
    "operator": "as you said in the manifest",
    "unreadable": "dropped: the file cannot be read as a picture",
    "no_face": "dropped: no face was found",
    "small": "dropped: the face is too small",
    "blurred": "dropped: the face is too blurred",
    "mislabel": "dropped: likely somebody else",
    "stray": "dropped: unlike the person's other photos",
    "copy": "dropped: the same picture as another photo",
    "near_copy": "dropped: nearly the same picture as another photo",
}


def prepare(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="One folder per person, photos inside.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for crops and manifest; again, it goes on there.")
    ],
    aligned: AlignedOption = False,
    embedder: Annotated[
        str, typer.Option(help="Which embedder compares the faces.")
    ] = "dlib-resnet29",
    min_size: Annotated[
        float, typer.Option(help="Least width of a face, in pixels of its photo.", min=0)
    ] = 24,
    max_blur: Annotated[
        float, typer.Option(help="Most blur of a face: 0 is sharp, 1 is flat.", min=0, max=1)
    ] = 0.75,
    report: Annotated[
        bool,
        typer.Option("--report", help="Also write doubts.html, everything doubtful in pictures."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Prepare a folder of people: aligned crops, and a manifest with a reason for each decision.

    Overrule a decision in the manifest: "override": "keep" or "drop", "override_person": the right
    name, "override_face": the right face's id. What you say there stays when prepare runs again.
    """
    threads.configure()
    with failures(goes_on="The same command goes on from here."):
        from training import tools
        from training.datasets import doubts
        from training.datasets.audit import FaceLimits
        from training.datasets.prepare import prepare as work

        limits = FaceLimits(min_size, max_blur)
        summary = work(folder, out, tools.load(embedder), aligned=aligned, limits=limits)
        if report:
            doubts.write(out, folder.resolve().name)
    if as_json:
        emit(_as_json(summary, report))
    else:
        _show(summary, report)


def _as_json(summary: "Summary", report: bool) -> dict[str, object]:
    from training.datasets import doubts, manifest

    return {
        "manifest": str(summary.home / manifest.NAME),
        "report": str(summary.home / doubts.NAME) if report else None,
        "photos": summary.photos,
        "seen": summary.seen,
        "kept": summary.kept,
        "codes": {code or "ok": count for code, count in summary.codes.items()},
        "people": dict(summary.people),
        "few": summary.few,
        "outside": summary.outside,
        "folders": list(summary.folders),
        "lost_overrides": list(summary.lost),
    }


def _show(summary: "Summary", report: bool) -> None:
    from training.datasets import doubts, manifest

    table = Table("photos", "code", "what it means", title_justify="left")
    table.columns[0].justify = "right"
    for code, meaning in _MEANINGS.items():
        if count := summary.codes.get(code):
            table.add_row(f"{count:,}", code, meaning)
    results.print(table)
    if summary.few:
        names = ", ".join(f"{name} ({summary.people[name]})" for name in summary.few[:_SHOWN])
        more = f" and {len(summary.few) - _SHOWN} more" if len(summary.few) > _SHOWN else ""
        show(f"Fewer than 5 photos kept, too few to find mislabels among: {names}{more}")
    if summary.outside:
        show(f"{summary.outside} files lie beside the people's folders and were left out.")
    if summary.lost:
        show(
            "Overrides that no longer apply, their photo being another one now or gone: "
            + ", ".join(summary.lost[:_SHOWN])
        )
    show(
        f"{summary.kept:,} of {summary.photos:,} photos kept, of {len(summary.people)} people "
        f"({summary.seen:,} photos new or changed): {summary.home / manifest.NAME}"
    )
    if report:
        show(f"Everything doubtful, in pictures: {summary.home / doubts.NAME}")
