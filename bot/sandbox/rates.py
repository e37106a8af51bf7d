"""How many messages Telegram takes from a bot in which time.

Knows chats by their id; nothing about what is sent. Reads nothing of the bot's own limiter, whose
faults it is to show.
Source: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from bot.sandbox.errors import too_many_requests


@dataclass(frozen=True, slots=True)
class Rates:
    """Limits of what a bot may send; an album counts as many messages.

    Attributes:
        chat_per_s: messages a second to one person, on average.
        chat_burst: messages to one person at once. Telegram allows "short bursts" and tells no
            figure: as many as an album has at most.
        group_per_minute: messages a minute to one group or channel, all of them at once or spread.
        overall_per_s: messages a second to all chats together, likewise.
    """

    chat_per_s: float = 1.0
    chat_burst: int = 10
    group_per_minute: int = 20
    overall_per_s: int = 30


class Throttle:
    """Counts messages and refuses those that are too many.

    Args:
        rates: the limits.
        clock: seconds; may be set back, which forgives what was sent.
    """

    def __init__(self, rates: Rates, clock: Callable[[], float]) -> None:
        self._rates = rates
        self._clock = clock
        self._overall = _Bucket(rates.overall_per_s, rates.overall_per_s)
        self._chats: dict[int, _Bucket] = {}

    def take(self, chat_id: int, count: int = 1) -> None:
        """Count messages to a chat, all or none of them.

        Raises:
            ApiError: 429, they are too many; tells after how many seconds they are not.
        """
        now = self._clock()
        chat = self._chats.setdefault(chat_id, self._bucket(chat_id))
        wait_s = max(bucket.wait_s(now, count) for bucket in (chat, self._overall))
        if wait_s > 0:
            raise too_many_requests(math.ceil(wait_s))
        for bucket in (chat, self._overall):
            bucket.take(now, count)

    def _bucket(self, chat_id: int) -> "_Bucket":
        if chat_id < 0:
            return _Bucket(self._rates.group_per_minute, self._rates.group_per_minute / 60)
        return _Bucket(self._rates.chat_burst, self._rates.chat_per_s)


class _Bucket:
    """Tokens that come back in time: at most `size`, `per_s` a second."""

    __slots__ = ("_left", "_per_s", "_seen", "_size")

    def __init__(self, size: float, per_s: float) -> None:
        self._size = size
        self._per_s = per_s
        self._left = size
        self._seen = math.inf

    def wait_s(self, now: float, count: int) -> float:
        """Seconds until `count` are there; more than there is room for never have to be."""
        self._fill(now)
        return (min(count, self._size) - self._left) / self._per_s

    def take(self, now: float, count: int) -> None:
        self._fill(now)
        self._left -= min(count, self._size)

    def _fill(self, now: float) -> None:
        gone_s = now - self._seen
        back = self._size if gone_s < 0 else gone_s * self._per_s
        self._left = min(self._size, self._left + back)
        self._seen = now
