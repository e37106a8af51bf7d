"""Which bundle the bot's own engine takes, so that nobody who is enrolled is locked out unawares.

Templates belong to one embedder. Where ENGINE_BUNDLE is "auto" and the more accurate bundle can be
used while people are enrolled with the other one's embedder, the bot keeps to the other one until a
date that the database has. Knows nothing about how people are told (`bot.login.retention`), or
about engines that choose for themselves, except that it counts whom they cannot compare.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bot import rounds, storing
from bot.login.captures import embedder_id, embedder_of
from bot.settings import Settings
from bot.store import Store, StoreError
from bot.texts import moment
from engine.client import EmbeddedEngine, Engine
from engine.errors import BundleError, EngineError
from engine.request import Analyzer
from engine.runtime.reload import Reloader
from engine.service.serving import build_rehearsed
from engine.settings import AUTO
from engine.settings import Settings as EngineSettings
from engine.types import EngineInfo

if TYPE_CHECKING:  # it loads torch, whose threads are set up first
    from engine.default_bundle import Choice

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 3600.0
"""How often at least a bot that waits for a takeover looks at its date, which may be changed."""

Build = Callable[[EngineSettings], Analyzer]
Choose = Callable[[EngineSettings], "Choice"]


@dataclass(frozen=True, slots=True)
class UsableBundle:
    """One that can be used.

    Attributes:
        stem: its path without suffix.
        embedder: what templates are compared with; see `bot.login.captures.embedder_of`.
    """

    stem: Path
    embedder: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the engine's settings mean, whoever is enrolled.

    Attributes:
        best: the bundle; None where it does not compare faces, which the engine complains of.
        usual: what "auto" is where it cannot be the best; None where there is no choice.
        reason: why it is the best, for the log; "" where the operator named it.
    """

    best: UsableBundle | None
    usual: UsableBundle | None
    reason: str


@dataclass(frozen=True, slots=True)
class EmbedderDecision:
    """The bundle to use.

    Attributes:
        stem: its path without suffix; None leaves it to the engine.
        left: the time until another one takes over; none where it stays at that.
        told: for the log; "" where there is nothing to say.
    """

    stem: Path | None
    left: timedelta
    told: str


@asynccontextmanager
async def embedded(
    settings: Settings,
    own: EngineSettings,
    *,
    build: Build | None = None,
    choose: Choose | None = None,
    pause: rounds.Pause = asyncio.sleep,
) -> AsyncIterator[Engine]:
    """An engine in this process that can compare whom the bot knows; it changes when it is time to.

    Args:
        settings: the bot's.
        own: the engine's.
        build: makes what sees faces, in a thread; None is the engine's own ways.
        choose: see `look`.
        pause: waits for seconds.

    Raises:
        ConfigurationError: the engine cannot be built.
        StoreError: the database or the key cannot be used.
    """
    if not settings.face_login:
        async with await EmbeddedEngine.open(own, build) as engine:
            await engine.start_decoders()
            yield engine
        return

    async def decide_now() -> EmbedderDecision:
        found = await asyncio.to_thread(look, own, choose)
        async with storing.store(settings) as store:
            return await decide(store, found, settings.embedder_notice_days)

    decision = await decide_now()
    _log(decision)
    async with await EmbeddedEngine.open(_told(own, decision), build) as engine:
        waiting = asyncio.create_task(
            _take_over_in_time(engine, own, decision, decide_now, build or build_rehearsed, pause),
            name="takeover",
        )
        waiting.add_done_callback(rounds.log_fault)
        try:
            await engine.start_decoders()
            yield engine
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


def look(own: EngineSettings, choose: Choose | None = None) -> Found:
    """Read the bundles that the engine's settings mean; loads torch.

    Args:
        own: the engine's settings.
        choose: chooses a bundle; None is `engine.default_bundle.choose`.

    Raises:
        ConfigurationError: a bundle or the weights are not as they should be.
    """
    from engine import threads

    threads.configure(own.engine_threads)  # before anything loads torch
    from engine import default_bundle

    choice = (choose or default_bundle.choose)(own)
    usual = None
    if own.engine_bundle == AUTO and choice.name != default_bundle.ALWAYS_THERE:
        with contextlib.suppress(BundleError):  # somebody has taken it away
            usual = _read(choice.stem.with_name(default_bundle.ALWAYS_THERE))
    return Found(_read(choice.stem), usual, choice.reason)


async def decide(store: Store, found: Found, notice_days: float) -> EmbedderDecision:
    """Choose a bundle by whom the store has enrolled; every replica chooses the same one.

    Args:
        store: open.
        found: see `look`.
        notice_days: how long before a takeover people are told.
    """
    best, usual = found.best, found.usual
    if best is None:
        return EmbedderDecision(None, timedelta(0), "")
    if not found.reason:
        await store.withdraw_takeover()
    if usual is None or usual.embedder == best.embedder:
        await _warn_of_others(store, best.stem.name, best.embedder)
        return EmbedderDecision(best.stem, timedelta(0), found.reason)
    planned = await store.plan_takeover(best.embedder, usual.embedder, notice_days=notice_days)
    if planned.left:
        told = (
            f"bundle {usual.stem.name}: {planned.people} people are enrolled with its embedder; "
            f"{best.stem.name}, which is more accurate, takes over on {moment(planned.due)}, and "
            "they are told so. ENGINE_BUNDLE=NAME keeps to one of them, EMBEDDER_NOTICE_DAYS=0 "
            "does not wait"
        )
        return EmbedderDecision(usual.stem, planned.left, told)
    told = (
        f"{found.reason}; it took over on {moment(planned.due)}, and {planned.people} people are "
        f"enrolled with the embedder of {usual.stem.name}"
    )
    await _warn_of_others(store, best.stem.name, best.embedder)
    return EmbedderDecision(best.stem, timedelta(0), told)


async def greet(settings: Settings, info: EngineInfo) -> None:
    """Warn of people whom an engine elsewhere cannot compare; it has chosen its bundle itself.

    Args:
        settings: the bot's.
        info: what the engine is.
    """
    if not settings.face_login or info.login is None:
        return
    try:
        async with storing.store(settings) as store:
            await store.withdraw_takeover()
            await _warn_of_others(store, info.bundle, embedder_of(info.login))
    except StoreError as error:
        logger.error("who is enrolled with another embedder could not be counted: %s", error)


async def _take_over_in_time(
    engine: EmbeddedEngine,
    own: EngineSettings,
    decision: EmbedderDecision,
    decide_now: Callable[[], Awaitable[EmbedderDecision]],
    build: Build,
    pause: rounds.Pause,
) -> None:
    """Wait for the takeover's date, and change the engine's bundle then."""

    async def one_round() -> float | None:
        nonlocal decision
        try:
            later = await decide_now()
            if later.stem != decision.stem:
                _log(later)
                chosen = _told(own, later)
                await Reloader(engine, lambda: build(chosen)).reload()
        except (StoreError, EngineError) as error:
            logger.error("the bundle stays for another hour: %s", error)
            return LOOK_AGAIN_S
        decision = later
        return _next_look_s(decision) if decision.left else None

    if decision.left:
        await pause(_next_look_s(decision))
        await rounds.repeat(one_round, "the takeover", pause)


def _next_look_s(decision: EmbedderDecision) -> float:
    return min(decision.left.total_seconds(), LOOK_AGAIN_S)


async def _warn_of_others(store: Store, bundle: str, embedder: str) -> None:
    counts = await store.enrolled()
    others = sum(count for name, count in counts.items() if name != embedder)
    if others:
        logger.warning(
            "%d people are enrolled with another embedder than that of bundle %s: they cannot "
            "/verify until they enroll again",
            others,
            bundle,
        )


def _read(stem: Path) -> UsableBundle | None:
    from engine import bundle  # it loads torch

    manifest = bundle.load(stem).manifest
    made_with = manifest.embedder
    if made_with is None:
        return None
    name = embedder_id(made_with.id, made_with.weights_sha256, manifest.preprocessing)
    return UsableBundle(stem, name)


def _told(own: EngineSettings, decision: EmbedderDecision) -> EngineSettings:
    """The engine's settings with the bundle that was decided on."""
    if decision.stem is None:
        return own
    return own.model_copy(update={"engine_bundle": str(decision.stem.absolute())})


def _log(decision: EmbedderDecision) -> None:
    if decision.told:
        logger.info("%s", decision.told)
