"""`python -m training gallery`: a folder of faces, or a prepared dataset, to a gallery bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from engine import threads
from engine.terminal import escape
from training import options
from training.console import emit, failures, results, show, today
from training.measure.lending import lender, report

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from training.datasets.data import Faces
    from training.datasets.manifest import Row
    from training.datasets.material import Given

_SHOWN = 20


def gallery(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR|MANIFEST...",
            help="One folder per person, photos inside; or what `prepare` made of it. Somebody "
            "who is in several of them is one person.",
        ),
    ],
    out: options.OutOption,
    listed: options.PeopleOption = None,
    strangers: options.StrangersOption = None,
    aligned: options.AlignedOption = False,
    embedder: Annotated[
        str,
        typer.Option(
            help="Which embedder: dlib-resnet29, facenet-vggface2, mobilefacenet, onnx:FILE or "
            "trained:BUNDLE."
        ),
    ] = "dlib-resnet29",
    thumbnails: options.ThumbnailsOption = False,
    dataset: options.DatasetOption = None,
    licence: options.LicenceOption = "unknown",
    created: options.CreatedOption = None,
    calibration_from: options.LenderOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Build a gallery bundle: whom the engine can recognise, without training a network."""
    threads.configure()
    with failures():
        from engine import bundle
        from training import tools
        from training.bundles import build, made
        from training.bundles.gallery import Source
        from training.datasets import material

        loaded = tools.load(embedder)
        given = material.read(sources, listed, strangers, loaded, aligned=aligned)
        faces, stem = given.faces, bundle.locate(out)
        source = Source(dataset or faces.name, licence, created or today(), given.listed)
        theirs = lender(calibration_from, loaded.embedder.specification)
        inputs = build.Inputs(faces, loaded, source, thumbnails, theirs, given.strangers)
        wanted = inputs.describe_bundle(None, created)
        if made.known(stem, wanted) is None:
            build.make_gallery(inputs, stem)
            made.remember(stem, wanted, {})
        built = bundle.load(stem)
        left_out, missing = _left_out(sources, given)
    if as_json:
        emit(_as_json(built, faces, left_out, missing))
    else:
        _show(built, faces, left_out, missing, out)


def _left_out(sources: list[Path], given: "Given") -> tuple[list["Row"], list[str]]:
    """The rows that were not learned from, and the people who had no other.

    Where there is a list, whoever is not in it was not wanted, and is told of in neither.
    """
    from training.datasets import manifest, people

    homes = given.faces.homes or (given.faces.home,)
    listed = {people.key(folder) for person in given.listed for folder in person.folders}
    paths = [manifest.locate(source) for source in sources]
    rows: list[Row] = []
    everybody: dict[str, str] = {}
    for path in dict.fromkeys(
        path if path.is_file() else home / manifest.NAME
        for path, home in zip(paths, homes, strict=True)
    ):
        for row in manifest.read(path):
            own = people.key(row.owner)
            if listed and own not in listed:
                continue
            everybody.setdefault(own, row.owner)
            if not row.kept:
                rows.append(row)
    if given.listed:
        here = set(given.faces.people)
        return rows, sorted(person.name for person in given.listed if person.name not in here)
    known = {people.key(name) for name in given.faces.people}
    return rows, sorted(name for own, name in everybody.items() if own not in known)


def _counts(faces: "Faces") -> dict[str, int]:
    import numpy as np

    counts = np.bincount(faces.owner, minlength=len(faces.people))
    return {name: int(count) for name, count in zip(faces.people, counts, strict=True)}


def _as_json(
    built: "Bundle", faces: "Faces", left_out: list["Row"], missing: list[str]
) -> dict[str, object]:
    return {
        "bundle": built.id,
        "people": _counts(faces),
        "missing": missing,
        "left_out": [
            {"path": row.path, "person": row.owner, "code": row.code, "reason": row.reason}
            for row in left_out
        ],
        "metrics": built.manifest.metrics,
        "calibration": built.calibration.model_dump(exclude={"stranger_quantiles"}),
    }


def _show(
    built: "Bundle", faces: "Faces", left_out: list["Row"], missing: list[str], out: Path
) -> None:
    if left_out:
        table = Table("photo", "left out because", title="Left out", title_justify="left")
        for row in left_out[:_SHOWN]:
            table.add_row(escape(row.path), escape(row.reason))
        results.print(table)
        if len(left_out) > _SHOWN:
            results.print(f"... and {len(left_out) - _SHOWN} more; --json lists all of them.")
    few = [name for name, count in _counts(faces).items() if count < 3]
    if few:
        show(f"Fewer than 3 photos, so often missed: {', '.join(few)}")
    if missing:
        names = escape(", ".join(missing))
        results.print(f"[yellow]Left out, for want of a face:[/] {names}", soft_wrap=True)
    show(
        f"{len(faces.people)} people from {len(faces)} faces: {out}.pth and {out}.json ({built.id})"
    )
    for text in report(built):
        show(text)
