import errno
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets
from sklearn.datasets import _lfw as source
from typer.testing import CliRunner

from engine.errors import WeightsError
from engine.vision import weights
from engine.vision.embed import facenet_vggface2
from engine.vision.retries import Retries
from engine.vision.weights import WeightsFile
from training.__main__ import app
from training.datasets import fetch, licences
from training.datasets.fetch import Places

PHOTOS = {"Ada_Lovelace": 3, "Alan_Turing": 2, "Grace_Hopper": 1}


def archive():
    """As lfw.tgz is: a folder `lfw` with a folder per person."""
    generator = np.random.default_rng(5)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for person, count in PHOTOS.items():
            for i in range(1, count + 1):
                picture = io.BytesIO()
                pixels = generator.integers(0, 256, (250, 250, 3), np.uint8)
                Image.fromarray(pixels).save(picture, "JPEG")
                entry = tarfile.TarInfo(f"lfw/{person}/{person}_{i:04}.jpg")
                entry.size = len(picture.getvalue())
                tar.addfile(entry, io.BytesIO(picture.getvalue()))
    return packed.getvalue()


PAIRS = b"1\nAda_Lovelace\t1\t2\nAda_Lovelace\t1\tAlan_Turing\t2\n"


class Server(ThreadingHTTPServer):
    """Files by name; cuts answers off on request and remembers what was asked."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.most = files, [], None
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.lengths = {}
        self.faults = []

    def handle_error(self, *_):
        """Clients hang up in the middle here; that is what is tested."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        name = self.path.strip("/")
        asked = self.headers.get("Range")
        self.server.requests.append((name, asked))
        if self.server.faults:
            self.send_error(self.server.faults.pop(0))
            return
        content = self.server.files[name]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        length = self.server.lengths.get(name, len(content) - start)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body if self.server.most is None else body[: self.server.most])

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(monkeypatch):
    files = {part.filename: PAIRS for part in source.TARGETS} | {"lfw.tgz": archive()}
    http = Server(files)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def here(part):
        digest = hashlib.sha256(files[part.filename]).hexdigest()
        return part._replace(url=f"{http.address}/{part.filename}", checksum=digest)

    monkeypatch.setattr(source, "ARCHIVE", here(source.ARCHIVE))
    monkeypatch.setattr(source, "TARGETS", tuple(here(part) for part in source.TARGETS))
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def places(tmp_path):
    return _places(tmp_path / "weights", tmp_path)


def test_lfw_becomes_a_folder_per_person(server, places):
    photos = fetch.lfw(0, places, accept=True)
    assert {home.name: len(list(home.iterdir())) for home in photos.iterdir()} == PHOTOS
    assert (photos.parent / "pairs.txt").read_bytes() == PAIRS
    # Where scikit-learn looks for it.
    people = datasets.fetch_lfw_people(
        data_home=places.datasets, funneled=False, download_if_missing=False
    )
    assert list(people.target_names) == ["Ada Lovelace", "Alan Turing", "Grace Hopper"]
    asked = len(server.requests)
    assert fetch.lfw(0, places, accept=False) == photos
    assert len(server.requests) == asked
    assert "lfw" in [item.name for item in fetch.items(places) if item.here]


def test_only_people_with_enough_photos(server, places):
    chosen = fetch.lfw(2, places, accept=True)
    assert {home.name: len(list(home.iterdir())) for home in chosen.iterdir()} == {
        "Ada_Lovelace": 3,
        "Alan_Turing": 2,
    }
    with pytest.raises(ValueError, match="Nobody"):
        fetch.lfw(4, places, accept=True)


def test_a_cut_download_is_gone_on_with(server, places):
    content = server.files["lfw.tgz"]
    server.most = len(content) // 8
    with pytest.raises(WeightsError, match="bytes are kept") as caught:
        fetch.lfw(0, places, accept=True)
    assert "put lfw.tgz" in caught.value.message
    assert "FACE_WEIGHTS_DIR" not in caught.value.message
    assert not (places.datasets / fetch.LFW_HOME / "lfw").exists()
    server.most = None
    assert fetch.lfw(0, places, accept=False).is_dir()
    # Not from the beginning.
    assert server.requests[-1] == ("lfw.tgz", f"bytes={len(content) // 8 * 4}-")


def test_a_fault_that_may_pass_is_waited_for(server, places):
    server.faults = [503, 502]
    assert fetch.lfw(0, places, accept=True).is_dir()


def test_what_is_refused_for_good_is_asked_for_once(server, places):
    server.faults = [404, 404]
    with pytest.raises(WeightsError, match="answered 404"):
        fetch.lfw(0, places, accept=True)
    assert len(server.requests) == 1


def test_a_cut_unpacking_is_done_again(server, places):
    home = places.datasets / fetch.LFW_HOME
    (home / "lfw" / "Ada_Lovelace").mkdir(parents=True)
    (home / "lfw" / "Ada_Lovelace" / "Ada_Lovelace_0001.jpg").write_bytes(b"half")
    (home / "lfw.tgz").write_bytes(server.files["lfw.tgz"])
    photos = fetch.lfw(0, places, accept=True)
    assert sum(1 for _ in photos.rglob("*.jpg")) == 6
    with Image.open(photos / "Ada_Lovelace" / "Ada_Lovelace_0001.jpg") as photo:
        assert photo.size == (250, 250)
    assert ("lfw.tgz", None) not in server.requests


def test_another_archive_in_its_place_is_replaced(server, places):
    home = places.datasets / fetch.LFW_HOME
    home.mkdir(parents=True)
    (home / "lfw.tgz").write_bytes(b"something else")
    assert fetch.lfw(0, places, accept=True).is_dir()


def test_offline_one_sentence_says_which_file_goes_where(places, monkeypatch):
    nowhere = "http://127.0.0.1:9/"
    parts = tuple(part._replace(url=nowhere) for part in source.TARGETS)
    monkeypatch.setattr(source, "TARGETS", parts)
    with pytest.raises(WeightsError) as caught:
        fetch.lfw(0, places, accept=True)
    home = places.datasets / fetch.LFW_HOME
    for word in (parts[0].filename, parts[0].checksum, str(home)):
        assert word in caught.value.message


def test_what_was_put_there_by_hand_needs_no_network(server, places, monkeypatch):
    home = places.datasets / fetch.LFW_HOME
    home.mkdir(parents=True)
    for name, content in server.files.items():
        (home / name).write_bytes(content)
    assert fetch.lfw(0, places, accept=True).is_dir()
    assert server.requests == []


def test_a_full_disk_is_told_before_anything_is_begun(server, places):
    server.lengths["lfw.tgz"] = 2**60
    with pytest.raises(WeightsError, match="disk is full"):
        fetch.lfw(0, places, accept=True)


def test_a_disk_that_fills_up_while_unpacking(server, places, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", full)
        with pytest.raises(OSError, match="no room for LFW's photos"):
            fetch.lfw(0, places, accept=True)
    asked = len(server.requests)
    assert fetch.lfw(0, places, accept=False).is_dir()
    assert len(server.requests) == asked


def test_without_agreement_nothing_is_fetched(server, places):
    with pytest.raises(ValueError, match="--accept-license"):
        fetch.lfw(0, places, accept=False)
    assert server.requests == []


def test_terms_are_agreed_to_once(tmp_path, capsys):
    place = tmp_path / "licences.json"
    licences.agree("data", "Be kind.", accept=True, agreed=place)
    assert "Be kind." in capsys.readouterr().err
    licences.agree("data", "Be kind.", accept=False, agreed=place)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="data was not fetched"):
        licences.agree("data", "Be kinder.", accept=False, agreed=place)
    place.write_text("{")
    with pytest.raises(ValueError, match="data was not fetched"):
        licences.agree("data", "Be kind.", accept=False, agreed=place)


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks(tmp_path, monkeypatch, answer, agreed):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    place = tmp_path / "licences.json"
    if agreed:
        licences.agree("data", "Be kind.", accept=False, agreed=place)
        assert json.loads(place.read_text()) == {"data": "Be kind."}
    else:
        with pytest.raises(ValueError, match="not agreed"):
            licences.agree("data", "Be kind.", accept=False, agreed=place)
        assert not place.exists()


def test_weights_of_an_embedder(server, places, monkeypatch):
    content = b"weights"
    server.files["w.pt"] = content
    digest = hashlib.sha256(content).hexdigest()
    file = WeightsFile("w.pt", f"{server.address}/w.pt", len(content), digest, "CC0")
    monkeypatch.setattr(facenet_vggface2, "WEIGHTS", file)
    path = fetch.fetch("facenet-vggface2", places, accept=True)
    assert path == weights.find(file, places.weights)
    assert fetch.fetch("facenet-vggface2", places, accept=False) == path


def test_imagenet_weights_are_checked_by_the_digits_in_their_name(server, places, monkeypatch):
    from torchvision.models import MobileNet_V2_Weights

    content = b"a state dict"
    name = f"mobilenet_v2-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[name] = content
    url = f"{server.address}/{name}"

    class Redirected:
        DEFAULT = MobileNet_V2_Weights.DEFAULT.value.__class__(url, None, {})

    monkeypatch.setattr("torchvision.models.get_model_weights", lambda arch: Redirected)
    path = fetch.fetch("imagenet:mobilenet_v2", places, accept=True)
    assert path == places.weights / name
    assert path.read_bytes() == content
    path.write_bytes(b"damaged")
    assert fetch.fetch("imagenet:mobilenet_v2", places, accept=True).read_bytes() == content
    path.unlink()
    server.files[name] = b"another's"
    with pytest.raises(WeightsError, match="not the expected file"):
        fetch.fetch("imagenet:mobilenet_v2", places, accept=True)


def test_every_network_of_torchvision_has_digits_in_its_name(places):
    """Offline, each gets as far as its address."""
    from engine.vision.networks import names

    for arch in [name for name in names() if "-" not in name][:200:25]:
        with pytest.raises(ValueError, match="accept-license"):
            fetch.imagenet(arch, places, accept=False)


def test_unknown_names(places):
    with pytest.raises(ValueError, match=r"There is no 'casia' to fetch.*lfw"):
        fetch.fetch("casia", places, accept=True)
    with pytest.raises(ValueError, match="mobilenet_v2"):
        fetch.fetch("imagenet:nonsense", places, accept=True)


def run(*arguments):
    return CliRunner().invoke(app, ["fetch", *arguments])


def test_the_command_lists_what_there_is():
    listed = json.loads(run("--list", "--json").stdout)
    assert [entry["name"] for entry in listed] == [
        "lfw",
        "facenet-vggface2",
        "mobilefacenet",
        "imagenet:ARCH",
    ]
    assert all(entry["terms"] for entry in listed)
    (mobile,) = [entry for entry in listed if entry["name"] == "mobilefacenet"]
    assert "does not document" in mobile["terms"]
    assert "lfw" in run("--list").stdout
    assert "--list" in run().output


def test_the_command_fetches(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "Places", lambda weights: _places(weights, tmp_path))
    result = run("lfw", "--accept-license", "--json")
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["path"]).is_dir()
    result = run("facenet-vggface2")
    assert result.exit_code == 1
    assert "--accept-license" in " ".join(result.output.split())


def _places(weights_folder, folder):
    del weights_folder
    at_once = Retries(pause=lambda _: None)
    return Places(
        folder / "weights", folder / "datasets", folder / "licences.json", retries=at_once
    )
