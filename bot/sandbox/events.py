"""What a person's client sees happen, as a numbered log that many can follow.

Knows order and waiting; nothing about what an event says.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from bot.sandbox.bell import Bell


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a chat.

    Attributes:
        number: 1 and up, without gaps.
        kind: "message", "edit", "delete", "action", "answer", "commands" or "account".
        body: JSON; never changed after publication.
    """

    number: int
    kind: str
    body: dict[str, Any]


class EventLog:
    """The last events of one chat."""

    def __init__(self, capacity: int = 2000) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._bell = Bell()
        self.last = 0
        self.closed = False

    def publish(self, kind: str, body: dict[str, Any]) -> None:
        """Add an event and wake those who follow."""
        self.last += 1
        self._events.append(Event(self.last, kind, body))
        self._bell.ring()

    def after(self, number: int) -> list[Event] | None:
        """Events later than a number; None where some of them are forgotten or never were."""
        if number > self.last or number < self.last - len(self._events):
            return None
        return [event for event in self._events if event.number > number]

    async def wait(self, number: int, timeout_s: float) -> bool:
        """Wait until there is an event later than a number; False after `timeout_s`."""
        if self.last > number or self.closed:
            return True
        return await self._bell.wait(timeout_s)

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closed = True
        self._bell.ring()
