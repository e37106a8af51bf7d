"""The ways to an engine, for one suite to try them all.

A door is opened with settings and with what makes an analyzer of them, as a process elsewhere would
make it: what it makes is to be had by pickling, and is reached through files alone. To add a way,
add it to `DOORS`.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from engine.client import EmbeddedEngine, Engine
from engine.remote.client import Patience, RemoteEngine
from engine.request import Analyzer, PhotoRequest
from engine.runtime.reload import Reloader
from engine.service.app import application
from engine.service.http_protocol import BoundedProtocol
from engine.service.serving import Served
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Person
from tests.engine import seers

Build = Callable[[Settings], Analyzer]
Door = Callable[[Settings, Build, Path], AbstractAsyncContextManager[Engine]]

ONCE = Patience(retries=0)
"""Retries are tested elsewhere; here what is said comes through at once."""


@asynccontextmanager
async def embedded(settings: Settings, build: Build, _folder: Path) -> AsyncIterator[Engine]:
    async with await EmbeddedEngine.open(settings, build) as engine:
        yield engine


@asynccontextmanager
async def over_tcp(settings: Settings, build: Build, _folder: Path) -> AsyncIterator[Engine]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with service(settings, build, listener), RemoteEngine(url, patience=ONCE) as engine:
            yield engine


@asynccontextmanager
async def over_unix_socket(settings: Settings, build: Build, folder: Path) -> AsyncIterator[Engine]:
    path = folder / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        url = f"unix:{path}"
        async with service(settings, build, listener), RemoteEngine(url, patience=ONCE) as engine:
            yield engine


DOORS: Mapping[str, Door] = {
    "embedded": embedded,
    "tcp": over_tcp,
    "unix": over_unix_socket,
}


@asynccontextmanager
async def service(settings: Settings, build: Build, listener: socket.socket) -> AsyncIterator[None]:
    """The service under uvicorn, in this event loop."""

    @asynccontextmanager
    async def open_engine() -> AsyncIterator[Served]:
        async with await EmbeddedEngine.open(settings, build) as engine:
            yield Served(engine, Reloader(engine, lambda: build(settings)))

    app = application(open_engine, settings)
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="none", loop="none", log_config=None, access_log=False
    )
    server = Quiet(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    try:
        if task.done():
            task.result()
        yield
    finally:
        server.should_exit = True
        await task


class Quiet(uvicorn.Server):
    """uvicorn that leaves signals alone and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


# --- Analyzers that can be anywhere ---


@dataclass(frozen=True)
class Gate:
    """Holds up an analyzer, in whichever process it is, by two pipes in a folder."""

    folder: Path

    def make(self) -> "Gate":
        for pipe in (self._begun, self._go_on):
            os.mkfifo(pipe)
        return self

    def pass_through(self) -> None:
        """In the analyzer: tell that one is here, and wait until one is let."""
        self._begun.write_text("here")
        self._go_on.read_text()

    async def begun(self) -> None:
        """In the test: wait until an analyzer is here."""
        await asyncio.to_thread(self._begun.read_text)

    async def go_on(self) -> None:
        """In the test: let it through."""
        await asyncio.to_thread(self._go_on.write_text, "go on")

    @property
    def _begun(self) -> Path:
        return self.folder / "begun"

    @property
    def _go_on(self) -> Path:
        return self.folder / "go-on"


class Held:
    """Sees what a `seers.Seer` does; pictures of one width are held up, of another a bug.

    Args:
        gate: where.
    """

    GATE_PX = 94
    BUG_PX = 98

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._seer = seers.seer()

    at_once = 1

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        widths = {request.original_px[0] for request in requests if request.original_px}
        if self.GATE_PX in widths:
            self._gate.pass_through()
        if self.BUG_PX in widths:
            raise KeyError("a bug")
        return self._seer.analyze(requests)

    def info(self) -> EngineInfo:
        return self._seer.info()

    def people(self) -> tuple[Person, ...]:
        return self._seer.people()


@dataclass(frozen=True)
class BuildHeld:
    gate: Gate

    def __call__(self, _settings: Settings) -> Held:
        return Held(self.gate)
