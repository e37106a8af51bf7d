"""What the buttons below an answer need, for as long as they work; in memory only.

Holds what the engine saw, never the person's picture. Knows nothing about Telegram but ids.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bot.shown import LeftOut
from engine.types import Analysis


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was given.

    Attributes:
        owner: the Telegram id of the person it was given to.
        file_id: Telegram's name for the photo, by which it can be fetched again.
        analysis: the faces shown, from left to right, with the matches that are shown.
        left_out: how many faces are not shown.
        language: in which it was given.
        compared: the same faces with all matches by which they are told again (`bot.steady`).
        people: how many people the bundle that answered knows; None where that is not known.
    """

    owner: int
    file_id: str
    analysis: Analysis
    left_out: LeftOut
    language: str
    compared: Analysis
    people: int | None = None


class Answers:
    """The newest answers, under keys that say nothing.

    Args:
        lifetime_s: how long an answer is kept.
        limit: how many are kept; the oldest go first.
        clock: seconds that only move forward.
        key: makes a key nobody can guess.
    """

    def __init__(
        self,
        *,
        lifetime_s: float,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
        key: Callable[[], str] = lambda: secrets.token_urlsafe(12),
    ) -> None:
        self._lifetime_s = lifetime_s
        self._limit = limit
        self._clock = clock
        self._key = key
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()

    def keep(self, answer: Answer) -> str:
        """Keep an answer; its key."""
        self._forget_old()
        while len(self._kept) >= self._limit:
            self._kept.popitem(last=False)
        key = self._key()
        self._kept[key] = (self._clock() + self._lifetime_s, answer)
        return key

    def find(self, key: str) -> Answer | None:
        """The answer under a key, unless it was dropped or its time is over."""
        self._forget_old()
        found = self._kept.get(key)
        return found[1] if found else None

    def of(self, owner: int) -> list[Answer]:
        """A person's answers, the newest first."""
        self._forget_old()
        return [answer for _, answer in reversed(self._kept.values()) if answer.owner == owner]

    def drop(self, key: str) -> None:
        """Forget an answer."""
        self._kept.pop(key, None)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)
