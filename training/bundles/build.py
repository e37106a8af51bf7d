"""A dataset to a bundle that knows its people, from the first crop to the last figure.

A gallery trains nothing; a classifier is trained by any recipe. Ties training, measuring and the
bundle together; knows nothing about the command line.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.bundle import Bundle, save
from training.bundles import gallery, made
from training.bundles.gallery import Source
from training.console import progress, say
from training.datasets import data, pixels
from training.datasets.data import Faces
from training.fit import recipes
from training.fit.fitting import Machine
from training.fit.recipes import (
    CHOOSING_SHARE,
    FEWEST_PEOPLE,
    HELD_OUT_SHARE,
    ClassifierPlan,
    Recipe,
    TrainingFaces,
)
from training.fit.runs import Run, fingerprint
from training.measure import lending
from training.measure.calibration import Strangers, assemble, pairs, rounds
from training.measure.lending import Decided
from training.measure.login import own_or_lent
from training.tools import Tools
from training.vectors import Owners, Vectors, person_means

Outside = tuple[Faces, Vectors]
"""Faces of people outside a gallery, and their (n, d) unit embeddings."""


@dataclass(frozen=True)
class Inputs:
    """What a bundle is made from.

    Attributes:
        faces: the dataset.
        tools: the embedder whose vectors are compared, or stand beside the network's features.
        source: what to say about the data.
        thumbnails: whether the bundle carries a small picture of each person.
        lender: whose calibration and login are borrowed where the faces are too few to measure.
        strangers: people outside the gallery, by whom similarities are calibrated. (A network's
            strangers are people whom a second network did not learn from.)
    """

    faces: Faces
    tools: Tools
    source: Source
    thumbnails: bool
    lender: Bundle | None
    strangers: Faces | None = None

    def describe(self, plan: ClassifierPlan | None) -> dict[str, Any]:
        """Everything that decides a run's result, for `training.fit.runs.begin`.

        Without a plan it is a gallery's, which trains nothing.
        """
        told = asdict(replace(self.source, listed=()))
        listed = [
            [person.name, person.country, person.known_for, person.family]
            for person in self.source.listed
        ]
        return {
            "plan": None if plan is None else asdict(plan),
            "embedder": data.key(self.tools.embedder.specification),
            "faces": fingerprint(self.faces),
            "source": told | {"listed": listed},
            "strangers": None if self.strangers is None else fingerprint(self.strangers),
        }

    def describe_bundle(self, plan: ClassifierPlan | None, created: str | None) -> dict[str, Any]:
        """Everything that decides the bundle, for `training.bundles.made`.

        Args:
            plan: see `describe`.
            created: the date that an operator has given; None is today's.
        """
        what = self.describe(plan)
        return what | {
            "source": what["source"] | {"created": made.date_of(created)},
            "dropped": dict(self.faces.dropped),
            "lender": made.lent_by(self.lender),
            "thumbnails": self.thumbnails,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a training.

    Attributes:
        bundle: as written.
        epoch: the best one, counted from 1.
        epochs: how many were trained.
    """

    bundle: Bundle
    epoch: int
    epochs: int


def make_gallery(inputs: Inputs, out: Path) -> Bundle:
    """Write a gallery bundle.

    Args:
        inputs: what it is made from.
        out: its path without suffix.

    Raises:
        ValueError: there are too few faces to calibrate and nobody to borrow from.
    """
    return _build(inputs, out, gallery.CLUSTERS, *_embedded(inputs))


def make_classifier(
    plan: ClassifierPlan, inputs: Inputs, weights: Path, run: Run, machine: Machine, out: Path
) -> Made | None:
    """Train a classifier and write its bundle.

    Args:
        plan: how.
        inputs: what it is made from.
        weights: their folder; for a cnn from ImageNet, the file.
        run: where checkpoints and logs go.
        machine: what it trains on.
        out: the bundle's path without suffix.

    Returns:
        What was made; None in a process that only helps another one (DDP).

    Raises:
        ValueError: there are too few people or photos.
        EngineError: weights or networks are not as they should be.
    """
    _require_enough(plan, inputs.faces)
    if plan.recipe is Recipe.HEAD:
        return _head(plan, inputs, run, machine, out)
    return _network(plan, inputs, weights, run, machine, out)


def _embedded(inputs: Inputs) -> tuple[Vectors, Outside | None]:
    """(n, d) unit embeddings of the faces, and the people outside with theirs."""

    def of(faces: Faces) -> Vectors:
        with progress(f"Embedding faces of {faces.name}", len(faces)) as advance:
            return data.vectors(faces, inputs.tools.embedder, advance)

    outside = inputs.strangers
    return of(inputs.faces), None if outside is None else (outside, of(outside))


def _login(inputs: Inputs, vectors: Vectors, outside: Outside | None) -> Decided:
    tools = inputs.tools
    lent = lending.login(inputs.lender, tools.embedder.specification)
    return own_or_lent(inputs.faces, vectors, tools, lent, outside, inputs.source.related)


def _build(
    inputs: Inputs,
    out: Path,
    summary: gallery.Summarisation,
    vectors: Vectors,
    outside: Outside | None,
) -> Bundle:
    """A bundle of directions among the embedder's own vectors."""
    faces = inputs.faces
    login = _login(inputs, vectors, outside)
    strangers = outside and Strangers(outside[1], outside[0].owner, outside[0].name)
    borrows = inputs.lender is not None and not gallery.own_calibration(faces)
    steps = None if borrows else rounds(len(faces.people), strangers)
    with progress("Measuring", steps) as advance:
        return gallery.build(
            faces,
            vectors,
            inputs.tools.embedder.specification,
            out,
            inputs.source,
            thumbnails=inputs.thumbnails,
            borrow=inputs.lender,
            summary=summary,
            login=login,
            strangers=strangers,
            advance=advance,
        )


def _head(
    plan: ClassifierPlan, inputs: Inputs, run: Run, machine: Machine, out: Path
) -> Made | None:
    vectors, outside = _embedded(inputs)
    fitted = recipes.length(plan, vectors, inputs.faces, run, machine)
    if fitted is None:
        return None

    def directions(own: Vectors, owner: Owners, people: int) -> tuple[Vectors, Owners]:
        return recipes.fit_head(plan, own, owner, people, fitted.epoch, machine.alone())

    architecture = _architecture(plan, fitted.epoch) | {"head": "cosine margin"}
    summary = gallery.Summarisation("classifier", directions, architecture)
    built = _build(inputs, out, summary, vectors, outside)
    return Made(built, fitted.epoch, fitted.epochs)


def _network(
    plan: ClassifierPlan, inputs: Inputs, weights: Path, run: Run, machine: Machine, out: Path
) -> Made | None:
    vectors, outside = _embedded(inputs)
    faces = inputs.faces
    owner, people = faces.owner, len(faces.people)
    network = recipes.start(plan, weights)
    with progress("Cutting crops", len(faces)) as advance:
        crops = pixels.mapped(faces, network.template, advance)
    # Three parts: what is learned from, what the epoch is chosen by, and what is measured on.
    rest, measured = data.split(faces, HELD_OUT_SHARE, plan.seed)
    learned, choosing = data.split(faces.part(rest), CHOOSING_SHARE, plan.seed)
    if not (len(measured) and len(choosing)):
        raise _too_few(plan, faces)
    material = TrainingFaces(crops, owner, people, rest[learned], rest[choosing])
    trained = recipes.train_network(plan, network, material, run, machine)
    if trained is None:
        return None
    say("Training once more without some of the people, to see what strangers look like.")
    best, stranger, met = recipes.strangers(
        plan, recipes.start(plan, weights), material, trained.epoch, machine.alone()
    )
    held_out = trained.similarities(crops, measured, people, machine.device)
    calibration, metrics = assemble(
        held_out,
        owner[measured],
        best,
        stranger,
        pairs(vectors, owner, people, faces.group),
        power=people / met,
    )
    tensors = {
        "prototypes": trained.prototypes,
        "owner": trained.owner,
        "feature_centre": trained.centre,
        "centre": torch.from_numpy(
            np.asarray(person_means(vectors, owner, people).mean(axis=0), np.float32)
        ),
    } | {f"network.{name}": value for name, value in trained.network.state_dict().items()}
    if inputs.thumbnails:
        tensors |= gallery.portraits(faces, vectors)
    form = inputs.tools.embedder.specification
    record = gallery.record("classifier", faces, form, inputs.source) | {
        "architecture": _architecture(plan, trained.epoch) | trained.network.architecture(),
        "calibration": calibration,
        **gallery.decided(_login(inputs, vectors, outside)),
        "metrics": metrics,
    }
    return Made(save(out, record, tensors), trained.epoch, trained.epochs)


def _architecture(plan: ClassifierPlan, epoch: int) -> dict[str, Any]:
    made: dict[str, Any] = {"recipe": plan.recipe.value, "epochs": epoch, "seed": plan.seed}
    if plan.recipe is Recipe.FINETUNE:
        made |= {"started_from": plan.network, "unfrozen_stages": plan.unfreeze}
    elif plan.recipe is Recipe.CNN:
        made |= {"started_from": "ImageNet" if plan.imagenet else "random weights"}
    return made


def _require_enough(plan: ClassifierPlan, faces: Faces) -> None:
    if plan.recipe is Recipe.HEAD:
        if len(faces.people) < 2:
            raise ValueError(
                f"There is only {faces.people[0]} in this dataset; a classifier tells people "
                "apart. Add people, each with a folder of their own."
            )
        return
    # Near-duplicates are never parted: of such alone nothing can be held out.
    moments = np.unique(np.stack([faces.owner, faces.group]), axis=1)[0]
    if len(faces.people) < FEWEST_PEOPLE or np.bincount(moments).max() < 2:
        raise _too_few(plan, faces)


def _too_few(plan: ClassifierPlan, faces: Faces) -> ValueError:
    return ValueError(
        f"The {plan.recipe.value} recipe takes at least {FEWEST_PEOPLE} people, most with several "
        f"photos that are no near-duplicates; here are {len(faces.people)} people with "
        f"{len(faces)} photos. Add photos, or use `--recipe head`."
    )
