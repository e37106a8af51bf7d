import asyncio
import io
import json

import httpx
import pytest
from telegram import (
    Bot,
    BotCommand,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChat,
    ForceReply,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InputMediaDocument,
    InputMediaPhoto,
    Message,
    ReplyParameters,
)
from telegram.error import BadRequest, Forbidden, InvalidToken, TelegramError

from bot.sandbox import Lifetimes, Person, Sandbox, WebhookRules
from bot.sandbox.files import FileStore
from bot.sandbox.methods import BOT_API_METHODS, Methods
from bot.sandbox.world import World
from tests.bot.sandbox.pictures import picture


def keyboard(*data: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[InlineKeyboardButton(one, callback_data=one) for one in data]])


def refused(complaint: str, error: type[TelegramError] = BadRequest):
    """Expect Telegram's sentence, which python-telegram-bot gives another first letter."""
    return pytest.raises(error, match=f"(?i){complaint}")


async def test_get_me(bot: Bot, sandbox: Sandbox):
    me = await bot.get_me()
    assert me.is_bot
    assert me.first_name == "Face Matcher"
    assert str(me.id) == sandbox.token.split(":")[0]


async def test_messages_reach_the_person(bot: Bot, ana: Person, chat_id: int):
    sent = await bot.send_message(chat_id, "<b>Hola</b> 🙂 &amp; chau", parse_mode="HTML")
    assert sent.text == "Hola 🙂 & chau"
    assert sent.text_html == "<b>Hola</b> 🙂 &amp; chau"
    assert (await ana.reply()).text == "Hola 🙂 & chau"


async def test_photo_by_upload_and_by_file_id(bot: Bot, ana: Person, chat_id: int, photo: bytes):
    first = await bot.send_photo(chat_id, photo, caption="<i>one</i>", parse_mode="HTML")
    again = await bot.send_photo(chat_id, first.photo[-1].file_id)
    assert [size.width for size in first.photo] == [90, 320, 640]
    assert again.photo == first.photo
    assert again.caption is None
    one, two = await ana.replies(2)
    assert one.text == "one"
    assert await ana.download(one) == await ana.download(two)


async def test_album(bot: Bot, ana: Person, chat_id: int):
    media = [InputMediaPhoto(picture(300, 200, seed=seed)) for seed in range(3)]
    sent = await bot.send_media_group(chat_id, media, caption="three")
    assert len({message.media_group_id for message in sent}) == 1
    assert [message.text for message in await ana.replies(3)] == ["three", "", ""]
    with refused("2 to 10"):
        await bot.send_media_group(chat_id, media[:1])
    with refused("mixed"):
        await bot.send_media_group(chat_id, [media[0], InputMediaDocument(b"x")])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"text": "  "}, "message text is empty"),
        ({"text": "x" * 4097}, "message is too long"),
        ({"text": "<b>x", "parse_mode": "HTML"}, "can't parse entities"),
        ({"text": "x", "parse_mode": "MarkdownV2"}, "unsupported parse_mode"),
        ({"text": "x", "reply_markup": keyboard("x" * 65)}, "BUTTON_DATA_INVALID"),
        ({"text": "x", "reply_markup": keyboard("é" * 33)}, "BUTTON_DATA_INVALID"),
        ({"text": "x", "reply_parameters": ReplyParameters(999)}, "to be replied not found"),
        ({"text": "x", "chat_id": 5}, "chat not found"),
    ],
)
async def test_refused_messages(
    bot: Bot, ana: Person, chat_id: int, arguments: dict, complaint: str
):
    with refused(complaint):
        await bot.send_message(**{"chat_id": chat_id, **arguments})
    assert [one for one in await ana.messages() if one.from_bot] == []


async def test_limits_are_inclusive(bot: Bot, ana: Person, chat_id: int, photo: bytes):
    await bot.send_message(chat_id, "x" * 4096, reply_markup=keyboard("é" * 32))
    await bot.send_photo(chat_id, photo, caption="x" * 1024)
    with refused("caption is too long"):
        await bot.send_photo(chat_id, photo, caption="x" * 1025)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"not a picture", "IMAGE_PROCESS_FAILED"),
        (picture(40, 900), "PHOTO_INVALID_DIMENSIONS"),
        (b"\xff" * (10 * 1024 * 1024 + 1), "too big for a photo"),
    ],
)
async def test_refused_photos(bot: Bot, ana: Person, chat_id: int, data: bytes, complaint: str):
    with refused(complaint):
        await bot.send_photo(chat_id, data)


async def test_a_file_id_outlives_its_message(
    bot: Bot, ana: Person, sandbox: Sandbox, chat_id: int, photo: bytes
):
    picture_of_ana = await ana.send_photo(photo)
    note = await ana.send_document(b"x", name="x.txt")
    voice = await ana.send_voice()
    for message in await ana.messages():
        await ana.delete(message)
    sent = await bot.send_photo(chat_id, picture_of_ana.photo)
    assert sent.photo[-1].file_id == picture_of_ana.photo
    assert (await bot.send_document(chat_id, note.document)).document.file_name == "x.txt"
    with refused("can't use file of type Voice as Photo"):
        await bot.send_photo(chat_id, voice.raw["voice"]["file_id"])


def test_what_a_file_belongs_to_goes_with_the_file():
    store = FileStore(budget_bytes=10)
    old, new = (store.add(bytes(10), folder="documents", suffix="", mime_type="") for _ in range(2))
    for file in (old, new):  # the old one is gone already, as a photo's first size may be
        store.describe({"document": {"file_id": file.file_id}})
    assert store.media(old.file_id) is None
    assert store.media(new.file_id) == {"document": {"file_id": new.file_id}}


async def test_photo_by_unknown_reference(bot: Bot, ana: Person, chat_id: int):
    with refused("wrong file identifier"):
        await bot.send_photo(chat_id, "AgACnothing")
    with refused("HTTP URL content"):
        await bot.send_photo(chat_id, "http://example.org/a.jpg")


async def test_edits(bot: Bot, ana: Person, chat_id: int, photo: bytes):
    sent = await bot.send_photo(chat_id, photo, caption="one", reply_markup=keyboard("a"))
    shown = await ana.reply()
    await bot.edit_message_caption(chat_id, sent.message_id, caption="two")
    shown = await ana.edited(shown)
    assert (shown.text, shown.buttons) == ("two", ())
    await bot.edit_message_reply_markup(chat_id, sent.message_id, reply_markup=keyboard("b"))
    shown = await ana.edited(shown)
    assert (shown.text, shown.buttons[0][0].data) == ("two", "b")
    media = InputMediaPhoto(picture(500, 500, seed=3), caption="three")
    edited = await bot.edit_message_media(media, chat_id, sent.message_id)
    shown = await ana.edited(shown)
    assert shown.text == "three"
    assert edited.photo[-1].width == 500
    assert edited.edit_date is not None
    with refused("no text in the message"):
        await bot.edit_message_text("x", chat_id, sent.message_id)


async def test_refused_edits(bot: Bot, ana: Person, chat_id: int):
    sent = await bot.send_message(chat_id, "<b>same</b>", "HTML", reply_markup=keyboard("a"))
    with refused("message is not modified"):
        await bot.edit_message_text(
            "<b>same</b>", chat_id, sent.message_id, parse_mode="HTML", reply_markup=keyboard("a")
        )
    await bot.edit_message_text("same", chat_id, sent.message_id, reply_markup=keyboard("a"))
    with refused("no caption in the message"):
        await bot.edit_message_caption(chat_id, sent.message_id, caption="x")
    with refused("message to edit not found"):
        await bot.edit_message_text("x", chat_id, 12345)
    (question, _) = await ana.messages()
    with refused("message can't be edited"):
        await bot.edit_message_text("x", chat_id, question.message_id)


async def test_deletes(bot: Bot, ana: Person, chat_id: int):
    sent = [await bot.send_message(chat_id, str(number)) for number in range(3)]
    first = await ana.reply()
    await bot.delete_message(chat_id, sent[0].message_id)
    await ana.deleted(first)
    with refused("message to delete not found"):
        await bot.delete_message(chat_id, sent[0].message_id)
    await bot.delete_messages(chat_id, [one.message_id for one in sent])
    assert [one.text for one in await ana.messages()] == ["/start"]


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        ("", "message identifiers are not specified"),
        ("7", "expected an Array of message identifiers"),
        (list(range(1, 102)), "too many message identifiers specified"),
        ([[1]], "message identifier must be a Number"),
        (["x"], "can't parse message identifier as Number"),
        ([0], "invalid message identifier specified"),
    ],
)
async def test_messages_to_delete(
    sandbox: Sandbox, bot: Bot, ana: Person, chat_id: int, ids: object, complaint: str
):
    sent = await bot.send_message(chat_id, "x")
    async with httpx.AsyncClient() as http:
        address = f"{sandbox.bot_api_url}{sandbox.token}/deleteMessages"
        wrong = await http.post(address, json={"chat_id": chat_id, "message_ids": ids})
        assert wrong.json()["description"] == f"Bad Request: {complaint}"
        right = {"chat_id": chat_id, "message_ids": [str(sent.message_id)]}
        assert (await http.post(address, json=right)).json()["result"] is True
    assert [one.text for one in await ana.messages()] == ["/start"]


async def test_old_messages_cannot_be_deleted():
    now = 1_000_000.0
    async with (
        Sandbox(clock=lambda: now) as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        await sandbox.person("ana").send_text("hi")
        sent = await bot.send_message(7001, "x")
        now += 48 * 3600 + 1
        with refused("message can't be deleted"):
            await bot.delete_message(7001, sent.message_id)


async def test_buttons_and_answers(bot: Bot, ana: Person, chat_id: int):
    await bot.send_message(chat_id, "choose", reply_markup=keyboard("a", "b"))
    question = await ana.reply()
    pressing = asyncio.create_task(ana.press(question, "b"))
    update = (await bot.get_updates(offset=-1, timeout=10))[-1]
    while update.callback_query is None:
        update = (await bot.get_updates(offset=update.update_id + 1, timeout=10))[-1]
    assert update.callback_query.data == "b"
    assert isinstance(update.callback_query.message, Message)
    assert update.callback_query.message.text == "choose"
    with refused("MESSAGE_TOO_LONG"):
        await update.callback_query.answer("x" * 201)
    await update.callback_query.answer("done", show_alert=True)
    answer = await pressing
    assert (answer.text, answer.alert) == ("done", True)
    with refused("too old"):
        await update.callback_query.answer("again")
    with refused("too old"):
        await bot.answer_callback_query("123")


@pytest.mark.parametrize(
    ("lifetimes", "age_s", "in_time"),
    [
        (Lifetimes(), 15, True),
        (Lifetimes(), 16, False),
        (Lifetimes(answer_s=60), 60, True),
        (Lifetimes(answer_s=60), 61, False),
    ],
)
async def test_queries_expire(lifetimes: Lifetimes, age_s: float, in_time: bool):
    now = 1_000_000.0
    async with (
        Sandbox(clock=lambda: now, lifetimes=lifetimes) as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        ana = sandbox.person("ana")
        await ana.send_text("hi")
        await bot.send_message(7001, "x", reply_markup=keyboard("a"))
        pressing = asyncio.create_task(ana.press(await ana.reply(), "a"))
        updates = await bot.get_updates(timeout=10, allowed_updates=[])
        while not any(update.callback_query for update in updates):
            updates = await bot.get_updates(updates[-1].update_id + 1, timeout=10)
        now += age_s
        if in_time:
            await updates[-1].callback_query.answer("in time")
            assert (await pressing).text == "in time"
        else:
            with refused("too old"):
                await updates[-1].callback_query.answer("late")
            pressing.cancel()


@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("t.me/x", "http://t.me/x"),
        ("https://Example.org", "https://example.org/"),
        ("http://127.0.0.1:8080/a?b#c", "http://127.0.0.1:8080/a?b#c"),
        ("tg://user?id=7001", "tg://user?id=7001"),
        ("tg:resolve?domain=x", "tg://resolve?domain=x"),
    ],
)
async def test_links_of_buttons(bot: Bot, ana: Person, chat_id: int, url: str, becomes: str):
    keys = InlineKeyboardMarkup([[InlineKeyboardButton("to", url=url)]])
    sent = await bot.send_message(chat_id, "x", reply_markup=keys)
    assert sent.reply_markup.inline_keyboard[0][0].url == becomes
    assert (await ana.reply()).buttons[0][0].url == becomes


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost/x", "Wrong HTTP URL"),
        ("localhost:8080", "Wrong HTTP URL"),
        ("ftp://example.org", "Unsupported URL protocol"),
    ],
)
async def test_links_that_buttons_may_not_have(
    bot: Bot, ana: Person, chat_id: int, url: str, reason: str
):
    keys = InlineKeyboardMarkup([[InlineKeyboardButton("to", url=url)]])
    with refused(f"inline keyboard button URL '{url}' is invalid: {reason}"):
        await bot.send_message(chat_id, "x", reply_markup=keys)


async def test_people_are_mentioned(bot: Bot, ana: Person, chat_id: int):
    text = '<a href="tg://user?id=7001">you</a>'
    (mention,) = (await bot.send_message(chat_id, text, parse_mode="HTML")).entities
    assert (mention.type, mention.user.id, mention.user.first_name) == ("text_mention", 7001, "Ana")


async def test_chat_actions(bot: Bot, ana: Person, chat_id: int):
    await bot.send_chat_action(chat_id, "upload_photo")
    event = await ana.wait_for(lambda one: one.kind == "action")
    assert event.body["action"] == "upload_photo"
    with refused("wrong parameter action"):
        await bot.send_chat_action(chat_id, "dancing")


async def test_commands_by_scope_and_language(bot: Bot, ana: Person, sandbox: Sandbox):
    ben = sandbox.person("ben")
    await bot.set_my_commands([BotCommand("start", "Begin")])
    await bot.set_my_commands([BotCommand("start", "Empezar")], language_code="es")
    assert await ana.commands() == {"start": "Empezar"}
    assert await ben.commands() == {"start": "Begin"}
    await ana.set_language("pt-br")
    assert await ana.commands() == {"start": "Begin"}
    await bot.set_my_commands([("help", "Help")], BotCommandScopeAllPrivateChats())
    await bot.set_my_commands([("only", "Ana")], BotCommandScopeChat(7001))
    assert await ana.commands() == {"only": "Ana"}
    assert await ben.commands() == {"help": "Help"}
    await bot.delete_my_commands(BotCommandScopeAllPrivateChats())
    assert await ben.commands() == {"start": "Begin"}
    assert [one.description for one in await bot.get_my_commands(language_code="es")] == ["Empezar"]
    for command, complaint in [
        (("Start", "x"), "BOT_COMMAND_INVALID"),
        (("a", ""), "BOT_COMMAND_DESCRIPTION_INVALID"),
    ]:
        with refused(complaint):
            await bot.set_my_commands([command])


async def test_the_bot_may_not_write_first_nor_when_blocked(bot: Bot, ana: Person, chat_id: int):
    with refused("can't initiate conversation", Forbidden):
        await bot.send_message(7002, "hi")
    await ana.block()
    with refused("blocked by the user", Forbidden):
        await bot.send_message(chat_id, "hi")
    await ana.block(False)
    assert (await bot.send_message(chat_id, "hi")).text == "hi"


async def test_downloads(bot: Bot, ana: Person, photo: bytes):
    await ana.send_photo(photo)
    update = (await bot.get_updates(timeout=10))[-1]
    file = await update.message.photo[-1].get_file()
    data = bytes(await file.download_as_bytearray())
    assert len(data) == file.file_size == update.message.photo[-1].file_size
    with refused("wrong file_id"):
        await bot.get_file("nothing")


async def test_no_download_beyond_20_mb(bot: Bot, ana: Person):
    for size, too_big in ((20 * 1024 * 1024, False), (20 * 1024 * 1024 + 1, True)):
        await ana.send_document(bytes(size), name="big.bin")
        document = (await bot.get_updates(offset=-1, timeout=10))[-1].message.document
        assert document.file_size == size
        if too_big:
            with refused("file is too big"):
                await document.get_file()
        else:
            file = io.BytesIO()
            await (await document.get_file()).download_to_memory(file)
            assert len(file.getvalue()) == size


async def test_replies(bot: Bot, ana: Person, chat_id: int):
    (question,) = await ana.messages()
    sent = await bot.send_message(chat_id, "yes", reply_to_message_id=question.message_id)
    assert sent.reply_to_message.text == "/start"
    assert (await ana.reply()).reply_to == question.message_id
    lenient = ReplyParameters(999, allow_sending_without_reply=True)
    sent = await bot.send_message(chat_id, "yes", reply_parameters=lenient)
    assert sent.reply_to_message is None


async def test_asking_for_a_reply(bot: Bot, ana: Person, chat_id: int):
    markup = ForceReply(input_field_placeholder="A round video")
    sent = await bot.send_message(chat_id, "show me", reply_markup=markup)
    assert sent.reply_markup is None  # Telegram tells bots of inline keyboards only
    question = await ana.reply()
    assert question.asks_reply
    assert question.raw["reply_markup"]["input_field_placeholder"] == "A round video"
    await ana.send_text("here", reply_to=question)
    answered = (await bot.get_updates(offset=-1, timeout=10))[-1].message
    assert answered.reply_to_message.message_id == sent.message_id
    assert answered.reply_to_message.reply_markup is None
    with refused("can't be edited"):
        await bot.edit_message_text("other", chat_id, sent.message_id)
    with refused("REPLY_MARKUP_TOO_LONG"):
        await bot.send_message(
            chat_id,
            "x",
            reply_markup=json.dumps(  # type: ignore[arg-type]
                {"force_reply": True, "input_field_placeholder": "x" * 65}
            ),
        )
    plain = await bot.send_message(chat_id, "plain")
    with refused("inline keyboard expected"):
        await bot.edit_message_text(
            "x",
            chat_id,
            plain.message_id,
            reply_markup=markup,  # type: ignore[arg-type]
        )


async def test_files_for_a_person(bot: Bot, ana: Person, chat_id: int):
    export = json.dumps({"consents": [], "name": "Ñandú"}).encode()
    await bot.send_document(
        chat_id, export, filename="my-data.json", caption="All of it", protect_content=True
    )
    message = await ana.reply()
    assert (message.text, message.protected) == ("All of it", True)
    assert message.raw["document"]["file_name"] == "my-data.json"
    assert await ana.download(message) == export


async def test_tokens_and_unknown_methods(sandbox: Sandbox):
    with pytest.raises(InvalidToken):
        async with Bot("7000000001:" + "x" * 35, base_url=sandbox.bot_api_url):
            pass
    async with httpx.AsyncClient() as http:
        wrong = await http.get(f"{sandbox.bot_api_url}7000000001:{'x' * 35}/getMe")
        malformed = await http.get(f"{sandbox.bot_api_url}abc/getMe")
        unknown = await http.post(f"{sandbox.bot_api_url}{sandbox.token}/selfDestruct")
        absent = await http.post(f"{sandbox.bot_api_url}{sandbox.token}/sendpoll")
        query = await http.get(f"{sandbox.bot_api_url}{sandbox.token}/GETME")
        posted = await http.post(
            f"{sandbox.bot_api_url}{sandbox.token}/sendMessage", json={"chat_id": 1, "text": "x"}
        )
        file = await http.get(f"{sandbox.file_url}{sandbox.token}/photos/file_99.jpg")
    assert wrong.json() == {"ok": False, "error_code": 401, "description": "Unauthorized"}
    assert (malformed.status_code, unknown.status_code, file.status_code) == (404, 404, 404)
    assert unknown.json()["description"] == "Not Found: method not found"
    assert absent.status_code == 400
    assert absent.json()["description"] == "Bad Request: the sandbox does not have sendPoll"
    assert query.json()["ok"] is True
    assert posted.json()["description"] == "Bad Request: chat not found"


def test_whatever_the_sandbox_has_is_a_method_of_the_bot_api():
    names = {name.lower() for name in BOT_API_METHODS}
    assert len(names) > 150
    assert {"close", "logout", "sendpoll"} < names
    own = Methods(World(bot_id=1, bot_name="x", bot_username="x"), WebhookRules())._table
    assert own.keys() < names


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"text": "half a \ud83d"}, "UTF-8"),
        ({"text": "x", "reply_markup": '{"inline_keyboard": [[{"text": "\\ud83d"}]]}'}, "UTF-8"),
        ({"text": "x", "reply_markup": "{"}, "can't parse reply_markup"),
        ({"text": "x", "reply_markup": "[" * 100_000}, "can't parse reply_markup"),
        ({"text": "x", "reply_markup": {"inline_keyboard": [{"text": "x"}]}}, "must be an Array"),
        ({"text": "x", "reply_markup": {"inline_keyboard": [[{"text": "x"}]]}}, "unallowed"),
        ({"text": "x", "reply_markup": {"inline_keyboard": [["x"]]}}, "expected an Object"),
        ({"text": "x", "reply_parameters": {"message_id": [1]}}, "to be replied not found"),
        ({"chat_id": "", "text": "x"}, "chat_id is empty"),
    ],
)
async def test_malformed_calls(sandbox: Sandbox, ana: Person, fields: dict, complaint: str):
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{sandbox.bot_api_url}{sandbox.token}/sendMessage",
            content=json.dumps({"chat_id": 7001, **fields}),
            headers={"Content-Type": "application/json"},
        )
    assert answer.status_code == 400
    assert complaint in answer.json()["description"]
    assert [one for one in await ana.messages() if one.from_bot] == []


async def test_descriptions(bot: Bot):
    await bot.set_my_description("Hola", language_code="es")
    assert (await bot.get_my_description("es")).description == "Hola"
    assert (await bot.get_my_description()).description == ""
    assert (await bot.get_my_name()).name == "Face Matcher"
