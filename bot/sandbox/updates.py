"""The bot's inbox: updates that wait for getUpdates or are posted to a webhook.

Knows update ids, acknowledgement and delivery; nothing about what an update says.
"""

import asyncio
import contextlib
import ipaddress
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from bot.sandbox.bell import Bell
from bot.sandbox.errors import ApiError, bad_request
from bot.sandbox.faults import FaultKind, Faults

Update = dict[str, Any]

MAX_PENDING = 1000
_FIRST_UPDATE_ID = 730_000_001
_REORDER_PATIENCE_S = 1.0
_RETRY_FIRST_S = 0.1
_RETRY_MOST_S = 5.0
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")


class Inbox:
    """Updates in order of arrival, kept until they are acknowledged.

    Args:
        faults: may duplicate and reorder.
        clock: seconds since 1970, for the dates that getWebhookInfo tells.
    """

    def __init__(self, faults: Faults, clock: Callable[[], float] = time.time) -> None:
        self._faults = faults
        self._clock = clock
        self._bell = Bell()
        self._pending: deque[Update] = deque(maxlen=MAX_PENDING)
        self._replays: list[Update] = []
        self._held: Update | None = None
        self._next_id = _FIRST_UPDATE_ID
        self._allowed: frozenset[str] | None = None
        self._poll_turn = 0
        self._closed = False
        self.webhook: Webhook | None = None

    def push(self, kind: str, body: dict[str, Any]) -> None:
        """Put an update of a kind such as "message" in, unless the bot did not ask for it."""
        if self._allowed is not None and kind not in self._allowed:
            return
        update = {"update_id": self._next_id, kind: body}
        self._next_id += 1
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
        self._poll_turn += 1
        turn = self._poll_turn
        self._bell.ring()  # the poll that was waiting, if any, has to go
        deadline = time.monotonic() + timeout_s
        while True:
            if batch := self._batch(limit):
                return batch
            left_s = deadline - time.monotonic()
            if self._closed or left_s <= 0 or not await self._bell.wait(left_s):
                return self._batch(limit)
            if turn != self._poll_turn:
                raise ApiError(
                    409,
                    "Conflict: terminated by other getUpdates request; "
                    "make sure that only one bot instance is running",
                )

    def allow(self, kinds: list[str] | None) -> None:
        """Change which kinds come in; None leaves it, an empty list means all."""
        if kinds is not None:
            self._allowed = frozenset(kinds) or None

    def drop_pending(self) -> None:
        """Forget every update that waits."""
        self._pending.clear()
        self._replays.clear()
        self._held = None

    @property
    def pending_count(self) -> int:
        """How many updates wait."""
        return len(self._pending) + (self._held is not None)

    @property
    def allowed(self) -> list[str]:
        """The kinds asked for, sorted; empty for all."""
        return sorted(self._allowed or ())

    def _batch(self, limit: int) -> list[Update]:
        replays, self._replays = self._replays, []
        return (replays + list(self._pending))[:limit]

    def _acknowledge(self, offset: int | None) -> None:
        if offset is None:
            return
        if offset < 0:
            while len(self._pending) > -offset:
                self._pending.popleft()
            return
        for update in [one for one in self._pending if one["update_id"] < offset]:
            self._pending.remove(update)
            self._acknowledged(update)

    def _acknowledged(self, update: Update) -> None:
        if self._faults.take_kind(FaultKind.DUPLICATE_UPDATE):
            self._replays.append(update)

    # Webhook

    def set_webhook(self, webhook: "Webhook | None") -> None:
        """Deliver to an address from now on, or to nobody."""
        self.webhook = webhook
        self._poll_turn += 1
        self._bell.ring()

    async def deliver(self) -> None:
        """Post updates to the webhook, one after the other, again and again until it takes them.

        Runs until cancelled; sleeps while there is no webhook or no update.
        """
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            while True:
                update = self._next_for_webhook()
                if update is None or self.webhook is None:
                    await self._bell.wait()
                    continue
                webhook = self.webhook
                problem = await webhook.post(http, update)
                if problem is None:
                    webhook.backoff_s = _RETRY_FIRST_S
                    self._delivered(update)
                    continue
                webhook.last_error = (int(self._clock()), problem)
                await asyncio.sleep(webhook.backoff_s)
                webhook.backoff_s = min(webhook.backoff_s * 2, _RETRY_MOST_S)

    def _next_for_webhook(self) -> Update | None:
        if self._replays:
            return self._replays[0]
        return self._pending[0] if self._pending else None

    def _delivered(self, update: Update) -> None:
        if self._replays and self._replays[0] is update:
            self._replays.pop(0)
            return
        with contextlib.suppress(ValueError):  # dropped meanwhile
            self._pending.remove(update)
        self._acknowledged(update)

    def close(self) -> None:
        """Send every waiting poll home with what there is."""
        self._closed = True
        self._bell.ring()


@dataclass(slots=True)
class Webhook:
    """An address that updates are posted to.

    Attributes:
        url: https, or http on this machine only.
        secret_token: goes along as X-Telegram-Bot-Api-Secret-Token.
        max_connections: as asked for; the sandbox always uses one.
        last_error: (seconds since 1970, what happened) of the last failed delivery.
        backoff_s: how long the next failed delivery waits.
    """

    url: str
    secret_token: str | None = None
    max_connections: int = 40
    last_error: tuple[int, str] | None = None
    backoff_s: float = _RETRY_FIRST_S

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            httpx.URL(self.url)
        except (ValueError, httpx.InvalidURL):
            raise bad_request("bad webhook: invalid URL") from None
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts.hostname)):
            raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
        if self.secret_token is not None and not _SECRET.fullmatch(self.secret_token):
            raise bad_request("secret token contains unallowed characters")

    async def post(self, http: httpx.AsyncClient, update: Update) -> str | None:
        """Deliver one update; None when it was taken, else what happened."""
        headers = {}
        if self.secret_token is not None:
            headers["X-Telegram-Bot-Api-Secret-Token"] = self.secret_token
        try:
            response = await http.post(self.url, json=update, headers=headers)
        except httpx.HTTPError as error:
            return f"Connection failed: {type(error).__name__}"
        if response.is_success:
            return None
        return f"Wrong response from the webhook: {response.status_code} {response.reason_phrase}"


def _is_here(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
