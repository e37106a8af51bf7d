"""What Lightning trains: a network (or none, on ready vectors) below a head.

Knows how a batch becomes a loss; knows nothing about files, epochs or when to stop.
"""

from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from engine.vision.networks import Network
from engine.vision.vectors import centred
from training.fit.augment import augment
from training.fit.batches import Batch
from training.fit.head import CosineHead


class Learner(lightning.LightningModule):
    """A classifier in training.

    Args:
        network: from crops to features; None where the inputs are vectors already.
        head: tells people apart by features.
        centre: (d) the mean feature, taken off before cosines.
        rate: highest learning rate of the head.
        network_rate: that of the network's trainable parameters.
        steps: of the whole run: the rates rise over the first tenth and fall along a cosine.
        weight_decay: of the network.
        seed: decides the augmentation and what is random in the network, with epoch and batch.
    """

    centre: Tensor

    def __init__(
        self,
        network: Network | None,
        head: CosineHead,
        centre: Tensor,
        *,
        rate: float,
        network_rate: float = 0.0,
        steps: int,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.register_buffer("centre", centre)
        self._rate = rate
        self._network_rate = network_rate
        self._steps = steps
        self._weight_decay = weight_decay
        self._seed = seed

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, d) vectors or (n, 3, px, px) pixels to (n, d) unit features off the centre."""
        features = inputs if self.network is None else self.network(inputs)
        if self.network is not None:
            features = torch.nn.functional.normalize(features.float(), dim=1)
        return centred(features, self.centre)

    def on_train_epoch_start(self) -> None:
        """Keep the batch statistics of frozen stages as they are."""
        if self.network is not None:
            freeze_statistics(self.network)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss of one batch."""
        inputs, truth = batch
        seed = batch_seed(self, self._seed, index)
        if self.network is not None:
            inputs = augment(pixels(inputs), torch.Generator().manual_seed(seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # for networks with dropout
            features = self(inputs)
        loss = self.head.loss(features, truth)
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, batch_size=len(truth), sync_dist=True
        )
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: ARG002
        """Loss without margin, and the share of faces whose person comes first."""
        inputs, truth = batch
        similarity = self.head(self(inputs if self.network is None else pixels(inputs)))
        loss = cross_entropy(similarity * self.head.scale, truth)
        own = similarity.gather(1, truth[:, None])
        rank = (similarity > own).sum(dim=1)
        values = {
            "val_loss": loss,
            "val_top_1": (rank == 0).float().mean(),
            "val_top_5": (rank < 5).float().mean(),
        }
        self.log_dict(values, on_epoch=True, batch_size=len(truth), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW with one cycle of warm-up and cosine decay."""
        groups = [{"params": list(self.head.parameters()), "lr": self._rate, "weight_decay": 0.0}]
        if self.network is not None:
            trained = [p for p in self.network.parameters() if p.requires_grad]
            if trained:
                groups.append(
                    {
                        "params": trained,
                        "lr": self._network_rate,
                        "weight_decay": self._weight_decay,
                    }
                )
        # It divides by zero where the warm-up is one step exactly.
        warm_up = 0.1 if self._steps > 10 else 0.15
        return one_cycle(torch.optim.AdamW(groups), self._steps, warm_up)


def one_cycle(optimizer: torch.optim.Optimizer, steps: int, warm_up: float) -> Any:
    """What Lightning steps: rates that rise over the first part of a run and fall along a cosine.

    Args:
        optimizer: its groups have their highest rates.
        steps: of the whole run.
        warm_up: the share of them over which rates rise.
    """
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps, pct_start=warm_up
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def batch_seed(module: lightning.LightningModule, seed: int, index: int) -> int:
    """What is random in a batch, by the run's seed, epoch, batch and process."""
    words = (seed, module.current_epoch, index, module.global_rank)
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def pixels(crops: Tensor) -> Tensor:
    """(n, px, px, 3) uint8 crops to (n, 3, px, px) float pixels from 0 to 255."""
    return crops.permute(0, 3, 1, 2).float()


def unfreeze(network: Network, last: int) -> int:
    """Let the last stages of a network learn, and nothing before them.

    Args:
        network: any.
        last: how many of its `stages()`, from the features' side; more than there are is all.

    Returns:
        How many parameters (numbers) learn.
    """
    network.requires_grad_(False)
    trained = [parameter for stage in network.stages()[-last:] for parameter in stage]
    for parameter in trained if last else []:
        parameter.requires_grad_(True)
    return sum(parameter.numel() for parameter in trained) if last else 0


def freeze_statistics(network: nn.Module) -> None:
    """Put the batch norms that do not learn into evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(
            parameter.requires_grad for parameter in module.parameters()
        ):
            module.eval()
