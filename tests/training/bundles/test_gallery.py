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
from tests.training import workbench
from tests.training.synthetic import pictures, prepared
from training.__main__ import app
from training.bundles import gallery
from training.bundles.gallery import portraits, prototypes, tally
from training.datasets import data, manifest, prepare
from training.vectors import grouped, unit


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


def test_the_same_command_again_builds_nothing(home, tmp_path):
    arguments = (home, "--out", tmp_path / "x", "--created", "2026-01-01", "--json")
    first = run(*arguments)
    (tmp_path / "x.pth").touch()
    before = (tmp_path / "x.pth").stat().st_mtime_ns
    again = run(*arguments)
    assert again.exit_code == 0, again.output
    assert "same options already: nothing to do" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (tmp_path / "x.pth").stat().st_mtime_ns == before
    for change in (("--licence", "CC0"), ("--thumbnails",)):
        assert "nothing to do" not in run(*arguments, *change).stderr
    # A bundle that is no longer what the command made is built again.
    run(*arguments)
    built = (tmp_path / "x.json").read_bytes()
    (tmp_path / "x.json").write_bytes(built.replace(b"unknown", b"another"))
    assert "nothing to do" not in run(*arguments).stderr
    assert (tmp_path / "x.json").read_bytes() == built


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
    assert [int(counted["counts"][made_owner == person].sum()) for person in range(3)] == [45, 8, 1]
    # A single cluster's prototype, count and length together are the sum of its faces.
    total = made[3] * counted["lengths"][3].item() * counted["counts"][3].item()
    np.testing.assert_allclose(total, vectors[45:53].sum(axis=0), atol=1e-5)
    assert counted["lengths"][4].item() == pytest.approx(1)


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


# --- Several sources, a list of people, strangers ---

HEADER = "folder\tdisplay_name\tcountry\tknown_for_en\tknown_for_es\twithout\tfamily"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two datasets of the same people and a third one with more, whom nobody lists."""
    folder = tmp_path_factory.mktemp("sources")
    return [
        prepared(folder / name, people=people, each=6, seed=seed)
        for name, people, seed in (("first", 4, 21), ("second", 4, 22), ("others", 7, 23))
    ]


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "people.tsv"
    lines = [
        "person_0\tAna López\tAR\tsinger\tcantante\t0.png;1.png\t",
        "1 Person;Somebody\tBen\tES\t\t\t\t",
        "Person_3\tCid\t\tplayer\t\t\t",
        "Person_77\tZoe\tUS\t\t\t\t",
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def few_are_enough(monkeypatch):
    """Made-up datasets are measured on themselves, as large ones are."""
    monkeypatch.setattr(gallery, "_OWN_CALIBRATION_FACES", 30)
    monkeypatch.setattr(gallery, "_OWN_CALIBRATION_PEOPLE", 3)


def test_several_sources_a_list_and_strangers(sources, listed, tmp_path, few_are_enough):
    first, second, others = sources
    out = tmp_path / "x"
    command = (first, second, "--people", listed, "--strangers", others, "--strangers", first)
    result = run(*command, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["people"] == {"Ana López": 8, "Ben": 12, "Cid": 12}
    assert report["missing"] == ["Zoe"]
    read = bundle.load(out)
    assert read.manifest.people == {0: "Ana López", 1: "Ben", 2: "Cid"}
    assert read.manifest.about[0].country == "AR"
    assert read.manifest.about[0].known_for == {"en": "singer", "es": "cantante"}
    assert read.manifest.about[2].known_for == {"en": "player"}
    assert read.manifest.dataset.name == "first and second"
    found = read.calibration
    assert (found.source, found.strangers) == ("own", "others and first")
    # Persons 2, 4, 5 and 6, of whom the first is in both.
    assert (found.identification.strangers, found.identification.stranger_people) == (30, 4)
    # Whoever asks about a photo of either source is told the listed name.
    made = Pipeline.from_settings(Settings(engine_bundle=str(out), engine_device="cpu"))
    for home in (first, second):
        photo = Image.open(home / "crops" / "Person_1" / "3.png").convert("RGB")
        (analysis,) = made.analyze([PhotoRequest(photo, aligned=True)])
        assert analysis.faces[0].matches[0].name == "Ben"
    shown = " ".join(run(*command, "--out", out).output.split())
    assert "for want of a face: Zoe" in shown
    assert "30 faces of 4 strangers (others and first)" in shown
    assert "same name in more than a tenth" in shown


def test_what_was_left_out_is_told_of_the_people_who_are_wanted(sources, listed, tmp_path):
    homes = [tmp_path / "a", tmp_path / "b"]
    for home, source in zip(homes, sources, strict=False):
        shutil.copytree(source, home)
    workbench.edit(homes[0], 1, status="drop", code="blurred", reason="it is blurred")  # Ana
    workbench.edit(homes[0], 13, status="drop", code="blurred", reason="it is blurred")  # Person 2
    workbench.edit(homes[1], 20, status="drop", code="copy", reason="it is a copy")  # Cid
    # Manifests may have other names than the usual one.
    (homes[1] / manifest.NAME).rename(homes[1] / "mine.jsonl")
    given = (homes[0], homes[1] / "mine.jsonl")
    report = json.loads(run(*given, "--people", listed, "--out", tmp_path / "x", "--json").stdout)
    assert [(entry["person"], entry["code"]) for entry in report["left_out"]] == [
        ("Person 0", "blurred"),
        ("Person 3", "copy"),
    ]
    report = json.loads(run(*given, "--out", tmp_path / "x", "--json").stdout)
    assert len(report["left_out"]) == 3
    assert report["people"] == {"Person 0": 11, "Person 1": 12, "Person 2": 11, "Person 3": 11}
    assert report["missing"] == []


def test_people_of_several_sources_without_a_face_are_told(sources, tmp_path):
    home = tmp_path / "a"
    shutil.copytree(sources[2], home)
    for number in range(36, 42):  # Person 6
        workbench.edit(home, number, override="drop")
    report = json.loads(run(sources[0], home, "--out", tmp_path / "x", "--json").stdout)
    assert report["missing"] == ["Person 6"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("known_for_es", "es"), "lacks the column known_for_es"),
        (lambda text: text.replace("\tAR\t", "\tArgentina\t"), "'Argentina' is no ISO 3166-1"),
        (lambda text: text.replace("erson", "ersons"), "Nobody of the list of people"),
    ],
)
def test_a_list_that_is_wrong_makes_no_bundle(home, listed, tmp_path, change, said):
    listed.write_text(change(listed.read_text(encoding="utf-8")), encoding="utf-8")
    result = run(home, "--people", listed, "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "x.json").exists()


def test_strangers_who_are_all_in_the_gallery_are_refused(home, tmp_path):
    result = run(home, "--strangers", home, "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert "Everybody among the strangers is in the gallery" in " ".join(result.output.split())
    assert not (tmp_path / "x.json").exists()


def test_the_same_sources_give_the_same_bytes(sources, listed, tmp_path, few_are_enough):
    first, second, others = sources
    for name in ("a", "b"):
        result = run(
            *(first, second, "--people", listed, "--strangers", others),
            *("--out", tmp_path / name / "x", "--created", "2026-01-01"),
        )
        assert result.exit_code == 0, result.output
    for suffix in ("pth", "json"):
        made = [(tmp_path / name / f"x.{suffix}").read_bytes() for name in ("a", "b")]
        assert made[0] == made[1]
