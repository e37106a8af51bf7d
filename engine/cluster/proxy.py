"""ASGI middleware in Ray's HTTP proxies: what they answer becomes the service's protocol.

Ray answers some requests itself, in its own words: plain text when its queue is full, an empty 500
when a replica died with a request in its hands, 404 while nothing is deployed. Here these become
the service's own problem+json, so that a client meets one protocol however the engine runs. A
request's `X-Timeout-Ms` is kept here as well, because only here is the time known that it waits
for a replica. Knows ASGI and nothing about photos; what replicas answer passes untouched.

Ray's proxies call `middlewares` when RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it.
"""

import asyncio
import math
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import Busy, EngineError, Unavailable, too_late
from engine.wire import problem

IMPORT_PATH = "engine.cluster.proxy.middlewares"

# A replica's own answer, that it is too late, says more and is given a moment to come.
_GRACE_S = 0.1
_BUSY_S = 1.0
_PREFIX_OF_RAY = "/-/"
# 408: its own time limit; 503: its queue is full; 404: nothing is deployed; 500: a replica is gone.
_STATUSES_OF_RAY = frozenset({404, 408, 429, 500, 503})


def middlewares() -> list[Middleware]:
    """What Ray's proxies are to put in front of everything."""
    return [Middleware(ServiceAnswers)]


class ServiceAnswers:
    """The middleware: Ray's own answers become the service's.

    Args:
        app: Ray's proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or scope["path"].startswith(_PREFIX_OF_RAY):
            await self._app(scope, receive, send)
            return
        answer = _ProxiedResponse(send)
        limit_s = _limit_s(Headers(scope=scope))
        try:
            async with asyncio.timeout(limit_s) as limit:
                await self._app(scope, receive, answer.pass_on)
        except TimeoutError:
            if not limit.expired():
                raise
        if limit.expired() and not answer.begun:
            await answer.refuse(too_late(), scope, receive)
        elif not answer.begun:
            await answer.refuse(answer.refusal or _gone(), scope, receive)


class _ProxiedResponse:
    """One answer on its way out: a replica's is passed on, one of Ray's own is held back."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.refusal: EngineError | None = None

    async def pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.refusal = _meaning(message["status"], Headers(raw=message["headers"]))
            self.begun = self.refusal is None
        if self.begun:
            await self._send(message)

    async def refuse(self, error: EngineError, scope: Scope, receive: Receive) -> None:
        self.begun = True
        record, headers = problem(error), {}
        if isinstance(error, Busy):
            headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        response = JSONResponse(record, record["status"], headers, "application/problem+json")
        await response(scope, receive, self._send)


def _limit_s(headers: Mapping[str, str]) -> float | None:
    """How long the caller waits; what is no number is the replica's to refuse."""
    said = headers.get("x-timeout-ms", "")
    if not (said.isascii() and said.isdecimal() and len(said) < 10):
        return None
    return int(said) / 1000 + _GRACE_S


def _meaning(status: int, headers: Mapping[str, str]) -> EngineError | None:
    """What an answer means that is Ray's own; None is a replica's, whose faults are JSON."""
    own_words = headers.get("content-type", "text/plain").startswith("text/plain")
    if status not in _STATUSES_OF_RAY or not own_words:
        return None
    if status == 408:
        return too_late()
    if status == 404:
        return Unavailable("No engine runs on this cluster: deploy it, or ask again later.")
    if status == 500:
        return _gone()
    said = headers.get("retry-after", "")
    retry_after_s = float(said) if said.isdecimal() else _BUSY_S
    return Busy("Every engine's queue is full: come back later.", retry_after_s=retry_after_s)


def _gone() -> Unavailable:
    return Unavailable("The engine that had this request is gone: ask again.")
