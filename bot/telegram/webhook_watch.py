"""Watches over the webhook: whether Telegram still posts updates to it, and whether they arrive.

Telegram has one webhook for a token, and whoever has the token can take it away. Knows nothing
about what the updates say.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
from telegram import WebhookInfo
from telegram.error import InvalidToken, TelegramError

logger = logging.getLogger(__name__)

_JITTER = 0.2
_MOST_DOUBLINGS = 5
_RECENT = timedelta(minutes=5)


class Watch:
    """Asks Telegram about the webhook now and then, and sets it again where it is gone.

    Args:
        ask: makes getWebhookInfo.
        set_again: makes setWebhook.
        refused: whether Telegram refuses the token for good; asked when it did once.
        url: where updates are to come to.
        every_s: seconds between two questions, about; they double as long as the webhook is
            taken away each time.
        chance: draws how much more or less that is, so that several bots do not ask together.
        sleep: waits.
        now: the time, with a zone.
    """

    def __init__(
        self,
        *,
        ask: Callable[[], Awaitable[WebhookInfo]],
        set_again: Callable[[], Awaitable[object]],
        refused: Callable[[], Awaitable[bool]],
        url: str,
        every_s: float,
        chance: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ask = ask
        self._set_again = set_again
        self._refused = refused
        self._url = url
        self._every_s = every_s
        self._chance = chance
        self._sleep = sleep
        self._now = now
        self._taken = 0
        self._told: datetime | None = None
        self.pending: int | None = None
        """How many updates wait at Telegram; None as long as it was not asked."""
        self.problem: str | None = None
        """Why updates do not come, where something is known to be wrong."""

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            InvalidToken: Telegram does not know the token (any more).
        """
        while True:
            pause_s = self._every_s * 2 ** min(self._taken, _MOST_DOUBLINGS)
            await self._sleep(pause_s * self._chance.uniform(1 - _JITTER, 1 + _JITTER))
            try:
                await self._look()
            except TelegramError as error:
                if isinstance(error, InvalidToken) and await self._refused():
                    raise
                # Its words go to the log alone, which hides secrets; /healthz does not.
                self.problem = f"the webhook could not be looked after: {type(error).__name__}"
                logger.warning("%s: %s", self.problem, error)
            except Exception:  # a bug, or an address that is none
                self.problem = "the webhook could not be looked after"
                logger.exception("%s", self.problem)

    async def _look(self) -> None:
        info = await self._ask()
        self.pending = info.pending_update_count
        if not _same(info.url, self._url):
            self._taken += 1
            host = urlsplit(info.url).hostname or "nowhere"
            self.problem = "another program uses this bot's token, and took the webhook away"
            logger.warning(
                "%s (it leads to %s); it is set again. Stop the other program, or get a new token "
                "from @BotFather",
                self.problem,
                host,
            )
            await self._set_again()
            return
        self._taken = 0
        failed = info.last_error_date
        if failed is None or self._now() - failed > _RECENT:
            self.problem = None
            return
        self.problem = info.last_error_message
        if failed != self._told:
            self._told = failed
            logger.warning(
                "Telegram could not post an update to WEBHOOK_URL: %s; pending=%d",
                self.problem,
                self.pending,
            )


def _same(one: str, other: str) -> bool:
    """Whether two addresses are one: Telegram writes a host in small letters."""
    return httpx.URL(one) == httpx.URL(other)
