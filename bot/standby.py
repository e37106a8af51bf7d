"""One bot serves with a database at a time; another one stands by until that one has ended.

What Telegram repeats, what buttons need and what an album is are known to the process that serves,
so that two would answer twice, or tell people that their buttons had expired. Knows nothing about
what serving is, and nothing about how a lease is kept (`bot.store.lease`).
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bot import rounds
from bot.machine import steady
from bot.store import Lease, StoreError

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_TOLD_EVERY_S = 600.0
_RENEWED = 1 / 6
"""Share of its lifetime after which a lease is renewed."""
_SERVING = 1 / 2
"""Share of its lifetime after which no update is taken any more; the rest is for ending."""
_OVER = 0.95
"""Share of its lifetime after which nothing is done any more: clocks do not run alike."""


class LeaseLost(StoreError):
    """Another bot serves with the database now, or may soon: this one has to end."""


class Turn:
    """The time in which this bot serves.

    Args:
        lease: not taken yet.
        clock: seconds that only move forward, while the machine sleeps too.
        pause: waits for seconds.

    Attributes:
        kept: the task that renews the lease once it was taken; see `keep`.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        clock: Callable[[], float] = steady,
        pause: rounds.Pause = asyncio.sleep,
    ) -> None:
        self._lease = lease
        self._clock = clock
        self._pause = pause
        self._renewed_s = -math.inf
        self.kept: asyncio.Task[None]

    @property
    def may_take(self) -> bool:
        """Whether updates may be taken now."""
        return self._left_s(_SERVING) > 0

    @property
    def left_s(self) -> float:
        """Seconds in which what was taken may still be answered."""
        return self._left_s(_OVER)

    async def begin(self) -> None:
        """Wait until no other bot serves, however long that takes."""
        told_s = -math.inf
        while True:
            begun_s = self._clock()
            try:
                holder = await self._lease.take()
            except StoreError as error:
                if told_s == -math.inf:
                    raise  # nobody is waited for
                logger.warning("standing by; the lease could not be asked for: %s", error)
                holder = "the database"
            if holder is None:
                self._renewed_s = begun_s
                return
            if self._clock() - told_s >= _TOLD_EVERY_S:
                told_s = self._clock()
                logger.warning(
                    "standing by: %s serves with this database. This bot takes no update and "
                    "takes over when that one stops%s",
                    holder,
                    ""
                    if math.isinf(self._lease.lifetime_s)
                    else f", or {self._lease.lifetime_s:g} s after it was killed or cut off",
                )
            await self._pause(_POLL_S)

    async def keep(self) -> None:
        """Renew the lease until cancelled.

        Raises:
            LeaseLost: another bot has it, or will before it could be renewed.
        """
        lifetime_s = self._lease.lifetime_s
        if math.isinf(lifetime_s):
            await asyncio.Event().wait()
        while True:
            await self._pause(lifetime_s * _RENEWED)
            begun_s = self._clock()
            try:
                # Also where this comes late, as after sleep: it may be that nobody has taken it.
                async with asyncio.timeout(max(self._left_s(_SERVING), lifetime_s / 4)):
                    kept = await self._lease.renew()
            except (StoreError, TimeoutError) as error:
                logger.warning(
                    "the lease could not be renewed: %s", str(error) or "no answer in time"
                )
                if not self.may_take:
                    raise LeaseLost(
                        "The database could not be asked in time whether this bot may still serve: "
                        "it ends, so that another one can. Start it again; where no other bot has "
                        "taken over by then, it serves."
                    ) from None
                continue
            if not kept:
                self._renewed_s = -math.inf
                raise LeaseLost(
                    "Another bot has taken over this database, because this one did not renew its "
                    "lease in time: it ends. Start it again to have it stand by."
                )
            self._renewed_s = begun_s

    async def until_may_take(self) -> None:
        """Wait until updates may be taken."""
        while not self.may_take:
            await self._pause(_POLL_S)

    async def end(self, within_s: float) -> None:
        """Let another bot take over at once.

        Args:
            within_s: how long that may take.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._lease.release()
        except (StoreError, TimeoutError):
            logger.warning(
                "the lease could not be released: another bot takes over in %g s",
                self._lease.lifetime_s,
            )

    def _left_s(self, share: float) -> float:
        if math.isinf(self._lease.lifetime_s):
            return math.inf if self._renewed_s > -math.inf else 0.0
        return max(0.0, self._renewed_s + share * self._lease.lifetime_s - self._clock())


@asynccontextmanager
async def turn(lease: Lease, goodbye_s: float) -> AsyncIterator[Turn]:
    """Wait for this bot's turn to serve; leaving ends it.

    Args:
        lease: not taken yet.
        goodbye_s: how long ending may take.

    Raises:
        StoreError: the database cannot be used.
    """
    own = Turn(lease)
    try:
        await own.begin()
        own.kept = asyncio.create_task(own.keep(), name="lease")
        try:
            yield own
        finally:
            own.kept.cancel()
            await asyncio.wait([own.kept])
    finally:
        await own.end(goodbye_s)
