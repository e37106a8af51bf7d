"""What must never be written is looked for in everything that is: logs, database, temporary files.

A whole life of a login, with its faults, logged as talkatively as an operator can make it.
"""

import base64
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bot.sandbox import Fault, FaultKind
from bot.texts import say
from engine import errors
from engine.types import Analysis
from tests.bot import fakes
from tests.bot.fakes import picture
from tests.bot.logged import logged
from tests.bot.logins import LoginEngine, Shots, english, enroll, login_bot, vector, verify


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    with logged("777:SECRETtokenSECRETtoken") as stream:
        yield stream


def broken(_photo: bytes) -> Analysis:
    raise errors.InternalError("a bug")


async def test_nothing_secret_is_ever_written(
    tmp_path: Path, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    engine, shots = LoginEngine(), Shots()
    look = engine.see
    async with login_bot(tmp_path / "bot", engine) as sandbox:
        ana = await english(sandbox)
        code = await enroll(ana, shots)
        await verify(ana, shots)
        engine.person = 1
        await verify(ana, shots)
        engine.see = broken
        await ana.send_text("/verify photo")
        await ana.send_photo(shots.new(), reply_to=await ana.reply())
        await ana.reply()
        engine.see = look
        sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, method="sendMessage", count=1))
        await ana.send_text(f"/recover {code}")
        await ana.reply()
        await ana.reply()  # the consent, anew
        await ana.send_text("/mydata")
        assert (await ana.reply()).document
        everything = await ana.messages()
        during = scan(tmp_path, written)
        await ana.send_text("/forget")
        asked = await ana.reply()
        await ana.press(asked, say("en", "buttons.forget_yes"))
        await ana.edited(asked)
        afterwards = scan(tmp_path, written)
    canaries = {
        "token": sandbox.token.encode(),
        "token's secret": sandbox.token.partition(":")[2].encode(),
        "id": str(everything[0].raw["chat"]["id"]).encode(),
        "recovery code": code.encode(),
        "photo": picture(101)[200:232],
    }
    for message in everything:
        for size in message.raw.get("photo", ()):
            canaries[f"file {size['file_id']}"] = size["file_id"].encode()
            canaries[f"unique {size['file_unique_id']}"] = size["file_unique_id"].encode()
    for shot in range(1, engine.shots + 1):
        for person in (0, 1):
            raw = np.asarray(vector(person, shot), "<f4").tobytes()
            canaries[f"embedding {person} {shot}"] = raw[:16]
            canaries[f"embedding {person} {shot} in base64"] = base64.b64encode(raw)[:20]
            canaries[f"number of {person} {shot}"] = repr(float(vector(person, shot)[0])).encode()
    for found in (during, afterwards):
        assert found["log"]
        hits = [
            (place, name)
            for place, text in found.items()
            for name in canaries
            if canaries[name] in text
        ]
        assert not hits
    assert fakes.NAMES[0].encode() not in during["log"]


def scan(folder: Path, written: io.StringIO) -> dict[str, bytes]:
    """Everything that lies on disk or in the log now, by its place; key files aside."""
    found = {"log": written.getvalue().encode()}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "secrets":
            found[str(path)] = path.read_bytes()
    return found
