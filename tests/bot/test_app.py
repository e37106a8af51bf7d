"""The bot from outside, as a process: what it leaves behind, and how it stops."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from telegram.error import InvalidToken
from typer.testing import CliRunner

from bot import app, storing
from bot.__main__ import main as commands
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.telegram import logs
from bot.texts import say
from engine.errors import Unavailable
from engine.types import EngineInfo
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
    async with asyncio.timeout(60):
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
    own = {"bot.db", "bot.db-wal", "bot.db-shm", "bot.db.lock", "bot.db.tombstones", "ids.key"}
    operators = {"template.keys", ".template.keys.lock"}
    harmless = (os.devnull, f"os.mkdir {tmp_path}")
    written = [path for path in json.loads(out) if path not in harmless]
    # Key and database are made whole under names of their own beside them.
    made = ("ids.key.", ".bot.db.")
    names = {Path(path).name for path in written if not any(name in path for name in made)}
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
    changes: dict[str, Any] = (
        {"webhook_url": f"http://127.0.0.1:{port}", "webhook_port": port} if webhook else {}
    )
    async with Sandbox(webhooks=fakes.ANY_PORT) as sandbox:
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
        assert took < 20
        answers = await ana.replies(4)
        assert sum(bool(answer.photo) for answer in answers) == 1
        told = [answer.text for answer in answers if not answer.photo]
        assert told == [say("en", "turned.restarting")] * 3


async def test_the_end_of_a_terminal_lets_the_running_answer_end_too(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, process(sandbox, tmp_path, hold=1.0) as bot:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_text("/help")
        await ana.reply()
        await ana.send_photo(picture())
        await ana.wait_for(lambda event: event.kind == "action")
        bot.send_signal(signal.SIGHUP)
        assert (await ana.reply()).photo
        async with asyncio.timeout(60):
            _, err = await bot.communicate()
        assert bot.returncode == 0, err.decode()


@pytest.mark.parametrize("host", ["::1", "::", "127.0.0.1"])
async def test_a_webhook_listens_on_addresses_of_either_kind(tmp_path: Path, host: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    port = fakes.free_port()
    changes: dict[str, Any] = {"webhook_url": f"http://127.0.0.1:{port}", "webhook_port": port}
    async with fakes.bot(tmp_path, webhook_host=host, **changes), httpx.AsyncClient() as client:
        name = "[::1]" if ":" in host else host
        assert (await client.get(f"http://{name}:{port}/healthz")).status_code == 200


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
        assert took < 20, log


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


async def test_a_webhook_that_a_polling_bot_removes_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path)
        async with httpx.AsyncClient(trust_env=False) as other:
            body = {"url": "http://127.0.0.1:88/hook"}
            await other.post(f"{sandbox.bot_api_url}{sandbox.token}/setWebhook", json=body)
        async with app.running(chosen, FakeEngine(), draw=fakes.draw):
            pass
        assert "had a webhook, which led to 127.0.0.1" in caplog.text
        caplog.clear()
        async with app.running(chosen, FakeEngine(), draw=fakes.draw):
            pass
        assert "had a webhook" not in caplog.text


async def started(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines about the start, once there are any."""

    def lines() -> list[str]:
        return [line for line in caplog.messages if line.startswith("started ")]

    async with asyncio.timeout(60):
        while not lines():  # noqa: ASYNC110 (the log wakes nobody)
            await asyncio.sleep(0.01)
    return lines()


@pytest.mark.parametrize("webhook", [False, True], ids=["polling", "webhook"])
async def test_one_line_says_what_has_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, webhook: bool
) -> None:
    caplog.set_level(logging.INFO)
    port = fakes.free_port()
    changes: dict[str, Any] = (
        {"webhook_url": f"http://127.0.0.1:{port}", "webhook_port": port} if webhook else {}
    )
    async with fakes.bot(tmp_path, **changes):
        lines = await started(caplog)
    assert lines == [
        f"started bot=@face_matcher_bot updates={'webhook' if webhook else 'polling'} "
        f"database={tmp_path / 'bot.db'} ids_key={tmp_path / 'secrets' / 'ids.key'} "
        f"template_keys_file={tmp_path / 'secrets' / 'template.keys'} "
        "engine=fake@00000000 device=cpu"
    ]


async def test_the_start_line_says_also_that_the_engine_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(FakeEngine):
        async def info(self) -> EngineInfo:
            raise Unavailable("refused")

    caplog.set_level(logging.INFO)
    async with fakes.bot(tmp_path, Away(), engine_url="http://127.0.0.1:1"):
        lines = await started(caplog)
    assert lines[0].endswith("engine=unknown device=unknown engine_url=http://127.0.0.1:1")


async def test_what_ends_that_should_last_ends_the_bot_with_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise ArithmeticError("a bug")

    monkeypatch.setattr(app, "run_retention", breaks)
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path)
        async with app.running(chosen, FakeEngine(), draw=fakes.draw) as source:
            async with asyncio.timeout(60):
                await asyncio.wait([source])
            with pytest.raises(ArithmeticError, match="a bug"):
                source.result()


async def test_a_fault_of_what_is_done_once_is_logged_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(*_: object, **__: object) -> None:
        raise ArithmeticError("a bug")

    monkeypatch.setattr(app, "publish_commands", breaks)
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path)
        async with app.running(chosen, FakeEngine(), draw=fakes.draw):
            ana = sandbox.person("ana")
            await ana.send_photo(picture())
            assert (await ana.reply()).photo
            assert "ArithmeticError: a bug" in caplog.text


async def test_a_short_time_for_stopping_is_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its share for goodbyes is that of 2 s, and no machine is too slow for it.
    monkeypatch.setattr(app, "_GOODBYE_S", 30.0)
    engine = FakeEngine()
    engine.gate = asyncio.Semaphore(0)
    async with Sandbox() as sandbox:
        ana = sandbox.person("ana")

        async def let_go() -> None:
            """Have the photo seen as soon as the waiting one is turned away."""
            assert (await ana.reply()).text == say("es", "turned.restarting")
            assert engine.gate is not None
            engine.gate.release()

        chosen = fakes.settings(sandbox, tmp_path, stop_timeout_s=60)
        async with app.running(chosen, engine, draw=fakes.draw):
            await ana.send_photo(picture())
            await engine.until_asked(1)
            for _ in range(4):
                await ana.send_text("/help")
            assert (await ana.reply()).text == say("es", "turned.one_at_a_time")
            letting_go = asyncio.create_task(let_go())
        await letting_go
        answers = await ana.replies(3)
        assert sum(bool(answer.photo) for answer in answers) == 1


@pytest.mark.parametrize("stop_timeout_s", [1.0, 2.0, 9.0, 60.0])
def test_every_time_for_stopping_leaves_most_of_it_for_answers(stop_timeout_s: float) -> None:
    goodbyes_s = app._GOODBYES * app.goodbye_s(stop_timeout_s)
    assert 0 < goodbyes_s <= stop_timeout_s / 2


def test_putting_the_parts_together_changes_nothing_for_the_whole_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PTB_TIMEDELTA", raising=False)
    before = dict(os.environ)
    sandbox: Any = SimpleNamespace(token="1:a", url="http://127.0.0.1:1")
    chosen = fakes.settings(sandbox, tmp_path)
    app.build(chosen, FakeEngine(), storing.store(chosen), draw=fakes.draw)
    assert dict(os.environ) == before


@pytest.mark.parametrize("command", [["run"], ["demo"]])
def test_every_command_that_runs_the_bot_chooses_the_library_s_durations(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PTB_TIMEDELTA", raising=False)
    monkeypatch.setenv("BOT_TOKEN", "none")
    monkeypatch.setenv("ENGINE_URL", "no address")  # so that neither begins
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # this process has other tests
    assert CliRunner().invoke(commands, command).exit_code != 0
    assert os.environ["PTB_TIMEDELTA"] == "1"
