"""Vectorizers: made-up vectors on which the right answer is known, and small networks."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from engine import bundle
from engine.vision import embed, networks
from engine.vision.adapter import Adapter, Form
from engine.vision.align import ARCFACE
from engine.vision.embed import Specification
from tests.engine import bundles
from tests.training import synthetic
from training import tools as toolbox
from training.__main__ import app
from training.bundles.gallery import Source
from training.commands.vectorizer import NOT_KEPT
from training.datasets import data
from training.fit import disjoint, runs
from training.fit.face_batches import Crops, PeopleBatches, Versions
from training.fit.metric_learner import Loss, MetricLearner
from training.fit.vectorizer import (
    BLENDS,
    MeasuredBlend,
    TrainingVerdict,
    VectorizerPlan,
    choose,
    train,
    write,
)
from training.measure.verification import all_pairs
from training.tools import Tools
from training.vectors import mean_face

CPU = torch.device("cpu")
DIMENSION = 32


class FakeEmbedder:
    """Pictures to a fixed random projection; the tests' vectors come from the cache."""

    specification = Specification("made-up", 112, ARCFACE, DIMENSION, "0" * 64, "none")

    def embed(self, crops):
        small = torch.from_numpy(crops[:, ::16, ::16].reshape(len(crops), -1).astype(np.float32))
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(small.shape[1], DIMENSION, generator=generator)
        return torch.nn.functional.normalize((small - 128) @ directions, dim=1)


TOOLS = Tools(CPU, FakeEmbedder())
PLAN = VectorizerPlan(
    start="made-up",
    form=Form.LINEAR,
    stages=0,
    network=None,
    input_px=None,
    loss=Loss.SUPCON,
    hold=1.0,
    strength=0.0,
    epochs=6,
    rate=1e-2,
    people=6,
    each=4,
)


def dataset(folder, vectors, people):
    """Faces whose cached vectors are the given ones, (people * each, d)."""
    home = synthetic.prepared(folder, people, len(vectors) // people)
    faces = data.load(home)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    with closing(data.open_cache(home)) as cache:
        ids = [faces.rows[i].id for i in range(len(faces))]
        data.keep_vectors(cache, FakeEmbedder.specification, ids, unit.astype(np.float32))
    return faces


def disturbed(people=12, each=20, seed=0):
    """Identity in most directions, and a large disturbance in a few that all people share."""
    generator = np.random.default_rng(seed)
    identity = generator.normal(0, 1, (people, DIMENSION))
    identity[:, :6] = 0
    noise = generator.normal(0, 0.5, (people, each, DIMENSION))
    noise[..., :6] = generator.normal(0, 5, (people, each, 6))
    return (identity[:, None] + noise).reshape(-1, DIMENSION)


def scattered(people=9, each=20, seed=0):
    """Noise alike in all directions: what is learned of some people says nothing of others."""
    generator = np.random.default_rng(seed)
    identity = generator.normal(0, 1, (people, 1, DIMENSION))
    noise = generator.normal(0, 1.3, (people, each, DIMENSION))
    return (identity + noise).reshape(-1, DIMENSION)


def learn(faces, plan, folder, **options):
    return train(faces, plan, TOOLS, "made-up", folder, folder=folder / "runs", **options)[0]


@pytest.fixture(scope="module")
def disturbed_faces(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("disturbed"), disturbed(), 12)


def test_what_disturbs_everybody_is_learned_away(disturbed_faces, tmp_path):
    outcome = learn(disturbed_faces, PLAN, tmp_path)
    first = outcome.judgement.strangers[0]
    assert outcome.judgement.verdict is TrainingVerdict.BETTER
    assert outcome.kept
    assert outcome.refitted
    assert first.after > first.before + 0.1
    assert first.lower_95 > 0
    assert first.people == 12


def test_a_vectorizer_is_served_after_it_was_written(disturbed_faces, tmp_path, monkeypatch):
    outcome = learn(disturbed_faces, PLAN, tmp_path)
    form = FakeEmbedder.specification
    stem = tmp_path / "night"
    write(stem, outcome, PLAN, disturbed_faces, form, Source("made up", "CC0", "2026-01-01"))
    monkeypatch.setitem(embed._REGISTRY, "made-up", lambda device, folder: FakeEmbedder())
    served = embed.load(f"trained:{stem}", CPU, tmp_path)
    crops = data.read_crops(disturbed_faces, [0, 1], form.template)
    with torch.inference_mode():
        expected = outcome.trunk(FakeEmbedder().embed(crops))
    torch.testing.assert_close(served.embed(crops), expected)
    written = bundle.load(stem).manifest
    assert "none; trained on made up (CC0)" in served.specification.licence
    assert written.embedder.id == "made-up"
    assert written.metrics["strangers_tar_at_fmr_1e-2"] > 0
    assert written.dataset.people == 12


def test_what_is_perfect_stays(tmp_path):
    faces = dataset(tmp_path, np.repeat(np.eye(DIMENSION)[:9], 10, axis=0), 9)
    outcome = learn(faces, PLAN, tmp_path)
    assert outcome.judgement.verdict is TrainingVerdict.NOT_BETTER
    assert outcome.judgement.strangers[0].before == 1.0
    assert not outcome.kept
    assert not outcome.refitted


GREEDY = replace(PLAN, form=Form.MLP, hold=0.0)


def test_falling_strangers_are_noticed(tmp_path):
    faces = dataset(tmp_path, scattered(), 9)
    outcome = learn(faces, GREEDY, tmp_path)
    assert outcome.judgement.verdict is TrainingVerdict.STRANGERS_FALL
    assert outcome.judgement.members[0].gain > 0 > outcome.judgement.strangers[0].gain
    assert not outcome.kept
    accepted = learn(faces, GREEDY, tmp_path, accept_worse_strangers=True)
    assert accepted.kept
    assert accepted.judgement == outcome.judgement


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(disturbed_faces, tmp_path, monkeypatch):
    plan = replace(PLAN, epochs=3, folds=1)
    whole = learn(disturbed_faces, plan, tmp_path / "whole")
    seen = []

    def cut(self):
        seen.append(self.current_epoch)
        if self.current_epoch == 2:
            raise ConnectionError("the power went")

    monkeypatch.setattr(MetricLearner, "on_train_epoch_end", cut)
    with pytest.raises(ConnectionError):
        learn(disturbed_faces, plan, tmp_path / "cut")
    monkeypatch.undo()
    again = []
    count = MetricLearner.on_train_epoch_start

    def counted(self):
        again.append(self.current_epoch)
        count(self)

    monkeypatch.setattr(MetricLearner, "on_train_epoch_start", counted)
    resumed = learn(disturbed_faces, plan, tmp_path / "cut")
    assert seen == [0, 1, 2]
    assert again == [2]
    assert resumed.blend == whole.blend
    assert resumed.judgement == whole.judgement
    for name, tensor in whole.trunk.state_dict().items():
        assert torch.equal(tensor, resumed.trunk.state_dict()[name]), name


@pytest.mark.parametrize("loss", [Loss.ARCFACE, Loss.SUBCENTER_ARCFACE, Loss.COSFACE])
def test_every_loss_trains(disturbed_faces, tmp_path, loss):
    plan = replace(PLAN, loss=loss, epochs=4, folds=1)
    own = learn(disturbed_faces, plan, tmp_path).judgement.members[0]
    assert own.after > own.before + 0.2


SMALL = replace(PLAN, form=None, input_px=32, epochs=1, folds=1, people=6, each=4, rate=1e-3)


def test_a_network_from_nothing_learns(tmp_path):
    faces = data.load(synthetic.prepared(tmp_path, 8, 18))
    plan = replace(SMALL, start=None, network="mobilenet_v3_small", loss=Loss.ARCFACE, hold=0.0)
    outcome = learn(faces, plan, tmp_path)
    assert outcome.judgement.verdict is TrainingVerdict.FROM_NOTHING
    assert outcome.kept
    fresh = networks.build("mobilenet_v3_small", 32).state_dict()
    trained = outcome.trunk.state_dict()
    assert any(not torch.equal(trained[name], fresh[name]) for name in fresh)


def test_frozen_stages_stay_and_the_last_ones_learn(tmp_path):
    torch.manual_seed(0)
    network = networks.build("mobilenet_v3_small", 32).eval()
    changes = {"embedder": None, "architecture": network.architecture()}
    record = bundles.manifest([], kind="vectorizer", calibration=None, **changes)
    bundle.save(tmp_path / "base", record, networks.state(network))
    start = f"trained:{tmp_path}/base"
    tools = Tools(CPU, embed.load(start, CPU, tmp_path))
    faces = data.load(synthetic.prepared(tmp_path / "faces", 8, 18))
    plan = replace(SMALL, start=start, stages=2, loss=Loss.DISTILL, strength=1.0, hold=10.0)
    outcome, _ = train(faces, plan, tools, "last", tmp_path, folder=tmp_path / "runs")
    assert outcome.judgement.strangers[0].people == 2
    learned = {id(parameter) for stage in network.stages()[-2:] for parameter in stage}
    names = {name for name, own in network.named_parameters() if id(own) in learned}
    before, after = network.state_dict(), outcome.trunk.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed & names
    statistics = {name for name in changed - names if "running" in name or "tracked" in name}
    assert changed - names == statistics
    modules = {name.rpartition(".")[0] for name in names}
    assert {name.rpartition(".")[0] for name in statistics} <= modules


def test_a_blend_lies_between_the_start_and_what_was_learned():
    learner = MetricLearner(
        Adapter(Form.LINEAR, 8), Loss.SUPCON, people=2, centre=torch.zeros(8), hold=1.0,
        rate=1e-3, steps=1, seed=0,
    )  # fmt: skip
    learned = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        learner.trunk.change.weight.copy_(learned)
    blended = learner.blended(0.25)
    torch.testing.assert_close(blended.change.weight, learned / 4)
    assert learner.blended(1.0).change.weight.equal(learned)
    assert learner.trunk.change.weight.equal(learned)
    assert not blended.training


def test_nothing_kept_of_what_was_learned_changes_nothing(disturbed_faces, tmp_path):
    outcome = learn(disturbed_faces, replace(PLAN, blend=0.0), tmp_path)
    assert outcome.judgement.verdict is TrainingVerdict.NOT_BETTER
    strangers = outcome.judgement.strangers[0]
    # An adapter's vectors are centred on the people trained on, and here on the strangers again:
    # that turns a vector a little, and may carry a pair across the threshold.
    assert strangers.gain == pytest.approx(0, abs=2 / strangers.genuine_pairs)


def test_what_serves_the_people_trained_on_best_is_kept_while_others_gain(
    disturbed_faces, tmp_path
):
    chosen = learn(disturbed_faces, PLAN, tmp_path / "chosen")
    gains = {
        blend: learn(disturbed_faces, replace(PLAN, blend=blend), tmp_path / str(blend)).judgement
        for blend in BLENDS
    }
    merits = {
        blend: (found.members[0].after, found.strangers[0].after)
        for blend, found in gains.items()
        if found.strangers[0].gain > 0
    }
    assert chosen.blend == max(merits, key=merits.__getitem__)
    assert chosen.judgement == gains[chosen.blend]
    start, *others = chosen.candidates
    assert (start.blend, start.strangers) == (0, pytest.approx(gains[1.0].strangers[0].before))
    measured = {found.blend: found.members for found in others}
    assert measured == pytest.approx({k: found.members[0].after for k, found in gains.items()})


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        pytest.param([(0.2, 0.61, 0.7), (0.4, 0.62, 0.8), (0.6, 0.61, 0.9)], 0.6, id="all gain"),
        pytest.param([(0.2, 0.61, 0.7), (0.4, 0.62, 0.8), (0.6, 0.6, 0.9)], 0.4, id="one does not"),
        pytest.param([(0.2, 0.58, 0.7), (0.4, 0.59, 0.8), (0.6, 0.5, 0.9)], 0.4, id="none gains"),
        pytest.param([(0.2, 0.61, 0), (0.4, 0.63, 0), (0.6, 0.62, 0)], 0.4, id="no members"),
    ],
)
def test_strangers_may_not_pay_for_the_people_trained_on(candidates, chosen):
    start = MeasuredBlend(0, 0.6, 0.6)
    assert choose(start, [MeasuredBlend(*row) for row in candidates]) == chosen


def test_people_are_held_out_whole_and_in_turns(tmp_path):
    faces = data.load(synthetic.prepared(tmp_path, 9, 4))
    folds = disjoint.divide(faces, seed=0)
    held = [set(faces.owner[fold.strangers]) for fold in folds]
    assert len(folds) == 3
    assert set.union(*held) == set(range(9))
    assert sum(map(len, held)) == 9
    for fold, out in zip(folds, held, strict=True):
        assert not out & set(faces.owner[fold.training])
        assert set(faces.owner[fold.members]) == set(faces.owner[fold.training])
        assert not set(fold.training) & set(fold.members)
        assert len(fold.strangers) == 4 * len(out)


def test_a_strangers_twin_is_not_learned_from(tmp_path):
    faces = data.load(synthetic.prepared(tmp_path, 9, 4))
    twins = replace(faces, group=np.where(np.arange(len(faces)) % 4 == 0, 0, faces.group))
    for fold in disjoint.divide(twins, seed=0):
        held = set(twins.group[fold.strangers])
        assert not held & set(twins.group[np.concatenate([fold.training, fold.members])])


def test_too_few_people_are_refused(tmp_path):
    faces = data.load(synthetic.prepared(tmp_path, 5, 4))
    with pytest.raises(ValueError, match="at least 6 people"):
        learn(faces, PLAN, tmp_path)


def test_too_few_pairs_are_refused(tmp_path):
    faces = data.load(synthetic.prepared(tmp_path, 6, 2))
    with pytest.raises(ValueError, match="too few for a rate of false matches"):
        learn(faces, PLAN, tmp_path)


def test_faces_meet_templates_that_they_are_no_part_of():
    owner = np.repeat(np.arange(4), [6, 3, 2, 1])
    vectors = np.eye(len(owner), dtype=np.float32)
    pairs = disjoint.compared(vectors, owner, np.zeros(len(owner), np.float32), 0)
    # Three faces, two, one and one make a template: 6 of 3, 3 of 2, 2 of 1, 1 of 1.
    genuine = np.bincount(pairs.first[pairs.same], minlength=4)
    assert genuine.tolist() == [6 * 3, 3 * 1, 2 * 1, 0]
    assert len(pairs) == sum(genuine) + len(owner) ** 2 - (36 + 9 + 4 + 1)
    assert (pairs.score == 0).all()  # orthogonal faces resemble what they are part of, and no other


def test_enrolling_a_few_faces_takes_out_what_differs_between_them():
    generator = np.random.default_rng(0)
    faces = np.repeat(np.eye(8)[:5], 20, axis=0) + generator.normal(0, 0.5, (100, 8))
    unit = (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)
    owner, centre = np.repeat(np.arange(5), 20), np.zeros(8, np.float32)
    against_templates = disjoint.compared(unit, owner, centre, 0)
    against_faces = all_pairs(unit, owner, centre)
    assert disjoint.tar(against_templates) > disjoint.tar(against_faces) + 0.1


@pytest.mark.parametrize(("strangers", "own"), [(3, True), (2, False)])
def test_strangers_are_centred_on_their_own_people_where_there_are_enough(strangers, own):
    generator = np.random.default_rng(0)
    vectors = generator.normal(0, 1, (40, 8)).astype(np.float32)
    owner = np.arange(40) // 5
    stranger = owner < strangers
    found = disjoint.compare(vectors, owner, stranger, 0)
    among = stranger if own else ~stranger
    centre = mean_face(vectors[among], owner[among])
    expected = disjoint.compared(vectors[stranger], owner[stranger], centre, 0)
    assert np.array_equal(found.strangers.score, expected.score)
    others = mean_face(vectors[~stranger], owner[~stranger])
    expected = disjoint.compared(vectors[~stranger], owner[~stranger], others, 0)
    assert np.array_equal(found.members.score, expected.score)


def test_the_change_is_paired():
    generator = np.random.default_rng(0)
    vectors = generator.normal(0, 1, (40, 8)).astype(np.float32)
    pairs = disjoint.compared(vectors, np.arange(40) // 5, np.zeros(8, np.float32), 0)
    same = disjoint.change([pairs], [pairs], 1e-2)
    assert same.gain == same.lower_95 == same.upper_95 == same.certainty == 0


def test_batches_hold_a_few_faces_of_a_few_people():
    owner = np.repeat(np.arange(6), [20, 20, 20, 20, 20, 2])
    material = Versions(np.zeros((1, len(owner), 4), np.float32))
    batches = PeopleBatches(material, owner, np.arange(len(owner)), people=3, each=4, seed=0)
    order = batches._order(np.random.default_rng(0))
    drawn = np.bincount(owner[order])
    assert (drawn == drawn[0]).all()
    for k in range(batches.steps):
        assert (np.bincount(owner[order[k * 12 : k * 12 + 12]])[:] % 4 == 0).all()


def test_morphs_are_between_two_faces():
    crops = np.zeros((2, 8, 8, 3), np.uint8)
    crops[1] = 200
    seen, clean = Crops(crops, 0.0, morph=True, seed=0).draw(
        np.arange(2).repeat(20), np.random.default_rng(0)
    )
    assert np.array_equal(seen, clean)
    values = np.unique(clean)
    assert values.min() == 0
    assert values.max() == 200
    assert ((values > 0) & (values < 200)).any()
    plain, _ = Crops(crops, 0.0, morph=False, seed=0).draw(np.arange(2), np.random.default_rng(0))
    assert np.array_equal(plain, crops)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--adapter", "linear", "--unfreeze", "2"], "three different ways"),
        (["--adapter", "square"], "no adapter 'square'"),
        (["--loss", "triplet"], "no loss 'triplet'"),
        (["--loss", "distill"], "it takes --degrade"),
        (["--from", "scratch", "--blend", "0.5"], "no start to blend with"),
        (["--from", "trained:nobody"], "trained:nobody is not here"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(tmp_path, options, words):
    result = CliRunner().invoke(
        app, ["vectorizer", str(tmp_path), "--out", str(tmp_path / "x"), *options]
    )
    assert result.exit_code == 1
    assert words in result.stderr


def test_the_command_says_that_strangers_fall(tmp_path, monkeypatch):
    faces = dataset(tmp_path / "faces", scattered(), 9)
    monkeypatch.setattr(toolbox, "load", lambda embedder_id: TOOLS)
    arguments = ["vectorizer", str(faces.home), "--out", str(tmp_path / "night")]
    arguments += ["--runs", str(tmp_path / "runs")]
    arguments += ["--from", "made-up", "--adapter", "mlp", "--hold", "0", "--rate", "0.01"]
    arguments += ["--epochs", "6"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == NOT_KEPT
    assert "WARNING" in said.stdout
    assert "everybody else worse" in said.stdout
    assert "made-up stays the embedder to use" in said.stdout
    assert not (tmp_path / "night.pth").exists()
    kept = CliRunner().invoke(app, [*arguments, "--accept-worse-strangers", "--json"])
    assert kept.exit_code == 0
    record = json.loads(kept.stdout)
    assert record["verdict"] == "strangers_fall"
    assert record["bundle"].startswith("night@")
    assert bundle.load(tmp_path / "night").manifest.kind == "vectorizer"


def test_two_commands_never_train_under_one_name(tmp_path):
    home = synthetic.prepared(tmp_path / "faces", 6, 4)
    with runs.alone("night", tmp_path / "runs"):
        second = CliRunner().invoke(
            app,
            [
                "vectorizer",
                str(home),
                "--out",
                str(tmp_path / "night"),
                "--runs",
                f"{tmp_path}/runs",
            ],
        )
    assert second.exit_code == 1
    assert "Another command is training night" in second.stderr


def test_an_adapter_begins_where_the_embedder_is():
    learner = MetricLearner(
        Adapter(Form.LINEAR, 8), Loss.SUPCON, people=2, centre=torch.zeros(8), hold=1.0,
        rate=1e-3, steps=1, seed=0,
    )  # fmt: skip
    vectors = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    torch.testing.assert_close(learner.trunk(vectors), vectors)
