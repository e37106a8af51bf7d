"""`python -m training plot`: pictures of runs, results and faces."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import threads
from training.console import emit, failures, progress, say
from training.options import AlignedOption, JsonOption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plot = typer.Typer(
    help="Draw pictures: the suffix of --out (.png, .svg or .pdf) says which kind.",
    no_args_is_help=True,
)

EvaluationArgument = Annotated[
    Path,
    typer.Argument(
        metavar="EVALUATION", help="An evaluation.json, or the folder that `evaluate` wrote."
    ),
]
DataArgument = Annotated[
    Path, typer.Argument(metavar="DIR|MANIFEST", help="One folder per person, or a manifest.")
]


def _out(name: str) -> Any:
    return typer.Option(help=f"Picture to write. Default: {name}.png.", show_default=False)


@plot.command()
def history(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's name in run/training, its folder or log.")
    ],
    out: Annotated[Path, _out("history")] = Path("history.png"),
    as_json: JsonOption = False,
) -> None:
    """A training run epoch by epoch: losses and rates."""
    with failures():
        from training.fit import history as log
        from training.measure import plots

        logs = log.locate(run)
        columns = log.read(logs)
        _write(plots.history(columns, f"Training run {_run_name(logs[-1])}"), out, as_json)


@plot.command()
def confusion(
    evaluation: EvaluationArgument,
    out: Annotated[Path, _out("confusion")] = Path("confusion.png"),
    as_json: JsonOption = False,
) -> None:
    """Who is taken for whom."""
    with failures():
        from training.measure import evaluation as record
        from training.measure import plots

        found = record.read(evaluation)
        if found.recognition is None or found.recognition.matrix is None:
            raise ValueError(
                f"{evaluation} says nothing about who is taken for whom: its data had nobody whom "
                "the bundle knows."
            )
        _write(plots.confusion(found.recognition.matrix), out, as_json)


@plot.command()
def roc(
    evaluations: Annotated[
        list[Path],
        typer.Argument(
            metavar="EVALUATION...", help="Like EVALUATION of `confusion`; several are compared."
        ),
    ],
    out: Annotated[Path, _out("roc")] = Path("roc.png"),
    det: Annotated[bool, typer.Option("--det", help="Draw the DET curve instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How many genuine pairs of faces pass at each false match rate."""
    with failures():
        from training.measure import evaluation as record
        from training.measure import plots

        curves = {}
        for path in evaluations:
            found = record.read(path)
            measured = found.verification or (found.pairs.verification if found.pairs else None)
            if measured is None:
                raise ValueError(f"{path} compared no faces with each other.")
            name = f"{found.bundle.name} on {found.data.name}"
            curves[f"{name} ({path})" if name in curves else name] = measured.curve
        _write((plots.det if det else plots.roc)(curves), out, as_json)


@plot.command("map")
def face_map(
    source: DataArgument,
    out: Annotated[Path, _out("map")] = Path("map.png"),
    aligned: AlignedOption = False,
    embedder: Annotated[str, typer.Option(help="Which embedder's eyes.")] = "dlib-resnet29",
    pictures: Annotated[int, typer.Option(min=0, help="People with a picture.")] = 60,
    seed: Annotated[int, typer.Option(help="Another seed, another map.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """A map of everybody: faces that look alike lie close to each other."""
    threads.configure()
    with failures():
        from training import tools
        from training.datasets import data, prepare
        from training.measure import mapping, plots

        plots.check_suffix(out)
        seen = tools.load(embedder)
        faces = prepare.dataset(source, seen, aligned=aligned)
        chosen = mapping.evenly(faces, mapping.MOST_FACES)
        if len(chosen) < len(faces):
            say(f"Drawing {len(chosen):,} of {len(faces):,} faces, evenly over people.")
        part = faces.part(chosen)
        with progress("Embedding", len(part)) as advance:
            vectors = data.vectors(part, seen.embedder, advance)
        points = mapping.flatten(vectors, part.owner, seed)
        title = f"{faces.name}: {len(part):,} faces of {len(faces.people):,} people"
        _write(plots.face_map(mapping.places(part, points), pictures, title), out, as_json)


@plot.command()
def samples(
    source: DataArgument,
    out: Annotated[Path, _out("samples")] = Path("samples.png"),
    aligned: AlignedOption = False,
    people: Annotated[int, typer.Option(min=1, help="People on the sheet.")] = 20,
    columns: Annotated[int, typer.Option(min=1, help="Faces of each.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """A contact sheet of everybody's faces, with what is doubted marked."""
    threads.configure()
    with failures():
        from training import tools
        from training.datasets import probes
        from training.measure import mapping, plots

        plots.check_suffix(out)
        found = probes.of(source, tools.load, aligned=aligned)
        sheet = mapping.tiles(found, people, columns)
        doubted = int((found.doubted | found.copy).sum())
        title = f"{found.faces.name}: {len(found.faces):,} faces, {doubted:,} of them doubted"
        _write(plots.samples(sheet, columns, title), out, as_json)


def _run_name(path: Path) -> str:
    """The run's own folder: the one below run/training, or the file's."""
    from training.fit.history import FOLDER

    home = path.resolve().parent
    return home.relative_to(FOLDER).parts[0] if home.is_relative_to(FOLDER) else home.name


def _write(figure: "Figure", out: Path, as_json: bool) -> None:
    from training.measure import plots

    plots.save(figure, out)
    if as_json:
        emit({"picture": str(out)})
    else:
        say(f"Wrote {out}.")
