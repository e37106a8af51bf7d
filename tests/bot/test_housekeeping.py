"""Tidying, and the notices before templates go or are of no use; through HTTP and a database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from telegram import Bot
from telegram.error import Forbidden, NetworkError

from bot import storing
from bot.captures import embedder_of
from bot.housekeeping import tidy
from bot.sandbox import Sandbox
from bot.texts import moment, say
from tests.bot import fakes
from tests.bot.logins import CALIBRATION, LoginEngine, Shots, english, enroll, login_bot
from tests.bot.store import places
from tests.bot.store.places import ANA, EMBEDDER, Place


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
    """Takes messages, or fails as it is told to."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.sent: list[tuple[int, str]] = []

    async def send_message(self, chat_id: int, text: str) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append((chat_id, text))


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
