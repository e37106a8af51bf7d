"""Faces to an embedder of one's own: metric learning, and whether it was worth it.

Three ways in: the last stages of an embedder's network, an adapter on top of a frozen embedder, or
a network from nothing. Each is judged on people held out altogether. Where people are few they are
held out in turns, in folds, and what goes into the bundle is trained again on everybody: the
figures are those of its like, trained on fewer people. Where they are many, they are held out once,
and the very network that was measured goes into the bundle. How much of what was learned is kept,
weights part of the way back to the start's, is what serves the people trained on best while the
people held out are better off than before.

Knows which parts a vectorizer is made of; knows nothing about the command line.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.bundle import Bundle, save
from engine.vision import adapter, embed, networks
from engine.vision.adapter import Adapter, Form
from engine.vision.networks import Network
from training.bundles.gallery import Source, record
from training.console import progress
from training.datasets import data, pixels
from training.datasets.data import Faces
from training.fit import disjoint, pretrained, runs
from training.fit.disjoint import FMR, Change, Compared, Fold
from training.fit.face_batches import Crops, FaceSource, PeopleBatches, Versions, degraded
from training.fit.fitting import Machine, Schedule, fit, refit
from training.fit.learner import unfreeze
from training.fit.metric_learner import Loss, MetricLearner
from training.fit.runs import Run
from training.measure.verification import Pairs
from training.tools import Tools
from training.vectors import Owners, Vectors, mean_face

SURE = 0.9
"""Share of bootstrap samples that must agree before a rise counts: the blend was chosen by these
very figures, and the best of several looks a little better than it is."""

BLENDS = (0.25, 0.5, 0.75, 1.0)
"""Of what was learned, the shares to choose from."""

DISTILLED_BLENDS = (0.2, 0.4, 0.6)
"""The same where a network learned to see degraded faces: a handful of people held out cannot tell
that everybody else is worse off near 1, and is (tests/benchmarks/domain.py)."""

_DEGRADED_VERSIONS = 4
_BATCH = 32


class TrainingVerdict(StrEnum):
    """What the held-out people say.

    Attributes:
        BETTER: they are told apart better than before, and surely so, they or the people trained
            on.
        NOT_BETTER: they are not, or nobody surely.
        STRANGERS_FALL: they are told apart worse, and the people trained on better.
        FROM_NOTHING: there was nothing to be better than.
    """

    BETTER = "better"
    NOT_BETTER = "not_better"
    STRANGERS_FALL = "strangers_fall"
    FROM_NOTHING = "from_nothing"


@dataclass(frozen=True, slots=True)
class VectorizerPlan:
    """Everything that decides how a vectorizer is trained.

    Attributes:
        start: id of the embedder that it starts from; None for a network from nothing.
        form: of the adapter; None trains a network.
        stages: how many of the network's last stages learn; all of one from nothing.
        network: of torchvision, for one from nothing.
        input_px: side of its crops.
        loss: what pulls vectors together and apart.
        hold: how strongly they are held to the start's.
        strength: of the degradation that is trained for; 0 leaves the pictures as they are.
        epochs: how often it goes through the faces.
        rate: highest learning rate.
        blend: share of the way from the start's weights to the trained ones that is kept; None
            lets the people held out choose.
        people: in a batch.
        each: faces of a person in a batch.
        folds: how often people are held out; None chooses by how many there are.
        seed: of everything random.
    """

    start: str | None
    form: Form | None
    stages: int
    network: str | None
    input_px: int | None
    loss: Loss
    hold: float
    strength: float
    epochs: int
    rate: float
    blend: float | None = None
    people: int = 12
    each: int = 5
    folds: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Judgement:
    """Before and after.

    Attributes:
        verdict: in one word.
        strangers: people who were held out, at each FMR that their pairs support.
        members: other faces of the people trained on; empty where they have too few.
    """

    verdict: TrainingVerdict
    strangers: Sequence[Change]
    members: Sequence[Change]

    def keeps(self, *, accept_worse_strangers: bool) -> bool:
        """Whether the result is to be used.

        Args:
            accept_worse_strangers: also where only the people trained on are better off.
        """
        if self.verdict in {TrainingVerdict.BETTER, TrainingVerdict.FROM_NOTHING}:
            return True
        return accept_worse_strangers and bool(self.members) and self.members[0].gain > 0


@dataclass(frozen=True, slots=True)
class MeasuredBlend:
    """What there is to choose from: a share of what was learned, and what it would give.

    Attributes:
        blend: the share; 0 is the start.
        strangers: TAR of the people held out at `FMR`, over all folds.
        members: the same of other faces of the people trained on; 0 where they have too few.
    """

    blend: float
    strangers: float
    members: float


@dataclass(frozen=True)
class Outcome:
    """A trained vectorizer.

    Attributes:
        trunk: the network or the adapter, on the CPU, in evaluation mode.
        judgement: whether it was worth it.
        blend: the share of what was learned that is kept.
        candidates: the start, and every share that was measured.
        folds: how many.
        kept: whether it is to be used; where not, `trunk` is the last fold's.
        refitted: whether `trunk` was trained again on everybody.
    """

    trunk: Network | Adapter
    judgement: Judgement
    blend: float
    candidates: Sequence[MeasuredBlend]
    folds: int
    kept: bool
    refitted: bool


@dataclass(frozen=True)
class _Ground:
    """What every fold works on: the faces as they are trained and measured with.

    Attributes:
        material: for training and measuring.
        clean: (n, d) the start's vectors of the undegraded faces.
        before: (n, d) its vectors of the faces as they are measured with.
    """

    material: FaceSource
    clean: Vectors
    before: Vectors


def train(
    faces: Faces,
    plan: VectorizerPlan,
    tools: Tools,
    name: str,
    weights_folder: Path,
    *,
    accept_worse_strangers: bool = False,
    folder: Path = runs.FOLDER,
) -> tuple[Outcome, list[Run]]:
    """Train and judge; goes on where the same call was cut off.

    Args:
        faces: the dataset.
        plan: how.
        tools: the device, and the embedder to start from or, from nothing, to be compared with.
        name: of the run.
        weights_folder: where downloaded weights are.
        accept_worse_strangers: see `Judgement.keeps`.
        folder: where runs live.

    Returns:
        The outcome, and the runs to `finish` once it is written.

    Raises:
        ValueError: there are too few people or faces to judge.
        ConfigurationError: the start has no network to train, or its weights are missing.
    """
    folds = disjoint.divide(faces, plan.seed, plan.folds)
    _require_support(faces, folds, plan.seed)
    ground = _ground(faces, plan, tools, weights_folder)
    machine = Machine(tools.device, precision="32-true")
    schedule = Schedule(plan.epochs, validates=False)
    blends = _blends(plan)
    before, after, begun, learner = [], [], [], None
    for k, fold in enumerate(folds):
        run = runs.begin(
            name if len(folds) == 1 else f"{name}/fold-{k + 1}",
            {
                "kind": "vectorizer",
                "plan": asdict(plan),
                "start": data.key(tools.embedder.specification),
                "faces": runs.fingerprint(faces),
                "fold": k,
            },
            folder,
        )
        begun.append(run)
        learner, batches = _prepared(faces, plan, ground, fold, weights_folder)
        fit(learner, batches, run, schedule, machine)
        probes = np.concatenate([fold.strangers, fold.members])
        owner, stranger = faces.owner[probes], np.isin(probes, fold.strangers)
        before.append(disjoint.compare(ground.before[probes], owner, stranger, plan.seed))
        served = [
            _served(learner.blended(share), ground.material, probes, tools.device)
            for share in blends
        ]
        after.append([disjoint.compare(made, owner, stranger, plan.seed) for made in served])
    assert learner is not None
    start, *candidates = _candidates(before, after, blends)
    blend = choose(start, candidates)
    judgement = _judge(before, [found[blends.index(blend)] for found in after], plan)
    kept = judgement.keeps(accept_worse_strangers=accept_worse_strangers)
    refitted = kept and len(folds) > 1
    if refitted:
        everybody = np.arange(len(faces))
        whole = Fold(everybody, everybody[:0], everybody[:0])
        learner, batches = _prepared(faces, plan, ground, whole, weights_folder)
        refit(learner, batches, plan.epochs, machine)
    measured = (start, *candidates)
    trunk = learner.blended(blend)
    return Outcome(trunk, judgement, blend, measured, len(folds), kept, refitted), begun


def write(
    out: Path,
    outcome: Outcome,
    plan: VectorizerPlan,
    faces: Faces,
    start: embed.Specification,
    source: Source,
) -> Bundle:
    """Write a vectorizer bundle.

    Args:
        out: its path without suffix.
        outcome: from `train`.
        plan: how it was trained.
        faces: what it was trained on.
        start: of the embedder it started from; ignored for one from nothing.
        source: what to say about the data.
    """
    trunk = outcome.trunk
    own = f"trained on {source.dataset} ({source.licence})"
    architecture = trunk.architecture() | {
        "licence": own if plan.start is None else f"{start.licence}; {own}",
        "training": {key: value for key, value in asdict(plan).items() if value is not None},
    }
    manifest = record("vectorizer", faces, start, source) | {
        "people": {},
        "architecture": architecture,
        "calibration": None,
        "metrics": metrics(outcome.judgement),
    }
    if plan.start is None:
        manifest["embedder"] = None
    tensors = adapter.state(trunk) if isinstance(trunk, Adapter) else networks.state(trunk)
    return save(out, manifest, tensors)


def metrics(judgement: Judgement) -> dict[str, float]:
    """The figures as a bundle keeps them."""
    named: dict[str, float] = {}
    for who, changes in (("strangers", judgement.strangers), ("members", judgement.members)):
        for change in changes:
            rate = f"{change.fmr:.0e}".replace("e-0", "e-")
            named[f"{who}_tar_before_at_fmr_{rate}"] = round(change.before, 5)
            named[f"{who}_tar_at_fmr_{rate}"] = round(change.after, 5)
    return named


# --- What is trained on ---


def _ground(faces: Faces, plan: VectorizerPlan, tools: Tools, weights_folder: Path) -> _Ground:
    base = tools.embedder
    with progress("Embedding faces", len(faces)) as advance:
        clean = data.vectors(faces, base, advance)
    if plan.form is None:
        trunk = _trunk(plan, base.specification.dimension, weights_folder)
        assert isinstance(trunk, Network)
        with progress("Cutting crops", len(faces)) as advance:
            crops = pixels.mapped(faces, trunk.template, advance)
        morph = plan.loss is Loss.DISTILL
        material: FaceSource = Crops(crops, plan.strength, morph=morph, seed=plan.seed)
    if plan.strength == 0.0:
        before = clean
        if plan.form is not None:
            material = Versions(clean[None])
    else:
        count = _DEGRADED_VERSIONS if plan.form is not None else 1
        versions = _degraded_versions(faces, plan, base, count)
        before = versions[-1]
        if plan.form is not None:
            material = Versions(np.concatenate([clean[None], versions]))
    return _Ground(material, clean, before)


def _degraded_versions(
    faces: Faces, plan: VectorizerPlan, base: embed.Embedder, count: int
) -> NDArray[np.float32]:
    """(count, n, d) vectors of the faces, degraded as often; the last as `Crops.probe` does."""
    form = base.specification
    made = np.empty((count, len(faces), form.dimension), np.float32)
    with progress("Embedding degraded faces", count * len(faces)) as advance:
        for start in range(0, len(faces), _BATCH):
            index = np.arange(start, min(start + _BATCH, len(faces)))
            crops = data.read_crops(faces, index.tolist(), form.template)
            for k in range(count):
                # The last version has the plan's own seed.
                seed = plan.seed + (count - 1 - k) * 1_000_003
                worse = degraded(crops, index, plan.strength, seed)
                made[k, index] = embed.embed_crops(base, worse).cpu().numpy()
            advance(count * (start + len(index)))
    return made


def _blends(plan: VectorizerPlan) -> tuple[float, ...]:
    """The shares of what was learned that the people held out choose from."""
    if plan.start is None:
        return (1.0,)
    if plan.blend is not None:
        return (plan.blend,)
    return DISTILLED_BLENDS if plan.loss is Loss.DISTILL and plan.form is None else BLENDS


def _trunk(plan: VectorizerPlan, dimension: int, weights_folder: Path) -> Network | Adapter:
    """What is to be trained, as it is before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        if plan.form is not None:
            return Adapter(plan.form, dimension)
        if plan.start is not None:
            network = pretrained.embedder_network(plan.start, weights_folder)
            unfreeze(network, plan.stages)
            return network
        assert plan.network is not None
        return networks.build(plan.network, plan.input_px)


def _prepared(
    faces: Faces, plan: VectorizerPlan, ground: _Ground, fold: Fold, weights_folder: Path
) -> tuple[MetricLearner, PeopleBatches]:
    """A learner and its batches."""
    trunk = _trunk(plan, ground.clean.shape[1], weights_folder)
    centre = torch.zeros(trunk.dimension)
    if plan.start is not None:
        learned = ground.clean[fold.training]
        centre = torch.from_numpy(mean_face(learned, faces.owner[fold.training]))
    if isinstance(trunk, Adapter):
        trunk.centre.copy_(centre)
    # Losses with a centre a person count the people learned from only; the others come after.
    present = np.unique(faces.owner[fold.training])
    others = np.setdiff1d(np.arange(len(faces.people)), present)
    number = np.empty(len(faces.people), np.int64)
    number[np.concatenate([present, others])] = np.arange(len(faces.people))
    batches = PeopleBatches(
        ground.material,
        number[faces.owner],
        fold.training,
        people=plan.people,
        each=plan.each,
        seed=plan.seed,
    )
    learner = MetricLearner(
        trunk,
        plan.loss,
        people=len(present),
        centre=centre,
        hold=plan.hold if plan.start is not None else 0.0,
        rate=plan.rate,
        steps=plan.epochs * batches.steps,
        seed=plan.seed,
    )
    return learner, batches


# --- How good it is ---


def _served(
    trunk: Network | Adapter, material: FaceSource, index: Owners, device: torch.device
) -> Vectors:
    """(k, d) unit vectors of faces as they are measured with, made as the engine makes them."""
    trunk.to(device)
    made = []
    with torch.inference_mode():
        for k in range(0, len(index), _BATCH):
            part = material.probe(index[k : k + _BATCH])
            if isinstance(trunk, Adapter):
                made.append(trunk(torch.from_numpy(part).to(device)))
            else:
                made.append(networks.features(trunk, part.astype(np.uint8), device))
    return np.asarray(torch.cat(made).cpu().numpy(), np.float32)


def _candidates(
    before: Sequence[Compared], after: Sequence[Sequence[Compared]], blends: Sequence[float]
) -> list[MeasuredBlend]:
    """The start, and each blend; every fold counts by its genuine pairs.

    Args:
        before: the start, in each fold.
        after: the blends, in each fold.
        blends: their shares.
    """

    def mean(found: Sequence[Compared], who: str) -> float:
        weight = np.array([len(getattr(part, who).genuine) for part in found], np.float64)
        reached = [disjoint.tar(getattr(part, who)) for part in found]
        return float(weight @ reached / weight.sum()) if weight.sum() else 0.0

    measured = [before, *zip(*after, strict=True)]
    return [
        MeasuredBlend(blend, mean(found, "strangers"), mean(found, "members"))
        for blend, found in zip((0.0, *blends), measured, strict=True)
    ]


def choose(start: MeasuredBlend, candidates: Sequence[MeasuredBlend]) -> float:
    """The share that is best for the people trained on while strangers gain.

    All folds choose together: the best for a handful of people alone is mostly chance. Where
    strangers gain from none, the one that they lose least by.
    """
    sound = [found for found in candidates if found.strangers > start.strangers]
    if not sound:
        return max(candidates, key=lambda found: found.strangers).blend
    return max(sound, key=lambda found: (found.members, found.strangers)).blend


def _require_support(faces: Faces, folds: Sequence[Fold], seed: int) -> None:
    """Raise ValueError before anything is trained that could not be judged."""
    for fold in folds:
        owner = faces.owner[fold.strangers]
        blank = np.zeros((len(owner), 1), np.float32)
        pairs = disjoint.compared(blank, owner, np.ones(1, np.float32), seed)
        if FMR not in disjoint.supported([pairs]) or not len(pairs.genuine):
            raise ValueError(
                f"The faces of people held out are compared {len(pairs.impostor)} times with "
                f"somebody else's, too few for a rate of false matches of {FMR:.0%}. Add people "
                "or photos."
            )


def _judge(
    before: Sequence[Compared], after: Sequence[Compared], plan: VectorizerPlan
) -> Judgement:
    strangers = _changes([c.strangers for c in before], [c.strangers for c in after], plan.seed)
    members = _changes([c.members for c in before], [c.members for c in after], plan.seed)
    return Judgement(_verdict(strangers, members, plan), strangers, members)


def _changes(before: Sequence[Pairs], after: Sequence[Pairs], seed: int) -> list[Change]:
    # In a fold in which nobody has two other faces there is no pair to compare.
    usable = [k for k, pairs in enumerate(before) if len(pairs.genuine)]
    old, new = [before[k] for k in usable], [after[k] for k in usable]
    rates = disjoint.supported(old) if usable else []
    return [disjoint.change(old, new, rate, seed) for rate in rates]


def _verdict(
    strangers: Sequence[Change], members: Sequence[Change], plan: VectorizerPlan
) -> TrainingVerdict:
    if plan.start is None:
        return TrainingVerdict.FROM_NOTHING
    others, own = strangers[0], members[0] if members else None
    if others.gain > 0 and max(others.certainty, own.certainty if own else 0.0) >= SURE:
        return TrainingVerdict.BETTER
    if others.gain < 0 and own is not None and own.gain > 0:
        return TrainingVerdict.STRANGERS_FALL
    return TrainingVerdict.NOT_BETTER
