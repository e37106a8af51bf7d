"""Answers that come too late, or that Telegram does not take in time."""

import asyncio
import logging
from pathlib import Path

import pytest

from bot import app
from bot.sandbox import Fault, FaultKind, Lifetimes, Sandbox
from bot.texts import say
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, analysis, face, picture


async def test_a_button_answered_too_late_still_does_what_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine(lambda _photo: analysis(face(0.0), face(90.0)))
    async with Sandbox(lifetimes=Lifetimes(answer_s=-1)) as sandbox:
        chosen = fakes.settings(sandbox, tmp_path)
        async with app.running(chosen, engine, draw=fakes.draw):
            ana = sandbox.person("ana")
            await ana.set_language("en")
            await ana.send_photo(picture())
            whole = await ana.reply()
            pressing = asyncio.create_task(ana.press(whole, "2"))
            assert (await ana.edited(whole)).text != whole.text
            pressing.cancel()
            await asyncio.wait([pressing])
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


async def test_who_cannot_be_answered_while_there_is_time_is_told_once_and_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fakes.bot(tmp_path, answer_timeout_s=2) as sandbox:
        sandbox.faults.add(Fault(FaultKind.RESET, 1000, "sendPhoto"))
        ana = sandbox.person("ana")
        photo = await ana.send_photo(picture())
        told = await ana.reply()
        assert (told.text, told.reply_to) == (say("es", "turned.deadline"), photo.message_id)
        await ana.send_text("/start")
        assert (await ana.reply()).text.startswith(say("es", "account.start", people="")[:20])
    assert "could not be sent in time: NetworkError" in caplog.text
    assert "Traceback" not in caplog.text
