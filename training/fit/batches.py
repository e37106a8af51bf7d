"""Batches of faces in an order that only seed and epoch decide.

Any epoch can be drawn again without those before it, so that a run that was killed goes on as if
it had not been. Knows arrays; knows nothing about what is learned.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.vectors import Owners

Inputs = NDArray[np.uint8] | NDArray[np.float32]
"""(n, px, px, 3) crops or (n, d) vectors; may be a memory map."""

Batch = tuple[Tensor, Tensor]
"""Inputs and the (k,) int64 owners."""

IMBALANCE = 0.5
"""A person is drawn in proportion to their number of faces to the power of one minus this: 0 as
often as there are faces, 1 everybody alike."""


Made = TypeVar("Made")


class Prefetched(Generic[Made]):
    """The batches of one epoch; the next is made while the device works on this one.

    Args:
        count: how many.
        make: makes one, by its number.
    """

    def __init__(self, count: int, make: Callable[[int], Made]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Made]:
        with ThreadPoolExecutor(1, "batches") as pool:
            following = pool.submit(self._make, 0) if self._count else None
            for k in range(self._count):
                assert following is not None
                batch = following.result()
                if k + 1 < self._count:
                    following = pool.submit(self._make, k + 1)
                yield batch


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

    def train_dataloader(self) -> Prefetched[Batch]:
        """The batches of the trainer's current epoch: Lightning asks anew for every epoch."""
        assert self.trainer is not None
        order = self._order(self.trainer.current_epoch)
        # A short last batch would be too small for batch norms, or for every process to have some.
        whole = order[: self.steps * self._size]
        return self._batches(whole, self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> Prefetched[Batch]:
        """The validation part, in order; every process sees all of it."""
        return self._batches(self._validation, 0, 1)

    def _batches(self, order: Owners, rank: int, ranks: int) -> Prefetched[Batch]:
        """This process's share of each batch."""

        def make(k: int) -> Batch:
            part = order[k * self._size : (k + 1) * self._size][rank::ranks]
            inputs = torch.from_numpy(np.ascontiguousarray(self._inputs[part]))
            owner = torch.from_numpy(self._owner[part])
            return (inputs.pin_memory(), owner.pin_memory()) if self._pin else (inputs, owner)

        return Prefetched(-(-len(order) // self._size), make)

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
