"""Changing the bundle while photos are being answered.

The new one is built and tried in a thread of its own, beside the old one, and takes over between
two batches; if anything is wrong with it, the old one stays. Knows when to reload; knows nothing
about how an analyzer is built or tried.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from engine.errors import Busy, EngineError, InternalError
from engine.request import Analyzer
from engine.runtime.health import OK
from engine.runtime.observers import Observers
from engine.types import EngineInfo

_LOG = logging.getLogger(__name__)
_RETRY_S = 5.0
_CANCELLED = "cancelled"

Fingerprint = tuple[int, int, int] | None
"""Of a file: inode, size and time of its last change; None is no file."""


class Swappable(Protocol):
    """An engine whose analyzer can be changed."""

    def swap(self, analyzer: Analyzer) -> None:
        """Let another one see faces from the next batch on."""
        ...


class Reloader:
    """Gives an engine a new analyzer.

    Args:
        engine: what gets it.
        build: makes a new one, and has tried it when it returns; runs in a thread of its own.
        file: the one that changes last when the bundle does, or what tells it, asked again before
            each reload; None cannot be watched.
        pause: waits for seconds.
    """

    def __init__(
        self,
        engine: Swappable,
        build: Callable[[], Analyzer],
        *,
        file: Path | Callable[[], Path] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._build = build
        self._tell_file = file if callable(file) else None
        self._file = file() if callable(file) else file
        self._pause = pause
        self._seen = _fingerprint(self._file)
        self._turn = asyncio.Lock()
        self._observers: Observers[str] = Observers()

    def observe(self, observer: Callable[[str], None]) -> None:
        """Have someone told how each reload ends: "ok", "cancelled", or the fault's code."""
        self._observers.add(observer)

    async def reload(self) -> EngineInfo:
        """Load what the files say now; what is begun goes on, whether or not the caller waits.

        Returns:
            What the engine is made of from now on.

        Raises:
            Busy: another reload is under way.
            ConfigurationError: the new bundle, its weights or the device are not as they should
                be; the old one stays.
            InternalError: building it failed by a bug; the old one stays.
        """
        if self._turn.locked():
            raise Busy(
                "The bundle is being reloaded already: wait until that is done.",
                retry_after_s=_RETRY_S,
            )
        return await asyncio.shield(asyncio.ensure_future(self._in_turn()))

    async def on_signal(self) -> None:
        """Reload after the one under way, if there is one; what goes wrong is only logged."""
        with contextlib.suppress(EngineError):  # it has been logged
            await self._in_turn()

    async def watch(self, every_s: float) -> None:
        """Reload whenever the file has changed, for ever; a bad bundle is tried only once.

        Args:
            every_s: seconds between two looks; 0 is to look never.
        """
        while every_s:
            await self._pause(every_s)
            try:
                changed = await asyncio.to_thread(_fingerprint, self._file)
            except Exception:
                _LOG.exception("%s could not be looked at; it is looked at again.", self._file)
                continue
            if changed not in {None, self._seen}:
                _LOG.info("%s has changed.", self._file)
                await self.on_signal()

    async def _in_turn(self) -> EngineInfo:
        async with self._turn:
            outcome = _CANCELLED
            try:
                info = await self._reload()
                outcome = OK
                return info
            except EngineError as error:
                outcome = error.code
                _LOG.error("The bundle was not reloaded, the old one stays: %s", error.message)
                raise
            finally:
                self._observers.tell(outcome)

    async def _reload(self) -> EngineInfo:
        try:
            analyzer = await self._built()
        except EngineError:
            raise
        except Exception as error:
            _LOG.exception("Building what sees faces failed.")
            raise InternalError("Reloading failed by a bug of ours: the log tells more.") from error
        self._engine.swap(analyzer)
        info = analyzer.info()
        _LOG.info("%s answers from now on.", info.bundle)
        return info

    async def _built(self) -> Analyzer:
        # Before it is read: what changes meanwhile is a change to the next look.
        if self._tell_file is not None:
            self._file = await asyncio.to_thread(self._tell_file)
        self._seen = await asyncio.to_thread(_fingerprint, self._file)
        # A thread of its own: neither the device's nor one that requests wait for.
        thread = ThreadPoolExecutor(1, "engine-reload")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, self._build)
        finally:
            thread.shutdown(wait=False)


def _fingerprint(file: Path | None) -> Fingerprint:
    if file is None:
        return None
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns
