"""The parts that recipes are made of."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from engine.vision import networks
from training.fit.augment import augment
from training.fit.batches import FaceBatches
from training.fit.fitting import Machine
from training.fit.head import CosineHead
from training.fit.learner import freeze_statistics, unfreeze
from training.fit.recipes import (
    Recipe,
    TrainingFaces,
    fit_head,
    plan,
    start,
    strangers,
    train_network,
)
from training.fit.runs import Run

CPU = Machine(torch.device("cpu"))


def head(margin=0.4, anchor=0.0):
    start = normalize(torch.eye(4, 8), dim=1)
    owner = torch.tensor([0, 0, 1, 2])
    return CosineHead(start, owner, 3, margin=margin, scale=8.0, anchor=anchor)


def clusters(counts, spread=0.6, dimension=16, seed=0):
    """Vectors around one random direction per person."""
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(len(counts), dimension))
    owner = np.repeat(np.arange(len(counts)), counts)
    vectors = directions[owner] + spread * generator.normal(size=(len(owner), dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), owner.astype(np.int64)


def test_a_person_is_as_close_as_their_closest_direction():
    cosines = head()(torch.eye(8)[:4])
    assert cosines.argmax(dim=1).tolist() == [0, 0, 1, 2]
    torch.testing.assert_close(cosines.amax(dim=1), torch.ones(4))


def test_a_margin_asks_for_more():
    features, truth = torch.eye(8)[:4], torch.tensor([0, 0, 1, 2])
    assert head(margin=0.4).loss(features, truth) > head(margin=0.0).loss(features, truth)


def test_an_anchor_pulls_back():
    moved = head(anchor=1.0)
    features, truth = torch.eye(8)[:4], torch.tensor([0, 0, 1, 2])
    before = moved.loss(features, truth)
    with torch.no_grad():
        moved.weight.add_(torch.randn(moved.weight.shape, generator=torch.Generator()) * 0.5)
    free = head(anchor=0.0)
    free.load_state_dict(moved.state_dict())
    assert moved.loss(features, truth) > free.loss(features, truth)
    assert before == head(anchor=0.0).loss(features, truth)


def test_a_trained_head_tells_unseen_faces_apart():
    vectors, owner = clusters([60, 60, 60, 6])
    seen = np.arange(len(owner)) % 2 == 0
    made, made_owner = fit_head(
        plan(Recipe.HEAD, network="none"), vectors[seen], owner[seen], 4, 8, CPU
    )
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)
    guessed = made_owner[(vectors[~seen] @ made.T).argmax(axis=1)]
    for person in range(4):
        mine = owner[~seen] == person
        assert (guessed[mine] == person).mean() > 0.9
    again, _ = fit_head(plan(Recipe.HEAD, network="none"), vectors[seen], owner[seen], 4, 8, CPU)
    np.testing.assert_array_equal(made, again)


class Trainer:
    global_rank, world_size = 0, 1

    def __init__(self, epoch=0):
        self.current_epoch = epoch


def owners_of_epoch(counts, epoch=0, seed=0):
    vectors, owner = clusters(counts)
    every = np.arange(len(owner))
    data = FaceBatches(vectors, owner, every, every, size=8, seed=seed)
    data.trainer = Trainer(epoch)
    return torch.cat([truth for _, truth in data.train_dataloader()]).tolist()


def test_an_epoch_can_be_drawn_again_and_no_two_are_alike():
    first = owners_of_epoch([40, 40, 40])
    assert owners_of_epoch([40, 40, 40]) == first
    assert owners_of_epoch([40, 40, 40], epoch=1) != first
    assert owners_of_epoch([40, 40, 40], seed=1) != first


def test_people_with_few_faces_come_more_often():
    drawn = np.bincount(owners_of_epoch([900, 100]))
    # In proportion to the roots of their numbers: 30 to 10.
    assert 0.18 < drawn[1] / drawn.sum() < 0.32


def test_processes_share_each_batch():
    vectors, owner = clusters([20, 20])
    every = np.arange(40)
    parts = []
    for rank in range(2):
        data = FaceBatches(vectors, owner, every, every, size=8, seed=0)
        data.trainer = Trainer()
        data.trainer.global_rank, data.trainer.world_size = rank, 2
        parts.append([inputs for inputs, _ in data.train_dataloader()])
    assert [len(batch) for batch in parts[0]] == [4] * 5
    both = torch.cat([*parts[0], *parts[1]])
    assert len(torch.unique(both, dim=0)) == 40


def test_augmented_faces_stay_faces():
    pixels = torch.rand(8, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 255
    made = augment(pixels, torch.Generator().manual_seed(2))
    assert made.shape == pixels.shape
    assert made.min() >= 0
    assert made.max() <= 255
    torch.testing.assert_close(augment(pixels, torch.Generator().manual_seed(2)), made)
    assert not torch.equal(augment(pixels, torch.Generator().manual_seed(3)), made)
    # Each face in its own way.
    same = augment(pixels[:1].expand(8, 3, 112, 112), torch.Generator().manual_seed(2))
    assert len(torch.unique(same.flatten(1), dim=0)) == 8


@pytest.mark.parametrize(("last", "first_frozen"), [(0, True), (1, True), (99, False)])
def test_the_last_stages_learn(last, first_frozen):
    network = networks.build("resnet18")
    learning = unfreeze(network, last)
    stages = network.stages()
    assert all(p.requires_grad != first_frozen for p in stages[0])
    assert all(p.requires_grad == bool(last) for p in stages[-1])
    assert learning == sum(p.numel() for p in network.parameters() if p.requires_grad)
    network.train()
    freeze_statistics(network)
    assert network.body.bn1.training != first_frozen


def material(people=5, each=6, px=150):
    generator = np.random.default_rng(0)
    owner = np.repeat(np.arange(people), each)
    looks = generator.integers(0, 200, (people, 1, 1, 3))
    crops = looks[owner] + generator.integers(0, 56, (len(owner), px, px, 3))
    every = np.arange(len(owner))
    validation = every[every % each == 0]
    training = np.setdiff1d(every, validation)
    return TrainingFaces(crops.astype(np.uint8), owner, people, training, validation)


def test_finetuning_leaves_the_first_stages_alone(tmp_path):
    chosen = plan(Recipe.FINETUNE, network="dlib-resnet29", unfreeze=2, epochs=1, batch=8)
    network = start(chosen, tmp_path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    known = material()
    trained = train_network(chosen, network, known, Run(tmp_path / "run", None), CPU)
    changed = {
        name
        for name, value in trained.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {
        "body.projection",
        *(f"body.{kind}.{k}" for kind in ("weights", "biases") for k in (27, 28)),
    }
    scores = trained.similarities(known.inputs, known.validation, 5, CPU.device)
    assert scores.shape == (5, 5)


def test_strangers_are_people_whom_the_second_network_never_saw(tmp_path):
    chosen = plan(Recipe.CNN, network="mobilenet_v3_small", input_px=64, imagenet=False, batch=8)
    known = material(people=6, px=64)
    best, stranger, met = strangers(chosen, start(chosen, tmp_path), known, 1, CPU)
    assert met == 4
    assert set(stranger.tolist()) == {0, 1}
    assert best.shape == stranger.shape == (12,)
    assert (np.abs(best) <= 1.001).all()
