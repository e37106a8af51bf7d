import asyncio
import datetime as dtm

import httpx
import pytest
from telegram import Bot
from telegram.error import NetworkError, RetryAfter, TimedOut

from bot.sandbox import Fault, FaultKind, Person, Sandbox
from bot.sandbox.errors import UserError
from bot.sandbox.faults import Faults


async def bot_texts(person: Person) -> list[str]:
    return [one.text for one in await person.messages() if one.from_bot]


async def test_too_many_requests_for_the_next_calls(
    bot: Bot, ana: Person, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PTB_TIMEDELTA", "1")
    sandbox.faults.add(
        Fault(FaultKind.TOO_MANY_REQUESTS, count=2, method="sendMessage", retry_after_s=7)
    )
    await bot.send_chat_action(7001, "typing")
    for _ in range(2):
        with pytest.raises(RetryAfter) as refusal:
            await bot.send_message(7001, "x")
        assert refusal.value.retry_after == dtm.timedelta(seconds=7)
    await bot.send_message(7001, "through")
    assert await bot_texts(ana) == ["through"]


async def test_server_errors(bot: Bot, ana: Person, sandbox: Sandbox):
    sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, status=503))
    with pytest.raises(NetworkError, match="Service Unavailable"):
        await bot.send_message(7001, "x")
    assert await bot_texts(ana) == []
    sandbox.faults.add(Fault(FaultKind.SERVER_ERROR))
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{sandbox.bot_api_url}{sandbox.token}/getMe")
    assert answer.status_code == 502
    assert answer.json() == {"ok": False, "error_code": 502, "description": "Bad Gateway"}


@pytest.mark.parametrize(
    ("kind", "arrived"), [(FaultKind.RESET, []), (FaultKind.LOST_ANSWER, ["x"])]
)
async def test_broken_connections(
    bot: Bot, ana: Person, sandbox: Sandbox, kind: FaultKind, arrived: list[str]
):
    sandbox.faults.add(Fault(kind))
    with pytest.raises(NetworkError):
        await bot.send_message(7001, "x")
    assert await bot_texts(ana) == arrived
    await bot.send_message(7001, "y")


async def test_slow_answers(bot: Bot, ana: Person, sandbox: Sandbox):
    sandbox.faults.add(Fault(FaultKind.SLOW, method="sendMessage", delay_s=60))
    with pytest.raises(TimedOut):
        await bot.send_message(7001, "x", read_timeout=0.2)


async def test_downloads_that_stall_or_end_early(
    bot: Bot, ana: Person, sandbox: Sandbox, photo: bytes
):
    await ana.send_photo(photo)
    size = (await bot.get_updates(offset=-1, timeout=10))[-1].message.photo[-1]
    file = await size.get_file()
    sandbox.faults.add(Fault(FaultKind.TRUNCATED_DOWNLOAD))
    with pytest.raises(NetworkError):
        await file.download_as_bytearray()
    sandbox.faults.add(Fault(FaultKind.SLOW, method="download", delay_s=60))
    with pytest.raises(TimedOut):
        await file.download_as_bytearray(read_timeout=0.2)
    sandbox.faults.add(Fault(FaultKind.SLOW, method="download", delay_s=0.01))
    assert len(await file.download_as_bytearray()) == size.file_size
    sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, method="download"))
    with pytest.raises(NetworkError, match="Bad Gateway"):
        await file.download_as_bytearray()
    assert len(await file.download_as_bytearray()) == size.file_size


async def test_a_slow_call_does_not_hold_the_end_up():
    async with Sandbox() as sandbox:
        ana = sandbox.person("ana")
        await ana.send_text("hi")
        bot = Bot(sandbox.token, base_url=sandbox.bot_api_url)
        await bot.initialize()
        sandbox.faults.add(Fault(FaultKind.SLOW, method="sendMessage", delay_s=600))
        waiting = asyncio.create_task(bot.send_message(7001, "late", read_timeout=600))
        await bot.send_chat_action(7001, "typing")
        await ana.wait_for(lambda event: event.kind == "action")
    await asyncio.wait({waiting}, timeout=10)
    assert waiting.done()
    assert waiting.exception() is None
    await bot.shutdown()


async def test_polling_is_left_alone_unless_named(bot: Bot, ana: Person, sandbox: Sandbox):
    sandbox.faults.add(Fault(FaultKind.SERVER_ERROR))
    assert len(await bot.get_updates(timeout=0)) == 1
    sandbox.faults.clear()
    sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, method="getUpdates"))
    with pytest.raises(NetworkError):
        await bot.get_updates(timeout=0)


def test_orders_are_served_oldest_first_and_counted():
    faults = Faults()
    faults.add(Fault(FaultKind.RESET, count=2, method="sendPhoto"))
    faults.add(Fault(FaultKind.SLOW))
    assert faults.take("sendMessage").kind is FaultKind.SLOW
    assert [faults.take("sendphoto") for _ in range(3)][2] is None
    assert faults.pending() == ()


@pytest.mark.parametrize(
    "fields", [{"count": 0}, {"retry_after_s": 0}, {"status": 399}, {"delay_s": -1}]
)
def test_impossible_orders(fields: dict):
    with pytest.raises(UserError):
        Fault(FaultKind.SLOW, **fields)


async def test_orders_over_http(sandbox: Sandbox, bot: Bot, ana: Person):
    async with httpx.AsyncClient(base_url=sandbox.url) as http:
        order = {"kind": "server_error", "method": "sendMessage", "status": 500}
        answer = await http.post("/api/faults", json=order)
        assert answer.json()["faults"][0]["kind"] == "server_error"
        with pytest.raises(NetworkError, match="Internal Server Error"):
            await bot.send_message(7001, "x")
        assert (await http.get("/api/faults")).json() == {"faults": []}
        for wrong in ({}, {"kind": "x"}, {"kind": "slow", "count": "2"}, {"kind": "slow", "a": 1}):
            answer = await http.post("/api/faults", json=wrong)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_fault")
        await http.post("/api/faults", json={"kind": "slow"})
        assert (await http.delete("/api/faults")).json() == {"faults": []}
