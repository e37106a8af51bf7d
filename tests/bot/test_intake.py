"""What is fetched from a Bot API server, and what is not however it asks."""

from pathlib import Path
from typing import Any

import pytest
from telegram import Bot, File, Message
from telegram.error import BadRequest, NetworkError

from bot.intake import FILE_MAX_BYTES, TOO_LARGE, Capture, Intake, Reason, Refusal, attachment

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
    assert await intake(server).fetch("id", 5) == b"bytes"


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
        assert await intake(server).fetch("id", 5) == refused, path
        assert server.request.asked == []
    # A plain relative path is asked of the server even where such a file exists here.
    server = Server("secrets/ids.key")
    server.request.files[f"{BASE}/secrets/ids.key"] = b"the server's own"
    assert await intake(server).fetch("id", 5) == b"the server's own"


async def test_the_operators_folder_is_read_and_nothing_outside(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    inside, outside, link = folder / "a.jpg", tmp_path / "key", folder / "link.jpg"
    inside.write_bytes(b"photo")
    outside.write_bytes(b"key")
    link.symlink_to(outside)
    assert await intake(Server(str(inside)), folder).fetch("id", 5) == b"photo"
    for path in (outside, link, folder / ".." / "key", folder / "missing"):
        answer = await intake(Server(str(path)), folder).fetch("id", 5)
        assert answer == Refusal(Reason.DOWNLOAD_FAILED), path


async def test_names_are_quoted_so_that_they_stay_names() -> None:
    server = Server("a?b#c d")
    server.request.files[f"{BASE}/a%3Fb%23c%20d"] = b"x"
    assert await intake(server).fetch("id", 5) == b"x"


async def test_a_short_download_is_tried_again_and_then_refused() -> None:
    server = Server("photo", size=9, photo=b"bytes")
    assert await intake(server).fetch("id", 5) == Refusal(Reason.DOWNLOAD_FAILED)
    assert len(server.request.asked) == 3


async def test_a_failing_download_is_tried_again() -> None:
    server = Server("photo", photo=NetworkError("x"))
    assert await intake(server).fetch("id", 5) == Refusal(Reason.DOWNLOAD_FAILED)
    assert len(server.request.asked) == 3


async def test_size_is_believed_from_whoever_says_it_first() -> None:
    server = Server("photo", size=FILE_MAX_BYTES + 1, photo=b"bytes")
    assert await intake(server).fetch("id", 5) == TOO_LARGE
    assert server.request.asked == []
    server.refuse = BadRequest("Bad Request: file is too big")
    assert await intake(server).fetch("id", 5) == TOO_LARGE
    server.refuse = BadRequest("Bad Request: wrong file_id")
    assert await intake(server).fetch("id", 5) == Refusal(Reason.DOWNLOAD_FAILED)


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
    capture = await intake(server).capture(message(photo=sizes), 5)
    assert capture == Capture(b"bytes", "f")
    assert "bytes'" not in repr(capture)
