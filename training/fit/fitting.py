"""One training run from first batch to best weights: Lightning's trainer as the workshop uses it.

Checkpoints every epoch, goes on from the last one, stops early, writes CSV and TensorBoard logs.
Knows nothing about faces or what the learner learns.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    Timer,
)
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from training.console import errors, say
from training.fit.runs import Run

_ADVICE = (
    "GPU available but not used",  # the engine's settings chose the CPU
    r"Checkpoint directory .* exists and is not empty",  # a run that is taken up again
    r"`isinstance\(treespec, LeafSpec\)`",  # Lightning's own use of torch
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run trains on.

    Attributes:
        device: "cpu" or "cuda".
        devices: how many GPUs of each node (or processes, on CPUs); more than one is DDP.
        nodes: how many machines, started as `torchrun` or SLURM starts them.
        precision: Lightning's word ("32-true", "bf16-mixed", "16-mixed"); None chooses by device.
    """

    device: torch.device
    devices: int = 1
    nodes: int = 1
    precision: str | None = None

    @property
    def pins(self) -> bool:
        """Whether batches are best kept where a GPU can fetch them by itself."""
        return self.device.type == "cuda"

    def alone(self) -> "Machine":
        """One device of it, for what is too small to be shared."""
        return replace(self, devices=1, nodes=1)

    @contextmanager
    def cores(self) -> Iterator[None]:
        """Each process on a CPU with its share of the cores, as long as the block lasts.

        With all of them for each, threads wait for others that have no core to run on.
        """
        threads = torch.get_num_threads()
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, threads // self.devices))
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def arguments(self) -> dict[str, Any]:
        """The trainer's."""
        cuda = self.device.type == "cuda"
        precision = self.precision
        if precision is None:
            half = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "16-mixed"
            precision = half if cuda else "32-true"
        several = self.devices > 1 or self.nodes > 1
        chosen: int | list[int] = self.devices
        if cuda and not several and self.device.index is not None:
            chosen = [self.device.index]
        return {
            "accelerator": "gpu" if cuda else "cpu",
            "devices": chosen,
            "num_nodes": self.nodes,
            "strategy": "ddp" if several else "auto",
            "precision": precision,
            "num_sanity_val_steps": 0,
            "reload_dataloaders_every_n_epochs": 1,
            "use_distributed_sampler": False,
            "enable_model_summary": False,
        }


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a run goes on.

    Attributes:
        epochs: at most.
        patience: epochs without a better validation loss before it stops; None never stops.
        max_minutes: after which it stops, whatever it has.
        validates: whether epochs are measured and the best one counts; else the last one does.
    """

    epochs: int
    patience: int | None = None
    max_minutes: float | None = None
    validates: bool = True


@dataclass(frozen=True, slots=True)
class Fitted:
    """What became of a run.

    Attributes:
        epoch: the one whose weights the learner has, counted from 1: the best by validation loss,
            or the last where there was no validation.
        epochs: how many were trained.
        first: whether this process is the one that goes on to write results.
    """

    epoch: int
    epochs: int
    first: bool


def fit(
    learner: lightning.LightningModule,
    data: lightning.LightningDataModule,
    run: Run,
    schedule: Schedule,
    machine: Machine,
) -> Fitted:
    """Train from where the run stands, and load the weights that count."""
    # Lightning's own `save_last` writes nothing in epochs that are not the best so far.
    latest = ModelCheckpoint(
        run.checkpoints, filename=run.latest.stem, enable_version_counter=False
    )
    counts = latest
    if schedule.validates:
        counts = ModelCheckpoint(
            run.checkpoints, filename="best", monitor="val_loss", enable_version_counter=False
        )
    callbacks: list[Callback] = list(dict.fromkeys((counts, latest)))
    if schedule.patience is not None:
        callbacks.append(_Stopping("val_loss", patience=schedule.patience, mode="min"))
    if schedule.max_minutes is not None:
        callbacks.append(Timer(timedelta(minutes=schedule.max_minutes)))
    if errors.is_terminal:
        callbacks.append(RichProgressBar())
    beginning = run.last
    if beginning and not all(map(_is_sound, run.checkpoints.glob("*.ckpt"))):
        say(f"A checkpoint in {run.checkpoints} is damaged: training begins anew.")
        beginning = None
    with _quiet(), machine.cores():
        trainer = lightning.Trainer(
            **machine.arguments(),
            max_epochs=schedule.epochs,
            callbacks=callbacks,
            logger=[
                CSVLogger(run.home, name="history"),
                TensorBoardLogger(run.home, name="tensorboard"),
            ],
            log_every_n_steps=1,
            enable_progress_bar=errors.is_terminal,
            limit_val_batches=1.0 if schedule.validates else 0,
        )
        learner.train()  # Lightning keeps whatever mode it finds
        trainer.fit(learner, datamodule=data, ckpt_path=beginning, weights_only=True)
    if not counts.best_model_path:
        raise ValueError(
            "The time was over before the first epoch was. Give more with --max-minutes."
        )
    saved = torch.load(counts.best_model_path, map_location="cpu", weights_only=True)
    # The trainer's own count is one less where a run that was through is taken up again.
    last = torch.load(run.latest, map_location="cpu", weights_only=True)
    learner.load_state_dict(saved["state_dict"])
    learner.to("cpu")
    first = trainer.is_global_zero
    if torch.distributed.is_initialized():
        # What follows is done by one process alone.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return Fitted(
        epoch=int(saved["epoch"]) + 1,
        epochs=int(last["epoch"]) + 1,
        first=first,
    )


def refit(
    learner: lightning.LightningModule,
    data: lightning.LightningDataModule,
    epochs: int,
    machine: Machine,
) -> None:
    """Train for a known number of epochs, without validation, logs or checkpoints."""
    with _quiet(), machine.cores():
        trainer = lightning.Trainer(
            **machine.arguments(),
            max_epochs=epochs,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        learner.train()
        trainer.fit(learner, datamodule=data)
    learner.to("cpu")


def _is_sound(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read: a disk that was full or lost power leaves half of one."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes fail in any way they like
        return False
    return True


class _Stopping(EarlyStopping):
    """Early stopping that holds when a run that had stopped is taken up again."""

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        del pl_module
        if self.stopped_epoch:
            trainer.should_stop = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its greetings and its advice on what is meant as it is."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        log.setLevel(level)
