import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from telegram import (
    Bot,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    MessageOriginHiddenUser,
    MessageOriginUser,
    Update,
)
from telegram.error import BadRequest, Conflict
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from bot.sandbox import Fault, FaultKind, Lifetimes, Person, Sandbox, WebhookRules
from bot.sandbox.errors import ApiError
from bot.sandbox.faults import Faults
from bot.sandbox.listener import Listener
from bot.sandbox.updates import Inbox

ANY_PORT = WebhookRules(ports=None)
"""Servers of tests take whatever port is free; Telegram takes four."""


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(webhooks=ANY_PORT) as sandbox:
        yield sandbox


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
    assert texts(await asyncio.wait_for(polling, 60)) == ["now"]


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


@pytest.mark.parametrize("kinds", [["telepathy"], ["MESSAGE", "telepathy"]])
async def test_unknown_kinds_are_passed_over(bot: Bot, ana: Person, kinds: list[str]):
    await bot.get_updates(allowed_updates=kinds)
    await ana.send_text("heard")
    assert texts(await bot.get_updates(offset=-1, timeout=10)) == ["heard"]


async def test_known_kinds_beside_unknown_ones(bot: Bot, ana: Person):
    await bot.get_updates(allowed_updates=["edited_message", "telepathy"])
    assert (await bot.get_webhook_info()).allowed_updates == ("edited_message",)


async def test_kinds_that_are_no_names_change_nothing(bot: Bot, ana: Person):
    await bot.get_updates(allowed_updates=["edited_message"])
    await bot.get_updates(allowed_updates=[7])  # type: ignore[list-item]
    assert (await bot.get_webhook_info()).allowed_updates == ("edited_message",)


@pytest.mark.parametrize(
    ("lifetimes", "age_s", "kept"),
    [
        (Lifetimes(), 149, ["message", "callback_query"]),
        (Lifetimes(), 151, ["message"]),
        (Lifetimes(), 24 * 3600 - 1, ["message"]),
        (Lifetimes(), 24 * 3600 + 1, []),
        (Lifetimes(update_s=10, query_update_s=20), 15, ["callback_query"]),
    ],
)
@pytest.mark.parametrize("by_webhook", [False, True], ids=["polling", "webhook"])
async def test_what_nobody_fetches_expires(
    lifetimes: Lifetimes,
    age_s: float,
    kept: list[str],
    by_webhook: bool,
    receiver: "tuple[Receiver, str]",
):
    now = 1_000_000.0
    async with (
        Sandbox(clock=lambda: now, lifetimes=lifetimes, webhooks=ANY_PORT) as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        ana = sandbox.person("ana")
        await ana.send_text("hi")
        keys = InlineKeyboardMarkup([[InlineKeyboardButton("a", callback_data="a")]])
        await bot.send_message(7001, "x", reply_markup=keys)
        with pytest.raises(TimeoutError):
            await ana.press(await ana.reply(), "a", timeout_s=0)
        now += age_s
        assert (await bot.get_webhook_info()).pending_update_count == len(kept)
        if by_webhook:
            hook, url = receiver
            await bot.set_webhook(url)
            updates = [Update.de_json((await hook.next())[0]) for _ in kept]
        else:
            updates = list(await bot.get_updates(timeout=0))
        for kind in kept:
            assert any(getattr(update, kind) for update in updates)
        assert len(updates) == len(kept)


async def test_more_than_a_thousand_unread_updates(bot: Bot, ana: Person):
    await ana.send_text("x" * 4096 * 1100)
    assert (await bot.get_webhook_info()).pending_update_count == 1101
    assert texts(await bot.get_updates(limit=1)) == ["/start"]


async def test_a_full_inbox_says_what_it_does_not_take(caplog: pytest.LogCaptureFixture):
    inbox = Inbox(Faults(), capacity=2)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            inbox.push("message", {"chat": {"id": 1}, "text": str(number)})
    assert "2 unread updates" in caplog.text
    (first, second) = await inbox.poll(offset=None, limit=100, timeout_s=0, allowed=None)
    assert (first["message"]["text"], second["message"]["text"]) == ("0", "1")
    await inbox.poll(offset=second["update_id"] + 1, limit=100, timeout_s=0, allowed=None)
    inbox.push("message", {"chat": {"id": 1}, "text": "3"})
    (third,) = await inbox.poll(offset=None, limit=100, timeout_s=0, allowed=None)
    assert third["message"]["text"] == "3"


async def test_deleting_a_webhook_leaves_a_poll_alone(bot: Bot, sandbox: Sandbox):
    await bot.get_updates(timeout=0)
    polling = asyncio.create_task(bot.get_updates(timeout=30))
    async with Bot(sandbox.token, base_url=sandbox.bot_api_url) as other:
        assert await other.delete_webhook()
        await sandbox.person("ben").send_text("hi")
    assert texts(await asyncio.wait_for(polling, 60)) == ["hi"]


async def test_setting_a_webhook_ends_a_poll(
    sandbox: Sandbox, receiver: "tuple[Receiver, str]", ana: Person
):
    inbox = sandbox._world.inbox
    (first,) = await inbox.poll(offset=None, limit=100, timeout_s=0, allowed=None)
    polling = asyncio.create_task(
        inbox.poll(offset=first["update_id"] + 1, limit=100, timeout_s=30, allowed=None)
    )
    await asyncio.sleep(0)  # the poll waits now
    async with Bot(sandbox.token, base_url=sandbox.bot_api_url) as other:
        assert await other.set_webhook(receiver[1])
        assert await other.delete_webhook()
    with pytest.raises(ApiError, match=r"^Conflict: terminated by setWebhook request$"):
        await asyncio.wait_for(polling, 60)


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
        assert texts(await asyncio.wait_for(left, 60)) == ["hi"]


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
    assert isinstance(message.forward_origin, MessageOriginUser)
    assert message.forward_origin.sender_user.id == 7001
    assert message.photo[-1].file_unique_id == unique
    assert message.caption == "me"
    await ana.forward(sent, hidden=True)
    message = await received()
    assert isinstance(message.forward_origin, MessageOriginHiddenUser)
    assert message.forward_origin.sender_user_name == "Ana"
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
        self.refuses: str | None = None
        self.hosts: list[str] = []
        self.answer: dict | None = None
        self.taken: asyncio.Queue[tuple[dict, str | None]] = asyncio.Queue()
        self.app = Starlette(routes=[Route("/hook", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        if self.failures:
            self.failures -= 1
            return Response(status_code=503)
        update = await request.json()
        if self.refuses and update["message"]["from"]["first_name"] == self.refuses:
            return Response(status_code=503)
        self.hosts.append(request.headers["host"])
        secret = request.headers.get("X-Telegram-Bot-Api-Secret-Token")
        await self.taken.put((update, secret))
        return JSONResponse(self.answer) if self.answer else Response()

    async def next(self) -> tuple[dict, str | None]:
        return await asyncio.wait_for(self.taken.get(), 60)


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


class Slow(Receiver):
    """A webhook's end that takes an update in only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.come: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = {name: asyncio.Event() for name in ("Ana", "Ben")}

    async def _take(self, request: Request) -> Response:
        message = (await request.json())["message"]
        await self.come.put(message["text"])
        await self.go_on[message["from"]["first_name"]].wait()
        return await super()._take(request)


async def test_one_chat_does_not_wait_for_another_and_keeps_its_order(bot: Bot, sandbox: Sandbox):
    hook = Slow()
    async with Listener(hook.app, socket.create_server(("127.0.0.1", 0))) as listener:
        await bot.set_webhook(f"http://127.0.0.1:{listener.port}/hook")
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        for number in range(3):
            await ana.send_text(f"ana {number}")
        await ben.send_text("ben 0")
        async with asyncio.timeout(60):
            assert {await hook.come.get(), await hook.come.get()} == {"ana 0", "ben 0"}
            hook.go_on["Ben"].set()
            assert (await hook.next())[0]["message"]["text"] == "ben 0"
            await ben.send_text("ben 1")
            assert await hook.come.get() == "ben 1"
            assert hook.come.empty()
            hook.go_on["Ana"].set()
            for number in range(1, 3):
                assert await hook.come.get() == f"ana {number}"


async def test_no_more_connections_than_were_asked_for(bot: Bot, sandbox: Sandbox):
    hook = Slow()
    async with Listener(hook.app, socket.create_server(("127.0.0.1", 0))) as listener:
        await bot.set_webhook(f"http://127.0.0.1:{listener.port}/hook", max_connections=1)
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await ana.send_text("ana")
        await ben.send_text("ben")
        async with asyncio.timeout(60):
            assert await hook.come.get() == "ana"
            await bot.get_webhook_info()
            assert hook.come.empty()
            hook.go_on["Ana"].set()
            assert await hook.come.get() == "ben"
            hook.go_on["Ben"].set()


async def test_a_chat_whose_updates_are_refused_holds_up_no_other(
    bot: Bot, sandbox: Sandbox, receiver: "tuple[Receiver, str]"
):
    hook, url = receiver
    hook.refuses = "Ana"
    await bot.set_webhook(url)
    await sandbox.person("ana").send_text("refused")
    await sandbox.person("ben").send_text("taken")
    assert (await hook.next())[0]["message"]["text"] == "taken"
    hook.refuses = None
    assert (await hook.next())[0]["message"]["text"] == "refused"


async def test_a_method_in_a_webhooks_answer_is_said_not_to_be_done(
    bot: Bot, ana: Person, receiver: "tuple[Receiver, str]", caplog: pytest.LogCaptureFixture
):
    hook, url = receiver
    hook.answer = {"method": "sendMessage", "chat_id": 7001, "text": "x"}
    await bot.set_webhook(url)
    await hook.next()
    async with asyncio.timeout(60):
        while (await bot.get_webhook_info()).pending_update_count:
            pass
    assert "does not carry out a method in a webhook's answer: 'sendMessage'" in caplog.text


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
        ({"url": "http://203.0.113.7/hook"}, "HTTPS URL must be provided"),
        ({"url": "https://127.0.0.1/hook", "secret_token": "a b"}, "unallowed characters"),
        ({"url": "https://127.0.0.1/hook", "secret_token": "a" * 257}, "token is too long"),
        ({"url": "https://[nowhere/hook"}, "invalid webhook URL"),
        ({"url": "ftp://127.0.0.1/hook"}, "invalid webhook URL"),
        ({"url": "https://203.0.113.7/hook"}, "the sandbox posts only to this machine"),
        ({"url": "https://0.0.0.0/hook"}, "the sandbox posts only to this machine"),
        ({"url": "https://[2001:db8::7]/hook"}, "the sandbox posts only to this machine"),
        ({"url": "https://127.0.0.1/hook", "ip_address": "203.0.113.7"}, "only to this machine"),
        ({"url": "https://127.0.0.1/hook", "ip_address": "here"}, "Invalid IP address"),
        ({"url": "https://127.0.0.1/hook", "certificate": b"x"}, "takes no certificate"),
    ],
)
async def test_refused_webhooks(bot: Bot, arguments: dict, complaint: str):
    with pytest.raises(BadRequest, match=f"(?i){complaint}"):
        await bot.set_webhook(**arguments)
    assert (await bot.get_webhook_info()).url == ""


@pytest.mark.parametrize(("port", "taken"), [(88, True), (8443, True), (8080, False)])
async def test_ports_that_telegram_posts_to(port: int, taken: bool):
    async with (
        Sandbox() as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        url = f"https://127.0.0.1:{port}/hook"
        if taken:
            assert await bot.set_webhook(url)
            assert (await bot.get_webhook_info()).ip_address == "127.0.0.1"
            return
        with pytest.raises(BadRequest, match="can be set up only on ports 80, 88, 443 or 8443"):
            await bot.set_webhook(url)


class Names:
    """A name server that gives another answer each time."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self._answers = list(answers)

    async def __call__(self, _host: str) -> tuple[str, ...]:
        if not self._answers:
            raise OSError("Name or service not known")
        return self._answers.pop(0)


async def test_a_name_is_looked_up_once(receiver: "tuple[Receiver, str]"):
    """A name that leads here when it is checked, and elsewhere when it is posted to."""
    hook, url = receiver
    rules = WebhookRules(ports=None, resolve=Names(("127.0.0.1",), ("203.0.113.7",)))
    async with (
        Sandbox(webhooks=rules) as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        await bot.set_webhook(url.replace("127.0.0.1", "hook.invalid"))
        ana = sandbox.person("ana")
        for text in ("one", "two"):
            await ana.send_text(text)
            assert (await hook.next())[0]["message"]["text"] == text
        assert hook.hosts == [f"hook.invalid:{url.split(':')[2].split('/')[0]}"] * 2


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (("127.0.0.1", "203.0.113.7"), "and 203.0.113.7 is elsewhere"),
        ((), "failed to resolve host"),
        (None, "failed to resolve host"),
    ],
)
async def test_names_that_do_not_lead_here_alone(answer: tuple[str, ...] | None, complaint: str):
    names = Names() if answer is None else Names(answer)
    async with (
        Sandbox(webhooks=WebhookRules(resolve=names)) as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        with pytest.raises(BadRequest, match=f"(?i)bad webhook: .*{complaint}"):
            await bot.set_webhook("https://hook.invalid/")


async def test_addresses_elsewhere_are_a_setting():
    async with (
        Sandbox(webhooks=WebhookRules(elsewhere=True)) as sandbox,
        Bot(sandbox.token, base_url=sandbox.bot_api_url) as bot,
    ):
        assert await bot.set_webhook("https://203.0.113.7/hook")
        assert (await bot.get_webhook_info()).ip_address == "203.0.113.7"


async def test_dropping_pending_updates(bot: Bot, ana: Person):
    await bot.delete_webhook(drop_pending_updates=True)
    assert await bot.get_updates(timeout=0) == ()
