import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from telegram import Bot, Message, Update
from telegram.error import BadRequest, Conflict
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from bot.sandbox import Fault, FaultKind, Person, Sandbox
from bot.sandbox.listener import Listener


def texts(updates: tuple[Update, ...]) -> list[str]:
    return [str(update.message.text) for update in updates if update.message]


async def test_updates_wait_until_they_are_acknowledged(bot: Bot, ana: Person):
    await ana.send_text("two")
    updates = await bot.get_updates(timeout=10)
    assert texts(updates) == ["/start", "two"]
    assert updates == await bot.get_updates(timeout=10)
    assert texts(await bot.get_updates(limit=1, timeout=10)) == ["/start"]
    assert texts(await bot.get_updates(updates[1].update_id, timeout=10)) == ["two"]
    assert await bot.get_updates(updates[1].update_id + 1, timeout=0) == ()


async def test_a_waiting_poll_gets_what_comes(bot: Bot, ana: Person):
    (first,) = await bot.get_updates(timeout=10)
    polling = asyncio.create_task(bot.get_updates(first.update_id + 1, timeout=30))
    await ana.send_text("now")
    assert texts(await asyncio.wait_for(polling, 10)) == ["now"]


async def test_only_kinds_that_are_asked_for(bot: Bot, ana: Person):
    await bot.get_updates(allowed_updates=["edited_message"])
    sent = await ana.send_text("one")
    await ana.edit(sent, "two")
    updates = await bot.get_updates(offset=-1, timeout=10)
    assert updates[0].edited_message.text == "two"
    assert updates[0].edited_message.edit_date is not None
    await bot.get_updates(allowed_updates=[])
    await ana.send_text("three")
    assert texts(await bot.get_updates(offset=-1, timeout=10)) == ["three"]


async def test_the_older_of_two_polls_ends_in_a_conflict(bot: Bot, sandbox: Sandbox):
    older = asyncio.create_task(bot.get_updates(timeout=30))
    async with Bot(sandbox.token, base_url=sandbox.bot_api_url) as other:
        newer = asyncio.create_task(other.get_updates(timeout=30))
        done, _ = await asyncio.wait(
            {older, newer}, timeout=10, return_when=asyncio.FIRST_COMPLETED
        )
        (ended,) = done
        with pytest.raises(Conflict, match="terminated by other getUpdates"):
            await ended
        await sandbox.person("ben").send_text("hi")
        left = newer if ended is older else older
        assert texts(await asyncio.wait_for(left, 10)) == ["hi"]


async def test_who_wrote(bot: Bot, sandbox: Sandbox):
    ben = sandbox.person("ben")
    await ben.set_language(None)
    await ben.send_text("/help me")
    (update,) = await bot.get_updates(timeout=10)
    user, message = update.effective_user, update.message
    assert (user.id, user.first_name, user.language_code) == (7002, "Ben", None)
    assert message.chat.type == "private"
    assert message.chat_id == 7002
    assert message.parse_entities() == {message.entities[0]: "/help"}


@pytest.mark.parametrize(
    "kind",
    ["sticker", "voice", "video", "video_note", "audio", "animation", "location", "contact"],
)
async def test_other_kinds_of_messages(bot: Bot, ana: Person, kind: str):
    await ana.send_other(kind)
    message = (await bot.get_updates(offset=-1, timeout=10))[-1].message
    assert getattr(message, kind) is not None
    assert getattr(filters, kind.upper() if kind != "sticker" else "Sticker", None) is not None


async def test_forwards_say_where_they_come_from(bot: Bot, ana: Person, photo: bytes):
    async def received() -> Message:
        return (await bot.get_updates(offset=-1, timeout=10))[-1].message

    sent = await ana.send_photo(photo, caption="me")
    unique = (await received()).photo[-1].file_unique_id
    again = await ana.forward(sent)
    message = await received()
    assert message.forward_origin.sender_user.id == 7001
    assert message.photo[-1].file_unique_id == unique
    assert message.caption == "me"
    await ana.forward(sent, hidden=True)
    message = await received()
    assert (message.forward_origin.type, message.forward_origin.sender_user_name) == (
        "hidden_user",
        "Ana",
    )
    await ana.forward(again, hidden=True)
    assert (await received()).forward_origin.type == "user"


async def test_an_album_is_as_many_updates(bot: Bot, ana: Person, photo: bytes):
    await ana.send_album([photo, photo, photo], caption="all")
    messages = [update.message for update in (await bot.get_updates(timeout=10))[1:]]
    assert len({message.media_group_id for message in messages}) == 1
    assert [message.caption for message in messages] == ["all", None, None]


async def test_blocking_is_told(bot: Bot, ana: Person):
    await ana.block()
    change = (await bot.get_updates(offset=-1, timeout=10))[-1].my_chat_member
    assert (change.old_chat_member.status, change.new_chat_member.status) == ("member", "kicked")


async def test_duplicates(bot: Bot, ana: Person, sandbox: Sandbox):
    (first,) = await bot.get_updates(timeout=10)
    sandbox.faults.add(Fault(FaultKind.DUPLICATE_UPDATE))
    again = await bot.get_updates(first.update_id + 1, timeout=10)
    assert again == (first,)
    assert await bot.get_updates(first.update_id + 1, timeout=0) == ()


async def test_reordering(bot: Bot, ana: Person, sandbox: Sandbox):
    sandbox.faults.add(Fault(FaultKind.REORDER_UPDATES))
    await ana.send_text("one")
    await ana.send_text("two")
    updates = await bot.get_updates(timeout=10)
    assert texts(updates) == ["/start", "two", "one"]
    assert updates[1].update_id == updates[2].update_id + 1


async def test_a_reordered_update_without_a_follower_is_only_late(
    bot: Bot, ana: Person, sandbox: Sandbox
):
    (first,) = await bot.get_updates(timeout=10)
    sandbox.faults.add(Fault(FaultKind.REORDER_UPDATES))
    await ana.send_text("alone")
    assert texts(await bot.get_updates(first.update_id + 1, timeout=10)) == ["alone"]


async def test_a_polling_application_answers(sandbox: Sandbox):
    async def echo(update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
        await update.effective_message.reply_text(f"you said {update.effective_message.text}")

    async def greet(update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
        await update.effective_message.reply_text("welcome")

    application = (
        Application.builder()
        .token(sandbox.token)
        .base_url(sandbox.bot_api_url)
        .base_file_url(sandbox.file_url)
        .build()
    )
    application.add_handler(CommandHandler("start", greet))
    application.add_handler(MessageHandler(filters.TEXT, echo))
    async with application:
        await application.updater.start_polling()
        await application.start()
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await asyncio.gather(ana.send_text("/start"), ben.send_text("hey"))
        assert (await ana.reply()).text == "welcome"
        assert (await ben.reply()).text == "you said hey"
        await application.updater.stop()
        await application.stop()


class Receiver:
    """A webhook's end, which refuses the first `failures` deliveries."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.taken: asyncio.Queue[tuple[dict, str | None]] = asyncio.Queue()
        self.app = Starlette(routes=[Route("/hook", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        if self.failures:
            self.failures -= 1
            return Response(status_code=503)
        secret = request.headers.get("X-Telegram-Bot-Api-Secret-Token")
        await self.taken.put((await request.json(), secret))
        return Response()

    async def next(self) -> tuple[dict, str | None]:
        return await asyncio.wait_for(self.taken.get(), 10)


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    async with Listener(receiver.app, socket.create_server(("127.0.0.1", 0))) as listener:
        yield receiver, f"http://127.0.0.1:{listener.port}/hook"


async def test_webhooks(bot: Bot, ana: Person, receiver: tuple[Receiver, str]):
    hook, url = receiver
    await bot.set_webhook(url, secret_token="open-sesame", allowed_updates=["message"])
    update, secret = await hook.next()
    assert (update["message"]["text"], secret) == ("/start", "open-sesame")
    await ana.send_text("two")
    assert (await hook.next())[0]["message"]["text"] == "two"
    with pytest.raises(Conflict, match="webhook is active"):
        await bot.get_updates()
    info = await bot.get_webhook_info()
    assert (info.url, info.allowed_updates) == (url, ("message",))
    await bot.delete_webhook()
    await ana.send_text("three")
    assert texts(await bot.get_updates(timeout=10)) == ["three"]


async def test_webhooks_are_tried_again(bot: Bot, ana: Person, receiver: tuple[Receiver, str]):
    hook, url = receiver
    hook.failures = 2
    await bot.set_webhook(url)
    assert (await hook.next())[0]["message"]["text"] == "/start"
    info = await bot.get_webhook_info()
    assert "503" in info.last_error_message


async def test_duplicates_by_webhook(
    bot: Bot, ana: Person, sandbox: Sandbox, receiver: tuple[Receiver, str]
):
    hook, url = receiver
    sandbox.faults.add(Fault(FaultKind.DUPLICATE_UPDATE))
    await bot.set_webhook(url)
    assert (await hook.next())[0] == (await hook.next())[0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"url": "http://example.org/hook"}, "HTTPS URL must be provided"),
        ({"url": "https://example.org/hook", "secret_token": "a b"}, "unallowed characters"),
        ({"url": "https://[nowhere/hook"}, "invalid URL"),
    ],
)
async def test_refused_webhooks(bot: Bot, arguments: dict, complaint: str):
    with pytest.raises(BadRequest, match=f"(?i){complaint}"):
        await bot.set_webhook(**arguments)
    assert (await bot.get_webhook_info()).url == ""


async def test_dropping_pending_updates(bot: Bot, ana: Person):
    await bot.delete_webhook(drop_pending_updates=True)
    assert await bot.get_updates(timeout=0) == ()
