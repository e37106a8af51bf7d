"""Asking a web server again where that can help: after faults that pass, at growing intervals.

What passes is a connection that was lost, a server's own fault (5xx) and "too many requests" (429).
Where there is no connection to begin with, nothing is asked again: whoever is offline is told at
once. Knows HTTP and nothing about what is asked for.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx

_LOG = logging.getLogger(__name__)
_FOR_GOOD = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError),
    *(httpx.UnsupportedProtocol, httpx.LocalProtocolError),
)

Value = TypeVar("Value")


class Passing(Exception):
    """A fault that may be gone when the server is asked again.

    Args:
        reason: what happened.
        pause_s: how long the server wants to be left alone; None where it does not say.
    """

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a server is asked again, and how much time passes in between.

    Attributes:
        most: times that it is asked again.
        pause_s: before the first of them, at most and at least half as long; twice that before the
            second, and so on.
        longest_s: of a pause that the server asks for, which is kept to or exceeded by a quarter;
            a server that asks for more is not waited for.
        pause: waits for seconds.
        draw: a random number from 0 to 1, so that those who failed together come back apart.
    """

    most: int = 3
    pause_s: float = 1.0
    longest_s: float = 30.0
    pause: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def run(self, ask: Callable[[], Value]) -> Value:
        """What asking comes to, the last time at the latest.

        Raises:
            Passing, httpx.TransportError: the last fault; or the first, where it does not pass.
        """
        for retry in range(self.most):
            try:
                return ask()
            except _FOR_GOOD:
                raise
            except (Passing, httpx.TransportError) as fault:
                asked_s = fault.pause_s if isinstance(fault, Passing) else None
                if asked_s is not None and asked_s > self.longest_s:
                    raise
                pause_s = self._pause_s(retry, asked_s)
                _LOG.warning("%s: asking again in %.1f s.", fault, pause_s)
            self.pause(pause_s)
        return ask()

    def _pause_s(self, retry: int, asked_s: float | None) -> float:
        if asked_s is not None:
            return asked_s * (1 + self.draw() / 4)
        return self.pause_s * 2.0**retry * (1 + self.draw()) / 2


def require_ok(response: httpx.Response, *others: int) -> None:
    """Raise what an answer means that is neither 200 nor one of the others.

    Raises:
        Passing: it may be another one later.
        httpx.HTTPStatusError: it will be the same.
    """
    status = response.status_code
    if status in (httpx.codes.OK, *others):
        return
    reason = f"the server answered {status} {response.reason_phrase}"
    if status >= 500 or status == httpx.codes.TOO_MANY_REQUESTS:
        said = response.headers.get("Retry-After", "")
        raise Passing(reason, float(said) if said.isdecimal() and said.isascii() else None)
    raise httpx.HTTPStatusError(reason, request=response.request, response=response)
