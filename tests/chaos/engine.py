"""An engine's real service, behind a way that can go silent, whose device can be held.

Sees one face on every photo. Knows nothing about the bot.
"""

import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from engine import __version__
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Person
from tests.bot import fakes
from tests.bot.store.proxies import Proxy, proxied
from tests.engine.doors import service

INFO = EngineInfo(__version__, "chaos@0", "none", len(fakes.PEOPLE), "cpu")


class Device:
    """An analyzer that can be held."""

    at_once = 1

    def __init__(self) -> None:
        self._goes = threading.Event()
        self._goes.set()

    def hold(self) -> None:
        """Answer nobody from now on."""
        self._goes.clear()

    def go_on(self) -> None:
        """Answer again, also those who were held."""
        self._goes.set()

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        self._goes.wait()
        return [self._analysis(request) for request in requests]

    def info(self) -> EngineInfo:
        return INFO

    def people(self) -> tuple[Person, ...]:
        return fakes.PEOPLE

    def _analysis(self, request: PhotoRequest) -> Analysis:
        width, height = request.original_px or request.image.size
        face = fakes.face()
        found = replace(face, matches=face.matches[: request.top_k])
        return Analysis((found,), width, height, INFO.bundle, picture=request.picture)


@asynccontextmanager
async def an_engine() -> AsyncIterator[tuple[Device, Proxy, str]]:
    """The device, the way to the service, and the service's address."""
    device = Device()
    settings = Settings(engine_device="cpu", engine_decode_threads=1, engine_watch_s=0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with service(settings, lambda _settings: device, listener), proxied(url) as way:
            proxy, address = way
            try:
                yield device, proxy, address.rstrip("/")
            finally:
                device.go_on()
                proxy.speak()
