"""What the service serves: an engine that is warm, and reloads its bundle when the files change.

Knows nothing about HTTP.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.client import EmbeddedEngine, build_analyzer
from engine.request import Analyzer
from engine.runtime.reload import Reloader
from engine.settings import Settings


@dataclass(frozen=True, slots=True)
class Served:
    """What the application serves.

    Attributes:
        engine: answers.
        reloader: gives it a new bundle.
    """

    engine: EmbeddedEngine
    reloader: Reloader


@asynccontextmanager
async def open_engine(
    settings: Settings, build: Callable[[Settings], Analyzer] | None = None
) -> AsyncIterator[Served]:
    """An engine that is warm, and reloads its bundle when the files change.

    Args:
        settings: what is chosen.
        build: makes what sees faces and tries it, in a thread; None is `build_rehearsed`.

    Raises:
        ConfigurationError: the device, the bundle or the weights are not as they should be.
    """
    chosen = build or build_rehearsed
    async with await EmbeddedEngine.open(settings, chosen) as engine:
        # Which bundle "auto" means may differ from one reload to the next.
        reloader = Reloader(engine, lambda: chosen(settings), file=lambda: _description(settings))
        await engine.start_decoders()
        _settle_memory()
        reloader.observe(lambda _outcome: _settle_memory())
        watching = asyncio.create_task(reloader.watch(settings.engine_watch_s), name="engine-watch")
        try:
            yield Served(engine, reloader)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _settle_memory() -> None:
    """Take what lives as long as the process out of the collector's sight.

    Looking through all that torch and the web framework keep takes a fifth of a second, and nobody
    is answered meanwhile, not even that there is no room. Done again after a reload, or a bundle
    that is gone would stay in memory.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def build_rehearsed(settings: Settings) -> Analyzer:
    """A pipeline that has been warmed up and has answered what it must; loads torch.

    Raises:
        ConfigurationError: the device, the bundle or the weights are not as they should be.
    """
    pipeline = build_analyzer(settings)
    from engine.self_test import rehearse

    rehearse(pipeline, settings.engine_max_batch)
    return pipeline


def _description(settings: Settings) -> Path:
    """The bundle's .json, which is written last."""
    from engine.default_bundle import choose  # it loads torch

    stem = choose(settings).stem
    return stem.with_name(f"{stem.name}.json")
