"""The webhook's receiver: who gets in, with what; and that nothing malformed ends the bot."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telegram import Update
from telegram.error import InvalidToken

from bot import app
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.telegram import client as transport
from bot.telegram import webhook
from bot.telegram.client import Malformed, Telegram, parse_update
from bot.telegram.polling import Poller
from engine.service.http_protocol import MAX_IDLE_S
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, picture

SECRET = "correct-horse"
HEADER = "X-Telegram-Bot-Api-Secret-Token"
TEXT = {
    "update_id": 5,
    "message": {
        "message_id": 1,
        "date": 1,
        "chat": {"id": 1, "type": "private"},
        "from": {"id": 1, "is_bot": False, "first_name": "x"},
        "text": "hello",
    },
}


class Receiver:
    def __init__(self) -> None:
        self.taken: list[Update] = []
        self.healthy = True
        self.leads_to = webhook.Receiver(
            closed=lambda: None if self.healthy else webhook.STOPPING,
            parse=partial(parse_update, bot=Telegram("1:a")),
            put=self.taken.append,
        )
        transport = httpx.ASGITransport(webhook.site(SECRET, self.leads_to))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://door")

    async def knock(self, body: bytes | AsyncIterator[bytes], secret: str | None = SECRET) -> int:
        headers = {} if secret is None else {HEADER: secret}
        answer = await self.client.post(webhook.PATH, content=body, headers=headers)
        assert "Traceback" not in answer.text
        return answer.status_code


async def test_an_update_with_the_secret_gets_in() -> None:
    receiver = Receiver()
    assert await receiver.knock(json.dumps(TEXT).encode()) == 200
    assert [update.update_id for update in receiver.taken] == [5]


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x", SECRET[:-1], "\u00e9"])
async def test_without_the_secret_nothing_gets_in(secret: str | None) -> None:
    receiver = Receiver()
    headers = {} if secret is None else {HEADER.encode(): secret.encode("latin-1")}
    answer = await receiver.client.post(webhook.PATH, json=TEXT, headers=headers)
    assert answer.status_code == 403
    assert receiver.taken == []


MALFORMED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"7",
    b"{}",
    b'{"update_id": "5"}',
    b'{"update_id": true}',
    b'{"update_id": -1}',
    b'{"update_id": 1e400}',
    b'{"update_id": 99999999999999999999}',
    b'{"update_id": 1, "message": 5}',
    b'{"update_id": 1, "message": {"message_id": 1}}',
    b'{"update_id": 1, "message": {"message_id": 1, "date": 1e18, "chat": {"id": 1}}}',
    b"[" * 100_000,
    b'{"update_id": ' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:40]))
async def test_what_is_no_update_is_refused(body: bytes) -> None:
    receiver = Receiver()
    assert await receiver.knock(body) == 400
    assert receiver.taken == []


async def test_a_body_too_large_is_not_read_to_its_end() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(100_000)

    receiver = Receiver()
    assert await receiver.knock(endless()) == 413
    assert receiver.taken == []
    assert read < 100


async def test_health_tells_when_the_bot_stops() -> None:
    receiver = Receiver()
    assert (await receiver.client.get("/healthz")).json() == {"status": "ok"}
    receiver.healthy = False
    assert (await receiver.client.get("/healthz")).status_code == 503
    assert await receiver.knock(json.dumps(TEXT).encode()) == 503
    assert (await receiver.client.get(webhook.PATH)).status_code == 405


async def test_a_bot_that_stands_by_takes_no_update_and_says_why() -> None:
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(webhook.site(SECRET, webhook.Receiver())),
        base_url="http://door",
    )
    told = await client.get("/healthz")
    assert (told.status_code, told.json()) == (
        503,
        {"status": "standby", "reason": "another bot serves with this database"},
    )
    knock = await client.post(webhook.PATH, json=TEXT, headers={HEADER: SECRET})
    assert knock.status_code == 503


async def test_the_bot_answers_through_the_webhook(tmp_path: Path) -> None:
    port = fakes.free_port()
    async with fakes.bot(
        tmp_path, webhook_url=f"http://127.0.0.1:{port}/", webhook_port=port
    ) as sandbox:
        ana = sandbox.person("ana")
        await ana.send_photo(picture())
        assert (await ana.reply()).photo
        async with httpx.AsyncClient(trust_env=False) as client:
            address = f"http://127.0.0.1:{port}"
            assert (await client.get(f"{address}/healthz")).json() == {"status": "ok"}
            assert (await client.post(f"{address}{webhook.PATH}", json=TEXT)).status_code == 403


async def slow(port: int, said: bytes, answered: bytes = b"") -> bytes:
    """What a caller hears who stops in the middle of a request for longer than is allowed.

    Args:
        port: of the webhook.
        said: what the caller sends.
        answered: the end of what the bot says to that at once.
    """
    loop = asyncio.get_running_loop()
    before = loop.time
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(4 * MAX_IDLE_S):
            writer.write(said)
            heard = await reader.readuntil(answered) if answered else b""
            for _ in range(100):  # until the bot waits
                await asyncio.sleep(0)
            loop.time = lambda: before() + MAX_IDLE_S + 1  # type: ignore[method-assign]
            while not heard.endswith(b"too slow\n") and (more := await reader.read(1000)):
                heard += more
            return heard
    finally:
        writer.close()  # the time stays where it is: going back would hold up whatever waits


async def test_whoever_sends_slowly_is_cut_off(tmp_path: Path) -> None:
    port = fakes.free_port()
    secret = f"{HEADER}: {SECRET}\r\n".encode()
    post = f"POST {webhook.PATH} HTTP/1.1\r\nHost: bot\r\n".encode()
    async with fakes.bot(
        tmp_path,
        webhook_url=f"http://127.0.0.1:{port}/",
        webhook_port=port,
        webhook_secret=SECRET,
    ):
        assert await slow(port, post) == b"", "headers without an end"
        stranger = await slow(port, post + b"Content-Length: 99\r\n\r\n1", b"token\n")
        assert stranger.startswith(b"HTTP/1.1 403"), "a body that is not read"
        head = post + secret + b"Expect: 100-continue\r\nContent-Length: 99\r\n\r\n"
        assert b"HTTP/1.1 408" in await slow(port, head, b"\r\n\r\n")


async def test_a_taken_port_is_said_and_nothing_is_left_open(tmp_path: Path) -> None:
    port = fakes.free_port()
    async with Sandbox() as sandbox, Sandbox(port=port):
        chosen = fakes.settings(
            sandbox, tmp_path, webhook_url=f"http://127.0.0.1:{port}", webhook_port=port
        )
        with pytest.raises(OSError, match="in use"):
            async with app.running(chosen, FakeEngine(), draw=fakes.draw):
                pass


# Values that do not belong, in the places that an update has.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["/start", 2**70]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def mostly(valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What belongs, and now and then what does not."""
    return st.integers(0, 11).flatmap(lambda dice: valid if dice else anything)


def shape(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[Any]:
    """An object whose fields are mostly right; plain values stand for themselves."""

    def field(value: Any) -> st.SearchStrategy[Any]:
        valid = value if isinstance(value, st.SearchStrategy) else st.just(value)
        return mostly(valid)

    return st.fixed_dictionaries(
        {key: field(value) for key, value in required.items()},
        optional={key: field(value) for key, value in optional.items()},
    )


def updates_from(person_id: int) -> st.SearchStrategy[dict[str, Any]]:
    person = shape({"id": person_id, "is_bot": False, "first_name": "x"}, language_code="es")
    chat = shape({"id": person_id, "type": "private"})
    size = shape({"file_id": "f", "file_unique_id": "u", "width": 9, "height": 9}, file_size=9)
    document = shape(
        {"file_id": "f", "file_unique_id": "u"},
        file_name="x.jpg",
        mime_type="image/png",
        file_size=9,
    )
    command = shape({"type": "bot_command", "offset": 0, "length": 6})
    parts = {
        "text": st.sampled_from(["/start", "/help@x", "hello"]),
        "entities": st.lists(mostly(command), max_size=2),
        "photo": st.lists(mostly(size), max_size=2),
        "document": document,
        "sticker": anything,
        "media_group_id": "a",
        "reply_to_message": anything,
        "animation": anything,
        "caption": "x",
    }
    envelope = {"message_id": 1, "date": 1, "chat": chat, "from": person}
    message = shape(envelope, **parts)
    data = st.sampled_from(["language:es", "language:xx", "key:f0", "key:f\u00b2", "", ":"])
    query = shape({"id": "1", "from": person, "chat_instance": "1"}, message=message, data=data)
    return st.one_of(
        shape({"message": message}),
        *(shape({"message": shape({**envelope, name: part})}) for name, part in parts.items()),
        shape({"callback_query": query}),
        shape({}, message=message, callback_query=query, edited_message=message),
    )


async def test_malformed_updates_end_nothing_and_others_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = fakes.free_port()
    receiver = f"http://127.0.0.1:{port}"
    loop = asyncio.get_running_loop()
    numbers = itertools.count(10**6)
    statuses: Counter[int] = Counter()
    changes: dict[str, Any] = {
        "webhook_url": receiver,
        "webhook_port": port,
        "webhook_secret": SECRET,
    }
    client = httpx.AsyncClient(base_url=receiver, headers={HEADER: SECRET}, trust_env=False)
    async with client, fakes.bot(tmp_path, **changes) as sandbox:
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        ben_id = (await ben.send_text("hello")).raw["from"]["id"]

        async def throw(batch: list[dict[str, Any]]) -> None:
            for raw in batch:
                answer = await client.post(webhook.PATH, json={**raw, "update_id": next(numbers)})
                statuses[answer.status_code] += 1
            await ana.send_text("/help")
            await ana.reply(timeout_s=10)

        @settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(st.lists(updates_from(ben_id), min_size=1, max_size=8))
        def fuzz(batch: list[dict[str, Any]]) -> None:
            asyncio.run_coroutine_threadsafe(throw(batch), loop).result(30)

        await asyncio.to_thread(fuzz)
        await ana.send_photo(picture())
        assert (await ana.reply()).photo
    # Some got in and were borne inside, some were stopped at the door; nothing else happened.
    assert statuses.keys() == {200, 400}
    assert min(statuses.values()) >= 20
    assert not [one for one in caplog.records if one.name == "asyncio"]
    assert not [one for one in caplog.records if one.levelname == "CRITICAL"]


async def test_the_poller_gets_past_malformed_updates() -> None:
    good = {**TEXT, "update_id": 9}
    batches: list[list[object]] = [[{"update_id": 7, "message": 5}, 3, {"x": 1}, good]]
    asked: list[int | None] = []
    taken: list[int] = []
    end = asyncio.Event()

    async def fetch(offset: int | None, _wait: bool) -> list[object]:
        asked.append(offset)
        if batches:
            return batches.pop()
        end.set()
        await asyncio.Event().wait()
        raise AssertionError

    parse = partial(parse_update, bot=Telegram("1:a"))

    async def refused() -> bool:
        return False

    async def removed() -> None:
        raise AssertionError

    poller = Poller(
        fetch,
        parse,
        lambda update: taken.append(update.update_id),
        refused=refused,
        remove_webhook=removed,
    )
    task = asyncio.create_task(poller.run())
    async with asyncio.timeout(60):
        await end.wait()
    task.cancel()
    assert asked == [None, 10]
    assert taken == [9]


def test_a_malformed_update_is_told_without_its_content() -> None:
    with pytest.raises(Malformed) as raised:
        parse_update({"update_id": 1, "message": {"text": "private"}}, Telegram("1:a"))
    assert "private" not in str(raised.value)
    assert raised.value.__suppress_context__


async def health(receiver: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False) as client:
        told: dict[str, Any] = (await client.get(f"{receiver}/healthz")).json()
        return told


async def test_a_webhook_that_another_program_removed_is_set_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = fakes.free_port()
    changes: dict[str, Any] = {"webhook_url": f"http://127.0.0.1:{port}", "webhook_port": port}
    async with fakes.bot(tmp_path, webhook_check_s=1, **changes) as sandbox:
        ana = sandbox.person("ana")
        await ana.send_text("hello")
        await ana.reply()
        async with httpx.AsyncClient(trust_env=False) as thief:
            await thief.post(f"{sandbox.bot_api_url}{sandbox.token}/deleteWebhook")
        await ana.send_text("hello")
        assert (await ana.reply(timeout_s=10)).text
    assert "another program uses this bot's token" in caplog.text


async def test_an_address_that_leads_nowhere_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, nowhere = fakes.free_port(), fakes.free_port()
    receiver = f"http://127.0.0.1:{port}"
    changes: dict[str, Any] = {"webhook_url": f"http://127.0.0.1:{nowhere}", "webhook_port": port}
    async with fakes.bot(tmp_path, webhook_check_s=1, **changes) as sandbox:
        await sandbox.person("ana").send_text("hello")
        async with asyncio.timeout(60):
            while "problem" not in (told := await health(receiver)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert told == {
        "status": "degraded",
        "pending_updates": 1,
        "problem": "Connection failed: ConnectError",
    }
    assert "Connection failed: ConnectError" in caplog.text


async def test_a_token_that_is_revoked_ends_the_bot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_ASKED_AGAIN_AFTER_S", (0.01, 0.01))
    port = fakes.free_port()
    async with Sandbox(webhooks=fakes.ANY_PORT) as sandbox:
        address = f"http://127.0.0.1:{port}"
        chosen = fakes.settings(
            sandbox, tmp_path, webhook_url=address, webhook_port=port, webhook_check_s=1
        )
        async with app.running(chosen, FakeEngine(), draw=fakes.draw) as source:
            for method in ("getWebhookInfo", "getMe"):
                sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, 99, method, status=401))
            async with asyncio.timeout(60):
                await asyncio.wait([source])
            with pytest.raises(InvalidToken):
                source.result()
