import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from engine import bundle, embed
from engine.align import ARCFACE, ARCFACE_SIZE, crop
from engine.detect import Detector
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from training import faces
from training.__main__ import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pictures(folder, people=4, each=6, size=112):
    """Made-up people: each a blurred pattern of their own, seen with noise."""
    generator = np.random.default_rng(4)
    for person in range(people):
        home = folder / f"Person_{person}"
        home.mkdir(parents=True)
        pattern = Image.fromarray(generator.integers(0, 256, (7, 7, 3), np.uint8))
        smooth = np.asarray(pattern.resize((size, size), Image.Resampling.BICUBIC), float)
        for i in range(each):
            noisy = smooth + generator.normal(0, 45, (14, 14, 3)).repeat(8, 0).repeat(8, 1)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(home / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("people"))


def test_a_folder_becomes_a_bundle_that_the_engine_serves(people, tmp_path):
    (people / "Person_0" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    out = tmp_path / "mine"
    result = run("gallery", people, "--aligned", "--out", out, "--json", "--thumbnails")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert set(report["people"]) == {f"Person {i}" for i in range(4)}
    assert [entry["reason"] for entry in report["rejected"]] == ["unreadable (broken_image)"]
    # Too few faces to measure anything: it says whose calibration it borrowed.
    assert report["calibration"]["source"] == bundle.load("celebrities").id

    pipeline = Pipeline.from_settings(Settings(engine_bundle=str(out), engine_device="cpu"))
    photo = Image.open(people / "Person_2" / "0.png").convert("RGB")
    (analysis,) = pipeline.analyze([PhotoRequest(photo, aligned=True)])
    best = analysis.faces[0].matches[0]
    assert best.name == "Person 2"
    assert best.thumbnail.startswith(b"\xff\xd8")


def test_same_photos_give_same_bytes(people, tmp_path):
    for name in ("a", "b"):
        result = run(
            "gallery",
            people,
            "--aligned",
            "--out",
            tmp_path / name / "x",
            "--created",
            "2026-01-01",
        )
        assert result.exit_code == 0
    for suffix in ("pth", "json"):
        first = (tmp_path / "a" / f"x.{suffix}").read_bytes()
        assert first == (tmp_path / "b" / f"x.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: folder / "absent", "is not a folder"),
        (lambda folder: folder, "one folder per person"),
    ],
)
def test_a_folder_without_people_is_refused(tmp_path, prepare, said):
    result = run("gallery", prepare(tmp_path), "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_photos_without_a_face_make_no_bundle(tmp_path):
    (tmp_path / "in" / "Nobody").mkdir(parents=True)
    Image.new("RGB", (200, 200)).save(tmp_path / "in" / "Nobody" / "wall.png")
    result = run("gallery", tmp_path / "in", "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert "no face" in result.output
    assert not (tmp_path / "x.json").exists()


def test_the_face_that_agrees_with_the_other_photos_is_chosen(tmp_path):
    """In a photo of two, the person's own face is taken though the other one is larger."""
    astronaut = Image.fromarray(data.astronaut())
    face = astronaut.crop((130, 0, 330, 230))
    # Squeezed and recoloured, the same face becomes another's.
    pixels = np.asarray(face.resize((200, 300)).crop((0, 40, 200, 270)), float)
    stranger = Image.fromarray((255 * (pixels / 255) ** 2.2).astype(np.uint8))
    pair = Image.new("RGB", (900, 560))
    pair.paste(stranger.resize((440, 506)), (10, 10))
    pair.paste(face, (600, 150))
    home = tmp_path / "Eileen"
    home.mkdir()
    astronaut.save(home / "0.png")
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(home / "1.png")
    pair.save(home / "2.png")

    detector = Detector(torch.device("cpu"))
    embedder = embed.load("dlib-resnet29", torch.device("cpu"), tmp_path)
    (found,) = detector.detect([pair])
    assert len(found) == 2
    assert found.boxes[0, 0] < 450 < found.boxes[1, 0]  # the stranger's is the larger one
    read = faces.read(
        faces.walk(tmp_path), detector, embedder, aligned=False, progress=lambda done: None
    )
    own = crop(pair, found.landmarks[1], ARCFACE, ARCFACE_SIZE)
    np.testing.assert_array_equal(read.chips[2], own)


@pytest.mark.parametrize("names", [("A_B", "A B"), ("Jürgen", "Ju\u0308rgen")])
def test_two_folders_of_one_person_are_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "0.png").write_bytes(b"x")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes the two names for one")
    result = run("gallery", tmp_path, "--aligned", "--out", tmp_path / "x")
    assert result.exit_code == 1
    assert "are both" in result.output


def test_a_person_without_a_face_is_named(people, tmp_path):
    import shutil

    shutil.copytree(people, tmp_path / "in")
    (tmp_path / "in" / "Nobody").mkdir()
    (tmp_path / "in" / "Nobody" / "0.jpg").write_text("nothing")
    result = run("gallery", tmp_path / "in", "--aligned", "--out", tmp_path / "x", "--json")
    assert json.loads(result.stdout)["missing"] == ["Nobody"]
    result = run("gallery", tmp_path / "in", "--aligned", "--out", tmp_path / "x")
    assert "for want of a face: Nobody" in result.output


def test_borrowed_from_a_borrower_is_refused(people, tmp_path):
    first = run("gallery", people, "--aligned", "--out", tmp_path / "a")
    assert first.exit_code == 0
    lender = ("--calibration-from", str(tmp_path / "a"))
    second = run("gallery", people, "--aligned", "--out", tmp_path / "b", *lender)
    assert second.exit_code == 1
    assert "borrowed its own calibration" in " ".join(second.output.split())
