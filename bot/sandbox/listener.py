"""uvicorn as a guest in somebody else's event loop, and the means to hang up on a client.

Knows sockets and uvicorn; nothing about what is served.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol


class Listener:
    """Serves an application on a listening socket as long as its `async with`.

    Takes no signals, writes no access log (addresses may carry secrets) and, when left, lets
    answers that are under way end within three seconds.

    Args:
        app: what is served.
        listening: a bound TCP socket; closed at the end.
    """

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        self.port: int = listening.getsockname()[1]
        self._socket = listening
        self._server = _Server(
            uvicorn.Config(
                app,
                http="h11",  # the one whose connections `hang_up` knows how to end
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=3,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            ready.cancel()
            await self._serving
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.leave.set()
        if self._serving is not None:
            await self._serving

    async def hang_up(self, request: Request, reset: bool) -> None:
        """End the connection of a request, with a reset or after what was written already."""
        assert request.client is not None
        peer = (request.client.host, request.client.port)
        for connection in list(self._server.server_state.connections):
            assert isinstance(connection, H11Protocol)
            if connection.client != peer:
                continue
            if not reset:
                connection.transport.close()
                continue
            # Zero linger makes the system send a reset instead of an orderly end.
            connection.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            connection.transport.abort()
        while (await request.receive())["type"] != "http.disconnect":
            pass


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.leave = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        # uvicorn's own loop wakes ten times a second to look for a signal.
        await self.leave.wait()
