"""The one wiring file: which part talks to which, and in what order they start and stop.

Knows nothing about what any of them do.
"""

import asyncio
import contextlib
import logging
import math
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
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
from telegram.request import HTTPXRequest

from bot import machine, rounds, standby, storing
from bot.account import LANGUAGE_BUTTON, Account, publish_commands
from bot.drawing import card
from bot.engine_gateway import EngineGateway
from bot.login import alerts, enroll, move, my_data, notices, verify
from bot.login.alerts import Alerts
from bot.login.captures import Captures
from bot.login.conversations import Flows
from bot.login.enroll import Enrolling
from bot.login.move import Moving
from bot.login.my_data import Rights
from bot.login.recover import Recovering
from bot.login.retention import run_retention
from bot.login.verify import Terms, Verifying
from bot.lookalike import who
from bot.lookalike.gallery_people import People
from bot.lookalike.handlers import Draw, Lookalike
from bot.lookalike.shown_cards import Answers
from bot.lookalike.who import Who
from bot.settings import Settings
from bot.store import ATTEMPTS_COUNT, LOCK_WINDOW, Store
from bot.telegram import webhook
from bot.telegram.albums import Albums
from bot.telegram.bounded_bodies import bounded
from bot.telegram.client import Telegram, parse_update, refused_for_good
from bot.telegram.edits import Edits
from bot.telegram.incoming import ALLOWED_UPDATES, FILE_MAX_BYTES, Intake, route
from bot.telegram.polling import Poller
from bot.telegram.rate_limits import Limiter
from bot.telegram.replies import Replies
from bot.telegram.request import Request, current
from bot.telegram.update_processor import Lanes, Seen
from bot.telegram.webhook_watch import Watch
from engine.client import Engine
from engine.errors import ConfigurationError, EngineError
from engine.media.confinement import keep_memory_private
from engine.service.http_protocol import BoundedProtocol

logger = logging.getLogger(__name__)

App = Application[Any, Any, Any, Any, Any, Any]

Finished = Callable[[Request], None]

_POLL_S = 25
_GOODBYE_S = 1.0
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
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
        _receiver(settings) as receiver,
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
            source_of = _polling(settings, app, turn)
        else:
            source_of = _webhook(settings, app, lanes, turn, receiver)
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
            beside.append(asyncio.create_task(_either(*lasting)))
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
) -> tuple[App, Lanes]:
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
    telegram = _telegram(settings)
    facts = {
        "minutes": round(settings.buttons_minutes),
        "faces_max": settings.faces_max,
        "updates_kept": settings.updates_kept,
        "selfies": settings.enroll_selfies,
        "capture_days": round(settings.capture_days),
        "audit_days": round(max(settings.audit_days, ATTEMPTS_COUNT / timedelta(days=1))),
        "idle_days": round(settings.idle_days),
        "notice_days": round(settings.notice_days),
        "hold_hours": _hold_hours(settings),
    }
    people = People(engine)
    account = Account(store, facts, people, login=settings.face_login)
    replies = Replies(telegram, account.language)
    intake = Intake(
        telegram,
        timeout_s=settings.download_timeout_s,
        local_dir=settings.telegram_local_dir,
    )
    gateway = EngineGateway(engine)
    lookalike = Lookalike(
        gateway=gateway,
        people=people,
        intake=intake,
        draw=draw,
        answers=Answers(
            lifetime_s=60 * settings.buttons_minutes,
            limit=settings.answers_kept,
        ),
        language=account.language,
        matches=settings.matches,
        faces_max=settings.faces_max,
        pictures=card.MOST_MATCHES,
    )
    lanes = Lanes(
        route=Edits(route, settings.updates_kept),
        turn_away=replies.turn_away,
        seen=Seen(served, settings.updates_kept),
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
            _login_handlers(
                settings,
                telegram,
                store,
                Captures(intake, gateway, store),
                account,
                lookalike,
                chance or random.SystemRandom(),
            )
        )
    asked = Who(people=people, language=account.language)
    app.add_handlers(_handlers(account, asked, lookalike))
    app.add_error_handler(replies.report)
    return app, lanes


class _InAlbum(filters.MessageFilter):
    """A message of an album, be it a photo or not: the album is answered as a whole."""

    def filter(self, message: Any) -> bool:
        return bool(message.media_group_id)


_PICTURE = filters.PHOTO | (filters.Document.ALL & ~filters.ANIMATION) | _InAlbum()
_CLIP = filters.VIDEO_NOTE | filters.VIDEO | filters.ANIMATION
_NEW = filters.ChatType.PRIVATE & filters.UpdateType.MESSAGE
_EDITED = filters.ChatType.PRIVATE & filters.UpdateType.EDITED_MESSAGE


def _handlers(
    account: Account, asked: Who, lookalike: Lookalike
) -> list[BaseHandler[Any, Any, Any]]:
    """What answers what; the first that fits does."""
    return [
        CommandHandler("start", account.start, _NEW),
        CommandHandler("who", asked.command, _NEW),
        CommandHandler("help", account.help, _NEW),
        CommandHandler("privacy", account.privacy, _NEW),
        CommandHandler("language", account.choose, _NEW),
        MessageHandler(_NEW & filters.COMMAND, account.unknown),
        MessageHandler(_NEW & _PICTURE, lookalike.photo),
        MessageHandler(_NEW, account.hint),
        MessageHandler(_EDITED & _PICTURE, lookalike.photo),
        MessageHandler(_EDITED, _ignore),
        CallbackQueryHandler(account.chosen, LANGUAGE_BUTTON),
        CallbackQueryHandler(asked.button, who.BUTTON),
        CallbackQueryHandler(lookalike.button),
    ]


def _login_handlers(
    settings: Settings,
    telegram: Telegram,
    store: Store,
    captures: Captures,
    account: Account,
    lookalike: Lookalike,
    chance: random.Random,
) -> list[BaseHandler[Any, Any, Any]]:
    """The face login's; they come before the others."""
    patience_s = 60 * settings.conversation_minutes
    enrolling = Enrolling(
        store=store,
        captures=captures,
        language=account.language,
        selfies=settings.enroll_selfies,
        lifetime_s=patience_s,
        reset_delay_s=3600 * settings.reset_hours,
        hold_hours=_hold_hours(settings),
        idle_days=round(settings.idle_days),
        clock=_now,
    )
    alerting = Alerts(
        store=store,
        language=account.language,
        lifetime_s=patience_s,
        delay_s=3600 * settings.reset_hours,
    )
    verifying = Verifying(
        store=store,
        captures=captures,
        language=account.language,
        terms=Terms(
            level=settings.verify_level,
            by_photo=settings.photo_verify_allowed,
            photos=settings.verify_photos,
            photo_s=settings.photo_challenge_s,
            video_s=settings.video_challenge_s,
        ),
        remind=enrolling.remind,
        alarm=partial(notices.alarm_at_once, telegram, store),
        then={
            "replace": enrolling.after_video,
            "alerts": alerting.after_video,
            "move": partial(move.finish, store),
        },
        chance=chance,
        clock=_now,
    )
    recovering = Recovering(
        store=store,
        enrolling=enrolling,
        alerts=alerting,
        language=account.language,
        lifetime_s=patience_s,
    )
    moving = Moving(
        store=store, verifying=verifying, language=account.language, lifetime_s=patience_s
    )
    own = Rights(store=store, language=account.language, lifetime_s=patience_s)
    flows = Flows(
        store=store,
        language=account.language,
        enrolling=enrolling,
        verifying=verifying,
        recovering=recovering,
        moving=moving,
        photo=lookalike.photo,
        hint=account.hint,
    )
    words = filters.TEXT & ~filters.COMMAND
    return [
        CommandHandler("start", alerting.opened, _NEW, has_args=1),
        CommandHandler("alerts", alerting.command, _NEW),
        CommandHandler("move", moving.command, _NEW),
        CommandHandler("enroll", enrolling.command, _NEW),
        CommandHandler("verify", verifying.command, _NEW),
        CommandHandler("recover", recovering.command, _NEW),
        CommandHandler("mydata", own.my_data, _NEW),
        CommandHandler("forget", own.forget, _NEW),
        CommandHandler("cancel", flows.cancel, _NEW),
        MessageHandler(_NEW & _PICTURE, flows.picture),
        MessageHandler(_NEW & _CLIP, flows.clip),
        MessageHandler(_NEW & words, flows.words),
        MessageHandler(_EDITED, flows.edited),
        CallbackQueryHandler(enrolling.button, enroll.BUTTON),
        CallbackQueryHandler(verifying.button, verify.BUTTON),
        CallbackQueryHandler(own.button, my_data.BUTTON),
        CallbackQueryHandler(alerting.button, alerts.BUTTON),
    ]


def _hold_hours(settings: Settings) -> int:
    """How long the mark of somebody who was erased is kept at most, in whole hours."""
    return math.ceil(max(settings.reset_hours, LOCK_WINDOW / timedelta(hours=1)))


async def _ignore(_update: object, _context: object) -> None:
    current.get().outcome = "ignored"


def _now() -> datetime:
    return datetime.now(UTC)


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of either kind; `::` is all of both.

    Raises:
        OSError: it cannot.
    """
    if ":" not in host:
        return socket.create_server((host, port))
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=both)


@contextmanager
def _proxies_named() -> Iterator[None]:
    """Turn faults of the environment's proxies into a sentence, without their passwords."""
    try:
        yield
    except (ValueError, RuntimeError, httpx.InvalidURL) as error:
        given = [name for name in os.environ if name.upper() in _PROXIES]
        if not given:
            raise
        raise ConfigurationError(
            f"{', '.join(sorted(given))} cannot be used: a proxy is written http://host:port "
            "(socks5:// needs the package httpx[socks]), and NO_PROXY has names of hosts and "
            "addresses without brackets, separated by commas. Set it right, or remove it."
        ) from error


def _telegram(settings: Settings) -> Telegram:
    # The environment's proxies lead out of this machine, so not to a server on it.
    direct = urlsplit(settings.telegram_api_url).hostname in ("127.0.0.1", "localhost", "::1")
    way = {"trust_env": not direct, **bounded(FILE_MAX_BYTES)}
    with _proxies_named():
        calls, polls = (
            HTTPXRequest(
                connection_pool_size=2 * settings.concurrency + 8,
                read_timeout=20,
                write_timeout=20,
                pool_timeout=10,
                httpx_kwargs=way,
            ),
            HTTPXRequest(connection_pool_size=2, httpx_kwargs=way),
        )
    return Telegram(
        settings.bot_token.get_secret_value(),
        base_url=f"{settings.telegram_api_url}/bot",
        base_file_url=f"{settings.telegram_api_url}/file/bot",
        request=calls,
        get_updates_request=polls,
        rate_limiter=Limiter(rate=settings.send_rate, patience_s=settings.answer_timeout_s),
    )


@asynccontextmanager
async def _answering(
    settings: Settings, app: App, lanes: Lanes, turn: standby.Turn
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


@asynccontextmanager
async def _polling(
    settings: Settings, app: App, turn: standby.Turn
) -> AsyncIterator["asyncio.Task[None]"]:
    async def fetch(offset: int | None, wait: bool) -> list[object]:
        if stopping:  # nothing is taken any more, only acknowledged
            return await telegram.raw_updates(offset, 0, ALLOWED_UPDATES)
        await turn.until_may_take()
        updates = await telegram.raw_updates(offset, _POLL_S * wait, ALLOWED_UPDATES)
        await turn.until_may_take()  # it may have ended while Telegram held the question open
        return updates

    telegram: Telegram = app.bot
    stopping = False
    if found := (await telegram.get_webhook_info()).url:
        logger.warning(
            "this token had a webhook, which led to %s: it is removed, because this bot polls. "
            "Where another program uses the token, stop it",
            urlsplit(found).hostname,
        )
    await telegram.delete_webhook()
    poller = Poller(
        fetch,
        partial(parse_update, bot=telegram),
        app.update_queue.put_nowait,
        refused=partial(refused_for_good, telegram.get_me),
        remove_webhook=telegram.delete_webhook,
    )
    task = asyncio.create_task(poller.run(), name="poller")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        stopping = True
        try:
            short_s = min(goodbye_s(settings.stop_timeout_s), turn.left_s)
            await asyncio.wait_for(poller.acknowledge(), short_s)
        except (TelegramError, TimeoutError) as error:
            # The updates come again after the next start, where their numbers are known.
            logger.warning("the last updates were not acknowledged: %s", type(error).__name__)


@asynccontextmanager
async def _receiver(settings: Settings) -> AsyncIterator[webhook.Receiver | None]:
    """The webhook's server, as long as the block lasts; None where there is no webhook.

    It is there also while this bot stands by, so that /healthz can say so.
    """
    if not settings.webhook_url:
        yield None
        return
    receiver = webhook.Receiver()
    # Bound here, because uvicorn ends the process when it cannot bind.
    listener = _listener(settings.webhook_host, settings.webhook_port)
    server = _Server(
        uvicorn.Config(
            webhook.site(settings.webhook_secret.get_secret_value(), receiver),
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
        await asyncio.wait([receiver.serving], timeout=goodbye_s(settings.stop_timeout_s))
        server.force_exit = True  # whoever still sends is hung up on
        await asyncio.wait([receiver.serving])
        listener.close()


@asynccontextmanager
async def _webhook(
    settings: Settings, app: App, lanes: Lanes, turn: standby.Turn, receiver: webhook.Receiver
) -> AsyncIterator["asyncio.Task[None]"]:
    def closed() -> str | None:
        if stopping or not app.running or lanes.stopping:
            return webhook.STOPPING
        return None if turn.may_take else webhook.STANDBY

    telegram: Telegram = app.bot
    stopping = False
    url = f"{(settings.webhook_url or '').rstrip('/')}{webhook.PATH}"
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
    source = None
    try:
        await set_webhook()
        watching = asyncio.create_task(watch.run(), name="watch")
        source = asyncio.create_task(_either(receiver.serving, watching))
        yield source
    finally:
        stopping = True
        if source is not None:
            watching.cancel()
            source.cancel()
            await asyncio.wait([watching, source])


async def _either(*tasks: "asyncio.Task[None]") -> None:
    """Wait for whichever ends first, and fail if it did."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `run`."""
        yield


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
