"""Asks Telegram for updates until told to stop.

In place of PTB's Updater, which stops for good on one malformed update, cannot be stopped while it
waits after an error, and goes deaf without a word when the token is revoked. Knows nothing about
what the updates say.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from telegram import Update
from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError

from bot.telegram.client import Malformed, update_id
from bot.telegram.rate_limits import retry_after_s

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_WEBHOOK = "webhook is active"
"""What Telegram says of a poll while there is a webhook."""
_EMPTY_EVERY_S = 1.0
"""How often an answer without updates is taken at most: Telegram holds the question open longer."""


class Poller:
    """Fetches batches of updates and hands each update on, in order.

    Args:
        fetch: asks for raw updates from a number on, waiting for some if told to.
        parse: turns one into an update, or raises `Malformed`.
        put: takes an update.
        refused: whether Telegram refuses the token for good; asked when it did once.
        remove_webhook: makes deleteWebhook; asked for where somebody set one meanwhile.
        sleep: waits.
        clock: seconds that only move forward.
    """

    def __init__(
        self,
        fetch: Callable[[int | None, bool], Awaitable[list[object]]],
        parse: Callable[[object], Update],
        put: Callable[[Update], None],
        *,
        refused: Callable[[], Awaitable[bool]],
        remove_webhook: Callable[[], Awaitable[object]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._parse = parse
        self._put = put
        self._refused = refused
        self._remove_webhook = remove_webhook
        self._sleep = sleep
        self._clock = clock
        self._offset: int | None = None

    async def run(self) -> None:
        """Poll until cancelled.

        Raises:
            InvalidToken: Telegram does not know the token (any more).
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            start_s = self._clock()
            try:
                batch = await self._fetch(self._offset, True)
                progress = self._take(batch)
            except TelegramError as error:
                logger.warning("getUpdates failed: %s; next try in %.1f s", error, pause_s)
                if isinstance(error, InvalidToken) and await self._refused():
                    raise
                progress = False
                if isinstance(error, Conflict) and _WEBHOOK in str(error):
                    await self._take_back()
                if isinstance(error, RetryAfter):
                    pause_s = max(pause_s, retry_after_s(error))
            except Exception:  # a bug, which must not make the bot deaf
                logger.exception("updates could not be taken; next try in %.1f s", pause_s)
                progress = False
            else:
                if not batch:
                    await self._sleep(max(0.0, _EMPTY_EVERY_S - (self._clock() - start_s)))
            if progress:
                pause_s = _FIRST_PAUSE_S
            else:
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def acknowledge(self) -> None:
        """Tell Telegram that what was taken need not be sent again."""
        if self._offset is not None:
            await self._fetch(self._offset, False)

    async def _take_back(self) -> None:
        """Remove the webhook that somebody set, which keeps every poll away as long as it is."""
        logger.warning(
            "another program uses this bot's token, and set a webhook: it is removed, because this "
            "bot polls. Stop the other program, or get a new token from @BotFather"
        )
        try:
            await self._remove_webhook()
        except TelegramError as error:
            logger.warning("the webhook was not removed, and will be: %s", error)

    def _take(self, batch: list[object]) -> bool:
        """Hand on a batch; whether it brought anything new, or was to bring nothing."""
        numbers = []
        for raw in batch:
            number = update_id(raw)
            if number is not None:
                numbers.append(number)
            try:
                self._put(self._parse(raw))
            except Malformed as error:
                logger.warning("malformed update ignored: %s", error)
        before = self._offset
        if numbers:
            self._offset = max(numbers) + 1
        return not batch or self._offset != before
