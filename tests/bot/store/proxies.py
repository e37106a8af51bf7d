"""A way to a server that can go silent: nothing is forwarded any more, and nothing is closed.

So it looks to a client when a server's host dies. Knows nothing about what is said.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Proxy:
    """Forwards every connection, as long as it is not silent.

    Attributes:
        port: where it listens, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.accepted = 0

    def silence(self) -> None:
        """Forward nothing from now on, also of new connections."""
        self._speaks.clear()

    def speak(self) -> None:
        """Forward again, what was held back too."""
        self._speaks.set()

    async def serve(self, here: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        self.accepted += 1
        self._writers.append(back)
        with contextlib.suppress(OSError):
            there, forth = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.append(forth)
            for reader, writer in ((here, forth), (there, back)):
                task = asyncio.create_task(self._forward(reader, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while said := await reader.read(2**16):
                await self._speaks.wait()
                writer.write(said)
                await writer.drain()
            await self._speaks.wait()
            writer.close()

    def end(self) -> None:
        """Close everything."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a server, and the server's address through it."""
    parts = urlsplit(url)
    assert parts.port
    proxy = Proxy(parts.port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, url.replace(f":{parts.port}/", f":{proxy.port}/")
    finally:
        server.close()
        proxy.end()
