"""A webhook: an address that updates are posted to, and which addresses may be one.

Knows addresses and deliveries; nothing about which updates wait, or what they say.
Source: Telegram's Bot API server, Client.cpp and WebhookActor.cpp.
"""

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from bot.sandbox.errors import bad_request
from bot.sandbox.links import WrongLink, parse

logger = logging.getLogger(__name__)

TELEGRAM_PORTS = frozenset((80, 88, 443, 8443))
MOST_CONNECTIONS = 100
_DEFAULT_CONNECTIONS = 40
_TIMEOUT_S = 60.0
_SECRET = re.compile(r"[A-Za-z0-9_-]*")


async def _resolve(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class WebhookRules:
    """Which addresses the sandbox posts updates to.

    Where Telegram takes https only, the sandbox takes also http to this machine, because nobody
    has a certificate for that.

    Attributes:
        ports: the ports that are taken, by default Telegram's; None takes every port, as a Bot API
            server of one's own does in local mode, and as servers of tests need it.
        elsewhere: whether other machines are taken. What people write to the sandbox is posted to
            them then.
        resolve: the IP addresses of a host; raises OSError where there are none.
    """

    ports: frozenset[int] | None = TELEGRAM_PORTS
    elsewhere: bool = False
    resolve: Callable[[str], Awaitable[Iterable[str]]] = field(default=_resolve, repr=False)


@dataclass(slots=True, eq=False)
class Webhook:
    """An address that updates are posted to; made by `webhook_at`.

    Attributes:
        url: as it was given.
        ip_address: where its host was found when it was set. Updates go there, wherever the name
            leads later.
        secret_token: goes along as X-Telegram-Bot-Api-Secret-Token.
        max_connections: how many updates are posted at a time.
        last_error: (seconds since 1970, what happened) of the last failed delivery.
    """

    url: str
    ip_address: str
    secret_token: str | None
    max_connections: int
    target: httpx.URL = field(repr=False)
    last_error: tuple[int, str] | None = None

    async def post(self, http: httpx.AsyncClient, update: dict[str, Any]) -> str | None:
        """Deliver one update; None when it was taken, else what happened."""
        headers = {"Host": self.target.netloc.decode()}
        if self.secret_token:
            headers["X-Telegram-Bot-Api-Secret-Token"] = self.secret_token
        try:
            response = await http.post(
                self.target.copy_with(host=self.ip_address),
                json=update,
                headers=headers,
                extensions={"sni_hostname": self.target.host},
            )
        except httpx.HTTPError as error:
            return f"Connection failed: {type(error).__name__}"
        if response.is_success:
            _tell_of_method(response)
            return None
        return f"Wrong response from the webhook: {response.status_code} {response.reason_phrase}"


def _tell_of_method(response: httpx.Response) -> None:
    """Log a method that a webhook asks for in its answer, which Telegram would carry out."""
    try:
        method = response.json()["method"]
    except (ValueError, TypeError, KeyError):
        return
    logger.warning("the sandbox does not carry out a method in a webhook's answer: %r", method)


async def webhook_at(
    url: str,
    rules: WebhookRules,
    *,
    ip_address: str = "",
    secret_token: str = "",
    max_connections: int | None = None,
) -> Webhook:
    """A webhook at an address that the rules allow.

    Args:
        url: https where it has no scheme.
        rules: see `WebhookRules`.
        ip_address: posted to instead of where the url's host is found.
        secret_token: up to 256 of A-Z, a-z, 0-9, _ and -.
        max_connections: 1 to 100; what is beyond is taken for the nearest.

    Raises:
        ApiError: 400, as Telegram words it where the rule is Telegram's.
    """
    try:
        address = parse(url, "https")
        target = httpx.URL(str(address))
    except (WrongLink, httpx.InvalidURL):
        raise bad_request("invalid webhook URL specified") from None
    if len(secret_token) > 256:
        raise bad_request("secret token is too long")
    if not _SECRET.fullmatch(secret_token):
        raise bad_request("secret token contains unallowed characters")
    port = address.port or (80 if address.scheme == "http" else 443)
    if rules.ports is not None and port not in rules.ports:
        ports = [str(one) for one in sorted(rules.ports)]
        raise _bad_webhook(
            f"Webhook can be set up only on ports {', '.join(ports[:-1])} or {ports[-1]}"
        )
    addresses = await _addresses(target.host, rules, ip_address)
    elsewhere = [str(one) for one in addresses if not one.is_loopback]
    if elsewhere and address.scheme != "https":
        raise _bad_webhook("An HTTPS URL must be provided for webhook")
    if elsewhere and not rules.elsewhere:
        raise _bad_webhook(
            f"the sandbox posts only to this machine, and {elsewhere[0]} is elsewhere; "
            "Sandbox(webhooks=WebhookRules(elsewhere=True)) allows it"
        )
    # IPv4 first: Telegram posts to no other.
    chosen = min(addresses, key=lambda one: one.version)
    return Webhook(
        url=url,
        ip_address=str(chosen),
        secret_token=secret_token or None,
        max_connections=min(max(max_connections or _DEFAULT_CONNECTIONS, 1), MOST_CONNECTIONS),
        target=target,
    )


def http_client() -> httpx.AsyncClient:
    """A client to post updates with; follows no redirect and no proxy of the environment."""
    limits = httpx.Limits(max_connections=MOST_CONNECTIONS)
    return httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, trust_env=False)


async def _addresses(
    host: str, rules: WebhookRules, fixed: str
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = [fixed] if fixed else list(await rules.resolve(host))
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise _bad_webhook("Failed to resolve host: Name or service not known")
    try:
        return [ipaddress.ip_address(one) for one in found]
    except ValueError:
        raise _bad_webhook("Invalid IP address specified") from None


def _bad_webhook(reason: str) -> Exception:
    return bad_request(f"bad webhook: {reason}")
