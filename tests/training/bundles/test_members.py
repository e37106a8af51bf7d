import errno
import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from skimage import data as photographs
from typer.testing import CliRunner

from engine import bundle, files
from engine.people import recogniser
from tests.engine import bundles
from tests.training import workbench
from tests.training.synthetic import pictures
from training import tools
from training.__main__ import app
from training.bundles import gallery, members
from training.bundles.gallery import CALIBRATED_FOR
from training.datasets import data, people, prepare
from training.fit import recipes
from training.fit.fitting import Machine
from training.fit.recipes import Recipe
from training.vectors import unit

FILES = {"people.pth", "people.json", ".people.lock"}


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result, " ".join(result.output.split())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Aligned crops of six made-up people; six of each of the first four are in the gallery."""
    folder = pictures(tmp_path_factory.mktemp("photos"), people=6, each=24)
    generator = np.random.default_rng(9)
    # Lit from another side each, or they would be near copies.
    for path in sorted(folder.rglob("*.png")):
        left, right = generator.uniform(0.3, 1.2, 2)
        ramp = np.linspace(left, right, 112)
        light = ramp[:, None, None] if generator.random() < 0.5 else ramp[None, :, None]
        with Image.open(path) as picture:
            lit = np.asarray(picture, float) * light
        Image.fromarray(lit.clip(0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def eyes():
    return tools.load()


@pytest.fixture(scope="module")
def built(photos, eyes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    for person in range(4):
        (folder / "people" / f"Person_{person}").mkdir(parents=True)
        for path in of(photos, person)[:6]:
            shutil.copy(path, folder / "people" / f"Person_{person}" / path.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "DATASETS", folder / "datasets")
        faces = prepare.dataset(folder / "people", eyes, aligned=True)
    # Measured on themselves: made-up people resemble each other more than real ones do.
    gallery.build(
        faces,
        data.vectors(faces, eyes.embedder),
        eyes.embedder.specification,
        folder / "people",
        gallery.Source("made up", "none", "2026-01-01"),
        thumbnails=True,
        borrow=None,
    )
    return folder


@pytest.fixture(autouse=True)
def loaded_once(eyes, monkeypatch):
    monkeypatch.setattr(tools, "load", lambda embedder_id: eyes)


@pytest.fixture
def stem(built, tmp_path):
    for suffix in ("pth", "json"):
        shutil.copy(built / f"people.{suffix}", tmp_path / f"people.{suffix}")
    return tmp_path / "people"


def of(photos, person):
    return [photos / f"Person_{person}" / f"{i}.png" for i in range(24)]


def add(stem, name, paths, *options):
    return run("add", name, *paths, "--to", stem, "--aligned", "--json", *options)


def best(stem, path, eyes):
    known = recogniser.load(bundle.load(stem), torch.device("cpu"))
    (photo,), _ = members._see([path], eyes, True, lambda done: None)
    ((match,),) = known.search(torch.from_numpy(photo.vectors), 1)
    return match


def test_a_new_person_is_known_afterwards(stem, photos, eyes):
    before = bundle.load(stem)
    result, said = add(stem, "Person_4", of(photos, 4)[:6], "--created", "2026-02-03")
    assert result.exit_code == 0, said
    report = json.loads(result.stdout)
    assert report["left_out"] == report["doubts"] == []
    assert (report["person"], report["new"], report["faces"]) == ("Person 4", True, 6)
    assert report["left_out"] == report["doubts"] == []
    match = best(stem, of(photos, 4)[7], eyes)
    assert match.name == "Person 4"
    assert match.thumbnail.startswith(b"\xff\xd8")
    after = bundle.load(stem)
    assert after.manifest.created == "2026-02-03"
    assert after.manifest.dataset.people == 5
    assert after.manifest.dataset.faces == 30
    # Nobody else is seen otherwise.
    torch.testing.assert_close(after.tensors["centre"], before.tensors["centre"])
    torch.testing.assert_close(after.tensors["prototypes"][:-1], before.tensors["prototypes"])
    # The calibration is still that of the four, carried over, and says so.
    assert before.calibration.source == "own"
    assert after.calibration.source == before.id
    assert after.manifest.architecture[CALIBRATED_FOR] == 5
    assert after.manifest.metrics == {}


def test_adding_and_removing_gives_the_same_bundle_back(stem, photos):
    before = bundle.load(stem)
    add(stem, "Person 4", of(photos, 4)[:8])
    result, said = run("remove", "Person_4", "--from", stem, "--json")
    assert result.exit_code == 0, said
    after = bundle.load(stem)
    assert after.manifest.people == before.manifest.people
    assert after.tensors.keys() == before.tensors.keys()
    for key, value in before.tensors.items():
        torch.testing.assert_close(after.tensors[key], value, rtol=0, atol=0)
    assert after.manifest.dataset == before.manifest.dataset


@pytest.mark.parametrize("person", [0, 2, 3])
def test_nothing_of_a_removed_person_stays(stem, photos, eyes, person):
    before = bundle.load(stem)
    result, said = run("remove", f"Person {person}", "--from", stem)
    assert result.exit_code == 0, said
    after = bundle.load(stem)
    for suffix in ("pth", "json"):
        content = stem.with_suffix(f".{suffix}").read_bytes()
        assert f"Person {person}".encode() not in content
        for key in ("prototypes", "thumbnails"):
            gone = before.tensors[key]
            if key == "prototypes":
                gone = gone[before.tensors["owner"] == person]
            else:
                ends = [0, *before.tensors["thumbnail_ends"].tolist()]
                gone = gone[ends[person] : ends[person + 1]]
            assert gone.numpy().tobytes() not in content
    assert after.manifest.people == {
        i: f"Person {other}" for i, other in enumerate(k for k in range(4) if k != person)
    }
    for other in range(4):
        if other != person:
            assert best(stem, of(photos, other)[0], eyes).name == f"Person {other}"
    # A temporary file of the same folder would be a trace as well; the lock's says nothing.
    assert {path.name for path in stem.parent.iterdir()} == FILES
    assert (stem.parent / ".people.lock").read_bytes() == b""


def test_more_photos_move_a_persons_prototype(stem, photos, eyes):
    before = bundle.load(stem)
    fresh = of(photos, 1)[6:8]
    result, said = add(stem, "Person 1", fresh)
    assert result.exit_code == 0, said
    assert json.loads(result.stdout)["new"] is False
    after = bundle.load(stem)
    assert after.tensors["counts"].tolist() == [6, 8, 6, 6]
    own = after.tensors["owner"] == 1
    centre = before.tensors["centre"].numpy()
    # It is where the mean of all eight photos is, as if they had been there from the start.
    everything, _ = members._see(of(photos, 1)[:8], eyes, True, lambda done: None)
    centred = unit(np.concatenate([photo.vectors for photo in everything]) - centre)
    expected = unit(centred.sum(axis=0, keepdims=True))
    np.testing.assert_allclose(after.tensors["prototypes"][own].numpy(), expected, atol=2e-3)
    untouched = ~own
    torch.testing.assert_close(
        after.tensors["prototypes"][untouched], before.tensors["prototypes"][untouched]
    )


def test_many_more_photos_make_another_prototype(stem, photos):
    result, said = add(stem, "Person 0", of(photos, 0)[6:24])
    assert result.exit_code == 0, said
    tensors = bundle.load(stem).tensors
    taken = json.loads(result.stdout)["faces"]
    assert taken >= 14
    assert tensors["counts"][tensors["owner"] == 0].tolist() == [6, taken]


def test_copies_and_unusable_files_are_left_out_with_reasons(stem, photos, tmp_path):
    shutil.copy(of(photos, 4)[0], tmp_path / "copy.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    Image.new("RGB", (20, 20), "grey").save(tmp_path / "grey.png")
    given = [
        *of(photos, 4)[:3],
        tmp_path / "copy.png",
        tmp_path / "broken.jpg",
        tmp_path / "no.jpg",
    ]
    result, said = add(stem, "Person 4", [*given, tmp_path / "grey.png"])
    assert result.exit_code == 0, said
    report = json.loads(result.stdout)
    assert report["faces"] == 3
    reasons = {entry["path"].rsplit("/", 1)[-1]: entry["reason"] for entry in report["left_out"]}
    assert set(reasons) == {"copy.png", "broken.jpg", "no.jpg", "grey.png"}
    assert "same picture as 0.png" in reasons["copy.png"]
    assert "too small" in reasons["grey.png"]


def test_somebody_elses_photos_are_left_out_or_doubted(stem, photos):
    mixed = [*of(photos, 4)[:4], of(photos, 3)[5]]
    result, said = add(stem, "Person 4", mixed)
    assert result.exit_code == 0, said
    (left_out,) = json.loads(result.stdout)["left_out"]
    assert "looks like Person 3" in left_out["reason"]
    # All of them of somebody whom the bundle knows under another name.
    result, said = add(stem, "Somebody New", of(photos, 3)[6:10])
    (doubt,) = json.loads(result.stdout)["doubts"]
    assert "look like Person 3" in doubt
    # And photos of somebody else for a known person.
    result, said = add(stem, "Person 0", of(photos, 1)[:3])
    assert result.exit_code == 1
    assert "nothing was changed" in said
    result, said = add(stem, "Person 0", of(photos, 1)[:3], "--trust")
    assert result.exit_code == 0, said
    assert "do not look much like" in json.loads(result.stdout)["doubts"][0]


def test_a_folder_of_photos_and_a_table_for_people(stem, photos):
    result, said = run("add", "Person 5", photos / "Person_5", "--to", stem, "--aligned")
    assert result.exit_code == 0, said
    assert "Person 5 is new: 24 faces added" in said
    assert "knows 5 people" in said


def test_the_persons_own_face_is_taken_from_a_photo_of_two(stem, eyes, tmp_path):
    astronaut = Image.fromarray(photographs.astronaut())
    face = astronaut.crop((130, 0, 330, 230))
    pixels = np.asarray(face.resize((200, 300)).crop((0, 40, 200, 270)), float)
    stranger = Image.fromarray((255 * (pixels / 255) ** 2.2).astype(np.uint8))
    pair = Image.new("RGB", (900, 560))
    pair.paste(stranger.resize((440, 506)), (10, 10))
    pair.paste(face, (600, 150))
    astronaut.save(tmp_path / "0.png")
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "1.png")
    pair.save(tmp_path / "2.png")
    candidates, _ = members._see(
        [tmp_path / f"{i}.png" for i in range(3)], eyes, False, lambda done: None
    )
    assert len(candidates[2].areas) == 2
    largest = int(candidates[2].areas.argmax())
    chosen = members._choose(candidates, bundle.load(stem), None)
    own = candidates[2].chips[1 - largest]
    np.testing.assert_array_equal(chosen.chips[2], own)


def test_an_own_calibration_becomes_an_earlier_ones_and_grows(tmp_path, photos):
    stem = bundles.make(tmp_path, tensors={"centre": torch.full((128,), 0.05)})
    before = bundle.load(stem)
    result, said = add(stem, "Person 4", of(photos, 4)[:8])
    assert result.exit_code == 0, said
    after = bundle.load(stem).calibration
    assert after.source == before.id
    assert after.stranger_quantiles[2] > before.calibration.stranger_quantiles[2]
    assert after.identification.fmr_upper_95 > before.calibration.identification.fmr_upper_95
    # Fewer people again: the figures err on the safe side and stay.
    run("remove", "Ana", "--from", stem)
    again = bundle.load(stem)
    assert again.calibration == after
    assert again.manifest.architecture[CALIBRATED_FOR] == 4


def test_a_bundle_that_does_not_count_takes_new_people_only(tmp_path, photos):
    stem = bundles.make(tmp_path)
    result, said = add(stem, "Ana", of(photos, 4)[:2])
    assert result.exit_code == 1
    assert "does not say how many photos" in said
    assert add(stem, "Person 4", of(photos, 4)[:8])[0].exit_code == 0
    assert "counts" not in bundle.load(stem).tensors


@pytest.mark.parametrize("command", ["add", "remove"])
def test_networks_of_their_own_and_vectorizers_are_refused(tmp_path, photos, command):
    arguments = (
        ("add", "Ana", of(photos, 4)[0], "--to")
        if command == "add"
        else ("remove", "Ana", "--from")
    )
    stem = workbench.classifier(None, tmp_path / "network", ["Ana", "Ben", "Carla"])
    before = [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")]
    result, said = run(*arguments, stem)
    assert result.exit_code == 1
    assert "a network of its own" in said
    assert "train it again with `python -m training classifier`" in said
    assert [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")] == before
    stem = bundles.make(tmp_path, kind="vectorizer", people={}, calibration=None)
    result, said = run(*arguments, stem)
    assert result.exit_code == 1
    assert "knows nobody" in said


# --- Heads: people who were trained together, on an embedder's vectors ---


@pytest.fixture(scope="module")
def headed(built, eyes):
    """A head over the same four people, of whom something is said."""
    wanted = recipes.plan(Recipe.HEAD, network=eyes.embedder.specification.id)
    alone = Machine(torch.device("cpu"), 1, 1, None).alone()

    def directions(vectors, owner, people):
        return recipes.fit_head(wanted, vectors, owner, people, wanted.epochs, alone)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "DATASETS", built / "datasets")
        faces = prepare.dataset(built / "people", eyes, aligned=True)
    countries = ("AR", "BR", "CL", "DE")
    listed = tuple(
        people.Listed((f"Person_{i}",), f"Person {i}", country, {"en": f"number {i}"})
        for i, country in enumerate(countries)
    )
    gallery.build(
        faces,
        data.vectors(faces, eyes.embedder),
        eyes.embedder.specification,
        built / "head",
        gallery.Source("made up", "none", "2026-01-01", listed),
        summary=gallery.Summarisation("classifier", directions, {"recipe": "head"}),
        thumbnails=True,
        borrow=None,
    )
    read = bundle.load(built / "head")
    assert read.manifest.kind == "classifier"
    calibration = read.calibration.model_copy(update={"floors": {0: 0.99, 2: 0.97, 3: 0.98}})
    bundle.rewrite(built / "head", read.manifest.model_copy(update={"calibration": calibration}))
    return built / "head"


@pytest.fixture
def head(headed, tmp_path):
    for suffix in ("pth", "json"):
        shutil.copy(f"{headed}.{suffix}", tmp_path / f"head.{suffix}")
    return tmp_path / "head"


def test_a_new_person_of_a_head_is_known_afterwards(head, photos, eyes):
    before = bundle.load(head)
    result, said = add(head, "Person 4", of(photos, 4)[:6])
    assert result.exit_code == 0, said
    after = bundle.load(head)
    assert after.manifest.kind == "classifier"
    assert [after.manifest.people[i] for i in range(5)] == [f"Person {i}" for i in range(5)]
    torch.testing.assert_close(after.tensors["prototypes"][:-1], before.tensors["prototypes"])
    (new,) = after.tensors["prototypes"][after.tensors["owner"] == 4].numpy()
    assert np.linalg.norm(new) == pytest.approx(1, abs=1e-5)
    for person in range(5):
        assert best(head, of(photos, person)[7], eyes).name == f"Person {person}"
    assert after.tensors["counts"][-1] == 6


def test_a_new_person_of_a_head_keeps_away_from_a_likeness(tmp_path, photos, eyes):
    """A mean alone would lie closer to others, whose directions were trained apart."""
    seen, _ = members._see(of(photos, 4)[:6], eyes, True, lambda done: None)
    mean = unit(np.concatenate([photo.vectors for photo in seen]).sum(axis=0, keepdims=True))
    generator = np.random.default_rng(0)
    away = unit(generator.normal(size=(3, 128)).astype(np.float32))
    likeness = unit(0.9 * mean + 0.6 * away[:1])
    directions = torch.from_numpy(np.concatenate([likeness, away[1:]]))
    made = {}
    for kind in ("gallery", "classifier"):
        stem = bundles.make(tmp_path / kind, vectors=directions, kind=kind)
        result, said = add(stem, "Person 4", of(photos, 4)[:6], "--trust")
        assert result.exit_code == 0, said
        made[kind] = bundle.load(stem).tensors["prototypes"][3].numpy()
    np.testing.assert_allclose(made["gallery"], mean[0], atol=1e-5)
    assert made["classifier"] @ likeness[0] < made["gallery"] @ likeness[0] - 0.02
    assert made["classifier"] @ mean[0] > 0.9


def test_the_same_photos_give_a_head_the_same_person(head, photos, tmp_path):
    for name in ("one", "two"):
        for suffix in ("pth", "json"):
            shutil.copy(f"{head}.{suffix}", tmp_path / f"{name}.{suffix}")
        result, said = add(
            tmp_path / name, "Person 4", of(photos, 4)[:6], "--created", "2026-02-03"
        )
        assert result.exit_code == 0, said
    first, second = ((tmp_path / f"{name}.pth").read_bytes() for name in ("one", "two"))
    assert first == second


def test_a_person_leaves_a_head_and_what_is_said_stays_with_the_right_people(head, photos, eyes):
    before = bundle.load(head)
    result, said = run("remove", "Person 1", "--from", head)
    assert result.exit_code == 0, said
    after = bundle.load(head)
    assert after.manifest.kind == "classifier"
    assert {
        i: (name, after.manifest.about[i].country) for i, name in after.manifest.people.items()
    } == {
        0: ("Person 0", "AR"),
        1: ("Person 2", "CL"),
        2: ("Person 3", "DE"),
    }
    assert after.manifest.about[2].known_for == {"en": "number 3"}
    assert [after.calibration.threshold_of(i) for i in range(3)] == [0.99, 0.97, 0.98]
    for suffix in ("pth", "json"):
        content = head.with_suffix(f".{suffix}").read_bytes()
        for trace in (b"Person 1", b"number 1"):
            assert trace not in content
    kept = before.tensors["owner"] != 1
    torch.testing.assert_close(after.tensors["prototypes"], before.tensors["prototypes"][kept])
    assert best(head, of(photos, 3)[7], eyes).name == "Person 3"
    # Of somebody new nothing is said, and nobody else's words move to them.
    assert add(head, "Person 4", of(photos, 4)[:6])[0].exit_code == 0
    last = bundle.load(head)
    assert last.manifest.people[3] == "Person 4"
    assert 3 not in last.manifest.about
    assert {i: one.country for i, one in last.manifest.about.items()} == {0: "AR", 1: "CL", 2: "DE"}
    assert last.calibration.threshold_of(3) == last.calibration.identification.threshold


def test_more_photos_of_a_person_of_a_head(head, photos, eyes):
    before = bundle.load(head)
    result, said = add(head, "Person 1", of(photos, 1)[6:9])
    assert result.exit_code == 0, said
    after = bundle.load(head)
    assert after.tensors["counts"].tolist() == [6, 9, 6, 6]
    others = before.tensors["owner"] != 1
    torch.testing.assert_close(
        after.tensors["prototypes"][others], before.tensors["prototypes"][others]
    )
    assert best(head, of(photos, 1)[10], eyes).name == "Person 1"
    assert after.manifest.about == before.manifest.about


def test_who_is_not_there_cannot_go(stem):
    result, said = run("remove", "person", "--from", stem)
    assert result.exit_code == 1
    assert "Did you mean Person 0 or Person 1" in said
    for person in range(3):
        assert run("remove", f"Person {person}", "--from", stem)[0].exit_code == 0
    result, said = run("remove", "Person 3", "--from", stem)
    assert result.exit_code == 1
    assert "only person" in said


@pytest.mark.parametrize(
    "tensors",
    [
        {"counts": torch.ones(2, dtype=torch.int64)},
        {"counts": torch.ones(4)},
        {"lengths": torch.ones(2)},
    ],
)
def test_counts_that_do_not_fit_are_refused(stem, photos, tensors):
    old = bundle.load(stem)
    record = old.manifest.model_dump(exclude={"format", "preprocessing", "pth_sha256"})
    bundle.save(stem, record, dict(old.tensors) | tensors)
    result, told = run("add", "Person 0", of(photos, 0)[8], "--to", stem, "--aligned")
    assert result.exit_code == 1
    assert "counts do not fit its prototypes" in told


def test_a_full_disk_leaves_the_bundle_as_it_was(stem, monkeypatch):
    before = [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")]

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    real = files.os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fdopen", lambda *arguments: _Wrapped(real(*arguments), Full))
        result, said = run("remove", "Person 1", "--from", stem)
    assert result.exit_code == 1
    assert "was not changed" in said
    assert [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")] == before
    assert {path.name for path in stem.parent.iterdir()} == FILES


class _Wrapped:
    """A file in a with statement that is given out as another."""

    def __init__(self, file, kind):
        self.file, self.kind = file, kind

    def __enter__(self):
        return self.kind(self.file.__enter__())

    def __exit__(self, *error):
        return self.file.__exit__(*error)


def test_two_changes_at_once_wait_for_each_other(stem):
    lock = FileLock(stem.parent / ".people.lock")
    with lock:
        outcome = []
        thread = threading.Thread(
            target=lambda: outcome.append(
                members.remove("Person 1", stem, created="2026-01-01").manifest.people
            )
        )
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        members_before = bundle.load(stem).manifest.people
    thread.join(20)
    assert len(members_before) == 4
    assert len(outcome[0]) == 3


def test_a_command_that_waited_and_one_that_comes_later_lock_the_same_file(stem):
    waiting = stem.parent / ".people.lock"
    waiting.touch()
    with waiting.open("rb") as opened_before:
        members.remove("Person 1", stem, created="2026-01-01")
        assert os.path.samestat(waiting.stat(), os.fstat(opened_before.fileno()))


def test_another_embedder_is_refused(tmp_path, photos):
    record = {"id": "dlib-resnet29", "weights_sha256": "0" * 64, "dimension": 128}
    stem = bundles.make(tmp_path, embedder=record)
    result, said = add(stem, "Person 4", of(photos, 4)[:8])
    assert result.exit_code == 1
    assert "not comparable" in said
