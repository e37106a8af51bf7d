"""Batches for metric learning: a few faces of each of a few people, degraded where that is wanted.

What a batch holds is decided by seed, epoch and batch alone, so that a run that was killed goes on
as if it had not been. Knows arrays; knows nothing about losses.
"""

from typing import Protocol

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.fit.batches import Prefetched
from training.fit.degrade import degrade
from training.vectors import Owners

Inputs = NDArray[np.uint8] | NDArray[np.float32]
FaceBatch = tuple[Tensor, Tensor, Tensor]
"""What is seen, the same faces undegraded, and the (k,) int64 owners."""

_MORPHED_SHARE = 0.7
_MOST_MORPHED = 0.5


class FaceSource(Protocol):
    """What a network or an adapter sees of the faces."""

    def draw(self, index: Owners, generator: np.random.Generator) -> tuple[Inputs, Inputs]:
        """Some faces as they are learned from, another way each time, and undegraded."""
        ...

    def probe(self, index: Owners) -> Inputs:
        """Some faces as they are measured with, always the same."""
        ...


class Crops:
    """Pictures, for a network.

    Args:
        crops: (n, px, px, 3) RGB; may be a memory map.
        strength: of the degradation, see `training.fit.degrade.draw`.
        morph: whether to fade most faces into another of the batch. Nobody's face comes of it, so
            only what needs no owners may be learned from it; but of a few people's faces it makes
            ever new ones (as Beyer et al. 2022 do for a patient teacher, "Knowledge distillation").
        seed: decides how a face is degraded when it is measured with.
    """

    def __init__(
        self, crops: NDArray[np.uint8], strength: float, *, morph: bool, seed: int
    ) -> None:
        self._crops = crops
        self._strength = strength
        self._morph = morph
        self._seed = seed

    def draw(
        self, index: Owners, generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Mirrored or not, morphed or not, degraded anything from not at all to fully."""
        clean = np.array(self._crops[index])
        mirrored = generator.random(len(index)) < 0.5
        clean[mirrored] = clean[mirrored, :, ::-1]
        if self._morph:
            share = generator.uniform(0.0, _MOST_MORPHED, len(index))
            share[generator.random(len(index)) >= _MORPHED_SHARE] = 0.0
            share_of_other = share[:, None, None, None].astype(np.float32)
            other = clean[generator.permutation(len(index))]
            clean = (clean + (other - clean.astype(np.float32)) * share_of_other).astype(np.uint8)
        # Bad pictures are what it is for, and the hardest to learn: half of them come with more
        # than four fifths of the strength.
        strength = self._strength * generator.random(len(index)) ** 0.25
        pairs = zip(clean, strength.tolist(), strict=True)
        return np.stack([degrade(crop, much, generator) for crop, much in pairs]), clean

    def probe(self, index: Owners) -> NDArray[np.uint8]:
        """Degraded fully."""
        return degraded(self._crops[index], index, self._strength, self._seed)


class Versions:
    """Vectors of the faces in a few versions, for an adapter.

    Args:
        versions: (versions, n, d), the first of the undegraded faces, the last being what is
            measured with.
    """

    def __init__(self, versions: NDArray[np.float32]) -> None:
        self._versions = versions

    def draw(
        self, index: Owners, generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Each face in any of its versions, and in the first."""
        chosen = generator.integers(0, len(self._versions), len(index))
        return np.asarray(self._versions[chosen, index]), np.asarray(self._versions[0, index])

    def probe(self, index: Owners) -> NDArray[np.float32]:
        """The last version."""
        return np.asarray(self._versions[-1, index])


def degraded(
    crops: NDArray[np.uint8], index: Owners, strength: float, seed: int
) -> NDArray[np.uint8]:
    """Faces degraded each in its own way, which number and seed decide."""
    made = [
        degrade(crop, strength, np.random.default_rng((seed, int(i))))
        for crop, i in zip(crops, index, strict=True)
    ]
    return np.stack(made) if made else np.asarray(crops)


class PeopleBatches(lightning.LightningDataModule):
    """Training batches balanced by person, for Lightning.

    Args:
        material: the faces.
        owner: (n,) whose they are.
        training: indices of the faces learned from.
        people: in a batch, at most.
        each: faces of a person in a batch.
        seed: decides the order, with the epoch.
    """

    def __init__(
        self,
        material: FaceSource,
        owner: Owners,
        training: Owners,
        *,
        people: int,
        each: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._material = material
        self._owner = owner
        self._size = people * each
        self._each = each
        self._seed = seed
        whose = owner[training]
        self._members = [training[whose == person] for person in np.unique(whose)]
        # As many faces of everybody as people have on average.
        self._handfuls = max(1, round(len(training) / len(self._members) / each))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return max(1, self._handfuls * len(self._members) * self._each // self._size)

    def train_dataloader(self) -> Prefetched[FaceBatch]:
        """The batches of the trainer's current epoch: Lightning asks anew for every epoch."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        order = self._order(np.random.default_rng((self._seed, epoch)))
        rank, ranks = self.trainer.global_rank, self.trainer.world_size

        def make(k: int) -> FaceBatch:
            part = order[k * self._size : (k + 1) * self._size][rank::ranks]
            generator = np.random.default_rng((self._seed, epoch, k, rank))
            seen, clean = self._material.draw(part, generator)
            owner = torch.from_numpy(self._owner[part])
            return torch.from_numpy(seen), torch.from_numpy(clean), owner

        return Prefetched(self.steps, make)

    def _order(self, generator: np.random.Generator) -> Owners:
        """Handfuls of one person's faces, in an order in which people follow upon others."""
        wanted = self._handfuls * self._each
        drawn = []
        for own in self._members:
            rounds = -(-wanted // len(own))
            faces = np.concatenate([generator.permutation(own) for _ in range(rounds)])[:wanted]
            drawn.append(faces.reshape(self._handfuls, self._each))
        # Round after round through everybody, so that a batch holds different people.
        turns = np.stack(drawn, axis=1)
        return np.concatenate([generator.permutation(part).ravel() for part in turns])
