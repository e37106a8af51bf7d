"""Gathers the messages of an album, which come one by one and without an end mark.

Knows nothing about users or photos.
"""

import asyncio
from collections.abc import Hashable

from telegram import Message

LARGEST = 10
"""Telegram's own limit on messages in an album."""

_LATE = 0.2
"""The share of a silence by which its end is noticed late where the process stood still."""
_MOST_LATE = 3
"""So many late silences count as one: a machine that is always late answers nevertheless."""
_LATEST = 10
"""After so many silences no more messages of a dismissed album are expected."""


class Albums:
    """Albums that are still coming in.

    Args:
        silence_s: how long nothing more must come for an album to count as complete.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._open: dict[Hashable, tuple[list[Message], asyncio.Event]] = {}
        self._dismissed: set[Hashable] = set()

    def join(self, album: Hashable, message: Message) -> bool:
        """Add a message to an album; whether it is the first one, whose bearer gathers the rest."""
        if album in self._dismissed:
            return False
        first = album not in self._open
        messages, more = self._open.setdefault(album, ([], asyncio.Event()))
        if len(messages) < LARGEST:
            messages.append(message)
        more.set()
        return first

    async def complete(self, album: Hashable) -> tuple[Message, ...]:
        """Wait for the album's end; its messages in the order in which they were sent.

        A silence in which the process stood still is none: what came then is not read yet.
        """
        messages, more = self._open[album]
        loop = asyncio.get_running_loop()
        late = 0
        try:
            while late < _MOST_LATE:
                more.clear()
                over_s = loop.time() + self._silence_s
                try:
                    async with asyncio.timeout_at(over_s):
                        await more.wait()
                    late = 0
                except TimeoutError:
                    if loop.time() - over_s <= _LATE * self._silence_s:
                        break
                    late += 1
            return tuple(sorted(messages, key=lambda message: message.message_id))
        finally:
            del self._open[album]

    def dismiss(self, album: Hashable) -> None:
        """Let an album go that nobody completes: its messages that still come are not kept."""
        del self._open[album]
        self._dismissed.add(album)
        loop = asyncio.get_running_loop()
        loop.call_later(_LATEST * self._silence_s, self._dismissed.discard, album)
