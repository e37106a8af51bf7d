"""Connections that dribble or do not read are cut, by a real uvicorn on a real socket."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from engine.service.http_protocol import MAX_IDLE_S, MAX_SEND_S, BoundedProtocol
from engine.service.listening import listener
from engine.settings import Settings

PATIENCE_S = 1000
LARGE_BYTES = 64 * 2**20


class Hasty(BoundedProtocol):
    max_idle_s = 0.05
    max_send_s = 0.05


class Service:
    """What is asked, and what a test wants to know about it."""

    def __init__(self):
        self.being_read = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/unread", self.unread, methods=["POST"]),
                Route("/read", self.read, methods=["POST"]),
                Route("/large", self.large),
            ]
        )

    async def unread(self, _request):
        return PlainTextResponse("refused", 413)

    async def read(self, request):
        self.being_read.set()
        return PlainTextResponse(str(len(await request.body())))

    async def large(self, _request):
        return Response(bytes(LARGE_BYTES))


@asynccontextmanager
async def connected(protocol):
    service = Service()
    config = uvicorn.Config(
        service.app,
        http=protocol,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=PATIENCE_S,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    with listener(Settings(engine_port=0)) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        serving = asyncio.create_task(server.serve(sockets=[taken]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield service, reader, writer
        finally:
            writer.close()
            server.should_exit = True
            await serving


def advance(seconds):
    """Let the loop's time jump, and whatever was due meanwhile happen."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds


@pytest.mark.parametrize("begun", [b"", b"POST /read HTTP/1.1\r\nHost: engine\r\n"])
async def test_headers_that_never_end(begun):
    async with connected(Hasty) as (_, reader, writer):
        writer.write(begun)
        assert await reader.read() == b""


async def test_a_body_that_nobody_reads_and_never_ends():
    async with connected(Hasty) as (_, reader, writer):
        writer.write(b"POST /unread HTTP/1.1\r\nHost: engine\r\nContent-Length: 99\r\n\r\n1")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"refused")


async def test_an_answer_that_is_never_taken():
    lost = asyncio.Event()

    class Losing(Hasty):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            lost.set()

    async with connected(Losing) as (_, reader, writer):
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
        await lost.wait()
        writer.transport.resume_reading()
        assert len(await reader.read()) < LARGE_BYTES


async def test_an_answer_that_is_taken_slowly_but_in_time():
    async with connected(BoundedProtocol) as (_, reader, writer):
        writer.write(b"GET /large HTTP/1.1\r\nHost: engine\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        advance(MAX_SEND_S - 10)
        assert len(await reader.readexactly(LARGE_BYTES)) == LARGE_BYTES
        advance(MAX_SEND_S)
        writer.write(b"POST /unread HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.readuntil(b"refused")).startswith(b"HTTP/1.1 413")


async def test_a_request_that_is_being_answered_and_a_connection_at_rest_are_left_alone():
    async with connected(BoundedProtocol) as (service, reader, writer):
        for _ in range(2):
            service.being_read.clear()
            writer.write(b"POST /read HTTP/1.1\r\nHost: engine\r\nContent-Length: 2\r\n\r\n1")
            await service.being_read.wait()
            advance(2 * MAX_IDLE_S)
            writer.write(b"2")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(1) == b"2"
            advance(2 * MAX_IDLE_S)
