"""The webhook's HTTP endpoint, and /healthz.

Knows nothing about what the updates say: it checks who calls and how much they send.
"""

import asyncio
import hmac
import json
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from telegram import Update
from telegram.ext import Application

from bot import rounds, standby
from bot.settings import Settings
from bot.telegram.client import Malformed, Telegram, parse_update, refused_for_good
from bot.telegram.incoming import ALLOWED_UPDATES
from bot.telegram.update_processor import PerPersonProcessor
from bot.telegram.webhook_watch import Watch
from engine.service.http_protocol import MAX_IDLE_S, BoundedProtocol

logger = logging.getLogger(__name__)

App = Application[Any, Any, Any, Any, Any, Any]

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


@asynccontextmanager
async def listening(settings: Settings, goodbye_s: float) -> AsyncIterator[Receiver | None]:
    """The webhook's server, as long as the block lasts; None where there is no webhook.

    It is there also while this bot stands by, so that /healthz can say so.
    """
    if not settings.webhook_url:
        yield None
        return
    receiver = Receiver()
    # Bound here, because uvicorn ends the process when it cannot bind.
    listener = _listener(settings.webhook_host, settings.webhook_port)
    server = _Server(
        uvicorn.Config(
            site(settings.webhook_secret.get_secret_value(), receiver),
            http=BoundedProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
        )
    )
    receiver.serving = asyncio.create_task(server.serve(sockets=[listener]), name="webhook")
    try:
        yield receiver
    finally:
        server.should_exit = True
        await asyncio.wait([receiver.serving], timeout=goodbye_s)
        server.force_exit = True  # whoever still sends is hung up on
        await asyncio.wait([receiver.serving])
        listener.close()


@asynccontextmanager
async def source(
    settings: Settings, app: App, lanes: PerPersonProcessor, turn: standby.Turn, receiver: Receiver
) -> AsyncIterator["asyncio.Task[None]"]:
    """Has Telegram post updates as long as the block lasts.

    Yields:
        The task that receives and watches; it ends early only with a fault.
    """

    def closed() -> str | None:
        if stopping or not app.running or lanes.stopping:
            return STOPPING
        return None if turn.may_take else STANDBY

    telegram: Telegram = app.bot
    stopping = False
    url = f"{(settings.webhook_url or '').rstrip('/')}{PATH}"
    set_webhook = partial(
        telegram.set_webhook,
        url,
        allowed_updates=ALLOWED_UPDATES,
        secret_token=settings.webhook_secret.get_secret_value(),
    )
    watch = Watch(
        ask=telegram.get_webhook_info,
        set_again=set_webhook,
        refused=partial(refused_for_good, telegram.get_me),
        url=url,
        every_s=settings.webhook_check_s,
        chance=random.SystemRandom(),
    )
    receiver.watched = lambda: (watch.pending, watch.problem)
    receiver.parse = partial(parse_update, bot=telegram)
    receiver.put = app.update_queue.put_nowait
    receiver.closed = closed
    task = None
    try:
        await set_webhook()
        watching = asyncio.create_task(watch.run(), name="watch")
        task = asyncio.create_task(rounds.either(receiver.serving, watching))
        yield task
    finally:
        stopping = True
        if task is not None:
            watching.cancel()
            task.cancel()
            await asyncio.wait([watching, task])


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of either kind; `::` is all of both.

    Raises:
        OSError: it cannot.
    """
    if ":" not in host:
        return socket.create_server((host, port))
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=both)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `run`."""
        yield
