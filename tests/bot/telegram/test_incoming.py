"""What is fetched from a Bot API server, and what is not however it asks."""

import asyncio
import math
import os
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from telegram import Bot, File, Message
from telegram.error import BadRequest, NetworkError

from bot.telegram.client import connect
from bot.telegram.incoming import (
    FILE_MAX_BYTES,
    TOO_LARGE,
    Capture,
    Intake,
    Reason,
    Refusal,
    attachment,
)
from tests.bot import fakes
from tests.engine.strangers import Heard, says, stranger

DOWNLOAD_FAILED = Refusal(Reason.DOWNLOAD_FAILED)
BASE = "http://127.0.0.1:1/file/bot1:a"


class Request:
    def __init__(self, files: dict[str, bytes | Exception]) -> None:
        self.files = files
        self.asked: list[str] = []

    async def retrieve(self, url: str) -> bytes:
        self.asked.append(url)
        found = self.files[url]
        if isinstance(found, Exception):
            raise found
        return found


class Server:
    """A Bot API server as `Intake` sees it: says where a file is, and hands it out."""

    base_file_url = BASE

    def __init__(self, path: str | None, size: int | None = None, **files: Any) -> None:
        self.path = path
        self.size = size
        self.request = Request({f"{BASE}/{name}": data for name, data in files.items()})
        self.refuse: Exception | None = None

    async def get_file(self, file_id: str) -> File:
        if self.refuse:
            raise self.refuse
        # As PTB's does: what is a local file's path stays as it is, the rest becomes an address.
        path = self.path
        if path and not is_file(path):
            path = f"{BASE}/{path}"
        return File(file_id, "u", self.size, path)


def is_file(path: str) -> bool:
    return Path(path).is_file()


def intake(server: Server, local_dir: Path | None = None) -> Intake:
    bot: Any = server
    return Intake(bot, timeout_s=5, local_dir=local_dir, pause_s=0)


async def test_a_file_is_fetched_over_http() -> None:
    server = Server("photo", photo=b"bytes")
    assert await intake(server).fetch("id", math.inf) == b"bytes"


async def test_no_local_file_is_read_on_a_servers_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secrets" / "ids.key"
    secret.parent.mkdir()
    secret.write_bytes(b"the key")
    (tmp_path / "inner").mkdir()
    refused = Refusal(Reason.DOWNLOAD_FAILED)
    paths = [
        str(secret),
        f"file://{secret}",
        "inner/../secrets/ids.key",
        "../secrets/ids.key",
        "./secrets/ids.key",
        "secrets//ids.key",
        "http://elsewhere/x",
        "secrets\\ids.key",
        "",
        None,
    ]
    for path in paths:
        server = Server(path)
        assert await intake(server).fetch("id", math.inf) == refused, path
        assert server.request.asked == []
    # A plain relative path is asked of the server even where such a file exists here.
    server = Server("secrets/ids.key")
    server.request.files[f"{BASE}/secrets/ids.key"] = b"the server's own"
    assert await intake(server).fetch("id", math.inf) == b"the server's own"


async def test_the_operators_folder_is_read_and_nothing_outside(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    inside, outside, link = folder / "a.jpg", tmp_path / "key", folder / "link.jpg"
    inside.write_bytes(b"photo")
    outside.write_bytes(b"key")
    link.symlink_to(outside)
    assert await intake(Server(str(inside)), folder).fetch("id", math.inf) == b"photo"
    for path in (outside, link, folder / ".." / "key", folder / "missing"):
        answer = await intake(Server(str(path)), folder).fetch("id", math.inf)
        assert answer == Refusal(Reason.DOWNLOAD_FAILED), path


async def test_a_file_that_was_not_fetched_has_its_reason_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = "/var/lib/telegram-bot-api/1:a/photos/file_0.jpg"
    refused = BadRequest("Bad Request: wrong file_id")
    cases: list[tuple[Server, Path | None, str]] = [
        (Server(away), None, "set TELEGRAM_LOCAL_DIR"),
        (Server(away), tmp_path, "outside TELEGRAM_LOCAL_DIR"),
        (Server(str(tmp_path / "missing")), tmp_path, "No such file"),
        (Server("photo", photo=NetworkError("Not Found")), None, "Not Found"),
        (Server("photo", size=9, photo=b"bytes"), None, "5 of 9 bytes"),
        (Server("photo"), None, "Wrong file_id"),
    ]
    cases[-1][0].refuse = refused
    for server, folder, reason in cases:
        caplog.clear()
        answer = await intake(server, folder).fetch("id", math.inf)
        assert answer == Refusal(Reason.DOWNLOAD_FAILED)
        assert reason in caplog.text


async def test_a_file_that_did_not_come_in_time_is_told(caplog: pytest.LogCaptureFixture) -> None:
    server = Server("photo", photo=b"bytes")

    async def never(_file_id: str) -> File:
        return await asyncio.get_running_loop().create_future()

    server.get_file = never  # type: ignore[assignment]
    assert await intake(server).fetch("id", asyncio.get_running_loop().time() + 0.01) == Refusal(
        Reason.DOWNLOAD_FAILED
    )
    assert "0.01 s" in caplog.text
    await intake(server).fetch("id", asyncio.get_running_loop().time() - 1)
    assert "within 0.00 s" in caplog.text, "no time was left, and not less"


async def test_names_are_quoted_so_that_they_stay_names() -> None:
    server = Server("a?b#c d")
    server.request.files[f"{BASE}/a%3Fb%23c%20d"] = b"x"
    assert await intake(server).fetch("id", math.inf) == b"x"


async def test_a_short_download_is_tried_again_and_then_refused() -> None:
    server = Server("photo", size=9, photo=b"bytes")
    assert await intake(server).fetch("id", math.inf) == Refusal(Reason.DOWNLOAD_FAILED)
    assert len(server.request.asked) == 3


async def test_a_failing_download_is_tried_again() -> None:
    server = Server("photo", photo=NetworkError("x"))
    assert await intake(server).fetch("id", math.inf) == Refusal(Reason.DOWNLOAD_FAILED)
    assert len(server.request.asked) == 3


async def test_a_download_that_fails_once_is_told_in_the_log_and_made_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cut: list[bytes | Exception] = [b"byt", NetworkError("cut")]

    class Cut(Request):
        async def retrieve(self, url: str) -> bytes:
            self.asked.append(url)
            found = cut.pop(0) if cut else b"bytes"
            if isinstance(found, Exception):
                raise found
            return found

    server = Server("photo", size=5)
    server.request = Cut({})
    assert await intake(server).fetch("id", math.inf) == b"bytes"
    assert "retry download reason=only 3 of 5 bytes came" in caplog.text
    assert "retry download reason=cut" in caplog.text


async def test_size_is_believed_from_whoever_says_it_first() -> None:
    server = Server("photo", size=FILE_MAX_BYTES + 1, photo=b"bytes")
    assert await intake(server).fetch("id", math.inf) == TOO_LARGE
    assert server.request.asked == []
    server.refuse = BadRequest("Bad Request: file is too big")
    assert await intake(server).fetch("id", math.inf) == TOO_LARGE
    server.refuse = BadRequest("Bad Request: wrong file_id")
    assert await intake(server).fetch("id", math.inf) == Refusal(Reason.DOWNLOAD_FAILED)


class Generous:
    """A Bot API server of one's own: it announces a small file, and hands out a large one."""

    def __init__(self, *chunks: bytes, encoding: str = "identity") -> None:
        self.chunks = chunks
        self.encoding = encoding
        self.taken = 0

    async def says(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        for method, told in TOLD.items():
            if method in heard.line:
                await says(200, {"ok": True, "result": told})(heard, writer)
                return
        size = sum(map(len, self.chunks))
        head = f"Content-Encoding: {self.encoding}\r\nContent-Length: {size}"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        for chunk in self.chunks:
            writer.write(chunk)
            await writer.drain()
            self.taken += len(chunk)

    async def fetched(self, folder: Path) -> bytes | Refusal:
        async with stranger(self.says) as there:
            sandbox: Any = SimpleNamespace(token="1:a", url=there.url)
            async with connect(fakes.settings(sandbox, folder)) as bot:
                return await Intake(bot, timeout_s=20, pause_s=0).fetch("id", math.inf)


TOLD = {
    "getMe": {"id": 1, "is_bot": True, "first_name": "x", "username": "x"},
    "getFile": {"file_id": "id", "file_unique_id": "u", "file_size": 100, "file_path": "photo"},
}
MEGABYTE = bytes(2**20)


@pytest.mark.parametrize(
    ("server", "answer"),
    [
        (Generous(*[MEGABYTE] * 200), TOO_LARGE),
        (Generous(bytes(FILE_MAX_BYTES), b"x"), TOO_LARGE),
        (Generous(zlib.compress(bytes(2**26)), encoding="deflate"), DOWNLOAD_FAILED),
    ],
    ids=["200 MB", "a byte more", "packed"],
)
async def test_no_more_is_taken_than_is_accepted_whatever_was_announced(
    tmp_path: Path, server: Generous, answer: Refusal
) -> None:
    assert await server.fetched(tmp_path) == answer
    assert server.taken <= FILE_MAX_BYTES + 16 * len(MEGABYTE), "some waits in buffers"


async def test_as_much_as_is_accepted_is_taken(tmp_path: Path) -> None:
    whole = bytes(FILE_MAX_BYTES)
    assert await Generous(whole).fetched(tmp_path) == whole


async def test_a_local_file_that_grows_is_not_read_to_its_end(tmp_path: Path) -> None:
    grown = tmp_path / "a.jpg"
    grown.touch()
    os.truncate(grown, 2**40)  # of holes
    answer = await intake(Server(str(grown), size=100), tmp_path).fetch("id", math.inf)
    assert answer == TOO_LARGE


def message(**fields: Any) -> Message:
    raw = {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}, **fields}
    found = Message.de_json(raw, Bot("1:a"))
    assert found is not None
    return found


def file(**fields: Any) -> dict[str, Any]:
    return {"file_id": "f", "file_unique_id": "u", **fields}


def test_the_largest_size_of_a_photo_is_taken() -> None:
    sizes = [
        file(file_id=f"f{side}", width=side, height=side, file_size=side) for side in (90, 800, 320)
    ]
    found = attachment(message(photo=sizes))
    assert found is not None
    assert found.file_id == "f800"


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"document": file(mime_type="image/heic")}, True),
        ({"document": file(file_name="IMG.HEIC", mime_type="application/octet-stream")}, True),
        ({"document": file(file_name="a.pdf", mime_type="application/pdf")}, False),
        ({"document": file()}, True),
        ({"text": "x"}, False),
        (
            {
                "document": file(mime_type="image/gif"),
                "animation": file(width=1, height=1, duration=1),
            },
            False,
        ),
    ],
)
def test_documents_are_taken_when_they_say_they_are_images(
    fields: dict[str, Any], taken: bool
) -> None:
    assert (attachment(message(**fields)) is not None) == taken


async def test_a_capture_names_the_file_and_hides_the_bytes() -> None:
    server = Server("photo", photo=b"bytes")
    sizes = [file(width=9, height=9, file_size=5)]
    capture = await intake(server).capture(message(photo=sizes), math.inf)
    assert capture == Capture(b"bytes", "f")
    assert "bytes'" not in repr(capture)
