"""Edited messages: a picture in another's place is a new one, an edited caption is not."""

from pathlib import Path

from telegram import Update

from bot.sandbox import Fault, FaultKind
from bot.telegram.client import Telegram, parse_update
from bot.telegram.incoming import Router
from bot.texts import say
from tests.bot import fakes
from tests.bot.fakes import picture


async def test_a_picture_put_in_anothers_place_is_answered(tmp_path: Path) -> None:
    for login in (True, False):
        folder = tmp_path / str(login)
        folder.mkdir()
        async with fakes.bot(folder, face_login=login) as sandbox:
            ana = sandbox.person("ana")
            await ana.set_language("en")
            sent = await ana.send_photo(picture(0), caption="one")
            assert (await ana.reply()).photo
            await ana.edit_photo(sent, picture(1))
            answer = await ana.reply()
            assert answer.photo
            assert answer.reply_to == sent.message_id
            # Another caption to the same picture is nothing to answer.
            await ana.edit(sent, "two")
            await ana.send_text("hello")
            assert (await ana.reply()).text == say("en", "account.hint")


async def test_a_fault_with_an_edited_picture_is_told(tmp_path: Path) -> None:
    async with fakes.bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        sent = await ana.send_photo(picture(0))
        await ana.reply()
        sandbox.faults.add(Fault(FaultKind.TRUNCATED_DOWNLOAD, count=99, method="download"))
        await ana.edit_photo(sent, picture(1))
        assert (await ana.reply()).text == say("en", "refusal.download_failed")


def update(number: int, kind: str, unique_id: str) -> Update:
    size = {"file_id": "f", "file_unique_id": unique_id, "width": 9, "height": 9}
    person = {"id": 1, "is_bot": False, "first_name": "x"}
    message = {"message_id": number, "date": 1, "chat": {"id": 1, "type": "private"}}
    more = {"edit_date": 2} if kind == "edited_message" else {}
    raw = {**message, **more, "from": person, "photo": [size]}
    return parse_update({"update_id": 1, kind: raw}, Telegram("1:a"))


def test_only_the_newest_messages_pictures_are_known() -> None:
    edits = Router(kept=2)
    for number in (1, 2, 3):
        assert edits(update(number, "message", "a"))
    assert edits(update(3, "edited_message", "a")) is None
    assert edits(update(3, "edited_message", "b"))
    assert edits(update(3, "edited_message", "b")) is None
    assert edits(update(1, "edited_message", "a"))  # forgotten
