"""Batches of faces in an order that only seed and epoch decide.

Any epoch can be drawn again without those before it, so that a run that was killed goes on as if
it had not been. Knows arrays; knows nothing about what is learned.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets.data import Owners

Inputs = NDArray[np.uint8] | NDArray[np.float32]
"""(n, px, px, 3) crops or (n, d) vectors; may be a memory map."""

Batch = tuple[Tensor, Tensor]
"""Inputs and the (k,) int64 owners."""

IMBALANCE = 0.5
"""A person is drawn in proportion to their number of faces to the power of one minus this: 0 as
often as there are faces, 1 everybody alike."""


class Batches:
    """The batches of one epoch.

    Args:
        inputs: all faces.
        owner: (n,) whose they are.
        order: (m,) indices of the faces to go through.
        size: of a batch.
        rank, ranks: which share of each batch is this process's.
        pin: whether a GPU will fetch them.
    """

    def __init__(
        self,
        inputs: Inputs,
        owner: Owners,
        order: Owners,
        size: int,
        rank: int = 0,
        ranks: int = 1,
        *,
        pin: bool = False,
    ) -> None:
        self._pin = pin
        self._inputs = inputs
        self._owner = owner
        self._parts = [
            order[start : start + size][rank::ranks] for start in range(0, len(order), size)
        ]

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Batch]:
        # The next batch is gathered while the device works on this one.
        with ThreadPoolExecutor(1, "batches") as pool:
            following = pool.submit(self._gather, self._parts[0]) if self._parts else None
            for k in range(len(self._parts)):
                assert following is not None
                batch = following.result()
                if k + 1 < len(self._parts):
                    following = pool.submit(self._gather, self._parts[k + 1])
                yield batch

    def _gather(self, part: Owners) -> Batch:
        inputs = torch.from_numpy(np.ascontiguousarray(self._inputs[part]))
        owner = torch.from_numpy(self._owner[part])
        if self._pin:
            return inputs.pin_memory(), owner.pin_memory()
        return inputs, owner


class FaceBatches(lightning.LightningDataModule):
    """Training and validation batches, for Lightning.

    Args:
        inputs: all faces, or their vectors.
        owner: (n,) whose they are.
        training, validation: indices of the two parts.
        size: of a batch.
        seed: decides the order, with the epoch.
        pin: whether a GPU will fetch the batches.
    """

    def __init__(
        self,
        inputs: Inputs,
        owner: Owners,
        training: Owners,
        validation: Owners,
        *,
        size: int,
        seed: int,
        pin: bool = False,
    ) -> None:
        super().__init__()
        self._inputs = inputs
        self._owner = owner
        self._training = training
        self._validation = validation
        self._size = size
        self._seed = seed
        self._pin = pin

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return max(1, len(self._training) // self._size)

    def train_dataloader(self) -> Batches:
        """The batches of the trainer's current epoch: Lightning asks anew for every epoch."""
        assert self.trainer is not None
        order = self._order(self.trainer.current_epoch)
        # A short last batch would be too small for batch norms, or for every process to have some.
        whole = order[: self.steps * self._size]
        return Batches(
            self._inputs,
            self._owner,
            whole,
            self._size,
            self.trainer.global_rank,
            self.trainer.world_size,
            pin=self._pin,
        )

    def val_dataloader(self) -> Batches:
        """The validation part, in order; every process sees all of it."""
        return Batches(self._inputs, self._owner, self._validation, self._size, pin=self._pin)

    def _order(self, epoch: int) -> Owners:
        generator = np.random.default_rng((self._seed, epoch))
        owner = self._owner[self._training]
        counts = np.bincount(owner)
        if counts[counts > 0].min() == counts.max():
            return generator.permutation(self._training)
        weight = counts[owner].astype(np.float64) ** -IMBALANCE
        # Drawn with replacement, so that people with few faces come more than once.
        drawn = generator.choice(len(owner), len(owner), p=weight / weight.sum())
        order: Owners = self._training[drawn]
        return order
