"""The bot from outside, as a process: what it leaves behind, and how it stops."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from telegram.error import InvalidToken

from bot import app
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.texts import say
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, picture

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def process(
    sandbox: Sandbox, folder: Path, **changes: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The bot in a process of its own, whose every file would land in the folder."""
    values = {
        "bot_token": sandbox.token,
        "telegram_api_url": sandbox.url,
        "folder": str(folder),
        "album_wait_s": 0.15,
        **changes,
    }
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder),
    }
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bot.process", json.dumps(values)),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def stop(bot: asyncio.subprocess.Process) -> tuple[float, str, str]:
    """SIGTERM; how long it took, standard output, the log."""
    start = time.monotonic()
    bot.send_signal(signal.SIGTERM)
    async with asyncio.timeout(12):
        out, err = await bot.communicate()
    assert bot.returncode == 0, err.decode()
    return time.monotonic() - start, out.decode(), err.decode()


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_lookalike_leaves_nothing_on_disk(tmp_path: Path) -> None:
    photos = [picture(seed, size=(900, 700)) for seed in range(3)]
    async with Sandbox() as sandbox, process(sandbox, tmp_path) as bot:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_document(photos[0], name="me.jpg", mime_type="image/jpeg")
        answer = await ana.reply()
        assert answer.photo
        await ana.press(answer, "2")
        await ana.edited(answer)
        await ana.send_album(photos[1:])
        assert all(card.photo for card in await ana.replies(2))
        _, out, _ = await stop(bot)
    own = {"bot.db", "bot.db-wal", "bot.db-shm", "ids.key"}
    operators = {"template.keys", ".template.keys.lock"}
    harmless = (os.devnull, f"os.mkdir {tmp_path}")
    written = [path for path in json.loads(out) if path not in harmless]
    # The key is written whole under a name of its own beside it.
    names = {Path(path).name for path in written if "ids.key." not in path}
    assert names <= own, written
    files = everything(tmp_path)
    assert files.keys() <= own | operators
    on_disk = b"".join(files.values())
    assert on_disk
    for photo in photos:
        body = photo[len(photo) // 2 :]
        assert not any(body[at : at + 16] in on_disk for at in range(0, len(body) - 16, 16))


@pytest.mark.parametrize("webhook", [False, True], ids=["polling", "webhook"])
async def test_sigterm_lets_the_running_answer_end_and_tells_the_waiting(
    tmp_path: Path, webhook: bool
) -> None:
    port = fakes.free_port()
    changes = {"webhook_url": f"http://127.0.0.1:{port}", "webhook_port": port} if webhook else {}
    async with Sandbox() as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        async with process(sandbox, tmp_path, hold=2.0, **changes) as bot:
            await ana.send_text("/help")
            await ana.reply()
            await ana.send_photo(picture(0))
            await ana.send_photo(picture(1))
            action = await ana.wait_for(lambda event: event.kind == "action")
            assert action
            # A third message is in once a fourth is turned away: the lane then is as it should be.
            for seed in (2, 3, 4):
                await ana.send_photo(picture(seed))
            assert (await ana.reply()).text == say("en", "turned.one_at_a_time")
            took, _, _ = await stop(bot)
        assert took < 10
        answers = await ana.replies(4)
        assert sum(bool(answer.photo) for answer in answers) == 1
        told = [answer.text for answer in answers if not answer.photo]
        assert told == [say("en", "turned.restarting")] * 3


async def test_sigterm_ends_also_while_telegram_is_away(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        ana = sandbox.person("ana")
        async with process(sandbox, tmp_path) as bot:
            await ana.send_text("/help")
            await ana.reply()
            sandbox.faults.add(Fault(FaultKind.RESET, method="getUpdates", count=1000))
            sandbox.faults.add(Fault(FaultKind.RESET, count=1000))
            await ana.send_photo(picture())
            took, _, log = await stop(bot)
        assert took < 10, log


async def test_a_wrong_token_is_a_fault_at_the_start(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path, bot_token="1:wrong")
        with pytest.raises(InvalidToken):
            async with app.running(chosen, FakeEngine(), draw=fakes.draw):
                pass


async def test_what_came_while_the_bot_was_away_is_answered(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path)
        ana = sandbox.person("ana")
        async with app.running(chosen, FakeEngine(), draw=fakes.draw):
            await ana.send_photo(picture())
            assert (await ana.reply()).photo
        await ana.send_photo(picture(1))
        engine = FakeEngine()
        async with app.running(chosen, engine, draw=fakes.draw):
            assert (await ana.reply()).photo
        assert engine.served == 1
