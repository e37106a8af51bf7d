"""A server that says what it is told to, byte by byte, over real sockets; and hears everything."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Heard:
    """A request as it came.

    Attributes:
        connection: which one, counted from 0.
        line: the request line.
        headers: by lower-case name.
        body: as many bytes as Content-Length says.
    """

    connection: int
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def timeout_ms(self) -> int:
        return int(self.headers["x-timeout-ms"])


Says = Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Stranger:
    """What listens there.

    Attributes:
        script: what is said to each request in turn; the last for all further ones.
        heard: requests.
        connections: how many there were.
        gone: set when a caller has closed its connection.
    """

    script: list[Says]
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_heard(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self.arrived:
            await self.arrived.wait_for(lambda: len(self.heard) >= times)

    async def until_gone(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.gone.wait()

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        try:
            while True:
                heard = await _hear(reader, number)
                self.heard.append(heard)
                async with self.arrived:
                    self.arrived.notify_all()
                says = self.script[min(len(self.heard), len(self.script)) - 1]
                if not await _said(says(heard, writer), reader):
                    raise ConnectionError
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _said(saying: Awaitable[None], reader: asyncio.StreamReader) -> bool:
    """Whether all was said before the caller left. No task outlives this, however it ends."""
    tasks = [asyncio.ensure_future(saying), asyncio.create_task(reader.read(1))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done() and not tasks[0].exception()
    finally:
        for task in tasks:  # nobody pipelines here: what is read is the end
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hear(reader: asyncio.StreamReader, connection: int) -> Heard:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    pairs = [line.split(": ", 1) for line in head[1:] if line]
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Heard(connection, head[0], headers, body)


@asynccontextmanager
async def stranger(*script: Says, path: Path | None = None) -> AsyncIterator[Stranger]:
    """One on a port of loopback, or on a Unix socket."""
    there = Stranger(list(script))
    if path is None:
        server = await asyncio.start_server(there.attend, "127.0.0.1", 0)
        there.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(there.attend, path)
        there.url = f"unix:{path}"
    try:
        yield there
    finally:
        server.close()


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- What it may say ---


def says(status: int, body: bytes | Any, **headers: str) -> Says:
    """A whole answer; a body that is not bytes goes out as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def say(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()

    return say


def says_raw(data: bytes) -> Says:
    """These bytes, and then the connection is closed."""

    async def say(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return say


async def resets(_heard: Heard, writer: asyncio.StreamWriter) -> None:
    """The connection is reset before a word."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def is_silent(_heard: Heard, _writer: asyncio.StreamWriter) -> None:
    """Nothing, until the caller leaves."""
    await asyncio.Event().wait()


def floods(sent: list[int], head: bytes, chunk: bytes) -> Says:
    """A head, and then the same chunk for ever; `sent` counts its bytes."""

    async def say(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()
            sent[0] += len(chunk)

    return say
