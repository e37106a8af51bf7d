import hashlib
import io
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from engine.errors import WeightsError
from engine.vision import weights
from engine.vision.retries import Retries
from engine.vision.weights import WeightsFile, find

CONTENT = random.Random(1).randbytes(1_000_003)

fetch = partial(weights.fetch, retries=Retries(pause=lambda _: None))


@dataclass
class Server:
    """A file server that misbehaves on request, and remembers what it was asked."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    ranges: bool = True
    status: int | None = None
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses and headers of the next answers, before the file."""
    lengths: bool = True
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next answers is cut off."""
    shift: int = 0
    """Answers ranges with as many bytes too late."""
    requests: list[dict[str, str]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(request.headers))
        self.arrived.set()
        self.hold.wait(20)
        if self.status is not None or self.faults:
            status, headers = (self.status, {}) if self.status else self.faults.pop(0)
            request.send_response(status)
            for header in headers.items():
                request.send_header(*header)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        range_header = request.headers.get("Range")
        same = request.headers.get("If-Range", self.etag) == self.etag
        if self.ranges and range_header is not None and same:
            start = int(range_header.removeprefix("bytes=").removesuffix("-")) + self.shift
            if start >= len(self.content):
                request.send_error(416)
                return
            request.send_response(206)
            last = len(self.content) - 1
            request.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        else:
            request.send_response(200)
        body = self.content[start:]
        if self.etag is not None:
            request.send_header("ETag", self.etag)
        if self.lengths:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    shared = Server()
    shared.hold.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shared.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients hang up in the middle here; that is what is tested."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        shared.url = f"http://127.0.0.1:{http.server_port}/weights.pt"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield shared
        finally:
            shared.hold.set()
            http.shutdown()
            thread.join()


@pytest.fixture
def file(server: Server) -> WeightsFile:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return WeightsFile("weights.pt", server.url, len(CONTENT), digest, "CC0")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_fetches_once_and_verifies(server: Server, file: WeightsFile, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    path = fetch(file, folder)
    assert path == folder / "weights.pt"
    assert path.read_bytes() == CONTENT
    assert names(folder) == {"weights.pt"}
    assert fetch(file, folder) == find(file, folder) == path
    assert len(server.requests) == 1


def test_find_tells_missing_from_wrong(file: WeightsFile, tmp_path: Path) -> None:
    assert find(file, tmp_path) is None
    path = tmp_path / file.name
    for content, reason in ((b"short", "5 bytes"), (bytes(len(CONTENT)), "sha256")):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=reason) as caught:
            find(file, tmp_path)
        assert caught.value.code == "weights_corrupt"
        assert file.sha256 in caught.value.message


def test_a_damaged_file_is_fetched_again(file: WeightsFile, tmp_path: Path) -> None:
    (tmp_path / file.name).write_bytes(b"damaged")
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_goes_on_where_a_connection_was_cut(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    server.cuts = [400_000, 100_000]
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    asked = [request.get("Range") for request in server.requests]
    assert asked == [None, "bytes=400000-", "bytes=500000-"]
    assert server.requests[1]["If-Range"] == '"one"'


def test_a_later_run_goes_on_from_what_is_kept(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    server.cuts = [100_000] * 4
    with pytest.raises(WeightsError, match="400,000 bytes are kept") as caught:
        fetch(file, tmp_path)
    assert caught.value.code == "weights_missing"
    assert names(tmp_path) == {"weights.pt.part", "weights.pt.part.etag"}
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=400000-"
    assert names(tmp_path) == {"weights.pt"}


def test_a_server_without_ranges_starts_over(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    server.ranges = False
    server.cuts = [400_000]
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_a_server_without_lengths_or_validators(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    server.lengths, server.etag = False, None
    server.cuts = [400_000]
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert "If-Range" not in server.requests[1]


def test_a_weak_validator_is_not_relied_on(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    server.etag = 'W/"one"'
    server.cuts = [400_000]
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert "If-Range" not in server.requests[1]


def test_a_file_that_changed_meanwhile_is_not_glued_together(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt.part").write_bytes(b"x" * 400_000)
    (tmp_path / "weights.pt.part.etag").write_text('"another"')
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("length", [400_000, len(CONTENT), len(CONTENT) + 1])
def test_a_part_of_something_else_is_started_over(
    file: WeightsFile, tmp_path: Path, length: int
) -> None:
    (tmp_path / "weights.pt.part").write_bytes(b"x" * length)
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_a_complete_part_needs_no_server(file: WeightsFile, tmp_path: Path) -> None:
    (tmp_path / "weights.pt.part").write_bytes(CONTENT)
    assert fetch(replace(file, url="http://127.0.0.1:9/"), tmp_path).read_bytes() == CONTENT


def test_a_range_that_is_not_the_one_asked_for(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt.part").write_bytes(CONTENT[:1000])
    server.shift = 7
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == ["bytes=1000-", None]


def test_wrong_content_is_removed_and_told(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    server.content = bytes(len(CONTENT))
    with pytest.raises(WeightsError, match=r"not the expected file .* removed") as caught:
        fetch(file, tmp_path)
    assert caught.value.code == "weights_corrupt"
    assert names(tmp_path) == set()
    server.content = CONTENT
    assert fetch(file, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("lengths", [True, False])
def test_too_much_content(server: Server, file: WeightsFile, tmp_path: Path, lengths: bool) -> None:
    server.content, server.lengths = CONTENT + b"more", lengths
    with pytest.raises(WeightsError, match=r"1,000,00[37] bytes") as caught:
        fetch(file, tmp_path)
    assert caught.value.code == "weights_corrupt"
    assert names(tmp_path) == set()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_fault_that_may_pass_is_waited_for(
    server: Server, file: WeightsFile, tmp_path: Path, status: int
) -> None:
    server.faults = [(status, {})] * 3
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_refusing_server(server: Server, file: WeightsFile, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(WeightsError, match=f"answered {status}") as caught:
        fetch(file, tmp_path)
    assert caught.value.code == "weights_missing"
    assert len(server.requests) == 1


def test_offline_it_says_which_file_to_put_where(file: WeightsFile, tmp_path: Path) -> None:
    file = replace(file, url="http://127.0.0.1:9/weights.pt")  # nobody listens there
    with pytest.raises(WeightsError, match="could not be fetched") as caught:
        fetch(file, tmp_path)
    message = caught.value.message
    for part in ("weights.pt", file.url, "1,000,003 bytes", file.sha256, str(tmp_path)):
        assert part in message
    assert "FACE_WEIGHTS_DIR" in message


def test_goes_through_the_proxy_of_the_environment(
    server: Server, file: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/weights.pt"))
    elsewhere = replace(file, url="http://weights.example/weights.pt")
    assert fetch(elsewhere, tmp_path).read_bytes() == CONTENT
    assert server.requests[0]["Host"] == "weights.example"


def test_full_disk(file: WeightsFile, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a device without room")
    (tmp_path / "weights.pt.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="disk is full"):
        fetch(file, tmp_path)


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_more_than_there_is_room_for_is_not_begun(
    file: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    room = shutil.disk_usage(tmp_path)._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(WeightsError, match="disk is full"):
        fetch(replace(file, size_bytes=size), tmp_path)
    assert names(tmp_path) == set()


def test_the_server_may_be_the_only_one_who_knows_the_length(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    unknown = replace(file, size_bytes=None)
    server.cuts = [300_000]
    assert fetch(unknown, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=300000-"
    assert find(unknown, tmp_path) == tmp_path / "weights.pt"
    (tmp_path / "weights.pt").unlink()
    server.lengths = False
    with pytest.raises(WeightsError, match="does not say how many bytes it has"):
        fetch(unknown, tmp_path)


def test_a_folder_that_is_a_file(file: WeightsFile, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot be kept"):
        fetch(file, tmp_path / "taken")


def test_two_at_once_download_once(server: Server, file: WeightsFile, tmp_path: Path) -> None:
    server.hold.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch, file, tmp_path)
        assert server.arrived.wait(20)
        second = pool.submit(fetch, file, tmp_path)
        server.hold.set()
        assert first.result(20) == second.result(20)
    assert len(server.requests) == 1


def test_waits_for_another_holder_of_the_lock(
    server: Server, file: WeightsFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = threading.Event()
    caplog.handler.addFilter(lambda record: waiting.set() or True)
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / "weights.pt.lock"):
            result = pool.submit(fetch, file, tmp_path)
            assert waiting.wait(20)
            assert server.requests == []
            # What the other process was there for.
            (tmp_path / "weights.pt").write_bytes(CONTENT)
        assert result.result(20).read_bytes() == CONTENT
    assert server.requests == []
    assert "waiting" in caplog.text


def test_progress_is_drawn_on_terminals_only(
    server: Server, file: WeightsFile, tmp_path: Path
) -> None:
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=100)
        fetch(file, tmp_path / str(terminal), console=console)
        assert ("weights.pt" in screen.getvalue()) is terminal
