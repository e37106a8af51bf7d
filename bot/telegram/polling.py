"""Asks Telegram for updates until told to stop.

In place of PTB's Updater, which stops for good on one malformed update, cannot be stopped while it
waits after an error, and goes deaf without a word when the token is revoked. Knows nothing about
what the updates say.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from telegram import Update
from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError
from telegram.ext import Application

from bot import standby
from bot.telegram.client import Malformed, Telegram, parse_update, refused_for_good, update_id
from bot.telegram.incoming import ALLOWED_UPDATES
from bot.telegram.rate_limits import retry_after_s

logger = logging.getLogger(__name__)

App = Application[Any, Any, Any, Any, Any, Any]

_POLL_S = 25
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


@asynccontextmanager
async def source(
    app: App, turn: standby.Turn, goodbye_s: float
) -> AsyncIterator["asyncio.Task[None]"]:
    """Polls as long as the block lasts.

    Args:
        app: takes the updates; its bot is a `Telegram`.
        turn: whether they may be taken.
        goodbye_s: how long the last answer to Telegram may take.

    Yields:
        The task that polls; it ends early only with a fault.
    """

    async def fetch(offset: int | None, wait: bool) -> list[object]:
        if stopping:  # nothing is taken any more, only acknowledged
            return await telegram.raw_updates(offset, 0, ALLOWED_UPDATES)
        await turn.until_may_take()
        updates = await telegram.raw_updates(offset, _POLL_S * wait, ALLOWED_UPDATES)
        await turn.until_may_take()  # it may have ended while Telegram held the question open
        return updates

    telegram: Telegram = app.bot
    stopping = False
    if found := (await telegram.get_webhook_info()).url:
        logger.warning(
            "this token had a webhook, which led to %s: it is removed, because this bot polls. "
            "Where another program uses the token, stop it",
            urlsplit(found).hostname,
        )
    await telegram.delete_webhook()
    poller = Poller(
        fetch,
        partial(parse_update, bot=telegram),
        app.update_queue.put_nowait,
        refused=partial(refused_for_good, telegram.get_me),
        remove_webhook=telegram.delete_webhook,
    )
    task = asyncio.create_task(poller.run(), name="poller")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        stopping = True
        try:
            await asyncio.wait_for(poller.acknowledge(), min(goodbye_s, turn.left_s))
        except (TelegramError, TimeoutError) as error:
            # The updates come again after the next start, where their numbers are known.
            logger.warning("the last updates were not acknowledged: %s", type(error).__name__)
