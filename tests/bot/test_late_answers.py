"""A pressed button whose answer Telegram no longer takes: what it asks for is done all the same."""

import asyncio
import logging
from pathlib import Path

import pytest

from bot import app
from bot.sandbox import Lifetimes, Sandbox
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
