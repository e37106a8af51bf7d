"""The webhook's HTTP endpoint, and /healthz.

Knows nothing about what the updates say: it checks who calls and how much they send.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from telegram import Update

from bot.telegram.client import Malformed
from engine.service.http_protocol import MAX_IDLE_S

logger = logging.getLogger(__name__)

PATH = "/telegram"
BODY_MAX_BYTES = 1_000_000
_SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 (a header's name)


STOPPING = "stopping"
STANDBY = "standby: another bot serves with this database"


@dataclass
class Receiver:
    """What the web application asks; whoever takes updates opens it.

    Attributes:
        closed: why no updates are taken; None where they are.
        parse: turns a JSON value into an update, or raises `Malformed`.
        put: takes an update; it is answered elsewhere, later.
        watched: how many updates wait at Telegram and why they do not come, as far as is known.
        serving: the server's task, which ends early only with a fault.
    """

    serving: "asyncio.Task[None]" = field(init=False)
    closed: Callable[[], str | None] = lambda: STANDBY
    parse: Callable[[object], Update] | None = None
    put: Callable[[Update], None] | None = None
    watched: Callable[[], tuple[int | None, str | None]] = lambda: (None, None)


def site(secret: str, receiver: Receiver) -> Starlette:
    """The web application.

    Args:
        secret: what Telegram sends with every update since setWebhook.
        receiver: leads to whoever takes updates.
    """

    async def telegram(request: Request) -> Response:
        """Take an update: 200 as soon as it waits."""
        shown = request.headers.get(_SECRET_HEADER, "").encode("utf-8", "replace")
        if not hmac.compare_digest(shown, secret.encode()):
            return PlainTextResponse("wrong secret token\n", 403)
        parse, put = receiver.parse, receiver.put
        if (why := receiver.closed()) is not None or parse is None or put is None:
            return PlainTextResponse(f"{why or STOPPING}\n", 503)
        try:
            async with asyncio.timeout(MAX_IDLE_S):
                body = await _body(request)
            if body is None:
                return PlainTextResponse("too large for an update\n", 413)
            put(parse(json.loads(body)))
        except TimeoutError:
            return PlainTextResponse("too slow\n", 408)
        except (Malformed, ValueError, RecursionError, ClientDisconnect) as error:
            logger.warning("webhook refused a body: %s", type(error).__name__)
            return PlainTextResponse("not an update\n", 400)
        return PlainTextResponse("")

    async def healthz(_request: Request) -> Response:
        """Tell whether updates are being taken, and whether they come.

        200 also where they do not: a balancer that turned to another bot would keep it so.
        """
        if (why := receiver.closed()) is not None:
            status, _, reason = why.partition(": ")
            closed = {"status": status, "reason": reason} if reason else {"status": status}
            return JSONResponse(closed, 503)
        pending, problem = receiver.watched()
        told: dict[str, object] = {"status": "ok" if problem is None else "degraded"}
        if pending is not None:
            told["pending_updates"] = pending
        if problem is not None:
            told["problem"] = problem
        return JSONResponse(told)

    return Starlette(routes=[Route(PATH, telegram, methods=["POST"]), Route("/healthz", healthz)])


async def _body(request: Request) -> bytes | None:
    """The body, or None when it is too large; reading stops there."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            return None
    return bytes(body)
