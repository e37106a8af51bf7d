"""A run that is taken up again ends as one that nobody disturbed."""

import numpy as np
import pytest
import torch

from engine.vision import networks
from tests.training.fit.test_recipes import CPU, clusters, material
from training.fit import runs
from training.fit.batches import FaceBatches
from training.fit.fitting import Machine, Schedule, fit, refit
from training.fit.head import CosineHead
from training.fit.learner import Learner
from training.fit.recipes import Recipe, plan, start, train_network
from training.fit.runs import Run


def learner(steps):
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4, 16, generator=generator)
    head = CosineHead(directions, torch.arange(4), 4, margin=0.3, scale=30.0, anchor=0.0)
    return Learner(None, head, torch.zeros(16), rate=0.3, steps=steps)


def batches():
    vectors, owner = clusters([20] * 4, spread=1.0)
    every = np.arange(len(owner))
    return FaceBatches(vectors, owner, np.setdiff1d(every, every[::4]), every[::4], size=8, seed=0)


def train(run, schedule, machine=CPU):
    data = batches()
    made = learner(data.steps * schedule.epochs)
    fitted = fit(made, data, run, schedule, machine)
    return fitted, made.head.weight.detach().clone()


@pytest.mark.parametrize("schedule", [Schedule(30, patience=3), Schedule(5)])
def test_a_run_that_was_through_is_not_trained_further(tmp_path, schedule):
    run = Run(tmp_path, None)
    first, weights = train(run, schedule)
    assert first.epoch < first.epochs <= schedule.epochs
    assert (first.epochs < schedule.epochs) == (schedule.patience is not None)
    for _ in range(2):
        again, same = train(Run(tmp_path, run.latest), schedule)
        assert again == first
        torch.testing.assert_close(same, weights, rtol=0, atol=0)


def test_a_time_too_short_for_an_epoch_is_told(tmp_path):
    with pytest.raises(ValueError, match="before the first epoch"):
        train(Run(tmp_path, None), Schedule(5, max_minutes=0.0))


def test_every_epoch_can_be_gone_on_from(tmp_path):
    """Also one that was not the best so far."""
    run = Run(tmp_path, None)
    fitted, _ = train(run, Schedule(5))
    kept = torch.load(run.latest, weights_only=True)
    assert fitted.epoch < 5
    assert kept["epoch"] == 4


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path, name):
    run = Run(tmp_path, None)
    first, weights = train(run, Schedule(3))
    (run.checkpoints / f"{name}.ckpt").write_bytes(b"half of it")
    again, same = train(Run(tmp_path, run.latest), Schedule(3))
    assert again == first
    torch.testing.assert_close(same, weights, rtol=0, atol=0)


class Cut(Exception):
    pass


def test_a_network_with_dropout_goes_on_as_if_it_had_not_been_cut_off(tmp_path, monkeypatch):
    chosen = plan(
        Recipe.CNN, network="mobilenet_v3_small", input_px=32, imagenet=False, batch=8, epochs=3
    )
    known = material(px=32)

    def trained(run):
        torch.manual_seed(len(str(run.home)))  # whatever went on before in the process
        network = train_network(chosen, start(chosen, tmp_path), known, run, CPU)
        torch.manual_seed(0)
        return network.network.state_dict()

    calm = trained(Run(tmp_path / "calm", None))
    whole = Learner.on_train_epoch_start

    def cut(self):
        if self.current_epoch == 2:
            raise Cut
        whole(self)

    rough = Run(tmp_path / "rough", None)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "on_train_epoch_start", cut)
        with pytest.raises(Cut):
            trained(rough)
    torch.manual_seed(99)
    again = trained(Run(rough.home, rough.latest))
    for name, value in calm.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_half_precision_is_the_networks_alone(tmp_path):
    """As on a GPU, where it is the default: cosines stay in single precision."""
    half = Machine(torch.device("cpu"), precision="bf16-mixed")
    _, weights = train(Run(tmp_path / "half", None), Schedule(2), half)
    _, same = train(Run(tmp_path / "whole", None), Schedule(2))
    torch.testing.assert_close(weights, same)
    network = networks.build("mobilenet_v3_small", 32)
    crops = material(px=32)
    data = FaceBatches(crops.inputs, crops.owner, crops.training, crops.validation, size=8, seed=0)
    head = CosineHead(
        torch.randn(5, network.dimension), torch.arange(5), 5, margin=0.1, scale=8.0, anchor=0.0
    )
    centre = torch.zeros(network.dimension)
    refit(Learner(network, head, centre, rate=1e-3, network_rate=1e-3, steps=3), data, 1, half)
    assert head.weight.isfinite().all()


@pytest.mark.parametrize(("devices", "share"), [(1, 5), (2, 2), (8, 1)])
def test_processes_share_the_cores_and_give_them_back(devices, share):
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        with Machine(torch.device("cpu"), devices).cores():
            assert torch.get_num_threads() == share
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("steps", range(1, 13))
def test_rates_of_short_runs(steps):
    optimizer = learner(steps).configure_optimizers()
    rates = []
    for _ in range(steps):
        rates.append(optimizer["optimizer"].param_groups[0]["lr"])
        optimizer["optimizer"].step()
        optimizer["lr_scheduler"]["scheduler"].step()
    assert all(0 < rate <= 0.3 for rate in rates)


@pytest.mark.parametrize(
    ("environment", "helper"),
    [
        ({}, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, True),
        ({"SLURM_PROCID": "3"}, True),
        ({"SLURM_PROCID": "0"}, False),
    ],
)
def test_only_the_first_process_writes_results(monkeypatch, environment, helper):
    for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runs.is_helper() == helper
