"""`python -m training vectorizer`: a dataset of faces to an embedder of one's own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from engine import threads
from training import options
from training.console import emit, failures, results, show, today

if TYPE_CHECKING:
    from training.datasets.data import Faces
    from training.fit.disjoint import Change
    from training.fit.vectorizer import Outcome, VectorizerPlan

NOT_KEPT = 3
_SCRATCH = "scratch"
_ALL = 1000


def vectorizer(
    source: Annotated[
        Path, typer.Argument(metavar="DIR|MANIFEST", help="A prepared dataset, or photos.")
    ],
    out: options.OutOption,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="Embedder to start from: dlib-resnet29, facenet-vggface2, trained:NAME, "
            "mobilefacenet or onnx:FILE (adapter only), or scratch.",
        ),
    ] = "dlib-resnet29",
    adapter: Annotated[
        str | None,
        typer.Option(help="Train an adapter on the frozen embedder: linear or mlp."),
    ] = None,
    unfreeze: Annotated[
        int | None,
        typer.Option(help="Train so many of the embedder's last stages; 0 is all.", min=0),
    ] = None,
    network: Annotated[
        str, typer.Option(help="Network of torchvision for --from scratch.")
    ] = "resnet18",
    input_px: Annotated[
        int, typer.Option(help="Side of its crops, in pixels.", min=32, max=512)
    ] = 112,
    loss: Annotated[
        str | None,
        typer.Option(
            help="distill, arcface, subcenter-arcface, cosface or supcon. "
            "Default: distill with --degrade, supcon without, arcface from scratch."
        ),
    ] = None,
    degrade: Annotated[
        float,
        typer.Option(
            help="Train for pictures taken at night, moving, badly compressed: 0 not at all, "
            "1 badly.",
            min=0,
            max=1.5,
        ),
    ] = 0.0,
    hold: Annotated[
        float,
        typer.Option(help="How strongly vectors are held to those of the start.", min=0),
    ] = 10.0,
    epochs: Annotated[
        int | None, typer.Option(help="At most. Default: 15 for a network, 30 else.", min=1)
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Highest learning rate. Default: by what is trained.", min=0),
    ] = None,
    blend: Annotated[
        float | None,
        typer.Option(
            help="How far to go from the start's weights (0) to the trained ones (1). "
            "Default: what is best for the people trained on while the people held out gain.",
            min=0,
            max=1,
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="How often people are held out. Default: 3 for fewer than 60 people, else 1.",
            min=1,
        ),
    ] = None,
    accept_worse_strangers: Annotated[
        bool,
        typer.Option(
            "--accept-worse-strangers",
            help="Keep what is better on the people trained on even where it is not on others.",
        ),
    ] = False,
    runs: options.RunsOption = None,
    seed: options.SeedOption = 0,
    aligned: options.AlignedOption = False,
    dataset: options.DatasetOption = None,
    licence: options.LicenceOption = "unknown",
    created: options.CreatedOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train an embedder of your own: usable as trained:NAME wherever an embedder is.

    It is judged on people held out altogether. Where it is not better than the embedder it started
    from, or worse on them, nothing is written, that embedder stays the one to use, and the exit
    code is 3.
    Logs are in run/training/NAME, or in NAME in --runs; a run that was cut off goes on when the
    command is given again.
    """
    threads.configure()
    with failures(goes_on="The same command goes on from the last whole epoch."):
        from engine import bundle, settings
        from engine.vision import embed
        from training import tools
        from training.bundles.gallery import Source
        from training.datasets import prepare
        from training.fit import runs as training_runs
        from training.fit.vectorizer import train, write

        plan = _plan(
            start,
            adapter,
            unfreeze,
            network,
            input_px,
            loss,
            degrade,
            hold,
            epochs,
            rate,
            blend,
            folds,
            seed,
        )
        stem = bundle.locate(out)
        loaded = tools.load(plan.start or embed.DEFAULT)
        home = runs or training_runs.FOLDER
        weights = settings.load(os.environ).face_weights_dir
        written = None
        faces = prepare.dataset(source, loaded, aligned=aligned)
        with training_runs.alone(stem.name, home):
            outcome, begun = train(
                faces,
                plan,
                loaded,
                stem.name,
                weights,
                accept_worse_strangers=accept_worse_strangers,
                folder=home,
            )
            if outcome.kept:
                data = Source(dataset or faces.name, licence, created or today())
                form = loaded.embedder.specification
                written = write(stem, outcome, plan, faces, form, data).id
            for run in begun:
                run.finish()
    if as_json:
        emit(_as_json(outcome, plan, faces, written))
    else:
        _show(outcome, plan, out, written)
    if not outcome.kept:
        raise typer.Exit(NOT_KEPT)


def _plan(
    start: str,
    adapter: str | None,
    unfreeze: int | None,
    network: str,
    input_px: int,
    loss: str | None,
    degrade: float,
    hold: float,
    epochs: int | None,
    rate: float | None,
    blend: float | None,
    folds: int | None,
    seed: int,
) -> "VectorizerPlan":
    """What the options mean together, defaults filled in.

    Raises:
        ValueError: they do not fit together.
    """
    from engine.vision.adapter import Form
    from training.fit.metric_learner import Loss
    from training.fit.vectorizer import VectorizerPlan

    scratch = start == _SCRATCH
    if (adapter is not None) + (unfreeze is not None) + scratch > 1:
        raise ValueError(
            "--adapter, --unfreeze and --from scratch are three different ways. Choose one."
        )
    if adapter not in (None, *Form):
        raise ValueError(f"There is no adapter {adapter!r}. Use {' or '.join(Form)}.")
    if loss not in (None, *Loss):
        raise ValueError(f"There is no loss {loss!r}. Use {', '.join(Loss)}.")
    if adapter is None and unfreeze is None and not scratch:
        # What was measured to be best with a few people, see tests/benchmarks/domain.py.
        adapter, unfreeze = (None, 0) if degrade else (Form.LINEAR, None)
    usual = Loss.ARCFACE if scratch else Loss.DISTILL if degrade else Loss.SUPCON
    chosen = Loss(loss) if loss else usual
    if chosen is Loss.DISTILL and (scratch or not degrade or not hold):
        raise ValueError(
            "distill teaches an embedder to see a degraded face as it sees the same one undegraded:"
            " it takes --degrade, a --hold above 0 and something to start from. Use another loss."
        )
    if scratch and blend not in (None, 1.0):
        raise ValueError("From scratch there is no start to blend with. Leave --blend out.")
    gentle = 3e-4 if chosen is Loss.DISTILL else 1e-4
    return VectorizerPlan(
        start=None if scratch else start,
        form=Form(adapter) if adapter else None,
        stages=0 if unfreeze is None else unfreeze or _ALL,
        network=network if scratch else None,
        input_px=input_px if scratch else None,
        loss=chosen,
        hold=hold,
        strength=degrade,
        epochs=epochs or (15 if unfreeze is not None else 30),
        rate=rate or (gentle if unfreeze is not None else 1e-3),
        blend=blend,
        folds=folds,
        seed=seed,
    )


def _as_json(
    outcome: "Outcome", plan: "VectorizerPlan", faces: "Faces", written: str | None
) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "bundle": written,
        "kept": outcome.kept,
        "verdict": outcome.judgement.verdict,
        "start": plan.start,
        "plan": asdict(plan),
        "people": len(faces.people),
        "faces": len(faces),
        "folds": outcome.folds,
        "blend": outcome.blend,
        "candidates": [asdict(candidate) for candidate in outcome.candidates],
        "refitted": outcome.refitted,
        "strangers": [asdict(change) for change in outcome.judgement.strangers],
        "members": [asdict(change) for change in outcome.judgement.members],
    }


def _show(outcome: "Outcome", plan: "VectorizerPlan", out: Path, written: str | None) -> None:
    table = Table("", "at FMR", "before", "after", "difference, 95 %", "tries (own, others')")
    for who, changes in (
        ("people held out", outcome.judgement.strangers),
        ("other faces of people trained on", outcome.judgement.members),
    ):
        for change in changes:
            table.add_row(who, *_cells(change))
    results.print(table)
    show(_sentence(outcome, plan))
    if written is None:
        show(f"Nothing was written; {plan.start} stays the embedder to use.")
        return
    show(f"{out}.pth and {out}.json ({written}); use it as --embedder trained:{out.name}.")


def _cells(change: "Change") -> tuple[str, ...]:
    return (
        f"{change.fmr:g}",
        f"{change.before:.1%}",
        f"{change.after:.1%}",
        f"{change.lower_95:+.1%} to {change.upper_95:+.1%}",
        f"{change.genuine_pairs:,}, {change.impostor_pairs:,}",
    )


def _sentence(outcome: "Outcome", plan: "VectorizerPlan") -> str:
    """The verdict in words."""
    from training.fit.vectorizer import SURE, TrainingVerdict

    judgement = outcome.judgement
    first = judgement.strangers[0]
    figures = f"{first.before:.1%} to {first.after:.1%} of genuine tries accepted at FMR 1 %"
    match judgement.verdict:
        case TrainingVerdict.BETTER if first.certainty < SURE:
            own = judgement.members[0]
            return (
                f"Better than {plan.start} on the people it was trained on ({own.before:.1%} to "
                f"{own.after:.1%}), and on people held out no worse, as far as {first.people} of "
                f"them can tell: {figures} (difference {first.lower_95:+.1%} to "
                f"{first.upper_95:+.1%})."
            )
        case TrainingVerdict.BETTER:
            return f"Better than {plan.start} on people it was not trained on: {figures}."
        case TrainingVerdict.FROM_NOTHING:
            word = "better" if first.gain > 0 else "not better"
            return (
                f"Trained from nothing, and {word} than the default embedder on people it was not "
                f"trained on: {figures}."
            )
        case TrainingVerdict.STRANGERS_FALL:
            own = judgement.members[0]
            doubt = " It may be chance: the interval holds zero." if first.upper_95 > 0 else ""
            return (
                f"WARNING: it tells the people it was trained on apart better ({own.before:.1%} to "
                f"{own.after:.1%}) but everybody else worse ({figures}).{doubt} Whoever is "
                "enrolled later would be recognised less well than now. "
                + (
                    "Kept, as you asked with --accept-worse-strangers."
                    if outcome.kept
                    else "To keep it all the same: --accept-worse-strangers."
                )
            )
        case _:
            doubt = "" if first.gain <= 0 else " surely"
            return (
                f"Not{doubt} better than {plan.start} on people it was not trained on: {figures}."
                + (" Kept, as you asked with --accept-worse-strangers." if outcome.kept else "")
            )
