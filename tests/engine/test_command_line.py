import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from engine.__main__ import app
from engine.media.decoder_pool import PhotoDecoders

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    astronaut = Image.fromarray(data.astronaut())
    astronaut.save(folder / "astronaut.jpg")
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.png")
    Image.new("RGB", (200, 200), "teal").save(folder / "wall.png")
    (folder / "words[red].jpg").write_text("not a picture")
    (folder / "notes.txt").write_text("left out: nothing promises a picture")
    (folder / ".hidden").write_text("left out")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_analyze_prints_one_object_a_photo(folder):
    result = run("analyze", folder, "--json", "--top-k", 2, "--embed")
    by_name = {record["photo"].rsplit("/", 1)[1]: record for record in lines(result)}
    assert list(by_name) == ["astronaut.jpg", "mirrored.png", "wall.png", "words[red].jpg"]
    (face,) = by_name["astronaut.jpg"]["faces"]
    assert set(face) == {
        "box",
        "landmarks",
        "probability",
        "quality",
        "pose",
        "matches",
        "embedding",
        "pattern",
    }
    assert len(face["matches"]) == 2
    assert set(face["matches"][0]) == {
        "name",
        "probability",
        "similarity",
        "percentile",
        "verdict",
    }
    assert by_name["wall.png"] == {"photo": f"{folder}/wall.png", "faces": [], "error": None}
    assert by_name["words[red].jpg"]["error"]["code"] == "not_an_image"
    assert result.exit_code == 1  # one could not be read


def test_analyze_succeeds_where_every_photo_can_be_read(folder):
    result = run("analyze", folder / "astronaut.jpg", folder / "wall.png")
    assert result.exit_code == 0
    assert "astronaut.jpg" in result.stdout
    assert "no face" in result.stdout


def test_analyze_of_a_missing_file_says_so(tmp_path):
    result = run("analyze", tmp_path / "absent.jpg", "--json")
    assert result.exit_code == 1
    assert lines(result)[0]["error"]["code"] == "unreadable_file"


def test_a_name_with_brackets_is_printed_as_it_is(folder):
    result = run("analyze", folder / "words[red].jpg", folder / "astronaut.jpg")
    assert result.exit_code == 1
    assert "words[red].jpg: " in result.stdout
    result = run("compare", folder / "words[red].jpg", folder / "astronaut.jpg")
    assert "words[red].jpg | " in result.stdout


NASTY = "\x1b[2J\x9b31m\u202e\nx.jpg"
SPELLED = r"\u001b[2J\u009b31m\u202e\u000ax.jpg"


def printed(result):
    """What was printed, free of anything that a terminal would obey."""
    assert [text for text in result.output.split("\n") if not text.isprintable()] == []
    return result.output


def test_control_characters_of_names_are_spelled(folder, tmp_path):
    nasty, wall = tmp_path / NASTY, tmp_path / f"1{NASTY}"
    shutil.copy(folder / "astronaut.jpg", nasty)
    shutil.copy(folder / "wall.png", wall)
    absent = tmp_path / f"2{NASTY}"
    shown = printed(run("analyze", nasty, wall, absent))
    assert f"1{SPELLED}: no face" in shown
    assert f"2{SPELLED} could not be read" in shown
    shown = printed(run("compare", nasty, wall))
    assert f"{SPELLED} | " in shown
    for command in ("analyze", "compare"):
        result = run(command, nasty, absent, "--json")
        assert r"\u009b31m\u202e" in printed(result)
        assert str(absent) in lines(result)[-1].values()
    assert "There is no bundle" in printed(run("analyze", wall, "--bundle", absent))


def test_compare_two_photos(folder):
    result = run("compare", folder / "astronaut.jpg", folder / "mirrored.png", "--json")
    (record,) = lines(result)
    assert result.exit_code == 0
    assert set(record) == {
        "file_x",
        "file_y",
        "similarity",
        "same",
        "threshold",
        "fmr",
        "error",
    }
    assert record["same"] is True
    assert record["error"] is None


def test_compare_pairs_relative_to_their_file(folder):
    pairs = folder / "pairs.csv"
    pairs.write_text("file_x,file_y\nastronaut.jpg,mirrored.png\nastronaut.jpg,wall.png\n")
    result = run("compare", "--pairs", pairs, "--json")
    first, second = lines(result)
    assert first["same"] is True
    assert second["error"]["code"] == "no_face"
    assert second["similarity"] is second["same"] is None
    assert result.exit_code == 1


@pytest.mark.parametrize("arguments", [[], ["one.jpg"], ["a", "b", "--pairs", "c.csv"]])
def test_compare_wants_two_photos_or_pairs(arguments):
    result = run("compare", *arguments)
    assert result.exit_code == 2
    assert "Give two photos" in result.output


def test_a_name_that_no_file_can_have_costs_one_pair(folder):
    pairs = folder / "nul.csv"
    pairs.write_bytes(b"file_x,file_y\r\na\0b.jpg,wall.png\r\n astronaut.jpg , mirrored.png \r\n")
    first, second = lines(run("compare", "--pairs", pairs, "--json"))
    assert first["error"]["code"] == "unreadable_file"
    assert second["same"] is True


def test_a_name_that_is_no_text_does_not_end_the_run(folder, tmp_path):
    shutil.copy(folder / "astronaut.jpg", os.fsencode(tmp_path / "a") + b"\xff.jpg")
    shutil.copy(folder / "astronaut.jpg", tmp_path / "b.jpg")
    command = [sys.executable, "-m", "engine", "analyze", str(tmp_path), "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 2


def test_pairs_without_the_columns_are_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a,b\n1,2\n")
    result = run("compare", "--pairs", path)
    assert result.exit_code == 2
    assert "file_x and file_y" in result.output


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--bundle", "nobody", "There is no bundle"), ("--device", "tpu", "ENGINE_DEVICE")],
)
def test_wrong_settings_end_at_once(folder, option, value, said):
    result = run("analyze", folder, option, value)
    assert result.exit_code == 2
    assert said in result.output


def test_asking_for_cuda_without_one_fails_at_once(folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = run("analyze", folder, "--device", "cuda")
    assert result.exit_code == 2
    assert "no GPU" in result.output


def test_doctor_finds_a_fresh_checkout_sound():
    result = run("doctor")
    assert result.exit_code == 0
    assert "celebrities@" in result.output
    (line,) = [line for line in result.output.splitlines() if "WebM clips" in line]
    assert "not decoded" not in line
    if sys.platform == "linux":
        assert "no-new-privileges" in result.output


def test_doctor_says_what_filters_system_calls(monkeypatch):
    monkeypatch.setattr(PhotoDecoders, "in_force", lambda _: ["no-new-privileges"])
    monkeypatch.setattr(sys, "platform", "linux")
    result = run("doctor")
    assert result.exit_code == 1
    assert "libseccomp2" in result.output


def test_doctor_finds_weights_that_are_another_file(monkeypatch, tmp_path):
    (tmp_path / "20180402-114759-vggface2.pt").write_bytes(b"half of it")
    monkeypatch.setenv("FACE_WEIGHTS_DIR", str(tmp_path))
    result = run("doctor")
    assert result.exit_code == 1
    assert "weights_corrupt" in result.output


def test_doctor_says_how_to_mend_a_missing_bundle(monkeypatch):
    monkeypatch.setenv("ENGINE_BUNDLE", "nobody")
    result = run("doctor")
    assert result.exit_code == 1
    assert "training gallery" in " ".join(result.output.split())


def test_doctor_says_that_a_folder_is_no_bundle(monkeypatch):
    monkeypatch.setenv("ENGINE_BUNDLE", "..")
    result = run("doctor")
    assert result.exit_code == 1
    assert "names no bundle" in " ".join(result.output.split())
    assert "celebrities@" in result.output
