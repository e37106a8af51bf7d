"""Running the service: one process for one device.

Opens the engine, and serves it under uvicorn until a signal says to stop. Knows nothing about what
the application answers.
"""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from engine.client import EmbeddedEngine
from engine.media.confinement import keep_memory_private
from engine.request import Analyzer
from engine.runtime.health import Health
from engine.runtime.reload import Reloader
from engine.service.app import application
from engine.service.http_protocol import BoundedProtocol
from engine.service.listening import listener, require_key, url_of
from engine.service.serving import open_engine
from engine.settings import Settings

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
    hangup = asyncio.Event()
    # From here on, because SIGHUP would end the process as long as nobody heeds it.
    with listener(settings) as taken, _on((signal.SIGHUP,), hangup.set):
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
            server = _Server(config, lambda: announce(url_of(taken)))
            reloading = asyncio.create_task(_reload_on(hangup, served.reloader))
            giving_up: list[asyncio.Task[None]] = []  # the loop alone would let them be collected

            def stop() -> None:
                server.force_exit = server.should_exit
                server.should_exit = health.stopping = True
                limit_s = settings.engine_stop_timeout_s - _LAST_WORDS_S
                giving_up.append(asyncio.create_task(_give_up(served.engine, limit_s)))

            try:
                with _on((signal.SIGTERM, signal.SIGINT), stop):
                    await server.serve(sockets=[taken])
            finally:
                for task in (reloading, *giving_up):
                    task.cancel()


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
def _on(numbers: Sequence[signal.Signals], act: Callable[[], None]) -> Iterator[None]:
    """Have signals heard by the event loop."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _reload_on(hangup: asyncio.Event, reloader: Reloader) -> None:
    """Reload after each signal; those that come during a reload are one."""
    while True:
        await hangup.wait()
        hangup.clear()
        await reloader.on_signal()


async def _give_up(engine: EmbeddedEngine, after_s: float) -> None:
    """End what has not been answered by then."""
    await asyncio.sleep(after_s)
    await engine.close(limit_s=0)
