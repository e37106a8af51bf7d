"""What is kept is told and erased, through real HTTP and a real database."""

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from bot.texts import say
from tests.bot.logins import (
    LoginEngine,
    Shots,
    english,
    enroll,
    enrolled,
    login_bot,
    vector,
    verify,
)


async def test_mydata_is_a_file_with_everything(tmp_path: Path) -> None:
    shots = Shots()
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/mydata")
        answer = await ana.reply()
        assert answer.text == say("en", "rights.no_face")
        await enroll(ana, shots)
        await verify(ana, shots)
        await ana.send_text("/mydata")
        answer = await ana.reply()
        assert answer.document
        data = json.loads(await ana.download(answer.document))
        assert data["enrolled"]["templates"] > 0
        assert data["enrolled"]["embedder"]
        assert "vector" not in json.dumps(data), "whoever has the chat would have the face"


async def test_forget_erases_and_gives_a_receipt(tmp_path: Path) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/forget")
        asked = await ana.reply()
        await ana.press(asked, say("en", "buttons.forget_no"))
        assert (await ana.edited(asked)).text == say("en", "rights.kept")
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")
        await ana.send_text("/forget")
        asked = await ana.reply()
        await ana.press(asked, say("en", "buttons.forget_yes"))
        assert "Receipt" in (await ana.edited(asked)).text
        await ana.send_text("/verify")
        assert (await ana.reply()).text == say("en", "verify.not_enrolled")


async def test_nothing_of_a_person_is_left_in_any_file(tmp_path: Path) -> None:
    """The canaries: the id, the embeddings' bytes as stored and as sent; before and after."""
    shots = Shots()
    engine = LoginEngine()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        telegram_id = str((await ana.messages())[0].raw["from"]["id"]).encode()
        vectors = [vector(0, shot) for shot in range(1, engine.shots + 1)]
        canaries = [telegram_id]
        for each in vectors:
            raw = np.asarray(each, "<f4").tobytes()
            canaries += [raw, raw[:16], base64.b64encode(raw)[:40]]
        scan(tmp_path, canaries)
        await ana.send_text("/forget")
        asked = await ana.reply()
        await ana.press(asked, say("en", "buttons.forget_yes"))
        scan(tmp_path, canaries)


def scan(folder: Path, canaries: list[bytes]) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    for path in files:
        content = path.read_bytes()
        for canary in canaries:
            assert canary not in content, path.name


async def test_whose_rows_somebody_changed_hears_that_the_operator_has_to_look(
    tmp_path: Path,
) -> None:
    shots = Shots()
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        forge(tmp_path)
        for command in ("/verify", "/mydata", "/enroll"):
            await ana.send_text(command)
            told = (await ana.reply()).text
            assert told.startswith(say("en", "turned.tampered", code="\0").split("\0")[0])
        await ana.send_text("/forget")
        asked = await ana.reply()
        await ana.press(asked, say("en", "buttons.forget_yes"))
        assert "Receipt" in (await ana.edited(asked)).text


def forge(folder: Path) -> None:
    (database,) = folder.rglob("*.db")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE people SET reset_due = 1")
