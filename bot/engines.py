"""Which engine sees for the bot: one in this process, or the service at ENGINE_URL.

Knows nothing about what is asked of an engine. Only the one in this process loads torch.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bot import rounds
from engine import __version__
from engine.client import EmbeddedEngine, Engine
from engine.errors import EngineError
from engine.settings import Settings
from engine.types import EngineInfo

logger = logging.getLogger(__name__)

Greeted = Callable[[EngineInfo], Awaitable[None]]


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncIterator[Engine]:
    """An engine in this process.

    Raises:
        ConfigurationError: it cannot be built.
    """
    async with await EmbeddedEngine.open(settings) as engine:
        await engine.start_decoders()
        yield engine


@asynccontextmanager
async def remote(
    url: str,
    key: str | None,
    *,
    look_again_s: float = 5.0,
    greeted: Greeted | None = None,
    pause: rounds.Pause = asyncio.sleep,
) -> AsyncIterator[Engine]:
    """The service at an address, be it there yet or not.

    Args:
        url: see `engine.remote.address`.
        key: what the service wants to be shown.
        look_again_s: how often to look whether it is there, until it is; for the log only.
        greeted: told what the engine is as soon as it is there.
        pause: waits for seconds.
    """
    from engine.remote.client import (
        RemoteEngine,  # it loads aiohttp, which an engine in here needs not
    )

    async with RemoteEngine(url, key=key) as engine:
        greeting = asyncio.create_task(
            _greet(engine, url, look_again_s, greeted, pause), name="engine-greeting"
        )
        greeting.add_done_callback(rounds.log_fault)
        try:
            yield engine
        finally:
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)


async def _greet(
    engine: Engine,
    url: str,
    look_again_s: float,
    greeted: Greeted | None,
    pause: rounds.Pause,
) -> None:
    """Log what the engine is as soon as it is there, and once that it is not."""
    told = False

    async def one_round() -> float | None:
        nonlocal told
        try:
            info = await engine.info()
        except EngineError as error:
            if not told:
                logger.warning("photos cannot be looked at yet: %s", error)
            told = True
            return look_again_s
        logger.info("engine=%s bundle=%s device=%s", url, info.bundle, info.device)
        if info.version != __version__:
            logger.warning(
                "the engine is face-matcher %s and this bot %s: give both the same version",
                info.version,
                __version__,
            )
        if greeted is not None:
            await greeted(info)
        return None

    await rounds.repeat(one_round, "greeting the engine", pause)
