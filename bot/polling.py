"""Asks Telegram for updates until told to stop.

In place of PTB's Updater, which stops for good on one malformed update, cannot be stopped while it
waits after an error, and goes deaf without a word when the token is revoked. Knows nothing about
what the updates say.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from telegram import Update
from telegram.error import InvalidToken, RetryAfter, TelegramError

from bot.transport import Malformed, update_id

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 30.0


class Poller:
    """Fetches batches of updates and hands each update on, in order.

    Args:
        fetch: asks for raw updates from a number on, waiting for some if told to.
        parse: turns one into an update, or raises `Malformed`.
        put: takes an update.
        pause_s: first pause after an error; it doubles with each further one.
    """

    def __init__(
        self,
        fetch: Callable[[int | None, bool], Awaitable[list[object]]],
        parse: Callable[[object], Update],
        put: Callable[[Update], None],
        *,
        pause_s: float = 0.5,
    ) -> None:
        self._fetch = fetch
        self._parse = parse
        self._put = put
        self._first_pause_s = pause_s
        self._offset: int | None = None

    async def run(self) -> None:
        """Poll until cancelled.

        Raises:
            InvalidToken: Telegram does not know the token (any more).
        """
        pause_s = self._first_pause_s
        while True:
            try:
                progress = self._take(await self._fetch(self._offset, True))
            except InvalidToken:
                raise
            except TelegramError as error:
                logger.warning("polling failed: %s; next try in %.1f s", error, pause_s)
                progress = False
                if isinstance(error, RetryAfter):
                    pause_s = max(pause_s, _seconds(error))
            if progress:
                pause_s = self._first_pause_s
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def acknowledge(self) -> None:
        """Tell Telegram that what was taken need not be sent again."""
        if self._offset is not None:
            await self._fetch(self._offset, False)

    def _take(self, batch: list[object]) -> bool:
        """Hand on a batch; whether the next question may follow at once."""
        numbers = []
        for raw in batch:
            number = update_id(raw)
            if number is not None:
                numbers.append(number)
            try:
                self._put(self._parse(raw))
            except Malformed as error:
                logger.warning("malformed update ignored: %s", error)
        if numbers:
            self._offset = max(numbers) + 1
        return bool(numbers) or not batch


def _seconds(error: RetryAfter) -> float:
    wait = error.retry_after
    return float(wait) if isinstance(wait, int | float) else wait.total_seconds()
