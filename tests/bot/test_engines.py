"""The bot with an engine elsewhere: there, away, silent, back; and what it loads."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bot import engines
from bot.sandbox import Person
from bot.texts import say
from engine import __version__
from engine.remote.client import RemoteEngine
from engine.types import EngineInfo
from engine.wire import write_analysis, write_info
from tests.bot import clock
from tests.bot.fakes import NAMES, analysis, bot, face, picture
from tests.engine.strangers import (
    Heard,
    Says,
    Stranger,
    closed_port,
    is_silent,
    resets,
    says,
    stranger,
)

ROOT = Path(__file__).parents[2]
INFO = EngineInfo(__version__, "fake@0", "fake", 1, "cpu")
GREETS = says(200, write_info(INFO))
SEES = says(200, write_analysis(replace(analysis(face()), picture=picture())))
ANSWER_S = 20.0


async def until_logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    async with asyncio.timeout(60):
        while words not in caplog.text:  # noqa: ASYNC110 (logging wakes nobody)
            await asyncio.sleep(0)


async def test_an_engine_that_is_there_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bot")
    async with stranger(GREETS) as server, engines.remote(server.url, "key"):
        await until_logged(caplog, f"engine={server.url} bundle=fake@0 device=cpu")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert server.heard[0].headers["authorization"] == "Bearer key"


async def test_one_that_is_not_there_yet_is_told_once_and_found_when_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bot")
    away = [says(503, b"") for _ in range(9)]
    async with stranger(*away, GREETS) as server, engines.remote(server.url, None, look_again_s=0):
        await until_logged(caplog, "bundle=fake@0")
    assert caplog.text.count("photos cannot be looked at yet") == 1


async def test_a_fault_of_whoever_is_told_of_the_engine_is_logged_and_they_are_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = asyncio.Semaphore(0)
    pauses: list[float] = []
    caplog.set_level(logging.INFO, "bot")

    async def greeted(_info: EngineInfo) -> None:
        told.release()
        if "a bug" not in caplog.text:
            raise ArithmeticError("a bug")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with (
        asyncio.timeout(30),
        stranger(GREETS) as server,
        engines.remote(server.url, None, greeted=greeted, pause=pause),
    ):
        for _ in range(2):
            await told.acquire()
    assert len(pauses) == 1
    assert "ArithmeticError: a bug" in caplog.text


async def test_another_version_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    other = says(200, write_info(replace(INFO, version="9.9")))
    async with stranger(other) as server, engines.remote(server.url, None):
        await until_logged(caplog, f"face-matcher 9.9 and this bot {__version__}")


@asynccontextmanager
async def chatting(
    url: str, folder: Path, answer_s: float = ANSWER_S
) -> AsyncIterator[tuple[Person, Person]]:
    async with (
        RemoteEngine(url) as engine,
        bot(folder, engine, answer_timeout_s=answer_s) as sandbox,
    ):
        yield sandbox.person("ana"), sandbox.person("ben")


async def test_a_photo_is_answered_by_an_engine_elsewhere(tmp_path: Path) -> None:
    async with stranger(SEES) as server, chatting(server.url, tmp_path) as (ana, _):
        photo = picture()
        await ana.send_document(photo, name="me.jpg", mime_type="image/jpeg")
        answer = await ana.reply()
        assert answer.photo
        assert NAMES[0] in answer.text
    (heard,) = [each for each in server.heard if each.line.startswith("POST")]
    further = [each for each in server.heard if each is not heard]
    assert heard.body == photo
    # Whoever answers photos only is not known to know so many people, and answers all the same.
    assert {each.line for each in further} == {"GET /v1/info HTTP/1.1"}
    assert heard.timeout_ms < 1000 * ANSWER_S


async def until_posted(server: Stranger | None, count: int) -> None:
    """Wait until a server has heard of so many photos."""
    assert server is not None
    async with asyncio.timeout(60):
        while sum(each.line.startswith("POST") for each in server.heard) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "key", "answer_s"),
    [
        (None, "refusal.engine_down", ANSWER_S),
        (resets, "refusal.engine_down", ANSWER_S),
        (says(200, b"<html>"), "refusal.engine_down", ANSWER_S),
        (is_silent, "refusal.deadline", 120.0),
    ],
    ids=["nobody", "resets", "nonsense", "silent"],
)
async def test_everybody_has_an_answer_in_time_whatever_listens(
    tmp_path: Path, answer: Says | None, key: str, answer_s: float
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = None if answer is None else await stack.enter_async_context(stranger(answer))
        url = closed_port() if server is None else server.url
        ana, ben = await stack.enter_async_context(chatting(url, tmp_path, answer_s))
        for person in (ana, ben):
            await person.send_photo(picture())
        if answer is is_silent:
            await until_posted(server, 2)
            await clock.advance(0.7 * answer_s)  # of which a part is for saying so
        assert (await ana.reply()).text == say("es", key)
        assert (await ben.reply()).text == say("en", key)
        # Who sends no photo notices nothing.
        await ana.send_text("/help")
        assert (await ana.reply()).text


async def test_it_recovers_by_itself(tmp_path: Path) -> None:
    lost = iter([resets] * 3)  # a question and its two repetitions

    async def answers(heard: Heard, writer: asyncio.StreamWriter) -> None:
        says = next(lost, SEES) if heard.line.startswith("POST") else GREETS
        await says(heard, writer)

    async with stranger(answers) as server, chatting(server.url, tmp_path) as (ana, _):
        await ana.send_photo(picture())
        assert (await ana.reply()).text == say("es", "refusal.engine_down")
        await ana.send_photo(picture())
        assert (await ana.reply()).photo


DEMO = """
import asyncio, sys
from bot import demo, engines
async def main():
    photo = open(sys.argv[2], "rb").read()
    return await demo.once(engines.remote(sys.argv[1], None), photo, "photo.jpg")
ending, replies = asyncio.run(main())
assert ending is demo.PhotoOutcome.FAILED, ending
assert replies[0].text == sys.argv[3], replies
assert "aiohttp" in sys.modules
sys.exit("torch was loaded" if "torch" in sys.modules else 0)
"""


def test_a_bot_whose_engine_is_elsewhere_loads_no_torch(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture())
    down = say("es", "refusal.engine_down")
    done = subprocess.run(
        [sys.executable, "-c", DEMO, closed_port(), str(photo), down],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_demo_command_takes_engine_url(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture())
    done = subprocess.run(
        [sys.executable, "-m", "bot", "demo", "--once", str(photo), "--language", "en"],
        cwd=ROOT,
        env={"PATH": "", "ENGINE_URL": closed_port(), "ENGINE_DEVICE": "tpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.strip() == say("en", "refusal.engine_down")
