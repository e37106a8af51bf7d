"""What the machine does to the bot: its clock is set, its database's file is taken away."""

import asyncio
import shutil
from pathlib import Path

import pytest

from bot import app, machine
from bot.sandbox import Sandbox
from bot.store import StoreError
from tests.bot import fakes
from tests.bot.fakes import FakeEngine


class Rounds:
    """Pauses that take no time; in each something becomes of the machine, until all is over."""

    def __init__(self, *steps: object) -> None:
        self._steps = list(steps)
        self.wall = 1_790_000_000.0
        self.steady = 1000.0

    async def __call__(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds
        if not self._steps:
            raise asyncio.CancelledError
        step = self._steps.pop(0)
        if isinstance(step, float):
            self.wall += step
        elif callable(step):
            step()

    async def watch(self, database: Path | None = None) -> None:
        await machine.watch(
            database, wall=lambda: self.wall, steady=lambda: self.steady, pause=self
        )


async def test_a_clock_that_is_set_is_told(caplog: pytest.LogCaptureFixture) -> None:
    rounds = Rounds(3 * 86_400.0, 1.5, 0.0, -3 * 86_400.0, 0.0)
    with pytest.raises(asyncio.CancelledError):
        await rounds.watch()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "259200 s forward" in told[0]
    assert "259200 s back" in told[1]


def other(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("what", [Path.unlink, other, empty])
async def test_a_database_that_is_taken_away_ends_the_watch(tmp_path: Path, what: object) -> None:
    path = tmp_path / "bot.db"
    path.write_bytes(b"something")
    assert callable(what)
    rounds = Rounds(0.0, lambda: path.write_bytes(b"something else"), lambda: what(path))
    with pytest.raises(StoreError, match=r"bot\.db was removed, replaced or emptied") as raised:
        await rounds.watch(path)
    assert "db restore" in str(raised.value)


async def test_a_bot_whose_database_is_taken_away_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "EVERY_S", 0.01)
    async with Sandbox() as sandbox:
        settings = fakes.settings(sandbox, tmp_path)
        async with app.running(settings, FakeEngine()) as source:
            await asyncio.to_thread(other, settings.database)
            with pytest.raises(StoreError, match="was removed, replaced or emptied"):
                await asyncio.wait_for(source, 30)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory is here")
def test_a_file_in_memory_is_known(tmp_path: Path) -> None:
    assert machine.in_memory(Path("/dev/shm/deep/er/bot.db"))
