"""Tidying, and the notice before templates go; through real HTTP and a real database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.sandbox import Sandbox
from bot.texts import moment, say
from tests.bot.logins import LoginEngine, Shots, english, enroll, login_bot


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
