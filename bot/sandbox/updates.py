"""The bot's inbox: updates that wait for getUpdates or are posted to a webhook.

Knows update ids, acknowledgement, expiry and delivery; nothing about what an update says.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
from telegram import Update as LibraryUpdate

from bot.rounds import log_fault
from bot.sandbox.bell import Bell
from bot.sandbox.errors import ApiError
from bot.sandbox.faults import FaultKind, Faults
from bot.sandbox.webhook import Webhook, http_client

logger = logging.getLogger(__name__)

Update = dict[str, Any]
Lane = tuple[str, int]
"""What updates keep their order in: new and edited messages of a chat, button presses of a person,
and so on. Webhooks get the first of every lane at a time."""

CAPACITY = 100_000
KINDS = frozenset(str(kind) for kind in LibraryUpdate.ALL_TYPES)
_FIRST_UPDATE_ID = 730_000_001
_REORDER_PATIENCE_S = 1.0
_RETRY_FIRST_S = 0.1
_RETRY_MOST_S = 5.0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long Telegram waits for the bot, in seconds.

    Attributes:
        update_s: keeps an update that is not fetched.
        query_update_s: keeps one that tells of a pressed button.
        answer_s: takes the answer to a pressed button. Telegram tells no figure; bots that tried
            it were refused after about 15 seconds.
    """

    update_s: float = 24 * 3600.0
    query_update_s: float = 150.0
    answer_s: float = 15.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """An update that the bot has not got yet.

    Attributes:
        update: as the bot gets it.
        lane: see `Lane`.
        expires_at: seconds since 1970.
        retry_s: how long after a failed delivery the next one begins.
        not_before: the event loop's time before which no webhook gets it.
    """

    update: Update
    lane: Lane
    expires_at: float
    retry_s: float = _RETRY_FIRST_S
    not_before: float = 0.0

    @property
    def update_id(self) -> int:
        update_id: int = self.update["update_id"]
        return update_id


class Inbox:
    """Updates in order of arrival, kept until they are acknowledged or expire.

    A full inbox takes nothing new, as Telegram's queue does, and says so in the log.

    Args:
        faults: may duplicate and reorder.
        clock: seconds since 1970, for expiry and for the dates that getWebhookInfo tells.
        lifetimes: how long updates are kept.
        capacity: how many.
    """

    def __init__(
        self,
        faults: Faults,
        clock: Callable[[], float] = time.time,
        *,
        lifetimes: Lifetimes | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self._faults = faults
        self._clock = clock
        self._lifetimes = lifetimes or Lifetimes()
        self._capacity = capacity
        self._bell = Bell()
        self._pending: deque[_Waiting] = deque()
        self._replays: list[_Waiting] = []
        self._held: _Waiting | None = None
        self._next_id = _FIRST_UPDATE_ID
        self._first_expiry = math.inf
        self._allowed: frozenset[str] | None = None
        self._poll_turn = 0
        self._poll_ended_by = ""
        self._closed = False
        self.webhook: Webhook | None = None

    def push(self, kind: str, body: dict[str, Any]) -> None:
        """Put an update of a kind such as "message" in, unless the bot did not ask for it."""
        if self._allowed is not None and kind not in self._allowed:
            return
        if self.pending_count >= self._capacity:
            logger.warning(
                "the bot has %d unread updates; this one is lost: %s", self._capacity, kind
            )
            return
        is_query = kind == "callback_query"
        kept_s = self._lifetimes.query_update_s if is_query else self._lifetimes.update_s
        family = "message" if kind == "edited_message" else kind
        place = body["from"] if is_query else body["chat"]
        update = _Waiting(
            {"update_id": self._next_id, kind: body}, (family, place["id"]), self._clock() + kept_s
        )
        self._next_id += 1
        self._first_expiry = min(self._first_expiry, update.expires_at)
        if self._held is None and self._faults.take_kind(FaultKind.REORDER_UPDATES):
            self._held = update
            # Nobody may follow: an update that is late must not become one that is lost.
            asyncio.get_running_loop().call_later(_REORDER_PATIENCE_S, self._release)
            return
        self._pending.append(update)
        self._release()
        self._bell.ring()

    def _release(self) -> None:
        if self._held is not None:
            self._pending.append(self._held)
            self._held = None
            self._bell.ring()

    async def poll(
        self, *, offset: int | None, limit: int, timeout_s: float, allowed: list[str] | None
    ) -> list[Update]:
        """Telegram's getUpdates: acknowledge what is below `offset`, wait for what follows.

        Raises:
            ApiError: 409 when a webhook is set, or when another poll starts meanwhile.
        """
        if self.webhook is not None:
            raise ApiError(
                409,
                "Conflict: can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first",
            )
        self.allow(allowed)
        self._acknowledge(offset)
        self._end_poll("other getUpdates request; make sure that only one bot instance is running")
        turn = self._poll_turn
        deadline = time.monotonic() + timeout_s
        while True:
            if batch := self._batch(limit):
                return batch
            left_s = deadline - time.monotonic()
            if self._closed or left_s <= 0 or not await self._bell.wait(left_s):
                return self._batch(limit)
            if turn != self._poll_turn:
                raise ApiError(409, f"Conflict: terminated by {self._poll_ended_by}")

    def _end_poll(self, by: str) -> None:
        """Send the poll that waits, if any, away with a 409."""
        self._poll_turn += 1
        self._poll_ended_by = by
        self._bell.ring()

    def allow(self, kinds: Iterable[str] | None) -> None:
        """Change which kinds come in; None leaves it.

        Unknown kinds are passed over; where none is left, all come in.
        """
        if kinds is not None:
            self._allowed = KINDS.intersection(kind.lower() for kind in kinds) or None

    def drop_pending(self) -> None:
        """Forget every update that waits."""
        self._pending.clear()
        self._replays.clear()
        self._held = None

    @property
    def pending_count(self) -> int:
        """How many updates wait."""
        self._expire()
        return len(self._pending) + (self._held is not None)

    @property
    def allowed(self) -> list[str]:
        """The kinds asked for, sorted; empty for all."""
        return sorted(self._allowed or ())

    def _expire(self) -> None:
        now = self._clock()
        if now <= self._first_expiry:
            return
        self._pending = deque(one for one in self._pending if one.expires_at >= now)
        self._first_expiry = min((one.expires_at for one in self._pending), default=math.inf)

    def _batch(self, limit: int) -> list[Update]:
        self._expire()
        replays, self._replays = self._replays, []
        return [one.update for one in (*replays, *self._pending)][:limit]

    def _acknowledge(self, offset: int | None) -> None:
        if offset is None:
            return
        if offset < 0:
            while len(self._pending) > -offset:
                self._pending.popleft()
            return
        known = [one for one in self._pending if one.update_id < offset]
        self._pending = deque(one for one in self._pending if one.update_id >= offset)
        for one in known:
            self._acknowledged(one)

    def _acknowledged(self, update: _Waiting) -> None:
        if self._faults.take_kind(FaultKind.DUPLICATE_UPDATE):
            self._replays.append(update)

    # Webhook

    def set_webhook(self, webhook: Webhook | None) -> None:
        """Deliver to an address from now on, or to nobody; only an address ends a poll."""
        self.webhook = webhook
        for one in (*self._replays, *self._pending):
            one.not_before, one.retry_s = 0.0, _RETRY_FIRST_S
        if webhook is not None:
            self._end_poll("setWebhook request")
        self._bell.ring()

    async def deliver(self) -> None:
        """Post updates to the webhook, each again and again until it takes it or it expires.

        Lanes do not wait for each other. Runs until cancelled; sleeps while there is no webhook or
        no update.
        """
        busy: dict[Lane, asyncio.Task[None]] = {}

        def done(lane: Lane, task: "asyncio.Task[None]") -> None:
            log_fault(task)
            del busy[lane]
            if not task.cancelled() and task.exception() is None:  # a bug waits for the next event
                self._bell.ring()

        while self.webhook is None:  # reading certificates takes the client 25 ms
            await self._bell.wait()
        async with http_client() as http:
            try:
                while True:
                    webhook = self.webhook
                    for one in self._deliverable(webhook, busy.keys()):
                        assert webhook is not None
                        task = asyncio.create_task(
                            self._deliver(http, webhook, one), name="delivery"
                        )
                        busy[one.lane] = task
                        task.add_done_callback(partial(done, one.lane))
                    await self._bell.wait()
            finally:
                tasks = list(busy.values())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _deliverable(self, webhook: Webhook | None, busy: Iterable[Lane]) -> list[_Waiting]:
        """The first update of every free lane whose time has come, as many as may be posted."""
        if webhook is None:
            return []
        self._expire()
        now = asyncio.get_running_loop().time()
        taken = set(busy)
        room = webhook.max_connections - len(taken)
        ready: list[_Waiting] = []
        for one in (*self._replays, *self._pending):
            if len(ready) >= room:
                break
            if one.lane not in taken and one.not_before <= now:
                ready.append(one)
            taken.add(one.lane)  # whoever waits for another try holds up the lane
        return ready

    async def _deliver(self, http: httpx.AsyncClient, webhook: Webhook, update: _Waiting) -> None:
        problem = await webhook.post(http, update.update)
        if problem is None:
            self._delivered(update)
            return
        webhook.last_error = (int(self._clock()), problem)
        loop = asyncio.get_running_loop()
        update.not_before = loop.time() + update.retry_s
        loop.call_at(update.not_before, self._bell.ring)
        update.retry_s = min(update.retry_s * 2, _RETRY_MOST_S)

    def _delivered(self, update: _Waiting) -> None:
        if update in self._replays:
            self._replays.remove(update)
            return
        with contextlib.suppress(ValueError):  # dropped meanwhile
            self._pending.remove(update)
        self._acknowledged(update)

    def close(self) -> None:
        """Send every waiting poll home with what there is."""
        self._closed = True
        self._bell.ring()
