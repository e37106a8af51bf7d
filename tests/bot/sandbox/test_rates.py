import datetime as dtm
from collections.abc import AsyncIterator

import pytest
from telegram import Bot, InputMediaPhoto
from telegram.error import RetryAfter

from bot.sandbox import Person, Rates, Sandbox
from bot.sandbox.errors import ApiError
from bot.sandbox.rates import Throttle
from tests.bot.sandbox.pictures import picture


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=clock, rates=Rates()) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def timedelta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "1")


async def test_one_message_a_second_for_a_chat(
    bot: Bot, ana: Person, sandbox: Sandbox, clock: Clock, chat_id: int
):
    await sandbox.person("ben").send_text("/start")
    for _ in range(10):
        await bot.send_message(chat_id, "at once")
    with pytest.raises(RetryAfter) as refusal:
        await bot.send_message(chat_id, "too much")
    assert refusal.value.retry_after == dtm.timedelta(seconds=1)
    await bot.send_message(7002, "another chat")
    await bot.send_chat_action(chat_id, "typing")
    clock.now += 1
    await bot.send_message(chat_id, "later")
    with pytest.raises(RetryAfter):
        await bot.send_message(chat_id, "too much")
    assert [one.text for one in await ana.replies(11)] == ["at once"] * 10 + ["later"]


async def test_an_album_counts_as_many_messages(bot: Bot, ana: Person, chat_id: int):
    media = [InputMediaPhoto(picture(30, 20, seed=seed)) for seed in range(6)]
    await bot.send_media_group(chat_id, media)
    with pytest.raises(RetryAfter) as refusal:
        await bot.send_media_group(chat_id, media)
    assert refusal.value.retry_after == dtm.timedelta(seconds=2)
    assert len([one for one in await ana.messages() if one.from_bot]) == 6


async def test_what_is_refused_for_another_reason_does_not_count(
    bot: Bot, ana: Person, chat_id: int
):
    for _ in range(20):
        with pytest.raises(Exception, match=r"(?i)message text is empty"):
            await bot.send_message(chat_id, " ")
    await bot.send_message(chat_id, "the first")


def test_thirty_messages_a_second_in_all(clock: Clock):
    throttle = Throttle(Rates(), clock)
    for chat in range(30):
        throttle.take(1000 + chat)
    with pytest.raises(ApiError) as refusal:
        throttle.take(2000)
    assert refusal.value.body() == {
        "ok": False,
        "error_code": 429,
        "description": "Too Many Requests: retry after 1",
        "parameters": {"retry_after": 1},
    }
    clock.now += 1
    throttle.take(2000)


def test_twenty_messages_a_minute_for_a_group(clock: Clock):
    throttle = Throttle(Rates(), clock)
    for _ in range(20):
        throttle.take(-100)
    with pytest.raises(ApiError, match="retry after 3"):
        throttle.take(-100)
    clock.now += 60
    throttle.take(-100, 20)


def test_a_clock_set_back_holds_nobody_up(clock: Clock):
    throttle = Throttle(Rates(), clock)
    throttle.take(1, 10)
    clock.now -= 3600
    throttle.take(1, 10)
