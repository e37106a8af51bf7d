"""The way to Telegram: python-telegram-bot's client, made to retry and to bear malformed updates.

Knows nothing about what is sent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from telegram import Update
from telegram.error import BadRequest, NetworkError
from telegram.ext import AIORateLimiter, ExtBot

logger = logging.getLogger(__name__)

Payload = bool | dict[str, Any] | list[dict[str, Any]]
_LARGEST_UPDATE_ID = 2**53
_FIRST_PAUSE_S = 0.5


class Malformed(ValueError):
    """A JSON value that is no update; the message says nothing of its content."""


def parse_update(raw: object, bot: "Telegram") -> Update:
    """Turn a JSON value into an update.

    Raises:
        Malformed: it is none, in whatever way.
    """
    number = update_id(raw)
    if number is None or not isinstance(raw, dict):
        raise Malformed("an update without a number")
    try:
        # PTB takes some values out of the dictionaries that it reads; `raw` is not used again.
        return Update.de_json(raw, bot)
    except Exception as error:  # PTB promises no error for malformed data, so any will come
        raise Malformed(f"update {number}: {type(error).__name__}") from None


def update_id(raw: object) -> int | None:
    """The number of what may be an update."""
    number = raw.get("update_id") if isinstance(raw, dict) else None
    if isinstance(number, int) and not isinstance(number, bool):
        return number if 0 <= number < _LARGEST_UPDATE_ID else None
    return None


class Telegram(ExtBot[int]):
    """PTB's client, with updates available before they are parsed.

    PTB's own `get_updates` gives up a whole batch for one update that it cannot parse, and then
    asks for the same batch for ever.
    """

    async def raw_updates(
        self, offset: int | None, wait_s: int, allowed: tuple[str, ...]
    ) -> list[object]:
        """Long-poll for updates.

        Args:
            offset: first update number wanted; those below count as received.
            wait_s: how long Telegram may hold the question open.
            allowed: kinds of updates wanted.

        Raises:
            TelegramError: as every method of the client.
        """
        asked = {"offset": offset, "timeout": wait_s, "allowed_updates": list(allowed)}
        answer: object = await self._post("getUpdates", asked, read_timeout=wait_s + 10)
        return answer if isinstance(answer, list) else []


class Patient(AIORateLimiter):
    """PTB's limiter, which waits when Telegram says so, retrying also what the network lost."""

    __slots__ = ("_attempts", "_sleep")

    def __init__(
        self,
        *,
        retries: int,
        rate: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(overall_max_rate=rate, max_retries=retries)
        self._attempts = retries + 1
        self._sleep = sleep

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Payload]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: int | None,
    ) -> Payload:
        """Call until it works, fails for good or has been tried often enough.

        A call whose answer got lost is made again: a card twice is better than none. A chat
        action is not: it would come too late.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                return await super().process_request(
                    callback, args, kwargs, endpoint, data, rate_limit_args
                )
            except BadRequest:  # a NetworkError by inheritance only
                raise
            except NetworkError as error:
                if attempt == self._attempts or endpoint == "sendChatAction":
                    raise
                logger.warning("retry endpoint=%s reason=%s", endpoint, type(error).__name__)
                await self._sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")
