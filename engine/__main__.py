"""`python -m engine`: the engine's command line.

Turns options into calls and results into tables or JSON; knows nothing about how faces are seen.
"""

import asyncio
import csv
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from engine import controls, request_id, settings, threads
from engine.errors import EngineError, UnreadableFile
from engine.media import image
from engine.media.decoder_pool import PhotoDecoders
from engine.request import PhotoFile, PhotoRequest, decode
from engine.settings import Settings
from engine.terminal import escape, fail
from engine.types import Analysis
from engine.wire import face_to_json

if TYPE_CHECKING:  # it loads torch, whose threads are set up first
    from engine.pipeline import Pipeline

_BATCH = 8
_DECODERS = 2
_UNREADABLE = 1
_MISCONFIGURED = 2

app = typer.Typer(
    help="See faces: whom they resemble, and whether two photos show the same person.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console()
_errors = Console(stderr=True)

BundleOption = Annotated[
    str | None,
    typer.Option("--bundle", metavar="NAME|PATH", help="Whom to know. Default: ENGINE_BUNDLE."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto, cpu or cuda. Default: ENGINE_DEVICE.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def analyze(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Photos or folders.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many people to name a face.")] = 5,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The files are crops on the ArcFace template.")
    ] = False,
    embed: Annotated[
        bool, typer.Option("--embed", help="Print each face's embedding (JSON only).")
    ] = False,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = None,
) -> None:
    """Find the faces of photos and whom each resembles."""
    if embed and not as_json:
        fail("--embed prints with --json only.", code=_MISCONFIGURED)
    pipeline = _pipeline(bundle, device)
    unreadable = False
    try:
        files = image.files_in(paths)
    except ValueError as error:
        fail(error, code=_MISCONFIGURED)
    for path, outcome in _analyze(pipeline, files, top_k, embed=embed, aligned=aligned):
        unreadable |= isinstance(outcome, EngineError)
        if as_json:
            _emit(_photo_to_json(path, outcome))
        else:
            _show(path, outcome)
    raise typer.Exit(_UNREADABLE if unreadable else 0)


@app.command("compare")
def compare_photos(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="A B", help="Two photos.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Columns file_x,file_y; paths relative to the file."),
    ] = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The files are crops on the ArcFace template.")
    ] = False,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = None,
) -> None:
    """Tell whether two photos show the same person, by the largest face of each."""
    named = _named_pairs(photos or [], pairs)
    pipeline = _pipeline(bundle, device)
    from engine.people.compare import compare, largest_face

    files = list(dict.fromkeys(path for pair in named for _, path in pair))
    outcomes = dict(_analyze(pipeline, files, 1, embed=True, aligned=aligned))
    failed = False
    for (name_x, path_x), (name_y, path_y) in named:
        record: dict[str, Any] = {"file_x": name_x, "file_y": name_y}
        try:
            faces = [largest_face(_raised(outcomes[path]), str(path)) for path in (path_x, path_y)]
            result = compare(faces[0], faces[1], pipeline.bundle)
        except EngineError as error:
            failed = True
            record |= dict.fromkeys(("similarity", "same", "threshold", "fmr"))
            record["error"] = _error_to_json(error)
            _print_pair(record, as_json=as_json)
            continue
        record |= asdict(result) | {"error": None}
        _print_pair(record, as_json=as_json)
    raise typer.Exit(_UNREADABLE if failed else 0)


def _show_settings(context: typer.Context, wanted: bool) -> None:
    if not wanted:
        return
    typer.echo(context.get_help())
    table = Table("setting", "default", "what it is", title="Environment")
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else str(field.default)
        table.add_row(name.upper(), default, field.description)
    _console.print(table)
    raise typer.Exit


@app.command(context_settings={"help_option_names": []})
def serve(
    bundle: BundleOption = None,
    device: DeviceOption = None,
    _help: Annotated[
        bool,
        typer.Option(
            "--help",
            is_eager=True,
            callback=_show_settings,
            help="Show this, and every setting with its default.",
        ),
    ] = False,
) -> None:
    """Answer over HTTP, until SIGTERM; SIGHUP reloads the bundle."""
    chosen = _settings(bundle, device)
    logging.basicConfig(level=logging.INFO, format=request_id.LOG_FORMAT)
    for handler in logging.getLogger().handlers:
        handler.addFilter(request_id.log_filter())
    from engine.service.server import serve as serve_until_stopped

    def announce(url: str) -> None:
        typer.echo(f"The engine listens on {controls.escape(url)}")

    try:
        asyncio.run(serve_until_stopped(chosen, announce))
    except EngineError as error:
        fail(error, code=_MISCONFIGURED)


@app.command()
def doctor() -> None:
    """Look the installation over: versions, device, weights, bundles, and how to mend them."""
    chosen = _settings(None, None)
    threads.configure(chosen.engine_threads)
    from engine.doctor import examine

    table = Table("", "what", "state", "what to do", box=None)
    problems = 0
    for finding in examine(chosen):
        problems += bool(finding.fix)
        mark = "[red]✗[/]" if finding.fix else "[green]✓[/]"
        table.add_row(mark, *map(escape, (finding.subject, finding.state, finding.fix)))
    _console.print(table)
    raise typer.Exit(1 if problems else 0)


def _settings(bundle: str | None, device: str | None) -> Settings:
    environ = dict(os.environ)
    if bundle is not None:
        environ["ENGINE_BUNDLE"] = bundle
    if device is not None:
        environ["ENGINE_DEVICE"] = device
    try:
        return settings.load(environ)
    except EngineError as error:
        fail(error, code=_MISCONFIGURED)


def _pipeline(bundle: str | None, device: str | None) -> "Pipeline":
    chosen = _settings(bundle, device)
    threads.configure(chosen.engine_threads)  # before anything loads torch
    from engine.pipeline import Pipeline

    try:
        return Pipeline.from_settings(chosen)
    except EngineError as error:
        fail(error, code=_MISCONFIGURED)


def _emit(record: dict[str, Any]) -> None:
    """A line of JSON on standard output."""
    typer.echo(controls.escape(json.dumps(record, ensure_ascii=False)))


def _analyze(
    pipeline: "Pipeline", paths: Sequence[Path], top_k: int, *, embed: bool, aligned: bool
) -> Iterator[tuple[Path, Analysis | EngineError]]:
    """Every photo's analysis or error, in order; the next batch is decoded meanwhile."""

    def prepare(path: Path) -> PhotoRequest | EngineError:
        try:
            return decode(decoders, PhotoFile(path.read_bytes(), top_k, embed, aligned))
        except EngineError as error:
            return error
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
            reason = error.strerror if isinstance(error, OSError) else error
            return UnreadableFile(f"{path} could not be read: {reason}.")

    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    hidden = not _errors.is_terminal or len(paths) < 2
    with (
        PhotoDecoders(_DECODERS) as decoders,
        ThreadPoolExecutor(_DECODERS, "decode") as pool,
        Progress(console=_errors, transient=True, disable=hidden) as bar,
    ):
        task = bar.add_task("Looking at photos", total=len(paths))
        following = [pool.submit(prepare, path) for path in batches[0]] if batches else []
        for i, batch in enumerate(batches):
            prepared = [future.result() for future in following]
            coming = batches[i + 1] if i + 1 < len(batches) else []
            following = [pool.submit(prepare, path) for path in coming]
            requests = [entry for entry in prepared if isinstance(entry, PhotoRequest)]
            analyses = iter(pipeline.analyze(requests))
            for path, entry in zip(batch, prepared, strict=True):
                bar.advance(task)
                yield path, entry if isinstance(entry, EngineError) else next(analyses)


def _error_to_json(error: EngineError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


def _photo_to_json(path: Path, outcome: Analysis | EngineError) -> dict[str, Any]:
    if isinstance(outcome, EngineError):
        return {"photo": str(path), "faces": [], "error": _error_to_json(outcome)}
    faces = [face_to_json(face) for face in outcome.faces]
    return {"photo": str(path), "faces": faces, "error": None}


def _show(path: Path, outcome: Analysis | EngineError) -> None:
    if isinstance(outcome, EngineError):
        _console.print(
            f"{escape(str(path))}: [red]{escape(outcome.message)}[/]",
            highlight=False,
            soft_wrap=True,
        )
        return
    if not outcome.faces:
        _console.print(f"{escape(str(path))}: no face", highlight=False, soft_wrap=True)
        return
    table = Table(title=escape(str(path)), box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("face", "size", "person", "verdict", "percentile", "similarity", "probability"):
        table.add_column(heading, overflow="fold")
    for number, face in enumerate(outcome.faces, 1):
        for rank, match in enumerate(face.matches):
            table.add_row(
                str(number) if rank == 0 else "",
                f"{face.quality.size_px:.0f} px" if rank == 0 else "",
                escape(match.name),
                match.verdict.value,
                f"{match.percentile:.1f}",
                f"{match.similarity:.3f}",
                f"{match.probability:.1%}",
                end_section=rank == len(face.matches) - 1,
            )
    _console.print(table)


def _named_pairs(
    photos: Sequence[Path], pairs: Path | None
) -> list[tuple[tuple[str, Path], tuple[str, Path]]]:
    """The names as given and the paths they stand for."""
    if pairs is None:
        if len(photos) != 2:
            fail("Give two photos, or --pairs FILE.csv.", code=_MISCONFIGURED)
        first, second = photos
        return [((str(first), first), (str(second), second))]
    if photos:
        fail("Give two photos or --pairs, not both.", code=_MISCONFIGURED)
    try:
        with pairs.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        fail(f"{pairs} could not be read as CSV: {error}.", code=_MISCONFIGURED)
    if not rows or any(not row.get("file_x") or not row.get("file_y") for row in rows):
        fail(
            f"{pairs} needs the columns file_x and file_y, filled in every row.",
            code=_MISCONFIGURED,
        )
    base = pairs.parent
    cells = [(row["file_x"].strip(), row["file_y"].strip()) for row in rows]
    return [((x, base / x), (y, base / y)) for x, y in cells]


def _raised(outcome: Analysis | EngineError) -> Analysis:
    if isinstance(outcome, EngineError):
        raise outcome
    return outcome


def _print_pair(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _emit(record)
        return
    names = escape(f"{record['file_x']} | {record['file_y']}")
    if record["error"]:
        text = f"{names}: [red]{escape(record['error']['message'])}[/]"
    else:
        answer = "the same person" if record["same"] else "different people"
        text = (
            f"{names}: {answer} (similarity {record['similarity']:.3f}, threshold "
            f"{record['threshold']:.3f} at a false match rate of {record['fmr']:g})"
        )
    _console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    # A file's name may be no text; one of them is not to end the run.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
