"""Faces to a trained classifier: the recipes.

- `head`: the embedder stays as it is; a few directions per person are trained among its vectors.
- `finetune`: the embedder's last stages learn as well.
- `cnn`: a network of torchvision learns from end to end, from ImageNet weights or from nothing.

Knows which parts a recipe is made of; knows nothing about the command line.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from engine.people.gallery import best_per_person
from engine.vision import networks
from engine.vision.networks import Network
from engine.vision.vectors import centred
from training.bundles.gallery import prototypes
from training.datasets.data import Faces, split
from training.fit import pretrained
from training.fit.batches import FaceBatches, Inputs
from training.fit.fitting import Fitted, Machine, Schedule, fit, refit
from training.fit.head import CosineHead
from training.fit.learner import Learner, unfreeze
from training.fit.runs import Run, is_helper
from training.vectors import Owners, Vectors, numbered, person_means, unit

HELD_OUT_SHARE = 0.2
"""Of each person's faces: figures are measured on them."""
CHOOSING_SHARE = 0.1
"""Of the other faces: the best epoch of a network is chosen by them."""
STRANGERS_SHARE = 0.25
FEWEST_PEOPLE = 4
_BATCH = 32


class Recipe(StrEnum):
    """How a classifier is made."""

    HEAD = "head"
    FINETUNE = "finetune"
    CNN = "cnn"


@dataclass(frozen=True, slots=True)
class ClassifierPlan:
    """Everything that decides how a network is trained.

    Attributes:
        recipe: `Recipe`.
        network: name of the network, or id of the embedder that is finetuned.
        input_px: side of a cnn's crops.
        imagenet: whether a cnn starts from ImageNet weights.
        unfreeze: how many of the embedder's last stages learn (`finetune`).
        rate: highest learning rate of the head.
        network_rate: that of the network.
        margin, scale, anchor: see `training.fit.head.CosineHead`.
        weight_decay: of the network.
        batch: faces in a batch.
        epochs: at most.
        patience: epochs without a better validation loss before it stops; None never stops and
            keeps the last epoch of a head, which its anchor holds back enough.
        max_minutes: after which it stops; None never does.
        seed: of everything random.
    """

    recipe: Recipe
    network: str
    input_px: int | None
    imagenet: bool
    unfreeze: int
    rate: float
    network_rate: float
    margin: float
    scale: float
    anchor: float
    weight_decay: float
    batch: int
    epochs: int
    patience: int | None
    max_minutes: float | None
    seed: int

    @property
    def schedule(self) -> Schedule:
        """How long it goes on."""
        return Schedule(self.epochs, self.patience, self.max_minutes)


_DEFAULTS: dict[Recipe, dict[str, Any]] = {
    Recipe.HEAD: {
        "rate": 2e-3,
        "network_rate": 0.0,
        "margin": 0.5,
        "scale": 24.0,
        "anchor": 0.1,
        "weight_decay": 0.0,
        "batch": 256,
        "epochs": 20,
        "patience": None,
    },
    Recipe.FINETUNE: {
        "rate": 5e-3,
        "network_rate": 1e-4,
        "margin": 0.3,
        "scale": 12.0,
        "anchor": 0.1,
        "weight_decay": 1e-3,
        "batch": 64,
        "epochs": 8,
        "patience": 3,
    },
    Recipe.CNN: {
        "rate": 1e-2,
        "network_rate": 2e-3,
        "margin": 0.1,
        "scale": 16.0,
        "anchor": 0.0,
        "weight_decay": 5e-2,
        "batch": 64,
        "epochs": 60,
        "patience": 15,
    },
}


def plan(recipe: Recipe, **chosen: Any) -> ClassifierPlan:
    """A recipe's defaults, with what was chosen in their place; None chooses nothing.

    Args:
        recipe: which one.
        chosen: `ClassifierPlan`'s other fields.
    """
    common = {"input_px": None, "imagenet": True, "unfreeze": 3, "max_minutes": None, "seed": 0}
    wanted = {name: value for name, value in chosen.items() if value is not None}
    return ClassifierPlan(recipe=recipe, **(common | _DEFAULTS[recipe] | wanted))


@dataclass(frozen=True)
class TrainingFaces:
    """What a network or a head learns from.

    Attributes:
        inputs: (n, px, px, 3) RGB on the network's template; or (n, d) vectors, for a head alone.
        owner: (n,) whose they are.
        people: how many people.
        training: indices of the faces that are learned from.
        validation: indices of those that the best epoch is chosen by.
    """

    inputs: Inputs
    owner: Owners
    people: int
    training: Owners
    validation: Owners


def start(plan: ClassifierPlan, weights: Path) -> Network:
    """The network of a plan before its training.

    Args:
        plan: of `finetune` or `cnn`.
        weights: the folder of weights; for a cnn from ImageNet, the file.

    Raises:
        ConfigurationError: there is no such network.
        WeightsError: its weights cannot be had.
    """
    if plan.recipe is Recipe.FINETUNE:
        network = pretrained.embedder_network(plan.network, weights)
        unfreeze(network, plan.unfreeze)
        return network
    if plan.imagenet:
        return pretrained.imagenet(plan.network, plan.input_px, weights)
    torch.manual_seed(plan.seed)
    return networks.build(plan.network, plan.input_px)


@dataclass(frozen=True)
class Trained:
    """A network and its head after training.

    Attributes:
        network: in evaluation mode, on the CPU.
        centre: (d) the mean feature.
        prototypes: (m, d) unit directions.
        owner: (m,) whose they are.
        epoch: the best one, counted from 1.
        epochs: how many were trained.
    """

    network: Network
    centre: Tensor
    prototypes: Tensor
    owner: Tensor
    epoch: int
    epochs: int

    def similarities(
        self, crops: Inputs, index: Owners, people: int, device: torch.device
    ) -> Vectors:
        """(k, people) cosines of some of the crops."""
        made = features(self.network, crops, index, device)
        result: Vectors = best_per_person(
            centred(torch.from_numpy(made), self.centre), self.prototypes, self.owner, people
        ).numpy()
        return result


def features(network: Network, crops: Inputs, index: Owners, device: torch.device) -> Vectors:
    """(k, d) unit features of some of the crops, as they are served; the network stays on the CPU.

    Args:
        network: in evaluation mode.
        crops: (n, px, px, 3) RGB on its template.
        index: (k,) which of them.
        device: where it computes.
    """
    network.to(device)
    parts = [
        networks.features(network, np.asarray(crops[index[k : k + _BATCH]], np.uint8), device).cpu()
        for k in range(0, len(index), _BATCH)
    ]
    network.cpu()
    made: Vectors = torch.cat(parts).numpy()
    return made


def train_network(
    plan: ClassifierPlan, network: Network, material: TrainingFaces, run: Run, machine: Machine
) -> Trained | None:
    """Train a network with its head, and keep the best epoch.

    Args:
        plan: how.
        network: from `start`; it is changed.
        material: what it learns from.
        run: where checkpoints and logs go.
        machine: what it trains on.

    Returns:
        The trained network; None in a process that only helps another one (DDP).
    """
    centre, head = beginning(plan, network, material, machine.device)
    learner, data = prepared(plan, network, head, centre, material, machine)
    fitted = fit(learner, data, run, plan.schedule, machine)
    if not fitted.first:
        return None
    return Trained(
        network=network.eval(),
        centre=centre,
        prototypes=head.directions.detach(),
        owner=head.owner,
        epoch=fitted.epoch,
        epochs=fitted.epochs,
    )


def strangers(
    plan: ClassifierPlan, network: Network, material: TrainingFaces, epochs: int, machine: Machine
) -> tuple[NDArray[np.float64], Owners, int]:
    """How alike strangers look to such a classifier.

    A second one is trained in the same way, for as long, without a quarter of the people; their
    faces are strangers to it. (Strangers to the first do not exist: it has learned from everybody.)

    Returns:
        (m,) best match of each stranger's face, (m,) number of the stranger, and how many people
        they were compared with.
    """
    people = material.people
    generator = np.random.default_rng(plan.seed)
    out = generator.permutation(people)[: max(2, round(people * STRANGERS_SHARE))]
    known = np.setdiff1d(np.arange(people), out)
    number = np.full(people, -1)
    number[known] = np.arange(len(known))
    owner: Owners = number[material.owner].astype(np.int64)
    inside = material.training[owner[material.training] >= 0]
    fewer = TrainingFaces(material.inputs, owner, len(known), inside, inside[:0])
    centre, head = beginning(plan, network, fewer, machine.device)
    # The rates follow the first run's schedule, cut where that one was best.
    refit(*prepared(plan, network, head, centre, fewer, machine), epochs, machine)
    trained = Trained(network.eval(), centre, head.directions.detach(), head.owner, epochs, epochs)
    outside = np.flatnonzero(owner < 0)
    best = trained.similarities(material.inputs, outside, len(known), machine.device).max(axis=1)
    return best.astype(np.float64), numbered(material.owner[outside]), len(known)


def fit_head(
    plan: ClassifierPlan,
    vectors: Vectors,
    owner: Owners,
    people: int,
    epochs: int,
    machine: Machine,
) -> tuple[Vectors, Owners]:
    """Directions among ready vectors, trained for a known number of epochs.

    Args:
        plan: how.
        vectors: (n, d) unit, off the centre.
        owner: (n,) whose they are.
        people: how many people.
        epochs: of the plan's schedule.
        machine: what it trains on.

    Returns:
        (m, d) unit directions and their (m,) owners, as `training.bundles.gallery.prototypes`.
    """
    every = np.arange(len(vectors))
    head = _head_from(plan, vectors, owner, people)
    material = TrainingFaces(vectors, owner, people, every, every[:0])
    centre = torch.zeros(vectors.shape[1])
    refit(*prepared(plan, None, head, centre, material, machine), epochs, machine)
    return head.directions.detach().numpy(), head.owner.numpy()


def length(
    plan: ClassifierPlan, vectors: Vectors, faces: Faces, run: Run, machine: Machine
) -> Fitted | None:
    """Train a head with a validation part, for its history and for how long it is to be trained.

    Where nobody has a photo to spare for that part, it is trained for as long as the plan says.

    Returns:
        What became of it; None in a process that only helps another one.
    """
    training, validation = split(faces, HELD_OUT_SHARE, plan.seed)
    if not len(validation):
        return None if is_helper() else Fitted(plan.epochs, plan.epochs, first=True)
    people = len(faces.people)
    centre = person_means(vectors[training], faces.owner[training], people).mean(axis=0)
    spread = unit(vectors - centre)
    head = _head_from(plan, spread[training], faces.owner[training], people)
    material = TrainingFaces(spread, faces.owner, people, training, validation)
    learner, data = prepared(plan, None, head, torch.zeros(spread.shape[1]), material, machine)
    fitted = fit(learner, data, run, plan.schedule, machine)
    if not fitted.first:
        return None
    return fitted if plan.patience else replace(fitted, epoch=fitted.epochs)


def beginning(
    plan: ClassifierPlan, network: Network, material: TrainingFaces, device: torch.device
) -> tuple[Tensor, CosineHead]:
    """A network's mean feature and a head to begin with."""
    people = material.people
    if plan.recipe is Recipe.FINETUNE:
        owner = material.owner[material.training]
        made = features(network.eval(), material.inputs, material.training, device)
        centre = person_means(made, owner, people).mean(axis=0)
        head = _head_from(plan, unit(made - centre), owner, people)
        return torch.from_numpy(np.asarray(centre, np.float32)), head
    # An untrained network's features say nothing about where to begin.
    generator = torch.Generator().manual_seed(plan.seed)
    directions = torch.randn(people, network.dimension, generator=generator)
    return torch.zeros(network.dimension), _cosine_head(plan, directions, torch.arange(people))


def _head_from(plan: ClassifierPlan, vectors: Vectors, owner: Owners, people: int) -> CosineHead:
    made, made_owner = prototypes(vectors, owner, people)
    return _cosine_head(plan, torch.from_numpy(made), torch.from_numpy(made_owner))


def _cosine_head(plan: ClassifierPlan, directions: Tensor, owner: Tensor) -> CosineHead:
    return CosineHead(
        normalize(directions, dim=1),
        owner,
        int(owner.max()) + 1,
        margin=plan.margin,
        scale=plan.scale,
        anchor=plan.anchor,
    )


def prepared(
    plan: ClassifierPlan,
    network: Network | None,
    head: CosineHead,
    centre: Tensor,
    material: TrainingFaces,
    machine: Machine,
) -> tuple[Learner, FaceBatches]:
    """What Lightning trains, by a plan, and with which batches.

    Args:
        plan: how.
        network: from `start`; None where the material is vectors already.
        head: from `beginning`.
        centre: (d) the mean feature.
        material: what is learned from.
        machine: what it trains on.
    """
    batches = FaceBatches(
        material.inputs,
        material.owner,
        material.training,
        material.validation,
        size=plan.batch,
        seed=plan.seed,
        pin=machine.pins,
    )
    learner = Learner(
        network,
        head,
        centre,
        rate=plan.rate,
        network_rate=plan.network_rate,
        steps=max(1, batches.steps * plan.epochs),
        weight_decay=plan.weight_decay,
        seed=plan.seed,
    )
    return learner, batches
