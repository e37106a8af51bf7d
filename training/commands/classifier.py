"""`python -m training classifier`: a folder of faces to a trained classifier."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import threads
from engine.errors import WeightsError
from training import options
from training.console import emit, failures, say, show, today
from training.measure.lending import lender, report

if TYPE_CHECKING:
    from training.bundles.build import Inputs, Made
    from training.datasets.fetch import Places
    from training.fit.fitting import Machine
    from training.fit.recipes import ClassifierPlan, Recipe

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
    listed: options.PeopleOption = None,
    strangers: options.StrangersOption = None,
    recipe: Annotated[str, typer.Option(help=_RECIPES, metavar="head|finetune|cnn")] = "head",
    browse: Annotated[
        bool, typer.Option("--browse", help="Choose the folder in the desktop's dialog.")
    ] = False,
    aligned: options.AlignedOption = False,
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
    seed: options.SeedOption = 0,
    thumbnails: options.ThumbnailsOption = False,
    dataset: options.DatasetOption = None,
    licence: options.LicenceOption = "unknown",
    created: options.CreatedOption = None,
    calibration_from: options.LenderOption = None,
    runs: options.RunsOption = None,
    accept_license: options.AcceptLicenseOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Train a classifier: whom the engine can recognise, learned from their faces.

    A run that was killed goes on where it stood when the same command is given again.
    """
    threads.configure()
    with failures():
        from engine import bundle, settings
        from training import asking, tools
        from training.bundles import build, made
        from training.bundles.gallery import Source
        from training.datasets import material
        from training.datasets.fetch import Places
        from training.fit.fitting import Machine
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
        stem = bundle.locate(out) if out else bundle.FOLDER / _name_of(folders[0])
        if not out and not made.has_note(stem):
            _require_unused(stem)
        loaded = tools.load(embedder)
        given = material.read(folders, listed, strangers, loaded, aligned=aligned)
        source = Source(dataset or given.faces.name, licence, created or today(), given.listed)
        theirs = lender(calibration_from, loaded.embedder.specification)
        inputs = build.Inputs(given.faces, loaded, source, thumbnails, theirs, given.strangers)
        machine = Machine(loaded.device, devices, nodes, precision)
        wanted = inputs.describe_bundle(chosen, created) | {
            "machine": [str(loaded.device), devices, nodes, precision]
        }
        known = made.known(stem, wanted)
        if known is not None:
            done = build.Made(bundle.load(stem), **known)
        else:
            if not out:
                _require_unused(stem)
            trained = _train(chosen, inputs, weights, machine, stem, runs)
            if trained is None:
                return
            done = trained
            made.remember(stem, wanted, {"epoch": done.epoch, "epochs": done.epochs})
    if as_json:
        emit(_as_json(done))
    else:
        _show(done, stem, chosen)


def _recipe(name: str) -> "Recipe":
    from training.fit.recipes import Recipe

    try:
        return Recipe(name)
    except ValueError as error:
        raise ValueError(f"There is no recipe '{name}': head, finetune or cnn.") from error


def _imagenet(
    plan: "ClassifierPlan", places: "Places", accept: bool
) -> "tuple[ClassifierPlan, Path]":
    """The file of ImageNet weights; or the same plan from scratch, where they cannot be had."""
    from training.datasets import fetch

    try:
        return plan, fetch.imagenet(plan.network, places, accept=accept)
    except WeightsError as error:
        say(f"{error.message} Going on from scratch, which takes many more photos and epochs.")
        return replace(plan, imagenet=False), places.weights


def _train(
    plan: "ClassifierPlan",
    inputs: "Inputs",
    weights: Path,
    machine: "Machine",
    stem: Path,
    runs_folder: Path | None,
) -> "Made | None":
    from training.bundles import build
    from training.fit import runs

    home = runs_folder or runs.FOLDER
    with runs.alone(stem.name, home):
        run = runs.begin(stem.name, inputs.describe(plan), home)
        if run.last:
            say(f"Going on with the run in {run.home}.")
        done = build.make_classifier(plan, inputs, weights, run, machine, stem)
        if done is not None:
            run.finish()
    return done


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


def _show(made: "Made", stem: Path, plan: "ClassifierPlan") -> None:
    from engine import bundle

    manifest = made.bundle.manifest

    show(
        f"{len(manifest.people)} people from {manifest.dataset.faces} faces, recipe "
        f"{plan.recipe.value}, epoch {made.epoch} of {made.epochs}. "
        f"{stem}.pth and {stem}.json ({made.bundle.id})"
    )
    for text in report(made.bundle):
        show(text)
    if made.bundle.calibration.source == "own":
        named = stem.name if stem.resolve().parent == bundle.FOLDER else stem.resolve()
        show(f"Try it: ENGINE_BUNDLE={named} uv run python -m bot demo")
