"""A bell that wakes everybody who waits at that moment.

For state that changes on one event loop: look, and if there is nothing, wait for the bell. As
nothing else runs between the look and the wait, no ring is missed.
"""

import asyncio


class Bell:
    """Wakes all its waiters on every ring; ringing with nobody there is forgotten."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake those who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the next ring; False when `timeout_s` passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True
