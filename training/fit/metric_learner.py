"""What Lightning trains in metric learning: a network or an adapter, so that people come apart.

Knows how a batch becomes a loss, and how the result is blended with the start; knows nothing about
files, bundles or figures.
"""

import copy
from enum import StrEnum
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_metric_learning import losses
from torch import Tensor, nn
from torch.nn.functional import normalize

from engine.vision.adapter import Adapter
from engine.vision.networks import Network
from engine.vision.vectors import centred
from training.fit.face_batches import FaceBatch
from training.fit.learner import batch_seed, freeze_statistics, one_cycle, pixels

_WARM_UP = 0.15
_CENTRES_RATE = 1e-2
_SCALE = 32.0
_TEMPERATURE = 0.1
_SUB_CENTRES = 3


class Loss(StrEnum):
    """What pulls vectors together and apart.

    Attributes:
        DISTILL: nothing but the start's own vector of the undegraded face (Hinton et al. 2015).
        ARCFACE: additive angular margin (Deng et al. 2019).
        SUBCENTER_ARCFACE: the same with several centres a person, for wrong labels (2020).
        COSFACE: additive cosine margin (Wang et al. 2018).
        SUPCON: supervised contrastive (Khosla et al. 2020).
    """

    DISTILL = "distill"
    ARCFACE = "arcface"
    SUBCENTER_ARCFACE = "subcenter-arcface"
    COSFACE = "cosface"
    SUPCON = "supcon"


class MetricLearner(lightning.LightningModule):
    """An embedder in training.

    Args:
        trunk: a network on crops or an adapter on vectors, as it is before training.
        loss: what pulls.
        people: how many are learned from; owners of higher numbers are strangers.
        centre: (d) the start's mean face, taken off before cosines; zero without a start.
        hold: how strongly each vector is held to the start's of the same face, undegraded; 0
            without a start.
        rate: highest learning rate.
        steps: of the whole run: the rate rises over its beginning and falls along a cosine.
        seed: of what is random in the network itself.
    """

    centre: Tensor

    def __init__(
        self,
        trunk: Network | Adapter,
        loss: Loss,
        *,
        people: int,
        centre: Tensor,
        hold: float,
        rate: float,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self._people = people
        self.criterion = _criterion(loss, people, trunk.dimension, seed)
        self.register_buffer("centre", centre.clone())
        # Not a submodule: it neither learns nor goes into checkpoints.
        self._start = (copy.deepcopy(trunk).eval().requires_grad_(False),)
        self._hold = hold
        self._rate = rate
        self._steps = steps
        self._seed = seed

    @torch.no_grad()
    def blended(self, share: float) -> Network | Adapter:
        """What is served: the start, and a share of the way from it to what was learned.

        The rest keeps what the start knows of everybody else (WiSE-FT, Wortsman et al. 2022).

        Args:
            share: 0 is the start, 1 the trunk as it was trained.

        Returns:
            A copy on the trunk's device, in evaluation mode.
        """
        made = copy.deepcopy(self.trunk).eval().requires_grad_(False)
        for name, start in self._start[0].state_dict().items():
            value = made.state_dict()[name]
            if value.is_floating_point() and share < 1.0:
                value.copy_(torch.lerp(start.to(value.device), value, share))
        return made

    def on_fit_start(self) -> None:
        """Bring the start, which is no part of the module, to where the module is."""
        self._start[0].to(self.device)

    def on_train_epoch_start(self) -> None:
        """Keep the batch statistics of frozen stages as they are."""
        freeze_statistics(self.trunk)

    def training_step(self, batch: FaceBatch, index: int) -> Tensor:
        """The loss of one batch."""
        seen, clean, owner = batch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch_seed(self, self._seed, index))  # for networks with dropout
            vectors = self._off_centre(self.trunk, seen)
        loss = vectors.new_zeros(())
        if self._hold:
            with torch.no_grad():
                wanted = self._off_centre(self._start[0], clean)
            loss = loss + self._hold * (1 - (vectors * wanted).sum(dim=1)).mean()
        if self.criterion is not None:
            loss = loss + self.criterion(vectors, owner)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(owner))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with one cycle of warm-up and cosine decay."""
        groups = [
            {"params": [p for p in self.trunk.parameters() if p.requires_grad], "lr": self._rate}
        ]
        if self.criterion is not None and list(self.criterion.parameters()):
            groups.append({"params": list(self.criterion.parameters()), "lr": _CENTRES_RATE})
        optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
        return one_cycle(optimizer, self._steps + 1, _WARM_UP)

    def _off_centre(self, trunk: nn.Module, inputs: Tensor) -> Tensor:
        if isinstance(trunk, Adapter):
            made: Tensor = trunk(inputs)  # takes its centre off itself
            return made
        return centred(normalize(trunk(pixels(inputs)).float(), dim=1), self.centre)


def _criterion(loss: Loss, people: int, dimension: int, seed: int) -> nn.Module | None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the people's first centres
        match loss:
            case Loss.DISTILL:
                return None
            case Loss.ARCFACE:
                made: nn.Module = losses.ArcFaceLoss(people, dimension, scale=_SCALE)
            case Loss.SUBCENTER_ARCFACE:
                made = losses.SubCenterArcFaceLoss(
                    num_classes=people,  # it takes this one by its name only
                    embedding_size=dimension,
                    scale=_SCALE,
                    sub_centers=_SUB_CENTRES,
                )
            case Loss.COSFACE:
                made = losses.CosFaceLoss(people, dimension, scale=_SCALE)
            case Loss.SUPCON:
                made = losses.SupConLoss(temperature=_TEMPERATURE)
    return made
