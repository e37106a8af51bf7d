"""Tidying, and the notices before templates go or are of no use; through HTTP and a database."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from telegram import Bot
from telegram.error import Forbidden, NetworkError

from bot import storing
from bot.login.captures import embedder_of
from bot.login.retention import EVERY_S, run_retention, tidy
from bot.sandbox import Sandbox
from bot.store import Store, StoreError, Tidied
from bot.texts import moment, say
from tests.bot import fakes
from tests.bot.logins import CALIBRATION, LoginEngine, Shots, english, enroll, login_bot
from tests.bot.store import places
from tests.bot.store.places import ANA, BEN, EMBEDDER, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "bot.db")


async def test_people_are_told_once_before_their_templates_go(tmp_path: Path) -> None:
    shots = Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, LoginEngine(), sandbox, idle_days=20, notice_days=1):
            await ana.send_text("/language")
            await ana.press(await ana.reply(), "English")
            before = datetime.now(UTC)
            await enroll(ana, shots, idle_days=20)
            after = datetime.now(UTC)
        async with login_bot(tmp_path, LoginEngine(), sandbox, idle_days=20, notice_days=20):
            notice = await ana.reply()
            ends = {moment(at + timedelta(days=20)) for at in (before, after)}
            assert notice.text in {say("en", "rights.idle", when=end) for end in ends}
        async with login_bot(tmp_path, LoginEngine(), sandbox, idle_days=20, notice_days=20):
            await ana.send_text("hello")
            assert (await ana.reply()).text == say("en", "account.hint")


async def test_people_are_told_once_that_another_embedder_takes_over(tmp_path: Path) -> None:
    shots, old = Shots(), embedder_of(CALIBRATION)
    engine = LoginEngine()
    async with Sandbox() as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        async with login_bot(tmp_path, engine, sandbox):
            await enroll(ana, shots)
            engine.person = 1
            await enroll(ben, shots)
            await ana.send_text("/language")
            await ana.press(await ana.reply(), "Español")
        async with storing.store(fakes.settings(sandbox, tmp_path)) as store:
            planned = await store.plan_takeover("better", old, notice_days=14)
        async with login_bot(tmp_path, engine, sandbox):
            when = moment(planned.due)
            assert (await ana.reply()).text == say("es", "verify.takeover", when=when)
            assert (await ben.reply()).text == say("en", "verify.takeover", when=when)
        async with login_bot(tmp_path, engine, sandbox):
            await ben.send_text("hello")
            assert (await ben.reply()).text == say("en", "account.hint")


class Telegram:
    """Takes messages, or fails as it is told to; a gate holds each until it is opened."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.faults: dict[int, Exception] = {}
        self.sent: list[tuple[int, str]] = []
        self.begun = asyncio.Semaphore(0)
        self.gate: asyncio.Event | None = None

    async def send_message(self, chat_id: int, text: str) -> None:
        self.begun.release()
        if self.gate is not None:
            await self.gate.wait()
        if fault := self.faults.get(chat_id, self.fault):
            raise fault
        self.sent.append((chat_id, text))


async def announced(store: Store, *people: int) -> None:
    """People who are to be told that another embedder takes over."""
    for person in people:
        await places.enroll(store, person)
    await store.plan_takeover("better", EMBEDDER, notice_days=14)


async def idle(store: Store, *people: int) -> None:
    """People who are to be told that their templates go."""
    for person in people:
        await places.enroll(store, person)


@pytest.mark.parametrize(("due", "days"), [(announced, 0.0), (idle, 340.0)])
async def test_the_notice_of_a_bot_that_ended_before_it_was_sent_is_sent_by_the_next_one(
    place: Place, due: Callable[..., Awaitable[None]], days: float
) -> None:
    telegram = Telegram()
    telegram.gate = asyncio.Event()
    bot = cast("Bot", telegram)
    async with place.store() as one, place.store() as other:
        await due(one, ANA)
        place.clock.advance(days=days)
        await one.confirm_clock()
        ending = asyncio.create_task(tidy(one, bot))
        await telegram.begun.acquire()
        ending.cancel()
        await asyncio.wait([ending])
        telegram.gate.set()
        await tidy(other, bot)
        assert [person for person, _ in telegram.sent] == [ANA]


async def test_a_clock_that_leapt_erases_nothing_and_tells_nobody_until_it_is_believed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    telegram = Telegram()
    bot = cast("Bot", telegram)
    async with place.store() as store:
        await idle(store, ANA)
        await store.claim_capture(BEN, "1", b"1")
        for _ in range(5):
            await tidy(store, bot)
            place.clock.advance(days=1)
        place.clock.advance(days=26_000)
        caplog.clear()
        await tidy(store, bot)
        assert telegram.sent == []
        assert (await store.export(BEN))["captures"]["count"] == 1
        told = caplog.text
        assert moment(place.clock.now + timedelta(days=3)) in told
        assert "python -m bot db clock" in told
        await store.confirm_clock()
        await tidy(store, bot)
        assert (await store.export(BEN))["captures"]["count"] == 0
        assert [person for person, _ in telegram.sent] == [ANA]


async def test_a_fault_with_one_person_s_notice_costs_nobody_else_s(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    telegram = Telegram()
    bot = cast("Bot", telegram)
    async with place.store() as store:
        await announced(store, ANA, BEN)
        for broken in (ANA, BEN):
            telegram.faults = {broken: RuntimeError("a bug")}
            await tidy(store, bot)
            place.clock.advance(hours=1)
    assert sorted(person for person, _ in telegram.sent) == [ANA, BEN]
    assert "RuntimeError: a bug" in caplog.text


async def test_tidying_goes_on_after_any_fault(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = [StoreError("locked"), ValueError("a bug")]
    pauses: asyncio.Queue[float] = asyncio.Queue()

    class Broken:
        async def erasing_waits(self) -> None:
            return None

        async def tidy(self) -> Tidied:
            if outcomes:
                raise outcomes.pop(0)
            return Tidied({}, (), ())

    store: Any = Broken()

    async def pause(seconds: float) -> None:
        pauses.put_nowait(seconds)
        await asyncio.sleep(0)

    keeping = asyncio.create_task(run_retention(store, cast("Bot", Telegram()), pause=pause))
    try:
        async with asyncio.timeout(60):
            first, second, third, fourth = [await pauses.get() for _ in range(4)]
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
    assert first < second < third == fourth == EVERY_S
    assert "StoreError: locked" in caplog.text
    assert "ValueError: a bug" in caplog.text


async def test_a_notice_that_telegram_failed_is_sent_later_and_a_blocked_bot_gives_up(
    tmp_path: Path,
) -> None:
    telegram = Telegram()
    bot = cast("Bot", telegram)
    place = Place(tmp_path, tmp_path / "bot.db")
    async with place.store() as store:
        await places.enroll(store)
        await store.plan_takeover("better", EMBEDDER, notice_days=14)
        due = place.clock.now + timedelta(days=14)
        telegram.fault = NetworkError("away")
        await tidy(store, bot)
        telegram.fault = None
        place.clock.advance(hours=1)
        await tidy(store, bot)
        await tidy(store, bot)
        assert telegram.sent == [(ANA, say("es", "verify.takeover", when=moment(due)))]
        await store.withdraw_takeover()
        await store.plan_takeover("better", EMBEDDER, notice_days=14)
        telegram.fault = Forbidden("blocked")
        await tidy(store, bot)
        telegram.fault = None
        await tidy(store, bot)
        assert len(telegram.sent) == 1
