import datetime as dtm
from typing import Any

import httpx
import pytest
from telegram import (
    Bot,
    Message,
    MessageOriginChannel,
    MessageOriginHiddenUser,
    MessageOriginUser,
)

from bot.sandbox import Person, Sandbox
from bot.sandbox.envelope import HONEST, MOST_AGE_S, Envelope, Origin, envelope_from
from bot.sandbox.errors import UserError
from tests.bot.sandbox.pictures import picture


async def received(bot: Bot) -> Message:
    message = (await bot.get_updates(offset=-1, timeout=10))[-1].message
    assert message is not None
    return message


async def test_an_honest_message_shows_none_of_it(bot: Bot, ana: Person, photo: bytes):
    await ana.send_photo(photo)
    message = await received(bot)
    for name in ("forward_origin", "via_bot", "media_group_id", "is_from_offline", "edit_date"):
        assert not getattr(message, name), name
    assert message.sender_chat is None
    assert message.reply_to_message is None


@pytest.mark.parametrize(
    ("lie", "seen"),
    [
        ({"via_bot": True}, lambda message: message.via_bot.is_bot),
        ({"in_album": True}, lambda message: message.media_group_id),
        ({"offline": True}, lambda message: message.is_from_offline),
        ({"edited": True}, lambda message: message.edit_date),
        ({"as_channel": True}, lambda message: message.sender_chat.type == "channel"),
        ({"origin": "user"}, lambda message: message.forward_origin.sender_user.id == 7001),
        (
            {"origin": "hidden_user"},
            lambda message: message.forward_origin.sender_user_name == "Ana",
        ),
        (
            {"origin": "chat"},
            lambda message: message.forward_origin.sender_chat.type == "supergroup",
        ),
        ({"origin": "channel"}, lambda message: message.forward_origin.chat.type == "channel"),
    ],
)
async def test_each_lie_reaches_the_bot(
    bot: Bot, ana: Person, photo: bytes, lie: dict[str, Any], seen: Any
):
    for send in (
        lambda: ana.send_photo(photo, **lie),
        lambda: ana.send_document(photo, name="a.jpg", **lie),
        lambda: ana.send_video_note(b"x", **lie),
        lambda: ana.send_text("x", **lie),
    ):
        await send()
        assert seen(await received(bot))


async def test_the_servers_date_can_be_another():
    async with (
        Sandbox(clock=lambda: 1_000_000.0) as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        ana = sandbox.person("ana")
        for age_s, date in ((0, 1_000_000), (61, 999_939), (-5, 1_000_005)):
            await ana.send_text("x", age_s=age_s)
            assert (await received(bot)).date == dtm.datetime.fromtimestamp(date, dtm.UTC)


async def test_an_answer_carries_what_it_answers(bot: Bot, ana: Person, photo: bytes):
    asked = await bot.send_message(7001, "show me")
    question = await ana.reply()
    for send in (
        lambda: ana.send_photo(photo, reply_to=question),
        lambda: ana.send_video_note(b"x", reply_to=question),
        lambda: ana.send_document(b"x", name="x.bin", reply_to=question),
        lambda: ana.send_album([photo, photo], reply_to=question),
    ):
        await send()
        replied = (await received(bot)).reply_to_message
        assert (replied.message_id, replied.date) == (asked.message_id, asked.date)
        assert replied.from_user.is_bot
        assert replied.chat.id == 7001


async def test_nobody_answers_what_is_in_anothers_chat(bot: Bot, ana: Person, sandbox: Sandbox):
    await bot.send_message(7001, "for ana")
    question = await ana.reply()
    with pytest.raises(UserError) as refusal:
        await sandbox.person("ben").send_text("me!", reply_to=question)
    assert refusal.value.code == "no_message"


async def test_a_forward_that_hides_its_origin_keeps_the_file(bot: Bot, ana: Person, photo: bytes):
    sent = await ana.send_photo(photo, caption="me")
    first = await received(bot)
    await ana.forward(sent, copy=True)
    copied = await received(bot)
    assert copied.forward_origin is None
    assert copied.caption == "me"
    assert copied.message_id != first.message_id
    assert copied.photo[-1].file_unique_id == first.photo[-1].file_unique_id


async def test_what_another_person_had_can_be_forwarded(bot: Bot, ana: Person, sandbox: Sandbox):
    ben = sandbox.person("ben")
    theirs = await ben.send_video_note(b"moving", duration_s=8)
    unique = (await received(bot)).video_note.file_unique_id
    await ana.forward(theirs)
    message = await received(bot)
    assert message.from_user.id == message.chat.id == 7001
    assert isinstance(message.forward_origin, MessageOriginUser)
    assert message.forward_origin.sender_user.id == 7002
    assert message.video_note.file_unique_id == unique
    await ana.forward(theirs, hidden=True)
    origin = (await received(bot)).forward_origin
    assert isinstance(origin, MessageOriginHiddenUser)
    assert origin.sender_user_name == "Ben"
    await ana.forward(theirs, origin="channel")
    assert isinstance((await received(bot)).forward_origin, MessageOriginChannel)


async def test_a_photo_that_is_changed_is_an_edited_message(bot: Bot, ana: Person, photo: bytes):
    sent = await ana.send_photo(photo, caption="me")
    before = await received(bot)
    edited = await ana.edit_photo(sent, picture(300, 200, seed=5))
    update = (await bot.get_updates(offset=-1, timeout=10))[-1]
    message = update.edited_message
    assert update.message is None
    assert message.message_id == edited.message_id == before.message_id
    assert message.edit_date is not None
    assert message.caption == "me"
    assert message.photo[-1].width == 300
    assert message.photo[-1].file_unique_id != before.photo[-1].file_unique_id
    assert [one.photo for one in await ana.messages()][-1] == edited.photo
    text = await ana.send_text("no photo")
    forwarded = await ana.forward(sent)
    for wrong, code in ((text, "not_a_photo"), (forwarded, "not_yours")):
        with pytest.raises(UserError) as refusal:
            await ana.edit_photo(wrong, photo)
        assert refusal.value.code == code


@pytest.mark.parametrize(
    "fields",
    [
        {"age_s": "soon"},
        {"age_s": MOST_AGE_S + 1},
        {"age_s": -3601},
        {"origin": "the moon"},
        {"via_bot": "maybe"},
        {"reply_to": "y"},
    ],
)
async def test_impossible_envelopes(ana: Person, sandbox: Sandbox, fields: dict[str, Any]):
    with pytest.raises(UserError):
        envelope_from(fields)
    async with httpx.AsyncClient(base_url=sandbox.url) as http:
        answer = await http.post("/api/people/ana/texts", json={"text": "x", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


def test_envelopes_come_from_json_and_from_forms():
    told = Envelope(7, 60, Origin.CHAT, via_bot=True)
    assert envelope_from({"reply_to": 7, "age_s": 60, "origin": "chat", "via_bot": True}) == told
    assert (
        envelope_from({"reply_to": "7", "age_s": "60", "origin": "chat", "via_bot": "true"}) == told
    )
    assert envelope_from({"text": "x", "age_s": "", "offline": "false"}) == HONEST
