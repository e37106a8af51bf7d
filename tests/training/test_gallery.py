import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from engine import bundle
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from tests.training.datasets import pictures, prepared
from training import data, manifest, prepare
from training.__main__ import app
from training.audit import unit
from training.calibration import grouped
from training.gallery import portraits, prototypes, tally


@pytest.fixture(autouse=True)
def datasets(tmp_path_factory, monkeypatch):
    """Prepared folders of people go here, not below run/."""
    monkeypatch.setattr(prepare, "DATASETS", tmp_path_factory.mktemp("datasets"))


def run(*arguments):
    return CliRunner().invoke(app, ["gallery", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("prepared"))


def test_a_folder_becomes_a_bundle_that_the_engine_serves(tmp_path):
    people = pictures(tmp_path / "people")
    (people / "Person_0" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    out = tmp_path / "mine"
    result = run(people, "--aligned", "--out", out, "--json", "--thumbnails")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(report["people"]) == {f"Person {i}" for i in range(4)}
    assert [entry["code"] for entry in report["left_out"]] == ["unreadable"]
    # Too few faces to measure anything: it says whose calibration it borrowed.
    assert report["calibration"]["source"] == bundle.load("celebrities").id
    assert bundle.load(out).manifest.dataset.name == "people"

    pipeline = Pipeline.from_settings(Settings(engine_bundle=str(out), engine_device="cpu"))
    photo = Image.open(people / "Person_2" / "0.png").convert("RGB")
    (analysis,) = pipeline.analyze([PhotoRequest(photo, aligned=True)])
    best = analysis.faces[0].matches[0]
    assert best.name == "Person 2"
    assert best.thumbnail.startswith(b"\xff\xd8")


def test_same_dataset_gives_same_bytes(home, tmp_path):
    for name in ("a", "b"):
        result = run(home, "--out", tmp_path / name / "x", "--created", "2026-01-01")
        assert result.exit_code == 0, result.output
    for suffix in ("pth", "json"):
        first = (tmp_path / "a" / f"x.{suffix}").read_bytes()
        assert first == (tmp_path / "b" / f"x.{suffix}").read_bytes()


def test_a_manifest_is_taken_at_its_word(home, tmp_path):
    """What an operator overruled in it counts."""
    shutil.copytree(home, tmp_path / "set")
    path = tmp_path / "set" / manifest.NAME
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["person"] == "Person 3":
            row["override"] = "drop"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    result = run(path, "--out", tmp_path / "x", "--json")
    report = json.loads(result.stdout)
    assert report["people"] == {f"Person {i}": 6 for i in range(3)}
    assert report["missing"] == ["Person 3"]
    assert len(report["left_out"]) == 6
    record = bundle.load(tmp_path / "x").manifest.dataset
    assert (record.photos, record.faces, record.dropped) == (24, 18, {"operator": 6})
    shown = run(path, "--out", tmp_path / "x")
    assert "for want of a face: Person 3" in shown.output


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "absent", "absent"),
        (lambda folder: folder, "one folder per person"),
    ],
)
def test_a_folder_without_people_is_refused(tmp_path, make, said):
    (tmp_path / "empty").mkdir()
    result = run(make(tmp_path / "empty"), "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_photos_without_a_face_make_no_bundle(tmp_path):
    (tmp_path / "in" / "Nobody").mkdir(parents=True)
    Image.new("RGB", (200, 200)).save(tmp_path / "in" / "Nobody" / "wall.png")
    result = run(tmp_path / "in", "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert "keeps no face" in " ".join(result.output.split())
    assert not (tmp_path / "x.json").exists()


def test_borrowed_from_a_borrower_is_refused(home, tmp_path):
    assert run(home, "--out", tmp_path / "a").exit_code == 0
    second = run(home, "--out", tmp_path / "b", "--calibration-from", tmp_path / "a")
    assert second.exit_code == 1
    assert "borrowed its own calibration" in " ".join(second.output.split())


def test_each_persons_most_typical_face_is_the_portrait(home):
    faces = data.load(home)
    vectors = np.zeros((len(faces), 8), np.float32)
    vectors[:, 0] = 1
    typical = [members[2] for members in grouped(faces.owner, 4)]
    odd = np.setdiff1d(np.arange(len(faces)), typical)
    vectors[odd, 1 + np.arange(len(odd)) % 7] = 0.5
    tensors = portraits(faces, unit(vectors))
    ends = tensors["thumbnail_ends"].tolist()
    pieces = [
        tensors["thumbnails"][start:end].numpy().tobytes()
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    assert len(pieces) == 4
    alone = faces.part(np.array(typical))
    again = portraits(alone, unit(vectors[typical]))
    assert again["thumbnails"].numpy().tobytes() == b"".join(pieces)


def test_the_tally_gives_back_the_means():
    generator = np.random.default_rng(2)
    owner = np.repeat(np.arange(3), [45, 8, 1])
    vectors = unit(generator.normal(size=(len(owner), 16)).astype(np.float32))
    made, made_owner = prototypes(vectors, owner, 3)
    counted = tally(vectors, owner, made, made_owner)
    assert [int(counted.counts[made_owner == person].sum()) for person in range(3)] == [45, 8, 1]
    # A single cluster's prototype, count and length together are the sum of its faces.
    total = made[3] * counted.lengths[3] * counted.counts[3]
    np.testing.assert_allclose(total, vectors[45:53].sum(axis=0), atol=1e-5)
    assert counted.lengths[4] == pytest.approx(1)


def test_prototypes_do_not_depend_on_who_else_is_there():
    generator = np.random.default_rng(3)
    vectors = unit(generator.normal(size=(60, 16)).astype(np.float32))
    owner = np.arange(60) % 2
    made, made_owner = prototypes(vectors, owner, 2)
    alone, _ = prototypes(vectors[1::2], np.zeros(30, np.int64), 1)
    np.testing.assert_array_equal(made[made_owner == 1], alone)
    torch.testing.assert_close(torch.from_numpy(made).norm(dim=1), torch.ones(len(made)))


def test_a_trained_head_lends_what_cluster_means_are_worth(tmp_path):
    lender = bundle.load("celebrities")
    assert lender.manifest.lends is not None
    lent = lender.manifest.lends.identification.threshold
    assert lent > lender.calibration.identification.threshold
    out = tmp_path / "few"
    assert run(pictures(tmp_path / "people"), "--aligned", "--out", out).exit_code == 0
    borrowed = bundle.load(out).calibration
    assert borrowed.source == lender.id
    assert borrowed.identification.threshold == lent
