"""The bot as a process that somebody watches over: started again whenever it ended.

Knows processes, their logs and what they hold of the machine; nothing about what the bot does.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.book import Book, Life, Line

ROOT = Path(__file__).resolve().parents[2]
_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} level=")
_STARTED = "logger=bot.app request=- started "
_RESTART_S = 1.0
_CLOCK = "/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1"


def clock_library() -> Path | None:
    """The library that gives a process a clock of its own; None where it is not installed."""
    found = Path(_CLOCK.format(os.uname().machine))
    return found if found.exists() else None


class Bots:
    """One process of the bot after the other.

    Args:
        folder: for logs, samples and the clock.
        environ: the bot's settings.
        now: seconds of the run.
        stop_s: how long stopping may take before it counts as hanging.

    Attributes:
        book: is told what the bot logs and when it lives; set before the first one starts.
        number: of the process that runs, or ran last.
        problems: what went wrong when a process was to end.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *,
        now: Callable[[], float],
        stop_s: float,
    ) -> None:
        self._folder = folder
        self._environ = dict(environ)
        self._now = now
        self._stop_s = stop_s
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Event()
        self._away_s = 0.0
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self.book: Book
        self.number = 0
        self.problems: list[str] = []
        self._clock = folder / "clock"
        self._samples = folder / "samples.jsonl"

    async def started(self) -> None:
        """Wait until a bot runs."""
        await self._started.wait()

    @property
    def serves(self) -> bool:
        """Whether a bot runs that has said so."""
        return self._started.is_set()

    def start(self) -> None:
        """Start the first one, and watch over it."""
        self.shift_clock(0)
        self._running = asyncio.create_task(self._watch(), name="bots")

    def kill(self, away_s: float) -> bool:
        """SIGKILL; another one starts after some seconds. False where none runs."""
        return self._end(signal.SIGKILL, "kill", away_s)

    def stop(self, away_s: float) -> bool:
        """SIGTERM, and the same."""
        return self._end(signal.SIGTERM, "stop", away_s)

    async def close(self) -> None:
        """Stop the last one; it is killed where it does not."""
        self._closed = True
        self.stop(0)
        if self._running is not None:
            await self._running

    def shift_clock(self, seconds: float) -> None:
        """Set the bot's clock so far ahead of the machine's; monotonic clocks go on."""
        new = self._clock.with_suffix(".new")
        new.write_text(f"{seconds:+g}s\n")
        new.replace(self._clock)  # whole at any time

    async def sample(self) -> dict[str, Any]:
        """What the bot holds of the machine now; see `tests.chaos.watched`."""
        assert self._process is not None
        before = self._lines_of_samples()
        self._process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(30):
            # Another process writes the file.
            while len(lines := self._lines_of_samples()) <= len(before):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        found: dict[str, Any] = json.loads(lines[-1])
        return {"at_s": round(self._now(), 1), "process": self.number, **found}

    def _lines_of_samples(self) -> list[str]:
        if not self._samples.exists():
            return []
        text = self._samples.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def _end(self, number: signal.Signals, ending: str, away_s: float) -> bool:
        life = self.book.lives[-1] if self.book.lives else None
        if self._process is None or life is None or life.ending or life.ended_s is not None:
            return False
        if ending == "stop" and not self._started.is_set() and not self._closed:
            return False
        life.ending, self._away_s = ending, away_s
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return True

    async def _watch(self) -> None:
        while not self._closed:
            await self._live()
            if not self._closed:
                await asyncio.sleep(max(_RESTART_S, self._away_s))

    async def _live(self) -> None:
        self.number += 1
        self._away_s = 0.0
        life = Life(self.number, self._now())
        self.book.lives.append(life)
        environ = {**os.environ, **self._environ, "PYTHONPATH": str(ROOT)}
        environ["CHAOS_SAMPLES"] = str(self._samples)
        if library := clock_library():
            environ |= {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.watched", "run"),
            cwd=self._folder,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=2**22,
        )
        reading = asyncio.create_task(self._read(process, life))
        try:
            await self._end_of(process, life)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            self._started.clear()
            life.ended_s = self._now()
            await reading
        self._judge(process.returncode, life)

    async def _end_of(self, process: asyncio.subprocess.Process, life: Life) -> None:
        """Wait for the end; one that was told to stop has so long."""
        ended = asyncio.ensure_future(process.wait())
        left_s = self._stop_s
        while not ended.done() and left_s > 0:
            await asyncio.wait([ended], timeout=0.2)
            if life.ending == "stop":
                left_s -= 0.2
        if not ended.done():
            self.problems.append(
                f"process {life.number} had not stopped {self._stop_s:g} s after SIGTERM"
            )
            process.kill()
            life.ending = "kill"
        await ended

    def _judge(self, code: int | None, life: Life) -> None:
        if code == {"kill": -signal.SIGKILL, "stop": 0}.get(life.ending):
            return
        own = [line.text for line in self.book.lines if line.process == life.number][-3:]
        if life.ending:
            self.problems.append(
                f"process {life.number} ended with {code} at a {life.ending}: {own}"
            )
        else:
            life.ending = str(code)
            life.last_words = "\n".join(own)

    async def _read(self, process: asyncio.subprocess.Process, life: Life) -> None:
        """Take the log in, record by record; a record is over when the next one begins."""
        assert process.stderr is not None
        log = self._folder / f"bot-{life.number:04}.log"
        record: Line | None = None
        with log.open("a") as file:
            while raw := await process.stderr.readline():
                text = raw.decode(errors="replace").rstrip("\n")
                file.write(f"{self._now():9.2f} {text}\n")
                if record is None or _RECORD.match(text):
                    record = Line(self._now(), life.number, text)
                    self.book.log(record)
                    if _STARTED in text:
                        self._started.set()
                else:
                    record.text += "\n" + text
