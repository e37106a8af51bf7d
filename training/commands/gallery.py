"""`python -m training gallery`: a folder of faces, or a prepared dataset, to a gallery bundle."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from engine import threads
from engine.terminal import escape
from training.console import emit, failures, progress, results, today
from training.measure.lending import lender, login, login_line, measured_lines
from training.options import PeopleOption, StrangersOption

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from training.bundles.gallery import Source
    from training.datasets.data import Faces
    from training.datasets.manifest import Row
    from training.datasets.material import Given
    from training.tools import Tools

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
    out: Annotated[
        Path, typer.Option(help="Bundle to write, without suffix.", metavar="run/models/NAME")
    ],
    listed: PeopleOption = None,
    strangers: StrangersOption = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The files are crops on the ArcFace template.")
    ] = False,
    embedder: Annotated[
        str,
        typer.Option(
            help="Which embedder: dlib-resnet29, facenet-vggface2, mobilefacenet, onnx:FILE or "
            "trained:BUNDLE."
        ),
    ] = "dlib-resnet29",
    thumbnails: Annotated[
        bool,
        typer.Option("--thumbnails", help="Put a small picture of each person into the bundle."),
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help="The data's name. Default: the folder's.")
    ] = None,
    licence: Annotated[str, typer.Option(help="The data's licence.")] = "unknown",
    created: Annotated[
        str | None,
        typer.Option(help="Date to write into the bundle. Default: SOURCE_DATE_EPOCH or today."),
    ] = None,
    calibration_from: Annotated[
        str | None,
        typer.Option(
            help="Bundle to borrow from when there are too few faces to measure. "
            "Default: the default bundle of the embedder."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Build a gallery bundle: whom the engine can recognise, without training a network."""
    threads.configure()
    with failures():
        from engine import bundle
        from training import tools
        from training.bundles import classifier, made
        from training.bundles.gallery import Source
        from training.datasets import material

        eyes = tools.load(embedder)
        given = material.read(sources, listed, strangers, eyes, aligned=aligned)
        faces = given.faces
        source = Source(dataset or faces.name, licence, created or today(), given.listed)
        form, stem = eyes.embedder.specification, bundle.locate(out)
        wanted = classifier.describe(None, faces, form, source, given.strangers)
        wanted |= {
            "source": wanted["source"] | {"created": made.date_of(created)},
            "dropped": dict(faces.dropped),
            "lender": made.lent_by(lender(calibration_from, form)),
            "thumbnails": thumbnails,
        }
        if made.known(stem, wanted) is None:
            _build(faces, eyes, stem, source, thumbnails, calibration_from, given.strangers)
            made.remember(stem, wanted, {})
        built = bundle.load(stem)
        left_out, missing = _left_out(sources, given)
    if as_json:
        emit(_as_json(built, faces, left_out, missing))
    else:
        _show(built, faces, left_out, missing, out)


def _build(
    faces: "Faces",
    eyes: "Tools",
    stem: Path,
    source: "Source",
    thumbnails: bool,
    calibration_from: str | None,
    others: "Faces | None",
) -> None:
    from training.bundles.classifier import embedded
    from training.bundles.gallery import build, own_calibration
    from training.measure.calibration import Strangers, rounds
    from training.measure.login import own_or_lent

    borrow = (
        None if own_calibration(faces) else lender(calibration_from, eyes.embedder.specification)
    )
    vectors = embedded(faces, eyes)
    met = None if others is None else (others, embedded(others, eyes))
    strangers = met and Strangers(met[1], met[0].owner, met[0].name)
    lend = partial(login, calibration_from, eyes.embedder.specification)
    decided = own_or_lent(faces, vectors, eyes, lend, met, source.related)
    steps = None if borrow else rounds(len(faces.people), strangers)
    with progress("Measuring", steps) as advance:
        build(
            faces,
            vectors,
            eyes.embedder.specification,
            stem,
            source,
            thumbnails=thumbnails,
            borrow=borrow,
            login=decided,
            strangers=strangers,
            advance=advance,
        )


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
        results.print(
            escape(f"Fewer than 3 photos, so often missed: {', '.join(few)}"), soft_wrap=True
        )
    if missing:
        names = escape(", ".join(missing))
        results.print(f"[yellow]Left out, for want of a face:[/] {names}", soft_wrap=True)
    results.print(
        f"{len(faces.people)} people from {len(faces)} faces: "
        + escape(f"{out}.pth and {out}.json ({built.id})"),
        highlight=False,
        soft_wrap=True,
    )
    line = login_line(built)
    if line:
        results.print(escape(line), soft_wrap=True, highlight=False)
    if built.calibration.source != "own":
        results.print(
            f"Too few faces to measure similarities; calibration borrowed from "
            f"{built.calibration.source}.",
            soft_wrap=True,
        )
        return
    for text in measured_lines(built):
        results.print(escape(text), soft_wrap=True, highlight=False)
