"""Telegram's limits: which call waits, for how long, and when it is made again.

In place of PTB's AIORateLimiter, in which one chat's 429 halts the calls of every chat. Knows
nothing about what is sent.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from telegram.constants import FloodLimit
from telegram.error import BadRequest, NetworkError, RetryAfter
from telegram.ext import BaseRateLimiter

from bot.telegram.request import current

logger = logging.getLogger(__name__)

Payload = bool | dict[str, Any] | list[dict[str, Any]]
Place = tuple[int | str | None, str]
"""What a 429 halts: a chat's calls of one kind, or a method of those that have no chat."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 4.0
_CHAT_BURST_S = 10.0
"""A chat may get the messages of so many seconds at once; Telegram allows "short bursts"."""
_ACTION = "sendChatAction"
_TELLING = ("send", "copy", "forward", "answerCallbackQuery")
_UNDER_WAY_S = 1.0
"""How long a call that is under way has when its request is cut off."""
_KEPT = 1000


class Limiter(BaseRateLimiter[None]):
    """Keeps to Telegram's rates, waits out its 429s and repeats what the network lost.

    No call waits past the time of the request that it serves; one that would have to fails at
    once with `RetryAfter`. Calls are repeated until that time, however often.

    Args:
        rate: calls a second that concern a chat, in all; 30 is Telegram's limit. Messages to one
            chat are limited to a thirtieth of it, and at least to Telegram's 1 a second; to one
            group, 20 a minute.
        patience_s: for how long a call waits that serves no request.
        clock: the event loop's time.
        sleep: waits.
    """

    __slots__ = ("_chats", "_clock", "_halts", "_overall", "_patience_s", "_rate", "_sleep")

    def __init__(
        self,
        *,
        rate: float,
        patience_s: float,
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._patience_s = patience_s
        self._clock = clock
        self._sleep = sleep
        self._overall = _Rate(rate, 1.0)
        self._chats: dict[int | str, _Rate] = {}
        self._halts: dict[Place, float] = {}

    async def initialize(self) -> None:
        """Nothing to prepare."""

    async def shutdown(self) -> None:
        """Nothing to free."""

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Payload]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: None,  # noqa: ARG002 (PTB passes it)
    ) -> Payload:
        """Call until it works, fails for good or its time is over.

        A call whose answer got lost is made again: a card twice is better than none. A chat
        action is made at once or not at all: it would come too late.

        Raises:
            RetryAfter: Telegram takes no such call before the time is over.
            TelegramError: as every method of the client.
        """
        place = _place(endpoint, data)
        deadline_s = self._deadline_s(endpoint)
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._turn(place, deadline_s)
            try:
                return await self._whole(callback(*args, **kwargs), place, endpoint)
            except RetryAfter as error:
                self._halt(place, endpoint, error)
            except BadRequest:  # a NetworkError by inheritance only
                raise
            except NetworkError as error:
                if self._clock() + pause_s >= deadline_s:
                    raise
                logger.warning("retry endpoint=%s reason=%s", endpoint, type(error).__name__)
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _whole(
        self, call: Coroutine[Any, Any, Payload], place: Place, endpoint: str
    ) -> Payload:
        """Make a call; where its request is cut off meanwhile, wait a moment for its answer.

        Telegram may have carried it out already, and nobody is to be told then that there was no
        time for an answer.
        """
        if endpoint == _ACTION or not endpoint.startswith(_TELLING):
            return await call
        task = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=_UNDER_WAY_S)
            request = current.get(None)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            elif isinstance(error := task.exception(), RetryAfter):
                self._halt(place, endpoint, error)
            elif error is None and request is not None:
                request.told = True
            raise

    def _deadline_s(self, endpoint: str) -> float:
        now = self._clock()
        if endpoint == _ACTION:
            return now
        request = current.get(None)
        return now + self._patience_s if request is None else request.deadline_s

    async def _turn(self, place: Place, deadline_s: float) -> None:
        """Wait for the end of the place's halt and for its share of the rates."""
        await self._halt_over(place, deadline_s)
        for rate in self._rates(place):
            now = self._clock()
            wait_s = _in_time(rate.free_s(now), now, deadline_s)
            rate.take(now)
            if wait_s:
                await self._sleep(wait_s)
        await self._halt_over(place, deadline_s)  # one that began meanwhile

    async def _halt_over(self, place: Place, deadline_s: float) -> None:
        while (end_s := self._halts.get(place, 0.0)) > (now := self._clock()):
            await self._sleep(_in_time(end_s, now, deadline_s))

    def _halt(self, place: Place, endpoint: str, error: RetryAfter) -> None:
        halted_s = retry_after_s(error)
        logger.warning("throttled endpoint=%s retry_after_s=%g", endpoint, halted_s)
        until_s = self._clock() + halted_s
        if len(self._halts) >= _KEPT:
            now = self._clock()
            self._halts = {each: end for each, end in self._halts.items() if end > now}
        self._halts[place] = max(until_s, self._halts.get(place, 0.0))

    def _rates(self, place: Place) -> tuple["_Rate", ...]:
        chat, kind = place
        if chat is None:
            return ()
        if kind != "message":
            return (self._overall,)
        if len(self._chats) >= _KEPT:
            now = self._clock()
            self._chats = {each: rate for each, rate in self._chats.items() if not rate.idle(now)}
        return (self._chats.setdefault(chat, self._chat_rate(chat)), self._overall)

    def _chat_rate(self, chat: int | str) -> "_Rate":
        if isinstance(chat, str) or chat < 0:  # a group or a channel
            return _Rate(FloodLimit.MESSAGES_PER_MINUTE_PER_GROUP, 60.0)
        rate = FloodLimit.MESSAGES_PER_SECOND_PER_CHAT * self._rate / FloodLimit.MESSAGES_PER_SECOND
        most = max(float(FloodLimit.MESSAGES_PER_SECOND_PER_CHAT), rate)
        return _Rate(most * _CHAT_BURST_S, _CHAT_BURST_S)


class _Rate:
    """So many calls in a period, all at once or spread (GCRA, ITU-T I.371).

    Args:
        calls: how many.
        period_s: in how many seconds.
    """

    __slots__ = ("_period_s", "_spent_s", "_step_s")

    def __init__(self, calls: float, period_s: float) -> None:
        self._step_s = period_s / calls
        self._period_s = period_s
        self._spent_s = -math.inf

    def free_s(self, now: float) -> float:
        """When the next call may be made; not before now."""
        return max(now, self._spent_s + self._step_s - self._period_s)

    def take(self, now: float) -> None:
        """Count the next call, which is made when `free_s` said."""
        self._spent_s = max(self._spent_s, now) + self._step_s

    def idle(self, now: float) -> bool:
        """Whether nothing is left of the calls that were made."""
        return self._spent_s <= now


def retry_after_s(error: RetryAfter) -> float:
    """How many seconds Telegram wants to be left alone."""
    wait = error.retry_after
    return float(wait) if isinstance(wait, int | float) else wait.total_seconds()


def _place(endpoint: str, data: dict[str, Any]) -> Place:
    chat = data.get("chat_id")
    try:
        chat = int(chat)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        chat = chat if isinstance(chat, str) else None  # a channel's @name
    if chat is None or endpoint == _ACTION:
        return chat, endpoint
    if endpoint.startswith(("send", "copy", "forward")):
        return chat, "message"
    return chat, "edit" if endpoint.startswith("edit") else endpoint


def _in_time(when_s: float, now: float, deadline_s: float) -> float:
    """Seconds to wait.

    Raises:
        RetryAfter: it would be past the deadline.
    """
    if when_s > max(now, deadline_s):
        raise RetryAfter(math.ceil(when_s - now))
    return when_s - now
