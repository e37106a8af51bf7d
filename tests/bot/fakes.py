"""Fakes at the bot's seams: an engine, a painter, and settings for the sandbox.

The engine answers with what a test tells it to see; photos stay real pictures all the way.
"""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from sqlalchemy import create_engine

from bot import app
from bot.lookalike.handlers import Draw
from bot.sandbox import Fault, Sandbox, WebhookRules
from bot.settings import Settings
from bot.store import add_key
from bot.store.migrate import _migrate
from engine.client import Engine
from engine.errors import BrokenImage, DeadlineExceeded, EmptyImage, NotAnImage, NotAVideo
from engine.media import jpeg as pictures
from engine.types import (
    Analysis,
    EngineInfo,
    Face,
    Frame,
    Match,
    Person,
    Pose,
    Quality,
    Track,
    Verdict,
)
from engine.vision.fingerprint import PATTERN_BYTES

NAMES = ("Ada Lovelace", "Grace Hopper", "Mary Shelley", "Emmy Noether", "Rosa Parks")
PEOPLE = tuple(map(Person, NAMES))
ANY_PORT = WebhookRules(ports=None)
"""For bots whose webhook listens on whatever port is free; Telegram posts to four only."""


def picture(seed: int = 0, size: tuple[int, int] = (320, 240), form: str = "JPEG") -> bytes:
    """A picture file that differs from seed to seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(out, form)
    return out.getvalue()


def matches(verdict: Verdict = Verdict.STRONG, percentile: float = 97.3) -> tuple[Match, ...]:
    """As many matches as there are names, the first with a verdict."""
    return tuple(
        Match(
            name,
            probability=0.5 / 2**place,
            similarity=0.6 - place / 10,
            percentile=max(0.0, percentile - 20 * place),
            verdict=verdict if place == 0 else Verdict.FAINT,
        )
        for place, name in enumerate(NAMES)
    )


def face(
    x: float = 100.0,
    *,
    size_px: float = 90.0,
    blur: float = 0.2,
    found: tuple[Match, ...] | None = None,
) -> Face:
    """A face at a place, usable unless a test says otherwise."""
    eye, mouth = 80.0, 120.0
    return Face(
        box=(x, 60.0, x + size_px, 60.0 + size_px),
        landmarks=(
            (x + 25, eye),
            (x + 60, eye),
            (x + 42, 100.0),
            (x + 28, mouth),
            (x + 58, mouth),
        ),
        probability=0.999,
        quality=Quality(size_px, blur, 0.5),
        pose=Pose(0.0, 0.56),
        matches=matches() if found is None else found,
    )


def pattern(*mark: int) -> bytes:
    """A face's pattern, another one for each mark."""
    lot = np.random.default_rng(mark)
    return lot.integers(-127, 128, PATTERN_BYTES, dtype=np.int8).tobytes()


def analysis(*faces: Face) -> Analysis:
    return Analysis(faces, 320, 240, "fake@00000000", queue_s=0.001, compute_s=0.002)


def track(*frames: Frame) -> Track:
    """A clip of ten frames a second."""
    return Track(frames, 384, 384, len(frames) / 10, "fake@00000000", 0.001, 0.002)


class FakeEngine:
    """The engine protocol; `see` decides what a photo shows and `watch` a clip; both may raise.

    Photos and clips are served one at a time, as by one device: `gate` lets a test hold each.
    `deadline_s` is that of what was asked last, a time of the event loop.
    """

    def __init__(
        self,
        see: Callable[[bytes], Analysis] = lambda _photo: analysis(face()),
        watch: Callable[[bytes], Track] = lambda _clip: track(),
        people: tuple[Person, ...] = PEOPLE,
    ) -> None:
        self.see = see
        self.watch = watch
        self.known = people
        self.bundle = "fake@00000000"
        self.served = 0
        self.asked = asyncio.Condition()
        self.waiting = 0
        self.gate: asyncio.Semaphore | None = None
        self.deadline_s: float | None = None
        self._device = asyncio.Lock()

    async def analyze(
        self,
        photo: bytes,
        *,
        top_k: int = 5,
        embed: bool = False,
        aligned: bool = False,
        picture: bool = False,
        deadline_s: float | None = None,
    ) -> Analysis:
        decoded = decode(photo)
        async with self._turn(deadline_s):
            analysis = self.see(photo)
        return replace(analysis, picture=pictures.encode(decoded)) if picture else analysis

    async def track(self, clip: bytes, *, deadline_s: float | None = None) -> Track:
        if not clip:
            raise NotAVideo("empty")
        async with self._turn(deadline_s):
            return self.watch(clip)

    @asynccontextmanager
    async def _turn(self, deadline_s: float | None) -> AsyncIterator[None]:
        async with self.asked:
            self.waiting += 1
            self.deadline_s = deadline_s
            self.asked.notify_all()
        try:
            async with asyncio.timeout_at(deadline_s), self._device:
                if self.gate is not None:
                    await self.gate.acquire()
                self.served += 1
                yield
        except TimeoutError as error:
            raise DeadlineExceeded("too late") from error

    async def until_asked(self, times: int) -> None:
        """Wait until so many photos and clips have come in."""
        async with asyncio.timeout(60), self.asked:
            await self.asked.wait_for(lambda: self.waiting >= times)

    async def info(self) -> EngineInfo:
        return EngineInfo("0", self.bundle, "fake", len(self.known), "cpu")

    async def people(self) -> tuple[Person, ...]:
        return self.known

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


def decode(photo: bytes) -> Image.Image:
    """Open a picture with the engine's faults."""
    if not photo:
        raise EmptyImage("empty")
    try:
        opened = Image.open(io.BytesIO(photo))
    except OSError as error:
        raise NotAnImage("not an image") from error
    try:
        return opened.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise BrokenImage("broken") from error


def draw(
    photo: bytes,
    shown: Analysis,
    *,
    language: str,
    face: int | None = None,
    people: int | None = None,
) -> bytes:
    """A small card whose colour tells which face it shows: see `face_of`."""
    decode(photo)
    shade = 0 if face is None else 30 * (face + 1)
    out = io.BytesIO()
    Image.new("RGB", (160, 90), (shade, shade, shade)).save(out, "PNG")
    return out.getvalue()


def face_of(card: bytes) -> int | None:
    """The face that a card of `draw` shows, after Telegram re-encoded it."""
    pixel = Image.open(io.BytesIO(card)).convert("L").getpixel((80, 45))
    assert isinstance(pixel, int)
    number = round(pixel / 30) - 1
    return None if number < 0 else number


@cache
def _tables() -> bytes:
    """A database with its tables and nothing in them: making them anew takes every test longer."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "bot.db"
        engine = create_engine(f"sqlite:///{file}")
        with engine.begin() as connection:
            _migrate(connection)
        engine.dispose()
        return file.read_bytes()


@cache
def _settings_with(**fixed: Any) -> type[Settings]:
    """Settings with other constants; pydantic takes 30 ms to make the class."""
    if not fixed:
        return Settings

    class Changed(Settings):
        pass

    for name, value in fixed.items():
        setattr(Changed, name, value)
    return Changed


def settings(sandbox: Sandbox, folder: Path, **changes: Any) -> Settings:
    """Settings for a bot in the sandbox: nothing from the environment, files in a folder.

    What is changed may be what no operator can change, too.
    """
    keys = folder / "secrets" / "template.keys"
    if not keys.exists():
        add_key(keys)
    database = folder / "bot.db"
    if not database.exists():
        database.write_bytes(_tables())
        database.chmod(0o600)

    fixed = {name: changes.pop(name) for name in Settings.__class_vars__ & changes.keys()}
    values: dict[str, Any] = {
        "bot_token": sandbox.token,
        "telegram_api_url": sandbox.url,
        "database": database,
        "ids_key": folder / "secrets" / "ids.key",
        "template_keys_file": keys,
        "album_wait_s": 0.15,
        "send_rate": 1000,
        **changes,
    }
    return _settings_with(**fixed)(**values)


@asynccontextmanager
async def bot(
    folder: Path, engine: Engine | None = None, *, drawing: Draw = draw, **changes: Any
) -> AsyncIterator[Sandbox]:
    """A sandbox with the bot running in it."""
    async with Sandbox(webhooks=ANY_PORT) as sandbox:
        chosen = settings(sandbox, folder, **changes)
        async with app.running(chosen, engine or FakeEngine(), draw=drawing):
            yield sandbox


async def until_met(sandbox: Sandbox, fault: Fault) -> None:
    """Wait until somebody has suffered a fault that was ordered once."""
    async with asyncio.timeout(60):
        while fault in sandbox.faults.pending():  # noqa: ASYNC110 (nobody announces it)
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def texts(messages: Iterable[Any]) -> list[str]:
    return [message.text for message in messages]
