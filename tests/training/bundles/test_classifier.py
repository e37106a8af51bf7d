"""`python -m training classifier`, as an operator uses it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from typer.testing import CliRunner

from engine import bundle
from engine.errors import WeightsError
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from tests.training.synthetic import prepared
from tests.training.workbench import edit
from training import asking
from training.__main__ import app
from training.bundles import gallery
from training.datasets import fetch, manifest

MAIN = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("classifier") / "set", people=5, each=8)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setenv("ENGINE_DEVICE", "cpu")


def command(home, out, *arguments):
    return [
        "classifier",
        *map(str, (home, "--out", out, "--runs", out.parent / "runs", "--created", "2026-01-01")),
        *map(str, arguments),
    ]


def run(*arguments):
    return CliRunner().invoke(app, command(*arguments))


def best_match(stem, photo):
    pipeline = Pipeline.from_settings(Settings(engine_bundle=str(stem), engine_device="cpu"))
    picture = Image.open(photo).convert("RGB")
    (analysis,) = pipeline.analyze([PhotoRequest(picture, aligned=True)])
    return analysis.faces[0].matches[0]


def test_the_default_makes_a_classifier_that_the_engine_serves(home, tmp_path):
    out = tmp_path / "mine"
    result = run(home, out, "--thumbnails", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["architecture"]["recipe"] == "head"
    # Too few faces to measure anything: it says whose calibration it borrowed.
    assert report["calibration"]["source"] == bundle.load("celebrities").id
    match = best_match(out, home / "crops" / "Person_3" / "0.png")
    assert match.name == "Person 3"
    assert match.thumbnail.startswith(b"\xff\xd8")
    # The run is over: its checkpoints are gone, its history stays.
    assert not (tmp_path / "runs" / "mine" / "checkpoints").exists()
    assert list((tmp_path / "runs" / "mine" / "history").rglob("metrics.csv"))
    assert list((tmp_path / "runs" / "mine" / "tensorboard").rglob("events*"))


def test_the_same_command_again_trains_nothing(home, tmp_path, monkeypatch):
    first = run(home, tmp_path / "x", "--json")
    before = (tmp_path / "x.pth").stat().st_mtime_ns
    again = run(home, tmp_path / "x", "--json")
    assert again.exit_code == 0, again.output
    assert "x is made from the same faces with the same options already" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (tmp_path / "x.pth").stat().st_mtime_ns == before
    changed = run(home, tmp_path / "x", "--seed", "1")
    assert (changed.exit_code, "nothing to do" in changed.stderr) == (0, False)
    # The name that it chose itself does not keep it from telling so either.
    monkeypatch.setattr(bundle, "FOLDER", tmp_path / "models")
    arguments = ["classifier", str(home), "--runs", str(tmp_path / "runs")]
    for told in (False, True):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert ("nothing to do" in result.stderr) is told
    refused = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert refused.exit_code == 1
    assert "There is a bundle set already" in refused.output


def test_several_sources_a_list_and_strangers(home, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "_OWN_CALIBRATION_FACES", 30)
    monkeypatch.setattr(gallery, "_OWN_CALIBRATION_PEOPLE", 3)
    more = prepared(tmp_path / "more", people=7, each=6, seed=31)
    listed = tmp_path / "people.tsv"
    listed.write_text(
        "folder\tdisplay_name\tcountry\tknown_for_en\tknown_for_es\n"
        "Person_1\tAna\tAR\tsinger\tcantante\n"
        "3_person\tBen\t\t\t\n"
        "Person_4;Nobody\tCid\tES\t\t\n"
    )
    out = tmp_path / "mine"
    result = CliRunner().invoke(
        app,
        [
            *("classifier", str(home), str(more), "--people", str(listed)),
            *("--strangers", str(more), "--strangers", str(home)),
            *("--out", str(out), "--runs", str(tmp_path / "runs"), "--json"),
        ],
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["architecture"]["recipe"] == "head"
    assert report["calibration"]["source"] == "own"
    assert report["calibration"]["strangers"] == "more and set"
    found = bundle.load(out)
    # Persons 0 and 2 of both datasets, 5 and 6 of the larger one.
    record = found.calibration.identification
    assert (record.strangers, record.stranger_people) == (2 * (6 + 8) + 2 * 6, 4)
    assert record.repeated.people == 4
    assert found.manifest.people == {0: "Ana", 1: "Ben", 2: "Cid"}
    assert [found.manifest.about[i].country for i in range(3)] == ["AR", "", "ES"]
    assert found.manifest.dataset.faces == 3 * (6 + 8)
    assert found.manifest.lends.strangers == "more and set"
    for folder in (home, more):
        assert best_match(out, folder / "crops" / "Person_3" / "0.png").name == "Ben"


def test_a_bundle_is_named_after_its_first_source(home, tmp_path, monkeypatch):
    """Be it a folder or the manifest in one; and nobody's bundle is replaced unasked."""
    monkeypatch.setattr(bundle, "FOLDER", tmp_path)
    (tmp_path / "set.json").write_text("{}")
    for source in (home, home / manifest.NAME):
        result = CliRunner().invoke(app, ["classifier", str(source)])
        assert result.exit_code == 1
        assert "There is a bundle set already" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--recipe", "finetune", "--unfreeze", 1),
        ("--recipe", "cnn", "--arch", "mobilenet_v3_small", "--from-scratch", "--input-px", 64),
    ],
)
def test_recipes_with_networks_of_their_own(home, tmp_path, arguments):
    out = tmp_path / "own"
    result = run(home, out, *arguments, "--epochs", 1, "--batch", 16, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["calibration"]["source"] == "own"
    assert report["architecture"]["recipe"] == arguments[1]
    assert set(report["metrics"]) == {"top_1", "top_5"}
    assert "network" in bundle.load(out).manifest.architecture
    match = best_match(out, home / "crops" / "Person_1" / "0.png")
    assert -1 <= match.similarity <= 1.001


def test_one_photo_of_everybody_is_enough_for_a_head(tmp_path):
    few = prepared(tmp_path / "set", people=3, each=1)
    result = run(few, tmp_path / "x", "--json")
    assert result.exit_code == 0, result.stderr
    assert best_match(tmp_path / "x", few / "crops" / "Person_2" / "0.png").name == "Person 2"


def test_near_duplicates_alone_are_too_few_for_a_network(tmp_path):
    same = prepared(tmp_path / "set", people=4, each=3)
    for number in range(12):
        edit(same, number, group=number // 3)
    result = run(same, tmp_path / "x", "--recipe", "finetune")
    assert result.exit_code == 1
    assert "most with several photos" in result.stderr.replace("\n", " ")


def test_two_photos_of_each_are_too_few_for_a_network(tmp_path):
    few = prepared(tmp_path / "set", people=4, each=2)
    result = run(few, tmp_path / "x", "--recipe", "finetune")
    assert result.exit_code == 1
    assert "most with several photos" in result.stderr.replace("\n", " ")


def test_imagenet_weights_that_cannot_be_had_are_done_without(home, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise WeightsError("No network here.")

    monkeypatch.setattr(fetch, "imagenet", unreachable)
    chosen = ("--recipe", "cnn", "--arch", "mobilenet_v3_small", "--input-px", 64)
    result = run(home, tmp_path / "x", *chosen, "--epochs", 1, "--batch", 16, "--json")
    assert result.exit_code == 0
    assert "No network here. Going on from scratch" in result.stderr.replace("\n", " ")
    assert json.loads(result.stdout)["architecture"]["started_from"] == "random weights"


def test_a_killed_run_ends_as_if_it_had_not_been(home, tmp_path):
    chosen = ("--epochs", 60, "--patience", 60)
    environment = os.environ | {"ENGINE_DEVICE": "cpu"}
    last = tmp_path / "a" / "runs" / "x" / "checkpoints" / "last.ckpt"
    (tmp_path / "a").mkdir()
    arguments = command(home, tmp_path / "a" / "x", *chosen)
    with subprocess.Popen(
        [sys.executable, "-m", "training", *arguments], cwd=MAIN, env=environment
    ) as process:
        deadline = time.monotonic() + 60
        while not last.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "a" / "x.json").exists()
    resumed = run(home, tmp_path / "a" / "x", *chosen)
    assert "Going on with the run" in resumed.stderr
    assert run(home, tmp_path / "b" / "x", *chosen).exit_code == 0
    for suffix in ("pth", "json"):
        made = [(tmp_path / place / f"x.{suffix}").read_bytes() for place in ("a", "b")]
        assert made[0] == made[1]


@pytest.mark.parametrize(
    ("people", "arguments", "said"),
    [
        (5, ("--recipe", "forest"), "no recipe 'forest': head, finetune or cnn"),
        (1, (), "only Person 0"),
        (3, ("--recipe", "finetune"), "at least 4 people"),
        (5, ("--recipe", "cnn", "--arch", "resnet7", "--from-scratch"), "no network 'resnet7'"),
        (5, ("--embedder", "arcface"), "no embedder 'arcface'"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, people, arguments, said):
    small = prepared(tmp_path / "set", people=people, each=2)
    result = run(small, tmp_path / "x", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr.replace("\n", " ")
    assert not (tmp_path / "x.pth").exists()


def test_without_a_terminal_it_says_what_to_give():
    result = CliRunner().invoke(app, ["classifier"])
    assert result.exit_code == 1
    assert "python -m training classifier DIR" in result.stderr.replace("\n", " ")


@pytest.fixture
def terminal(monkeypatch, tmp_path):
    class Terminal:
        @staticmethod
        def isatty():
            return True

    def lfw(least, places, *, accept):
        assert (least, accept) == (20, True)
        return tmp_path / "lfw"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(fetch, "lfw", lfw)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


@pytest.mark.parametrize(
    ("typed", "chosen"),
    [
        ("{folder}\r", "people"),
        ("nowhere\r\x15{folder}\r", "people"),
        ("\r", "lfw"),
        ("\x03", "lfw"),
    ],
)
def test_it_asks_for_the_folder(terminal, tmp_path, typed, chosen):
    (tmp_path / "people").mkdir()
    terminal.send_text(typed.format(folder=tmp_path / "people"))
    found = asking.folder(fetch.Places(tmp_path), browse=False, accept_license=True)
    assert found == tmp_path / chosen


def test_a_missing_desktop_is_explained(monkeypatch, tmp_path):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="eave --browse out"):
        asking.folder(fetch.Places(tmp_path), browse=True, accept_license=True)


def test_two_processes_train_one_network(home, tmp_path):
    out = tmp_path / "shared" / "x"
    out.parent.mkdir()
    chosen = ("--recipe", "cnn", "--arch", "mobilenet_v3_small", "--from-scratch", "--json")
    size = ("--input-px", 32, "--epochs", 1, "--batch", 16, "--devices", 2)
    done = subprocess.run(
        [sys.executable, "-m", "training", *command(home, out, *chosen, *size)],
        cwd=MAIN,
        env=os.environ | {"ENGINE_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr
    # One result, printed by one of them.
    assert json.loads(done.stdout)["bundle"] == bundle.load(out).id
