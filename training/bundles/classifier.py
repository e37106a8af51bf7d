"""A dataset to a classifier bundle, by any recipe, from the first crop to the last figure.

Ties training, measuring and the bundle together; knows nothing about the command line.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.bundle import Bundle, save
from engine.vision.embed import Specification
from training.bundles import gallery
from training.bundles.gallery import Source
from training.console import progress, say
from training.datasets import data, pixels
from training.datasets.audit import mean_of_means
from training.datasets.data import Faces
from training.fit import recipes
from training.fit.fitting import Machine
from training.fit.recipes import (
    CHOOSING_SHARE,
    FEWEST_PEOPLE,
    HELD_OUT_SHARE,
    Material,
    Plan,
    Recipe,
)
from training.fit.runs import Run, fingerprint
from training.measure.calibration import Owners, Strangers, Vectors, assemble, pairs, rounds
from training.measure.login import Lend, own_or_lent
from training.tools import Tools


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


def describe(
    plan: Plan | None,
    faces: Faces,
    embedder: Specification,
    source: Source,
    strangers: Faces | None = None,
) -> dict[str, Any]:
    """Everything that decides a run's result, for `training.fit.runs.begin`.

    Without a plan it is a gallery's, which trains nothing.
    """
    told = asdict(replace(source, listed=()))
    listed = [
        [person.name, person.country, person.known_for, person.family] for person in source.listed
    ]
    return {
        "plan": None if plan is None else asdict(plan),
        "embedder": data.key(embedder),
        "faces": fingerprint(faces),
        "source": told | {"listed": listed},
        "strangers": None if strangers is None else fingerprint(strangers),
    }


def make(
    plan: Plan,
    faces: Faces,
    tools: Tools,
    weights: Path,
    run: Run,
    machine: Machine,
    out: Path,
    source: Source,
    *,
    thumbnails: bool,
    lender: Bundle | None,
    lend_login: Lend | None = None,
    strangers: Faces | None = None,
) -> Made | None:
    """Train a classifier and write its bundle.

    Args:
        plan: how.
        faces: the dataset.
        tools: the embedder whose vectors are compared, or stand beside the network's features.
        weights: their folder; for a cnn from ImageNet, the file.
        run: where checkpoints and logs go.
        machine: what it trains on.
        out: the bundle's path without suffix.
        source: what to say about the data.
        thumbnails: whether the bundle carries a small picture of each person.
        lender: whose calibration a head borrows where the faces are too few to measure.
        lend_login: see `training.measure.login.own_or_lent`.
        strangers: people outside the gallery, whom a head is calibrated by. (A network's strangers
            are people whom a second network did not learn from.)

    Returns:
        What was made; None in a process that only helps another one (DDP).

    Raises:
        ValueError: there are too few people or photos.
        EngineError: weights or networks are not as they should be.
    """
    _require_enough(plan, faces)
    vectors = embedded(faces, tools)
    others = None if strangers is None else (strangers, embedded(strangers, tools))
    if plan.recipe is Recipe.HEAD:
        return _head(
            plan,
            faces,
            vectors,
            tools,
            run,
            machine,
            out,
            source,
            thumbnails,
            lender,
            lend_login,
            others,
        )
    return _network(
        plan,
        faces,
        vectors,
        tools,
        weights,
        run,
        machine,
        out,
        source,
        thumbnails,
        lend_login,
        others,
    )


def embedded(faces: Faces, tools: Tools) -> Vectors:
    """(n, d) unit embeddings of a dataset's faces, with a progress bar."""
    with progress(f"Embedding faces of {faces.name}", len(faces)) as advance:
        return data.vectors(faces, tools.embedder, advance)


def _head(
    plan: Plan,
    faces: Faces,
    vectors: Vectors,
    tools: Tools,
    run: Run,
    machine: Machine,
    out: Path,
    source: Source,
    thumbnails: bool,
    lender: Bundle | None,
    lend_login: Lend | None,
    strangers: tuple[Faces, Vectors] | None,
) -> Made | None:
    fitted = recipes.length(plan, vectors, faces, run, machine)
    if fitted is None:
        return None

    def directions(own: Vectors, owner: Owners, people: int) -> tuple[Vectors, Owners]:
        return recipes.fit_head(plan, own, owner, people, fitted.epoch, machine.alone())

    login = own_or_lent(faces, vectors, tools, lend_login, strangers, source.related)
    outside = strangers and Strangers(strangers[1], strangers[0].owner, strangers[0].name)
    with progress("Measuring on held-out people", rounds(len(faces.people), outside)) as advance:
        built = gallery.build(
            faces,
            vectors,
            tools.embedder.specification,
            out,
            source,
            summary=gallery.Summary(
                "classifier",
                directions,
                _architecture(plan, fitted.epoch) | {"head": "cosine margin"},
            ),
            thumbnails=thumbnails,
            borrow=lender,
            login=login,
            strangers=outside,
            advance=advance,
        )
    return Made(built, fitted.epoch, fitted.epochs)


def _network(
    plan: Plan,
    faces: Faces,
    vectors: Vectors,
    tools: Tools,
    weights: Path,
    run: Run,
    machine: Machine,
    out: Path,
    source: Source,
    thumbnails: bool,
    lend_login: Lend | None,
    others: tuple[Faces, Vectors] | None,
) -> Made | None:
    owner, people = faces.owner, len(faces.people)
    network = recipes.start(plan, weights)
    with progress("Cutting crops", len(faces)) as advance:
        crops = pixels.mapped(faces, network.template, advance)
    # Three parts: what is learned from, what the epoch is chosen by, and what is measured on.
    rest, measured = data.split(faces, HELD_OUT_SHARE, plan.seed)
    learned, choosing = data.split(faces.part(rest), CHOOSING_SHARE, plan.seed)
    if not (len(measured) and len(choosing)):
        raise _too_few(plan, faces)
    material = Material(crops, owner, people, rest[learned], rest[choosing])
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
    form = tools.embedder.specification
    tensors = {
        "prototypes": trained.prototypes,
        "owner": trained.owner,
        "feature_centre": trained.centre,
        "centre": torch.from_numpy(
            np.asarray(mean_of_means(vectors, owner, people).mean(axis=0), np.float32)
        ),
    } | {f"network.{name}": value for name, value in trained.network.state_dict().items()}
    if thumbnails:
        tensors |= gallery.portraits(faces, vectors)
    record = gallery.record("classifier", faces, form, source) | {
        "architecture": _architecture(plan, trained.epoch) | trained.network.architecture(),
        "calibration": calibration,
        **gallery.decided(own_or_lent(faces, vectors, tools, lend_login, others, source.related)),
        "metrics": metrics,
    }
    return Made(save(out, record, tensors), trained.epoch, trained.epochs)


def _architecture(plan: Plan, epoch: int) -> dict[str, Any]:
    made: dict[str, Any] = {"recipe": plan.recipe.value, "epochs": epoch, "seed": plan.seed}
    if plan.recipe is Recipe.FINETUNE:
        made |= {"started_from": plan.network, "unfrozen_stages": plan.unfreeze}
    elif plan.recipe is Recipe.CNN:
        made |= {"started_from": "ImageNet" if plan.imagenet else "random weights"}
    return made


def _require_enough(plan: Plan, faces: Faces) -> None:
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


def _too_few(plan: Plan, faces: Faces) -> ValueError:
    return ValueError(
        f"The {plan.recipe.value} recipe takes at least {FEWEST_PEOPLE} people, most with several "
        f"photos that are no near-duplicates; here are {len(faces.people)} people with "
        f"{len(faces)} photos. Add photos, or use `--recipe head`."
    )
