"""An engine behind HTTP, used like one in this process.

Photos and clips go out as raw bytes over kept connections; faults come back as the exceptions that
the embedded engine raises. A question that found nobody, or whose connection was lost, is asked
again where that can still help; where an engine does not answer at all, the circuit is open for a
while. Whatever happens, a caller gets a value or an `EngineError` with a sentence, in time.

Knows the service's routes; what is said over a connection is `engine.remote.transport`'s, what
bodies mean `engine.wire`'s. Loads aiohttp, and no torch.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPMethod
from typing import Self, TypeVar

from engine.client import require_top_k
from engine.errors import Unavailable, too_late
from engine.media.clip import check_length as check_clip_length
from engine.media.image import LIMITS, check_length
from engine.remote.address import Address
from engine.remote.circuit_breaker import Breaker, Open
from engine.remote.transport import Exchange, Failed, Question
from engine.types import Analysis, EngineInfo, Person, Track
from engine.wire import read_analysis, read_info, read_people, read_track

_LOG = logging.getLogger(__name__)

Value = TypeVar("Value")
Read = Callable[[bytes], Value]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a remote engine is waited for, and how often it is asked.

    Attributes:
        total_s: for one call with all its retries, where its caller would wait longer or for ever.
        connect_s: for a connection, the name's lookup included.
        retries: how often a question is asked again at most.
        pause_s: before the first retry, at most; twice that before the second. The pause itself is
            drawn between nothing and this, so that callers who failed together come back apart.
        silence_s: nothing heard until a deadline speaks against the engine only where it had this
            long.
        drain_s: how long closing waits for the calls that are under way.
    """

    total_s: float = 60.0
    connect_s: float = 2.0
    retries: int = 2
    pause_s: float = 0.2
    silence_s: float = 1.0
    drain_s: float = 10.0


class RemoteEngine:
    """An engine behind an address; use it as an async context manager. Opening connects nowhere.

    Args:
        url: `http://host:port` or `unix:/path`; see `engine.remote.address`.
        key: the service's ENGINE_API_KEY.
        patience: see `Patience`.
        breaker: see `engine.remote.circuit_breaker`; None makes one.
        clock: tells seconds, in which deadlines and pauses are reckoned.
        pause: waits for seconds.
        draw: a random number from 0 to 1.

    Raises:
        ValueError: the url is no address.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        patience: Patience = Patience(),
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._address = Address.parse(url)
        self._key = key
        self._patience = patience
        self._breaker = breaker or Breaker(clock=clock)
        self._told_open = False
        self._clock = clock
        self._pause = pause
        self._draw = draw
        self._exchange: Exchange | None = None
        self._closed = False
        self._under_way = 0
        self._idle = asyncio.Event()

    async def analyze(
        self,
        photo: bytes,
        *,
        top_k: int = 5,
        embed: bool = False,
        aligned: bool = False,
        picture: bool = False,
        deadline_s: float | None = None,
    ) -> Analysis:
        """See `engine.client.Engine.analyze`.

        Raises:
            Unauthorized: the service wants another key.
        """
        require_top_k(top_k)
        exchange = self._opened()
        check_length(photo, LIMITS)  # what can be told here needs no journey
        flags = {"embed": embed, "aligned": aligned, "picture": picture, "thumbnails": True}
        query = {"top_k": str(top_k)} | {name: str(flag).lower() for name, flag in flags.items()}
        question = Question(HTTPMethod.POST, "/v1/analyze", query, photo)
        return await self._call(exchange, question, read_analysis, deadline_s)

    async def track(self, clip: bytes, *, deadline_s: float | None = None) -> Track:
        """See `engine.client.Engine.track`.

        Raises:
            Unauthorized: the service wants another key.
        """
        exchange = self._opened()
        check_clip_length(clip)  # what can be told here needs no journey
        question = Question(HTTPMethod.POST, "/v1/track", file=clip)
        return await self._call(exchange, question, read_track, deadline_s)

    async def info(self) -> EngineInfo:
        """See `engine.client.Engine.info`.

        Raises:
            Unavailable: nobody answers, or not an engine that this one understands.
            Unauthorized: the service wants another key.
        """
        question = Question(HTTPMethod.GET, "/v1/info")
        return await self._call(self._opened(), question, read_info, None)

    async def people(self) -> tuple[Person, ...]:
        """See `engine.client.Engine.people`.

        Raises:
            Unavailable: nobody answers, or not an engine that this one understands.
            Unauthorized: the service wants another key.
        """
        question = Question(HTTPMethod.GET, "/v1/people")
        return await self._call(self._opened(), question, read_people, None)

    async def close(self) -> None:
        """Take no more calls and wait for those under way, within the patience's `drain_s`."""
        self._closed = True
        if self._exchange is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience.drain_s):
                while self._under_way:
                    self._idle.clear()
                    await self._idle.wait()
        await self._exchange.close()

    async def __aenter__(self) -> Self:
        self._exchange = Exchange(self._address, key=self._key, connect_s=self._patience.connect_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _opened(self) -> Exchange:
        if self._closed or self._exchange is None:
            raise Unavailable("The engine is shut down: ask again when it is back.")
        return self._exchange

    async def _call(
        self, exchange: Exchange, question: Question, read: Read[Value], deadline_s: float | None
    ) -> Value:
        """Ask within the caller's time, unless the circuit is open."""
        limit_s = self._patience.total_s
        if deadline_s is not None:
            limit_s = min(limit_s, deadline_s - self._clock())
        if limit_s <= 0:
            raise too_late()
        self._under_way += 1
        try:
            return await self._guarded(exchange, question, read, limit_s)
        except Open as rest:
            raise Unavailable(
                f"The engine at {self._address.name} has not been answering and is asked again in "
                f"{rest.wait_s:.1f} s: see whether it runs."
            ) from None
        finally:
            self._tell_operator()
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _guarded(
        self, exchange: Exchange, question: Question, read: Read[Value], limit_s: float
    ) -> Value:
        with self._breaker.trial() as trial:
            try:
                async with asyncio.timeout(limit_s):
                    deadline = self._clock() + limit_s
                    value = await self._attempts(exchange, question, read, deadline)
            except TimeoutError:
                trial.answered = False if limit_s >= self._patience.silence_s else None
                raise too_late() from None
            except Failed as failed:
                trial.answered = failed.answered
                raise failed.error from failed.__cause__
            trial.answered = True
            return value

    async def _attempts(
        self, exchange: Exchange, question: Question, read: Read[Value], deadline: float
    ) -> Value:
        """Ask, and ask again where that makes sense and there is time."""
        retries = 0
        while True:
            try:
                return await exchange.ask(question, read, left_s=deadline - self._clock())
            except Failed as failed:
                if self._closed and not failed.answered:
                    message = "The engine was shut down before it could answer."
                    raise Unavailable(message) from failed
                pause_s = self._pause_s(failed, retries)
                in_time = self._clock() + pause_s < deadline
                if not (failed.again and in_time and retries < self._patience.retries):
                    raise
            retries += 1
            await self._pause(pause_s)

    def _pause_s(self, failed: Failed, retries: int) -> float:
        """How long to wait before asking again; never less than the server asked for."""
        if failed.pause_s is not None:
            return failed.pause_s * (1 + self._draw() / 4)
        return self._patience.pause_s * self._draw() * 2.0**retries

    def _tell_operator(self) -> None:
        if self._breaker.open == self._told_open:
            return
        self._told_open = self._breaker.open
        if self._told_open:
            _LOG.warning("The engine at %s does not answer: circuit open.", self._address.name)
        else:
            _LOG.info("The engine at %s answers again.", self._address.name)
