"""One update under way: who waits for an answer since when, and how it went.

Knows nothing about what is answered. The handlers of python-telegram-bot find the request they
serve in `current`, which follows them through tasks and threads.
"""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from telegram import Message, Update

_SEND_SHARE = 0.27  # of the time for an answer
_LITTLE_SHARE = 0.02


@dataclass
class Request:
    """One update of one person, from its arrival to its line in the log.

    Attributes:
        update: as Telegram sent it.
        person: the Telegram id of whoever waits; never logged, never stored.
        kind: what it is ("photo", "command", "callback", ...), for the log.
        album: the media group's id when the message is part of an album.
        messages: the message, or all of its album's once they are in.
        arrived_s: the event loop's time of arrival.
        deadline_s: the event loop's time at which work on it ends.
        language: in which the person is spoken to, once that is known.
        late: whether Telegram takes no answer before then.
        told: whether a call that tells the person something was under way then, and carried out.
        to_delete: captures for the login, to be deleted from the chat also where time is over.
        outcome: what became of it, for the log.
        stages_ms: milliseconds by stage, for the log.
    """

    update: Update
    person: int
    kind: str
    album: str | None = None
    messages: tuple[Message, ...] = ()
    arrived_s: float = 0.0
    deadline_s: float = 0.0
    language: str | None = None
    late: bool = False
    told: bool = False
    to_delete: tuple[Message, ...] = ()
    outcome: str = "answered"
    stages_ms: dict[str, float] = field(default_factory=dict)

    def look_until_s(self, most_s: float = math.inf) -> float:
        """Until when to fetch and see, in the event loop's time; the rest is for saying the answer.

        Args:
            most_s: at most so many seconds from now.
        """
        until_s = self.deadline_s - _SEND_SHARE * (self.deadline_s - self.arrived_s)
        return min(until_s, asyncio.get_running_loop().time() + most_s)

    def little_s(self, most_s: float) -> float:
        """Seconds for what the answer is better without than late: a small share of its time."""
        return min(most_s, _LITTLE_SHARE * (self.deadline_s - self.arrived_s))

    def add_ms(self, stage: str, seconds: float) -> None:
        """Add to the milliseconds of a stage."""
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + seconds * 1000

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure a stage, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add_ms(stage, time.perf_counter() - start)


current: ContextVar[Request] = ContextVar("request")
"""The request that the running handler serves."""
