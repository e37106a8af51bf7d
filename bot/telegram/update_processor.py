"""Serves updates one after the other for each person, and many people at a time.

PTB's own processor holds one of its slots for every update that waits, so that one person who
sends fifty photos keeps everybody out. Here waiting costs no slot: each person has a lane with few
places, only the first in a lane asks for a slot, and slots are given in the order of asking. What
finds its lane full is refused at once. Knows nothing about what is answered.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, cast

from telegram import Update
from telegram.ext import BaseUpdateProcessor

from bot.telegram import logs
from bot.telegram.albums import LARGEST, Albums
from bot.telegram.request import Request, current
from engine import request_id

logger = logging.getLogger(__name__)

# PTB's semaphore around do_process_update must never be what an update waits for.
_NEVER_FULL = 2**31
# The share of a person's time after which work stops, so that saying so comes in time.
_WORK_SHARE = 0.92


class Turned(StrEnum):
    """Why a request was turned away without an answer of its own."""

    FLOOD = "one_at_a_time"
    BACKLOG = "backlog"
    FULL = "overloaded"
    LATE = "deadline"
    STOPPING = "restarting"


class Memory(Protocol):
    """Where served update numbers outlive the process."""

    async def mark_served(self, update_id: int) -> None:
        """Remember that an update was served."""
        ...


@dataclass
class _Lane:
    """One person's requests: the running one and those behind it."""

    requests: int = 0
    warned: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class ServedUpdates:
    """The newest update numbers, each served once.

    Args:
        served: numbers served before, oldest first.
        limit: how many are kept.
    """

    def __init__(self, served: Iterable[int], limit: int) -> None:
        self._order = deque(served, maxlen=limit)
        self._numbers = set(self._order)

    def add(self, number: int) -> bool:
        """Note a number; whether it is new."""
        if number in self._numbers:
            return False
        if len(self._order) == self._order.maxlen:
            self._numbers.discard(self._order[0])
        self._order.append(number)
        self._numbers.add(number)
        return True


class PerPersonProcessor(BaseUpdateProcessor):
    """The update processor.

    Args:
        route: whose request an update is, or None for what the bot does not handle.
        turn_away: tells a person that, and why, their request gets no answer of its own.
        seen: update numbers served before.
        memory: where served update numbers are kept.
        albums: gathers the messages of an album.
        slots: how many people are served at one time.
        person_queue: how many requests of one person may wait behind the running one.
        waiting_total: how many requests may wait in all; of an album, each photo counts.
        answer_timeout_s: after how long a person must have an answer.
        now: the time, in UTC, as Telegram's servers have it.
        finished: told each request that came to its end.
    """

    def __init__(
        self,
        *,
        route: Callable[[Update], Request | None],
        turn_away: Callable[[Request, Turned], Awaitable[None]],
        seen: ServedUpdates,
        memory: Memory,
        albums: Albums,
        slots: int,
        person_queue: int,
        waiting_total: int,
        answer_timeout_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        finished: Callable[[Request], None] = lambda _request: None,
    ) -> None:
        super().__init__(_NEVER_FULL)
        self._finished = finished
        self._route = route
        self._turn_away = turn_away
        self._seen = seen
        self._memory = memory
        self._albums = albums
        self._slots = asyncio.Semaphore(slots)
        self._person_queue = person_queue
        self._waiting_total = waiting_total
        self._answer_timeout_s = answer_timeout_s
        self._now = now
        self._lanes: dict[int, _Lane] = {}
        self._limits: dict[asyncio.Timeout, Request] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._running = 0
        self._waiting = 0
        self._stopping = False
        self._stopped_s = math.inf

    async def initialize(self) -> None:
        """Nothing to prepare."""

    async def shutdown(self) -> None:
        """Nothing to free."""

    @property
    def running(self) -> int:
        """How many requests hold a slot."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many requests wait; of an album, each photo counts.

        One that is still coming in counts as the largest: it may become that.
        """
        return self._waiting

    @property
    def stopping(self) -> bool:
        """Whether no more requests are served."""
        return self._stopping

    async def do_process_update(self, update: object, coroutine: Awaitable[Any]) -> None:
        """Serve one update, in its turn; called by PTB."""
        handlers = cast("Coroutine[Any, Any, Any]", coroutine)
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._under_way.add(task)
        try:
            if isinstance(update, Update):
                await self._receive(update, handlers)
        finally:
            self._under_way.discard(task)
            handlers.close()  # does nothing to one that ran

    async def drain(self, timeout_s: float) -> None:
        """Stop: who waits is told to send again, who is being served has time to be answered.

        Args:
            timeout_s: after how long it is over, whatever still runs.
        """
        now = asyncio.get_running_loop().time()
        self._stopping = True
        self._stopped_s = now + timeout_s
        for limit, request in self._limits.items():
            if limit.expired():
                continue
            waits = "queue" not in request.stages_ms
            limit.reschedule(now if waits else min(limit.when() or now, now + 0.7 * timeout_s))
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)

    async def _receive(self, update: Update, handlers: Coroutine[Any, Any, Any]) -> None:
        request = self._route(update)
        if request is None or not self._seen.add(update.update_id):
            why = "ignored" if request is None else "duplicate"
            logger.info("update=%s outcome=%s", update.update_id, why)
            return
        loop = asyncio.get_running_loop()
        request.arrived_s = loop.time()
        request.deadline_s = request.arrived_s + _WORK_SHARE * self._answer_timeout_s
        current.set(request)
        request_id.begin()
        try:
            if self._joins_album(request):
                request.outcome = "in_album"
            else:
                await self._admit(request, handlers)
        finally:
            total_ms = (loop.time() - request.arrived_s) * 1000
            logs.line(request, total_ms, waiting=self.waiting, running=self.running)
            self._finished(request)
            await self._remember(update.update_id)

    def _joins_album(self, request: Request) -> bool:
        """Whether an album's first message answers for this one as well."""
        if request.album is None:
            return False
        return not self._albums.join((request.person, request.album), request.messages[0])

    async def _admit(self, request: Request, handlers: Coroutine[Any, Any, Any]) -> None:
        turned = self._barred(request)
        if turned is None:
            try:
                async with asyncio.timeout_at(request.deadline_s) as limit:
                    self._limits[limit] = request
                    try:
                        turned = await self._serve(request, handlers)
                    finally:
                        del self._limits[limit]
            except TimeoutError:
                if not request.told:
                    turned = Turned.STOPPING if self._stopping else Turned.LATE
        elif request.album is not None:
            self._albums.dismiss((request.person, request.album))
        if turned is not None:
            await self._refuse(request, turned)

    def _barred(self, request: Request) -> Turned | None:
        """Why a request is not let in; asked before an album's other photos have come."""
        if self._stopping:
            return Turned.STOPPING
        lane = self._lanes.get(request.person)
        if lane is not None and lane.requests > self._person_queue:
            return Turned.BACKLOG if self._is_old(request) else Turned.FLOOD
        if self._waiting and self._waiting + _places(request) > self._waiting_total:
            return Turned.FULL
        return None

    def _is_old(self, request: Request) -> bool:
        """Whether a message waited at Telegram for longer than answers take: the bot was away."""
        if not request.messages:
            return False
        age = self._now() - request.messages[0].date
        return age > timedelta(seconds=self._answer_timeout_s)

    async def _serve(self, request: Request, handlers: Coroutine[Any, Any, Any]) -> Turned | None:
        lane = self._lanes.setdefault(request.person, _Lane())
        async with self._turn(request, lane):
            await handlers
        return Turned.LATE if request.late else None

    @asynccontextmanager
    async def _turn(self, request: Request, lane: _Lane) -> AsyncIterator[None]:
        """Wait for an album's other photos, then for the person's turn, then for a slot."""
        lane.requests += 1
        places = _places(request)
        self._waiting += places
        try:
            if request.album is not None:
                album = (request.person, request.album)
                request.messages = await self._albums.complete(album)
                self._waiting += len(request.messages) - places
                places = len(request.messages)
            async with lane.turn, self._slots:
                self._waiting -= places
                places = 0
                waited_s = asyncio.get_running_loop().time() - request.arrived_s
                request.add_ms("queue", waited_s)
                self._running += 1
                try:
                    yield
                finally:
                    self._running -= 1
        finally:
            self._waiting -= places
            lane.requests -= 1
            if lane.requests == 0:
                del self._lanes[request.person]

    async def _refuse(self, request: Request, turned: Turned) -> None:
        """Say why; to one who floods, once until their lane is empty again, unless that failed."""
        request.outcome = turned.value
        lane = self._lanes.get(request.person)
        floods = turned in (Turned.FLOOD, Turned.BACKLOG)
        if floods and lane is not None and request.kind != "callback":
            if lane.warned:
                return
            lane.warned = True
        now = asyncio.get_running_loop().time()
        request.deadline_s = min(now + self._answer_timeout_s, self._stopped_s)
        try:
            async with asyncio.timeout_at(request.deadline_s):
                await self._turn_away(request, turned)
        except Exception:
            request.outcome += "_unsent"
            if floods and lane is not None:
                lane.warned = False  # the next one is told
            logger.exception("update=%s could not be turned away", request.update.update_id)

    async def _remember(self, number: int) -> None:
        try:
            await self._memory.mark_served(number)
        except Exception:
            # The answer is out; at worst a repetition after a restart is answered again.
            logger.exception("update=%s could not be remembered", number)


def _places(request: Request) -> int:
    """How many of the waiting a request is before an album's other photos have come."""
    return 1 if request.album is None else LARGEST
