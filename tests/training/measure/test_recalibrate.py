import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine import bundle
from engine.errors import BundleError
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from tests.engine import bundles
from tests.training.synthetic import prepared
from tests.training.workbench import clouds, gallery, run, said, vectorizer
from training.datasets import data
from training.datasets.manifest import Row, Status
from training.datasets.probes import Probes
from training.measure.evaluate import EmbeddedProbes
from training.measure.metrics import expected_calibration_error, rate, reliability
from training.measure.recalibrate import recalibrate
from training.measure.sight import FaceScorer
from training.vectors import unit

KNOWN = 10


def seen(vectors, owner, name="held", first_id=0):
    """Made-up vectors as if somebody had looked at photos."""
    people = [f"Person {i:02}" for i in range(owner.max() + 1)]
    rows = [
        Row(f"{first_id + i}", f"{i}.png", people[person], Status.KEEP, crop="x")
        for i, person in enumerate(owner)
    ]
    faces = data.Faces(None, name, people, owner, np.arange(len(owner)), rows, {})
    nothing = np.zeros(len(owner), bool)
    return EmbeddedProbes(Probes(faces, nothing, nothing.copy(), {}), vectors)


@pytest.fixture(scope="module")
def sight(tmp_path_factory):
    """A gallery of the first ten of forty people, with thresholds of no worth."""
    vectors, owner = clouds(people=40, each=20, spread=1.6)
    known = owner < KNOWN
    means = np.stack([vectors[owner == i].mean(axis=0) for i in range(KNOWN)])
    centre = vectors[known].mean(axis=0)
    stem = tmp_path_factory.mktemp("made") / "mine"
    people = [f"Person {i:02}" for i in range(KNOWN)]
    tensors = {
        "prototypes": torch.from_numpy(unit(means - centre)),
        "owner": torch.arange(KNOWN),
        "centre": torch.from_numpy(centre),
    }
    bundle.save(stem, bundles.manifest(people), tensors)
    tools = SimpleNamespace(device=torch.device("cpu"), embedder=DlibResNet29(torch.device("cpu")))
    return FaceScorer(bundle.load(stem), tools)


def held_out(seed):
    """Other photos of the same forty people."""
    vectors, owner = clouds(people=40, each=20, spread=1.6)
    means = np.stack([vectors[owner == i].mean(axis=0) for i in range(40)])
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(40), 30)
    noise = generator.normal(size=(len(owner), 128)) * 1.6 / 128**0.5
    return unit((means[owner] * 1.2 + noise).astype(np.float32)), owner


@pytest.fixture(scope="module")
def found(sight):
    return recalibrate(sight, seen(*held_out(1)), created="2026-01-01", fmr=1e-2)


def test_the_threshold_holds_on_photos_that_it_was_not_set_on(sight, found):
    record = found.after.identification
    assert (record.strangers, record.stranger_people, record.genuine) == (900, 30, 300)
    assert record.fmr <= 1e-2 + 1e-9
    fresh = seen(*held_out(2))
    strangers = fresh.owner >= KNOWN
    best = sight.answers(
        fresh.probes.faces, fresh.vectors[strangers], np.full(int(strangers.sum()), -1)
    ).best
    reached = rate(best >= record.threshold, fresh.owner[strangers])
    assert reached.value <= record.fmr_upper_95
    assert found.after.source == (
        "own, recalibrated 2026-01-01 on held: 300 faces of 10 known people, "
        "900 faces of 30 strangers"
    )


def test_probabilities_are_true_afterwards(sight, found):
    fresh = seen(*held_out(3))
    known = fresh.part(np.flatnonzero(fresh.owner < KNOWN))

    def error(temperature):
        scores = torch.cat(list(sight.similarities(known.probes.faces, known.vectors)))
        chance = torch.softmax(scores / temperature, dim=1).max(dim=1)
        right = (chance.indices.numpy() == known.owner).astype(bool)
        return expected_calibration_error(reliability(chance.values.numpy(), right))

    assert error(found.after.temperature) < 0.05
    assert error(found.after.temperature) < error(5 * found.after.temperature)


def test_thresholds_for_two_photos_come_with_bounds(found):
    assert found.pairs_measured
    assert [record.fmr for record in found.after.pairs] == [1e-2, 1e-3, 1e-4]
    for record in found.after.pairs:
        assert record.fmr < record.fmr_upper_95 < 5 * record.fmr
        assert record.people == 40


def test_a_photo_that_is_in_both_collections_counts_once(sight, found):
    material = seen(*held_out(1))
    twice = recalibrate(sight, material, created="2026-01-01", strangers=material, fmr=1e-2)
    assert twice.after.identification.strangers == found.after.identification.strangers
    assert twice.after.identification == found.after.identification


def test_an_open_set_gives_strangers_only(sight):
    vectors, owner = held_out(1)
    own = owner < 25
    other_vectors, other_owner = held_out(2)
    found = recalibrate(
        sight,
        seen(vectors[own], owner[own]),
        created="2026-01-01",
        strangers=seen(other_vectors, other_owner, "street", first_id=100_000),
        fmr=1e-2,
    )
    # The known people's photos in the open set may be what the bundle was made from.
    assert found.after.identification.genuine == 300
    assert found.after.identification.strangers == 15 * 30 + 30 * 30
    assert found.after.identification.stranger_people == 30
    assert "on held and street" in found.after.source


@pytest.mark.parametrize(
    ("chosen", "fmr", "message"),
    [
        (lambda owner: owner < 15, 1e-2, "150 faces of 5 strangers"),
        (lambda owner: owner >= 0, 1e-4, "can support --fmr 0.0011 at the strictest"),
        (lambda owner: (owner >= KNOWN) | (owner == 0), 1e-2, "the data has 30 faces of 1;"),
    ],
    ids=["few strangers", "strict rate", "few known"],
)
def test_too_few_are_refused(sight, chosen, fmr, message):
    vectors, owner = held_out(1)
    material = seen(vectors, owner).part(np.flatnonzero(chosen(owner)))
    with pytest.raises(ValueError, match=message):
        recalibrate(sight, material, created="2026-01-01", fmr=fmr)


# --- the command ---


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    home = prepared(folder / "held", people=14, each=8)
    people = tuple(f"Person {i}" for i in range(4))
    return home, gallery(home, folder / "mine", people)


@pytest.fixture
def stem(made, tmp_path):
    for suffix in (".pth", ".json"):
        shutil.copy(f"{made[1]}{suffix}", tmp_path / f"mine{suffix}")
    return tmp_path / "mine"


def test_the_json_is_rewritten_and_the_pth_is_not(made, stem):
    before = bundle.load(stem)
    weights = stem.with_suffix(".pth").stat().st_mtime_ns
    result = run("calibrate", stem, made[0], "--fmr", "0.05", "--created", "2026-02-03", "--json")
    assert result.exit_code == 0, result.output
    after = bundle.load(stem)
    assert stem.with_suffix(".pth").stat().st_mtime_ns == weights
    assert after.calibration != before.calibration
    assert after.manifest.people == before.manifest.people
    assert after.calibration.source == (
        "own, recalibrated 2026-02-03 on held: 32 faces of 4 known people, 80 faces of 10 strangers"
    )
    said_so = json.loads(result.stdout)["after"]["identification"]
    assert said_so == after.calibration.identification.model_dump()
    assert run("evaluate", stem, made[0], "--out", stem.parent / "out").exit_code == 0


def test_a_refusal_leaves_the_bundle_as_it_was(made, stem):
    text = stem.with_suffix(".json").read_bytes()
    result = run("calibrate", stem, made[0])
    assert result.exit_code == 1
    assert "takes 1,000 faces of 10 people" in said(result)
    assert "Give more with --openset DIR" in said(result)
    assert stem.with_suffix(".json").read_bytes() == text


def test_a_vectorizer_has_no_calibration(made, tmp_path):
    result = run("calibrate", vectorizer(tmp_path / "eyes"), made[0])
    assert result.exit_code == 1
    assert "knows nobody" in said(result)


def test_another_pth_is_not_described(stem):
    manifest = bundle.load(stem).manifest
    stem.with_suffix(".pth").write_bytes(b"another")
    with pytest.raises(BundleError, match="was replaced"):
        bundle.rewrite(stem, manifest)
