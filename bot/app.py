"""The one wiring file: which part talks to which, and in what order they start and stop.

Knows nothing about what any of them do.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from telegram.error import TelegramError
from telegram.ext import (
    Application,
    ApplicationBuilder,
    BaseHandler,
    CallbackQueryHandler,
    CommandHandler,
    MessageHandler,
    filters,
)

from bot import machine, rounds, standby, storing
from bot.account import LANGUAGE_BUTTON, Account, publish_commands
from bot.drawing import card
from bot.login import handlers as login_handlers
from bot.login.captures import Captures
from bot.login.retention import run_retention
from bot.lookalike import who
from bot.lookalike.gallery_people import GalleryPeople
from bot.lookalike.handlers import Draw, Lookalike
from bot.lookalike.shown_cards import ShownCards
from bot.lookalike.who import Who
from bot.settings import Settings
from bot.store import ATTEMPTS_COUNT, Store
from bot.telegram import kinds, polling, webhook
from bot.telegram.albums import Albums
from bot.telegram.client import connect
from bot.telegram.incoming import Intake, Router
from bot.telegram.replies import Replies
from bot.telegram.request import Request, current
from bot.telegram.update_processor import PerPersonProcessor, ServedUpdates
from engine.client import Engine
from engine.errors import EngineError
from engine.media.confinement import keep_memory_private

logger = logging.getLogger(__name__)

App = Application[Any, Any, Any, Any, Any, Any]

Finished = Callable[[Request], None]

_GOODBYE_S = 1.0
_GOODBYES = 4  # of the updates' source, of PTB, of the webhook's server, of the store
_ASKING_S = 5.0  # for how long the line about the start waits to hear what the engine is


def _nobody_asks(_request: Request) -> None:
    pass


async def run(settings: Settings, engine: Engine, *, draw: Draw = card.draw) -> None:
    """Run the bot until SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: see `bot.settings`.
        engine: open, and left open.
        draw: draws the cards.

    Raises:
        InvalidToken: Telegram does not know the token.
        TelegramError: Telegram cannot be reached at the start.
        StoreError: the database or the key cannot be used.
        ConfigurationError: the environment's proxies cannot be used.
        OSError: the webhook's port is taken.
    """
    keep_memory_private()
    with _stop_signals() as stop:
        async with contextlib.AsyncExitStack() as stack:
            # A task, because Telegram may be away, and a signal must not wait for it.
            start = stack.enter_async_context(running(settings, engine, draw=draw))
            starting = asyncio.create_task(start)
            await _first(starting, stop)
            if not starting.done():
                starting.cancel()
                await asyncio.wait([starting])
                return
            source = starting.result()
            await _first(source, stop)
            logger.info("stopping")
        if not stop.is_set():
            source.result()  # the updates' source failed: its fault is ours


@asynccontextmanager
async def running(
    settings: Settings,
    engine: Engine,
    *,
    draw: Draw = card.draw,
    finished: Finished = _nobody_asks,
    chance: random.Random | None = None,
) -> AsyncIterator["asyncio.Task[None]"]:
    """A running bot; leaving stops it within `stop_timeout_s`: arguments and faults as in `run`.

    Args:
        settings: see `bot.settings`.
        engine: open, and left open.
        draw: draws the cards.
        finished: told each request that came to its end.
        chance: draws the login's challenges; None is the system's, which nobody can foresee.

    Yields:
        The task that takes updates in and does what else must go on; it ends early only with a
        fault.
    """
    short_s = goodbye_s(settings.stop_timeout_s)
    here = f"{socket.gethostname()}, process {os.getpid()}"
    async with (
        storing.store(settings, close_s=short_s) as store,
        webhook.listening(settings, short_s) as receiver,
        standby.turn(store.lease(here, settings.lease_s), short_s / 2) as turn,
    ):
        place = storing.address(settings)
        file = place if isinstance(place, Path) else None
        app, lanes = build(
            settings,
            engine,
            store,
            await store.served_updates(settings.bot_id),
            draw=draw,
            finished=finished,
            chance=chance,
        )
        if receiver is None:
            source_of = polling.source(app, turn, short_s)
        else:
            source_of = webhook.source(settings, app, lanes, turn, receiver)
        async with (
            app.bot,  # by itself, too: an application that could not start leaves it open
            app,
            _answering(settings, app, lanes, turn),
            source_of as source,
        ):
            # Beside the answers: they are not to wait for the menu, nor for tidying.
            beside = [
                asyncio.create_task(_publish_commands(app, login=settings.face_login)),
                asyncio.create_task(_say_what_started(settings, app, engine)),
            ]
            for task in beside:
                task.add_done_callback(rounds.log_fault)
            lasting = [
                source,
                asyncio.create_task(machine.watch(file), name="machine"),
                turn.kept,
            ]
            beside.append(lasting[1])
            if settings.face_login:
                lasting.append(asyncio.create_task(run_retention(store, app.bot), name="tidying"))
                beside.append(lasting[-1])
            beside.append(asyncio.create_task(rounds.either(*lasting)))
            try:
                yield beside[-1]
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside)


def goodbye_s(stop_timeout_s: float) -> float:
    """Of the time for stopping, what each of the parts may take to stop that stop one by one.

    The rest, at least half of it, is for running answers.
    """
    return min(_GOODBYE_S, stop_timeout_s / (2 * _GOODBYES))


def build(
    settings: Settings,
    engine: Engine,
    store: Store,
    served: Iterable[int] = (),
    *,
    draw: Draw = card.draw,
    finished: Finished = _nobody_asks,
    chance: random.Random | None = None,
) -> tuple[App, PerPersonProcessor]:
    """Put the parts together; nothing is started.

    Args:
        settings: see `bot.settings`.
        engine: sees.
        store: remembers.
        served: numbers of updates served before, oldest first.
        draw: draws the cards.
        finished: told each request that came to its end.
        chance: see `running`.
    """
    telegram = connect(settings)
    facts = {
        "minutes": round(settings.buttons_minutes),
        "faces_max": settings.faces_max,
        "updates_kept": settings.updates_kept,
        "selfies": settings.enroll_selfies,
        "capture_days": round(settings.capture_days),
        "audit_days": round(max(settings.audit_days, ATTEMPTS_COUNT / timedelta(days=1))),
        "idle_days": round(settings.idle_days),
        "notice_days": round(settings.notice_days),
        "hold_hours": login_handlers.hold_hours(settings),
    }
    people = GalleryPeople(engine)
    account = Account(store, facts, people, login=settings.face_login)
    replies = Replies(telegram, account.language)
    intake = Intake(
        telegram,
        timeout_s=settings.download_timeout_s,
        local_dir=settings.telegram_local_dir,
    )
    lookalike = Lookalike(
        engine=engine,
        people=people,
        intake=intake,
        draw=draw,
        answers=ShownCards(
            lifetime_s=60 * settings.buttons_minutes,
            limit=settings.answers_kept,
            pictures=min(settings.matches, card.MOST_MATCHES),
        ),
        language=account.language,
        matches=settings.matches,
        faces_max=settings.faces_max,
    )
    lanes = PerPersonProcessor(
        route=Router(settings.updates_kept),
        turn_away=replies.turn_away,
        seen=ServedUpdates(served, settings.updates_kept),
        memory=store,
        albums=Albums(settings.album_wait_s),
        slots=settings.concurrency,
        person_queue=settings.person_queue,
        waiting_total=settings.waiting_total,
        answer_timeout_s=settings.answer_timeout_s,
        finished=finished,
    )
    builder = ApplicationBuilder().bot(telegram).updater(None).job_queue(None)
    app: App = builder.concurrent_updates(lanes).build()
    if settings.face_login:
        app.add_handlers(
            login_handlers.handlers(
                settings,
                telegram,
                store,
                Captures(intake, engine, store),
                account,
                lookalike,
                chance or random.SystemRandom(),
            )
        )
    asked = Who(people=people, language=account.language)
    app.add_handlers(_handlers(account, asked, lookalike))
    app.add_error_handler(replies.report)
    return app, lanes


def _handlers(
    account: Account, asked: Who, lookalike: Lookalike
) -> list[BaseHandler[Any, Any, Any]]:
    """What answers what; the first that fits does."""
    return [
        CommandHandler("start", account.start, kinds.NEW),
        CommandHandler("who", asked.command, kinds.NEW),
        CommandHandler("help", account.help, kinds.NEW),
        CommandHandler("privacy", account.privacy, kinds.NEW),
        CommandHandler("language", account.choose, kinds.NEW),
        MessageHandler(kinds.NEW & filters.COMMAND, account.unknown),
        MessageHandler(kinds.NEW & kinds.PICTURE, lookalike.photo),
        MessageHandler(kinds.NEW, account.hint),
        MessageHandler(kinds.EDITED & kinds.PICTURE, lookalike.photo),
        MessageHandler(kinds.EDITED, _ignore),
        CallbackQueryHandler(account.chosen, LANGUAGE_BUTTON),
        CallbackQueryHandler(asked.button, who.BUTTON),
        CallbackQueryHandler(lookalike.button),
    ]


async def _ignore(_update: object, _context: object) -> None:
    current.get().outcome = "ignored"


@asynccontextmanager
async def _answering(
    settings: Settings, app: App, lanes: PerPersonProcessor, turn: standby.Turn
) -> AsyncIterator[None]:
    await app.start()
    try:
        yield
    finally:
        short_s = goodbye_s(settings.stop_timeout_s)
        await lanes.drain(min(settings.stop_timeout_s - _GOODBYES * short_s, turn.left_s))
        try:
            await asyncio.wait_for(app.stop(), short_s)
        except TimeoutError:
            logger.error("answers were still running when the time for stopping was over")


async def _say_what_started(settings: Settings, app: App, engine: Engine) -> None:
    try:
        async with asyncio.timeout(_ASKING_S):
            info = await engine.info()
        bundle, device = info.bundle, info.device
    except (EngineError, TimeoutError):
        bundle = device = "unknown"
    logger.info(
        "started bot=@%s updates=%s %s engine=%s device=%s%s",
        app.bot.username,
        "webhook" if settings.webhook_url else "polling",
        storing.places(settings),
        bundle,
        device,
        f" engine_url={settings.engine_url}" if settings.engine_url else "",
    )


async def _publish_commands(app: App, *, login: bool) -> None:
    try:
        await publish_commands(app.bot, login=login)
    except TelegramError as error:
        logger.warning("the menu of commands was not published: %s", type(error).__name__)


async def _first(task: "asyncio.Task[Any]", stop: asyncio.Event) -> None:
    """Wait for whichever comes first."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([stopped, task], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set, and SIGHUP, which comes when a terminal is closed."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        signals.append(signal.SIGHUP)
    with contextlib.ExitStack() as stack:
        for each in signals:
            loop.add_signal_handler(each, stop.set)
            stack.callback(loop.remove_signal_handler, each)
        yield stop
