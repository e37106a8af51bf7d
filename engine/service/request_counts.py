"""Counts every request and how it ended, whoever answered it. Knows ASGI and nothing else."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.runtime.health import OK
from engine.service.metrics import Metrics

_LOG = logging.getLogger(__name__)

_OUTCOME = "outcome"
_PATH = "path"
_ELSEWHERE = "other"


def name_outcome(scope: Scope, code: str) -> None:
    """Say what a request came to, other than "ok"."""
    scope.setdefault("state", {})[_OUTCOME] = code


def name_path(scope: Scope, path: str) -> None:
    """Say under which path a request counts that reaches no route; never one of the caller's."""
    scope.setdefault("state", {})[_PATH] = path


class Counting:
    """ASGI middleware.

    Args:
        app: what answers.
        metrics: where it is counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        scope.setdefault("state", {})  # before it is copied: routes see the same one
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # Only paths that there are: strangers must not make up new time series.
            state = scope["state"]
            path = state.get(_PATH) or getattr(scope.get("route"), "path", _ELSEWHERE)
            code = state.get(_OUTCOME, OK)
            spent_s = time.monotonic() - began
            self._metrics.requests.labels(path, str(status), code).inc()
            self._metrics.request_seconds.labels(path).observe(spent_s)
            if path.startswith("/v1/"):
                _LOG.info(
                    "path=%s status=%d code=%s total_ms=%.1f", path, status, code, 1000 * spent_s
                )
