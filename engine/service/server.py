"""Running the service: one process for one device.

Opens the engine, and serves it under uvicorn until a signal says to stop. Knows nothing about what
the application answers.
"""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from engine.media.confinement import keep_memory_private
from engine.request import Analyzer
from engine.runtime.health import Health
from engine.runtime.reload import Reloader
from engine.service.app import application
from engine.service.http_protocol import BoundedProtocol
from engine.service.listening import listener, require_key
from engine.service.serving import Served, open_engine
from engine.settings import Settings

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_KEEP_ALIVE_S = 75
_LAST_WORDS_S = 1.0
"""Of the time for stopping, what is left for telling those whose photos are given up."""


async def serve(
    settings: Settings,
    announce: Callable[[str], None],
    build: Callable[[Settings], Analyzer] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads the bundle, once it is loaded at all.

    On the first of these signals nothing new is accepted and what was accepted is answered, within
    `engine_stop_timeout_s`; a second one ends it at once.

    Args:
        settings: what is chosen.
        announce: is told the address, as a client's ENGINE_URL, once photos are welcome.
        build: see `open_engine`.

    Raises:
        ConfigurationError: the address is taken or open to strangers, or the device, the bundle or
            the weights are not as they should be.
    """
    require_key(settings)
    keep_memory_private()
    with listener(settings) as door, _hangups() as hangup:
        async with open_engine(settings, build) as served:
            health = Health()
            app = application(lambda: contextlib.nullcontext(served), settings, health=health)
            config = uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                loop="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(settings.engine_stop_timeout_s),
            )
            server = _Server(config, lambda: announce(door.url))
            reloading = asyncio.create_task(_reload_on(hangup, served.reloader))
            try:
                with _stopping(server, served, health, settings.engine_stop_timeout_s):
                    await server.serve(sockets=[door.socket])
            finally:
                reloading.cancel()


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals to us and says when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        # It would raise them again once it has stopped, before the engine has.
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()


@contextmanager
def _hangups() -> Iterator[asyncio.Event]:
    """Set by SIGHUP, which would end the process as long as nobody heeds it."""
    loop = asyncio.get_running_loop()
    hangup = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    try:
        yield hangup
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _reload_on(hangup: asyncio.Event, reloader: Reloader) -> None:
    """Reload after each signal; those that come during a reload are one."""
    while True:
        await hangup.wait()
        hangup.clear()
        await reloader.on_signal()


@contextmanager
def _stopping(
    server: _Server, served: Served, health: Health, stop_timeout_s: float
) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []  # the loop alone would let them be collected

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = health.stopping = True
        tasks.append(loop.create_task(give_up()))

    async def give_up() -> None:
        await asyncio.sleep(stop_timeout_s - _LAST_WORDS_S)
        await served.engine.close(limit_s=0)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
        for task in tasks:
            task.cancel()
