"""The sandbox as one object: a server on this machine that lives as long as its `async with`.

Wires state, bot's side and people's side together inside the caller's event loop; knows nothing
about what they do.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request

from bot.rounds import log_fault
from bot.sandbox.botapi import BotApi
from bot.sandbox.client import Person
from bot.sandbox.faults import Faults
from bot.sandbox.listener import Listener
from bot.sandbox.rates import Rates
from bot.sandbox.stage import Performer
from bot.sandbox.updates import Lifetimes
from bot.sandbox.userapi import UserApi
from bot.sandbox.webhook import WebhookRules
from bot.sandbox.world import World

_BOT_ID = 7_000_000_001
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Sandbox:
    """A Telegram on this machine, as an async context manager.

    Inside the block, `url` is the web chat, and a bot is built with
    `Bot(sandbox.token, base_url=sandbox.bot_api_url, base_file_url=sandbox.file_url)`.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        bot_name: as people see it.
        bot_username: without @.
        token: the bot's token; a random one where it is None, so that no other page in the
            operator's browser can guess it.
        clock: seconds since 1970, for dates and expiry.
        performer: makes clips from photos for the page, which offers it as long as there is one;
            the attribute may be set at any time.
        lifetimes: how long the bot has to fetch updates and to answer pressed buttons; by default
            as long as Telegram gives it.
        rates: how many messages the bot may send in which time, as `Rates()` for Telegram's limits;
            None sets none.
        webhooks: which addresses the bot may have its updates posted to; by default only ones of
            this machine, on Telegram's ports.

    Raises:
        OSError: on entering, when the port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        bot_name: str = "Face Matcher",
        bot_username: str = "face_matcher_bot",
        token: str | None = None,
        clock: Callable[[], float] = time.time,
        performer: Performer | None = None,
        lifetimes: Lifetimes | None = None,
        rates: Rates | None = None,
        webhooks: WebhookRules | None = None,
    ) -> None:
        self.performer = performer
        self.token = token or f"{_BOT_ID}:{secrets.token_urlsafe(26)}"
        self._host = host
        self._port = port
        self._world = World(
            bot_id=int(self.token.partition(":")[0]),
            bot_name=bot_name,
            bot_username=bot_username,
            clock=clock,
            lifetimes=lifetimes,
            rates=rates,
        )
        self._webhooks = webhooks or WebhookRules()
        self._people: list[Person] = []
        self._listener: Listener | None = None
        self._delivering: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the web chat is, without a slash at the end."""
        return f"http://{self._host}:{self._port}"

    @property
    def bot_api_url(self) -> str:
        """python-telegram-bot's `base_url`."""
        return f"{self.url}/bot"

    @property
    def file_url(self) -> str:
        """python-telegram-bot's `base_file_url`."""
        return f"{self.url}/file/bot"

    @property
    def faults(self) -> Faults:
        """What shall go wrong: `sandbox.faults.add(Fault(...))`."""
        return self._world.faults

    def person(self, name: str) -> Person:
        """A client for "ana" or "ben", closed together with the sandbox."""
        person = Person(self.url, name)
        self._people.append(person)
        return person

    async def __aenter__(self) -> Self:
        listening = socket.create_server((self._host, self._port))
        self._port = listening.getsockname()[1]
        hosts = frozenset(f"{name}:{self._port}" for name in (*_LOCAL_NAMES, self._host))
        bot_api = BotApi(
            self._world, token=self.token, hang_up=self._hang_up, webhooks=self._webhooks
        )
        user_api = UserApi(
            self._world,
            hosts=hosts,
            epoch=secrets.token_hex(4),
            performer=lambda: self.performer,
        )
        app = Starlette(routes=[*bot_api.routes(), *user_api.routes()])
        self._listener = Listener(app, listening)
        await self._listener.__aenter__()
        self._delivering = asyncio.create_task(self._world.inbox.deliver(), name="deliveries")
        self._delivering.add_done_callback(log_fault)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        assert self._delivering is not None
        self._world.close()
        for person in self._people:
            await person.aclose()
        self._delivering.cancel()
        await asyncio.gather(self._delivering, return_exceptions=True)
        await self._listener.__aexit__(kind, error, traceback)

    async def _hang_up(self, request: Request, reset: bool) -> None:
        assert self._listener is not None
        await self._listener.hang_up(request, reset)
