"""`python -m training classifier`: a folder of faces to a trained classifier."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import threads
from engine.errors import WeightsError
from engine.terminal import escape
from training.console import emit, failures, results, say, today
from training.measure.lending import lender, login, login_line, measured_lines
from training.options import PeopleOption, StrangersOption

if TYPE_CHECKING:
    from training.bundles.classifier import Made
    from training.datasets.fetch import Places
    from training.fit.recipes import Plan, Recipe

_RECIPES = "head: the embedder as it is, minutes on a laptop; finetune: its last stages learn too; \
cnn: a network of torchvision from end to end."


def classifier(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR|MANIFEST]...",
            help="One folder per person, photos inside; or what `prepare` made of it. Somebody "
            "who is in several of them is one person. Without any, the command asks.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Bundle to write, without suffix. Default: run/models/ and the folder's name.",
            metavar="run/models/NAME",
        ),
    ] = None,
    listed: PeopleOption = None,
    strangers: StrangersOption = None,
    recipe: Annotated[str, typer.Option(help=_RECIPES, metavar="head|finetune|cnn")] = "head",
    browse: Annotated[
        bool, typer.Option("--browse", help="Choose the folder in the desktop's dialog.")
    ] = False,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The files are crops on the ArcFace template.")
    ] = False,
    embedder: Annotated[
        str,
        typer.Option(
            help="Whose vectors a head works on, or what finetune starts from: dlib-resnet29, "
            "facenet-vggface2, trained:NAME (or mobilefacenet or onnx:FILE, for a head)."
        ),
    ] = "dlib-resnet29",
    arch: Annotated[
        str,
        typer.Option(
            help="Network of the cnn recipe: mobilenet_v2, resnet18, resnet50, efficientnet_b0 "
            "or another classifier of torchvision."
        ),
    ] = "mobilenet_v2",
    input_px: Annotated[
        int | None, typer.Option(help="Side of the cnn's crops. Default: 112.", min=32, max=512)
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Let the cnn start from nothing, not from ImageNet."),
    ] = False,
    unfreeze: Annotated[
        int | None,
        typer.Option(help="Last stages of the embedder that learn (finetune). Default: 3.", min=1),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most. Default: by recipe.", min=1)] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without getting better before it stops.", min=1),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Faces in a batch. Default: by recipe.", min=2)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Highest learning rate of the head.", min=0.0)
    ] = None,
    network_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate of the network.", min=0.0)
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop training after so many minutes.", min=0.0)
    ] = None,
    devices: Annotated[
        int, typer.Option(help="GPUs of each machine (without a GPU: processes).", min=1)
    ] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, as torchrun starts them.", min=1)] = 1,
    precision: Annotated[
        str | None,
        typer.Option(help="32-true, 16-mixed or bf16-mixed. Default: by device."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
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
            help="Bundle a head borrows from when there are too few faces to measure. "
            "Default: the default bundle of the embedder."
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and logs. Default: run/training."),
    ] = None,
    accept_license: Annotated[
        bool,
        typer.Option("--accept-license", help="Agree to the licence of what has to be fetched."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train a classifier: whom the engine can recognise, learned from their faces.

    A run that was killed goes on where it stood when the same command is given again.
    """
    threads.configure()
    with failures():
        from engine import settings
        from training import asking
        from training.datasets.fetch import Places
        from training.fit.recipes import Recipe, plan

        kind = _recipe(recipe)
        if not sources and (devices > 1 or nodes > 1):
            raise ValueError("Give the folder: with several processes, each of them would ask.")
        chosen = plan(
            kind,
            network=arch if kind is Recipe.CNN else embedder,
            input_px=(input_px or 112) if kind is Recipe.CNN else None,
            imagenet=kind is Recipe.CNN and not from_scratch,
            unfreeze=unfreeze,
            epochs=epochs,
            patience=patience,
            batch=batch,
            rate=rate,
            network_rate=network_rate,
            max_minutes=max_minutes,
            seed=seed,
        )
        places = Places(settings.load(os.environ).face_weights_dir)
        folders = sources or [asking.folder(places, browse=browse, accept_license=accept_license)]
        weights = places.weights
        if chosen.imagenet:
            chosen, weights = _imagenet(chosen, places, accept_license)
        made = _train(
            chosen,
            weights,
            (folders, listed, strangers),
            out,
            embedder,
            (devices, nodes, precision),
            (dataset, licence, created),
            calibration_from,
            runs,
            aligned=aligned,
            thumbnails=thumbnails,
        )
    if made is None:
        return
    stem, report = made
    if as_json:
        emit(_as_json(report))
    else:
        _show(report, stem, chosen)


def _recipe(name: str) -> "Recipe":
    from training.fit.recipes import Recipe

    try:
        return Recipe(name)
    except ValueError as error:
        raise ValueError(f"There is no recipe '{name}': head, finetune or cnn.") from error


def _imagenet(plan: "Plan", places: "Places", accept: bool) -> "tuple[Plan, Path]":
    """The file of ImageNet weights; or the same plan from scratch, where they cannot be had."""
    from training.datasets import fetch

    try:
        return plan, fetch.imagenet(plan.network, places, accept=accept)
    except WeightsError as error:
        say(f"{error.message} Going on from scratch, which takes many more photos and epochs.")
        return replace(plan, imagenet=False), places.weights


def _train(
    plan: "Plan",
    weights: Path,
    given: tuple[list[Path], Path | None, list[Path] | None],
    out: Path | None,
    embedder: str,
    machine: tuple[int, int, str | None],
    about: tuple[str | None, str, str | None],
    calibration_from: str | None,
    runs_folder: Path | None,
    *,
    aligned: bool,
    thumbnails: bool,
) -> "tuple[Path, Made] | None":
    from engine import bundle
    from training import tools
    from training.bundles import classifier as making
    from training.bundles import made
    from training.bundles.gallery import Source, own_calibration
    from training.datasets import material
    from training.fit import runs
    from training.fit.fitting import Machine

    folders, listed, strangers = given
    stem = bundle.locate(out) if out else bundle.FOLDER / _name_of(folders[0])
    if not out and not made.has_note(stem):
        _require_unused(stem)
    eyes = tools.load(embedder)
    found = material.read(folders, listed, strangers, eyes, aligned=aligned)
    faces = found.faces
    name, licence, created = about
    source = Source(name or faces.name, licence, created or today(), found.listed)
    what = making.describe(plan, faces, eyes.embedder.specification, source, found.strangers)
    theirs = lender(calibration_from, eyes.embedder.specification)
    wanted = what | {
        "source": what["source"] | {"created": made.date_of(created)},
        "dropped": dict(faces.dropped),
        "lender": made.lent_by(theirs),
        "machine": [str(eyes.device), *machine],
        "thumbnails": thumbnails,
    }
    report = made.known(stem, wanted)
    if report is not None:
        return stem, making.Made(bundle.load(stem), **report)
    if not out:
        _require_unused(stem)
    devices, nodes, precision = machine
    home = runs_folder or runs.FOLDER
    with runs.alone(stem.name, home):
        run = runs.begin(stem.name, what, home)
        if run.last:
            say(f"Going on with the run in {run.home}.")
        done = making.make(
            plan,
            faces,
            eyes,
            weights,
            run,
            Machine(eyes.device, devices, nodes, precision),
            stem,
            source,
            thumbnails=thumbnails,
            lender=None if own_calibration(faces) else theirs,
            lend_login=partial(login, calibration_from, eyes.embedder.specification),
            strangers=found.strangers,
        )
        if done is None:
            return None
        made.remember(stem, wanted, {"epoch": done.epoch, "epochs": done.epochs})
        run.finish()
    return stem, done


def _require_unused(stem: Path) -> None:
    """A bundle's path that nobody chose must not cost another bundle."""
    if stem.with_name(f"{stem.name}.json").exists():
        raise ValueError(
            f"There is a bundle {stem.name} already. Give `--out {stem}` to replace it, or another "
            "name."
        )


def _as_json(made: "Made") -> dict[str, object]:
    manifest = made.bundle.manifest
    return {
        "bundle": made.bundle.id,
        "people": len(manifest.people),
        "faces": manifest.dataset.faces,
        "dropped": manifest.dataset.dropped,
        "epoch": made.epoch,
        "epochs": made.epochs,
        "architecture": manifest.architecture,
        "metrics": manifest.metrics,
        "calibration": made.bundle.calibration.model_dump(exclude={"stranger_quantiles"}),
    }


def _name_of(source: Path) -> str:
    """A dataset's name: that of its folder, or of the folder of its manifest."""
    place = source.resolve()
    return place.parent.name if place.is_file() else place.name


def _show(made: "Made", stem: Path, plan: "Plan") -> None:
    from engine import bundle

    manifest = made.bundle.manifest

    def line(text: str) -> None:
        results.print(escape(text), highlight=False, soft_wrap=True)

    line(
        f"{len(manifest.people)} people from {manifest.dataset.faces} faces, recipe "
        f"{plan.recipe.value}, epoch {made.epoch} of {made.epochs}. "
        f"{stem}.pth and {stem}.json ({made.bundle.id})"
    )
    decided = login_line(made.bundle)
    if decided:
        line(decided)
    if made.bundle.calibration.source != "own":
        line(
            "Too few faces to measure similarities; calibration borrowed from "
            f"{made.bundle.calibration.source}."
        )
        return
    for text in measured_lines(made.bundle):
        line(text)
    named = stem.name if stem.resolve().parent == bundle.FOLDER else stem.resolve()
    line(f"Try it: ENGINE_BUNDLE={named} uv run python -m bot demo")
