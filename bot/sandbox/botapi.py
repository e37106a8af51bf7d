"""The bot's side over HTTP: /bot<token>/<method> and /file/bot<token>/<path>.

Knows tokens, bodies, faults and Telegram's envelope; what a method does stands in `methods`.
"""

import asyncio
import hmac
import http.client
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bot.sandbox.errors import ApiError, bad_request, too_many_requests
from bot.sandbox.faults import DOWNLOAD, Fault, FaultKind
from bot.sandbox.files import StoredFile
from bot.sandbox.forms import FormError, read_form
from bot.sandbox.methods import MAX_DOWNLOAD_BYTES, Methods
from bot.sandbox.webhook import WebhookRules
from bot.sandbox.world import World

HangUp = Callable[[Request, bool], Awaitable[None]]
"""Ends the connection of a request: with a reset where True, else after what was written."""

_TOKEN = re.compile(r"[0-9]+:[A-Za-z0-9_-]{20,}")


class BotApi:
    """Routes for one bot.

    Args:
        world: the state.
        token: the bot's; any other is refused as Telegram does.
        hang_up: see `HangUp`.
        webhooks: which addresses may be one.
    """

    def __init__(
        self, world: World, *, token: str, hang_up: HangUp, webhooks: WebhookRules
    ) -> None:
        self._world = world
        self._methods = Methods(world, webhooks)
        self._token = token
        self._hang_up = hang_up

    def routes(self) -> list[Route]:
        """The routes, to be put into an application."""
        return [
            Route("/bot{token}/{method}", self._call, methods=["GET", "POST"]),
            Route("/file/bot{token}/{path:path}", self._download, methods=["GET"]),
        ]

    async def _call(self, request: Request) -> Response:
        method = request.path_params["method"]
        try:
            self._check(request)
            self._methods.check(method)
            form = await read_form(request)
            fault = self._world.faults.take(method)
            if fault is not None and (answer := await self._suffer(fault, request)) is not None:
                return answer
            work = self._methods.call(method, form)
            if method.lower() == "getupdates":
                result = await _while_connected(request, work)
            else:
                result = await work
            if fault is not None and fault.kind is FaultKind.LOST_ANSWER:
                return await self._reset(request)
            return JSONResponse({"ok": True, "result": result})
        except ApiError as error:
            return _refusal(error)
        except FormError as error:
            if error.too_large:
                return _refusal(ApiError(413, "Request Entity Too Large"))
            return _refusal(bad_request(str(error)))

    async def _download(self, request: Request) -> Response:
        try:
            self._check(request)
        except ApiError as error:
            return _refusal(error)
        file = self._world.files.at(request.path_params["path"])
        if file is None or len(file.data) > MAX_DOWNLOAD_BYTES:
            return _refusal(ApiError(404, "Not Found"))
        fault = self._world.faults.take(DOWNLOAD)
        if fault is None:
            return Response(file.data, media_type="application/octet-stream")
        if fault.kind in {FaultKind.SLOW, FaultKind.TRUNCATED_DOWNLOAD}:
            return StreamingResponse(
                self._halves(file, fault, request),
                headers={"Content-Length": str(len(file.data))},
                media_type="application/octet-stream",
            )
        return await self._suffer(fault, request) or await self._reset(request)

    def _check(self, request: Request) -> None:
        token = request.path_params["token"]
        if not _TOKEN.fullmatch(token):
            raise ApiError(404, "Not Found")
        if not hmac.compare_digest(token, self._token):
            raise ApiError(401, "Unauthorized")

    async def _suffer(self, fault: Fault, request: Request) -> Response | None:
        """What a fault answers instead of the call; None where the call goes on."""
        if fault.kind is FaultKind.TOO_MANY_REQUESTS:
            return _refusal(too_many_requests(fault.retry_after_s))
        if fault.kind is FaultKind.SERVER_ERROR:
            name = http.client.responses.get(fault.status, "Unknown Error")
            return _refusal(ApiError(fault.status, name))
        if fault.kind is FaultKind.RESET:
            return await self._reset(request)
        if fault.kind is FaultKind.SLOW:
            await self._pause(fault.delay_s)
        return None

    async def _halves(
        self, file: StoredFile, fault: Fault, request: Request
    ) -> AsyncIterator[bytes]:
        middle = len(file.data) // 2
        yield file.data[:middle]
        if fault.kind is FaultKind.TRUNCATED_DOWNLOAD:
            await self._hang_up(request, False)
            return
        await self._pause(fault.delay_s)
        yield file.data[middle:]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._world.closing.wait()
        except TimeoutError:
            pass

    async def _reset(self, request: Request) -> Response:
        await self._hang_up(request, True)
        return Response(status_code=502)  # goes nowhere: nobody is connected any more


def _refusal(error: ApiError) -> Response:
    headers = {}
    if error.parameters and "retry_after" in error.parameters:
        headers["Retry-After"] = str(error.parameters["retry_after"])
    return JSONResponse(error.body(), error.status, headers=headers)


async def _while_connected(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, given up with an empty answer when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else []
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
