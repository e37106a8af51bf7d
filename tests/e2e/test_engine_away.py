"""The bot as a process whose engine is another one, which is away, killed, frozen and back."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import skimage.data
from PIL import Image

from bot.sandbox import Person, Rates, Sandbox
from bot.store import add_key
from bot.texts import LANGUAGES, say
from tests.processes import Process, running

PATIENCE_S = 120.0
ANSWER_S = 8.0
KEY = "the-key-of-this-test"


@asynccontextmanager
async def an_engine(folder: Path, socket: Path) -> AsyncIterator[Process]:
    """The service, once photos are welcome."""
    serve = ("engine", "serve", "--device", "cpu")
    log = folder / "engine.log"
    environ = {"ENGINE_SOCKET": str(socket), "ENGINE_API_KEY": KEY}
    async with running(log, os.environ, *serve, **environ) as process:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        assert line.decode() == f"The engine listens on unix:{socket}\n", log.read_text()
        yield process


@asynccontextmanager
async def a_bot(folder: Path, sandbox: Sandbox, socket: Path) -> AsyncIterator[Process]:
    keys = folder / "template.keys"
    add_key(keys)
    async with running(
        folder / "bot.log",
        os.environ,
        "bot",
        "run",
        BOT_TOKEN=sandbox.token,
        TELEGRAM_API_URL=sandbox.url,
        DATABASE=str(folder / "bot.db"),
        IDS_KEY=str(folder / "ids.key"),
        TEMPLATE_KEYS_FILE=str(keys),
        ANSWER_TIMEOUT_S=str(ANSWER_S),
        ENGINE_URL=f"unix:{socket}",
        ENGINE_API_KEY=KEY,
    ) as process:
        yield process


async def answer(person: Person, photo: bytes) -> tuple[str, bool]:
    """What a photo is answered with, in time: text, and whether there is a card."""
    started = time.monotonic()
    await person.send_photo(photo)
    message = await person.reply(timeout_s=PATIENCE_S)
    assert time.monotonic() - started < 3 * ANSWER_S
    return message.text, bool(message.photo)


async def matches_come(person: Person, photo: bytes) -> None:
    """Return when there is a card; for a moment the bot may not know yet that there can be one."""
    async with asyncio.timeout(PATIENCE_S):
        while not (told := await answer(person, photo))[1]:
            assert told[0] in {say(each, "refusal.engine_down") for each in LANGUAGES}


def opens_torch(process: Process) -> bool:
    """Whether a process has torch's libraries in its memory; where that can be seen."""
    try:
        return "torch" in Path(f"/proc/{process.pid}/maps").read_text()
    except FileNotFoundError:
        return False


async def test_every_chat_gets_an_answer_whatever_the_engine_does(tmp_path: Path) -> None:
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "astronaut.jpg", quality=95)
    photo = (tmp_path / "astronaut.jpg").read_bytes()
    socket = tmp_path / "engine.sock"
    async with Sandbox(rates=Rates()) as sandbox, a_bot(tmp_path, sandbox, socket) as bot:
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await ana.send_text("/start")
        await ana.reply(timeout_s=PATIENCE_S)
        assert await answer(ana, photo) == (say("es", "refusal.engine_down"), False)
        assert await answer(ben, photo) == (say("en", "refusal.engine_down"), False)

        async with an_engine(tmp_path, socket) as engine:
            await matches_come(ana, photo)
            assert opens_torch(engine) or sys.platform != "linux"
            engine.kill()
            await engine.wait()
        told = await asyncio.gather(answer(ana, photo), answer(ben, photo))
        assert told == [
            (say("es", "refusal.engine_down"), False),
            (say("en", "refusal.engine_down"), False),
        ]

        async with an_engine(tmp_path, socket) as engine:
            await matches_come(ben, photo)
            engine.send_signal(signal.SIGSTOP)
            told = await asyncio.gather(answer(ana, photo), answer(ben, photo))
            assert told == [
                (say("es", "refusal.deadline"), False),
                (say("en", "refusal.deadline"), False),
            ]
            engine.send_signal(signal.SIGCONT)
            await matches_come(ana, photo)

        assert not opens_torch(bot)
        bot.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(bot.wait(), PATIENCE_S) == 0
    log = (tmp_path / "bot.log").read_text()
    assert "photos cannot be looked at yet" in log
    assert KEY not in log
    assert "Traceback" not in log
