"""Refuses at the door what would be refused anyway, before anybody looks at it.

Under overload most requests get a `Busy`, and the web framework's way there is longer than the
answer; meanwhile its thread keeps Python from those that compute: with four times as many photos as
it can take, the service computed 0.83 of what it otherwise does, and 0.9 or more with this
(`tests/benchmarks/service.py`). Who may not ask is told that and nothing else, full or not. Knows
ASGI and nothing about what is asked.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import EngineError
from engine.service.problem_json import handle
from engine.service.request_counts import name_path

Guard = Callable[[Request], Awaitable[None]]
"""Raises an `EngineError` where a request is not to be answered; see `engine.service.auth`."""


class Admission:
    """ASGI middleware.

    Args:
        app: what answers those who are let in.
        admit: by the path that is posted to, what raises an `EngineError` when there is no room.
        guard: asked before anybody is told that there is no room.
    """

    def __init__(self, app: ASGIApp, admit: Mapping[str, Callable[[], None]], guard: Guard) -> None:
        self._app = app
        self._admit = admit
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        posted = scope["type"] == "http" and scope["method"] == "POST"
        admit = self._admit.get(scope["path"]) if posted else None
        refusal = None if admit is None else await self._refusal(admit, Request(scope))
        if refusal is None:
            await self._app(scope, receive, send)
            return
        name_path(scope, scope["path"])
        response = await handle(Request(scope), refusal)
        await response(scope, receive, send)

    async def _refusal(self, admit: Callable[[], None], request: Request) -> EngineError | None:
        try:
            admit()
        except EngineError as full:
            try:
                await self._guard(request)
            except EngineError as forbidden:
                return forbidden
            return full
        return None
