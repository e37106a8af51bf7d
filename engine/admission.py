"""Refuses at the door what would be refused anyway, before anybody looks at it.

Under overload most requests get a `Busy`, and the web framework's way there is longer than the
answer; meanwhile its thread keeps Python from those that compute: with four times as many photos as
it can take, the service computed 0.83 of what it otherwise does, and 0.9 or more with this
(`tests/benchmarks/service.py`). Knows ASGI and nothing about what is asked.
"""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.counting import name_path
from engine.errors import EngineError
from engine.refusals import handle


class Admission:
    """ASGI middleware.

    Args:
        app: what answers those who are let in.
        admit: for paths that are posted to, what raises an `EngineError` when there is no room.
    """

    def __init__(self, app: ASGIApp, admit: Mapping[str, Callable[[], None]]) -> None:
        self._app = app
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        posted = scope["type"] == "http" and scope["method"] == "POST"
        admit = self._admit.get(scope["path"]) if posted else None
        if admit is not None:
            try:
                admit()
            except EngineError as error:
                name_path(scope, scope["path"])
                response = await handle(Request(scope), error)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
