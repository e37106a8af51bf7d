"""The face login put together: which of its parts answers what.

Knows nothing about what any of them does.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from telegram.ext import BaseHandler, CallbackQueryHandler, CommandHandler, MessageHandler, filters

from bot.account import Account
from bot.login import alerts, enroll, move, my_data, notices, verify
from bot.login.alerts import Alerts
from bot.login.captures import Captures
from bot.login.conversations import Flows
from bot.login.enroll import Enrolling
from bot.login.move import Moving
from bot.login.my_data import Rights
from bot.login.recover import Recovering
from bot.login.verify import Terms, Verifying
from bot.lookalike.handlers import Lookalike
from bot.settings import Settings
from bot.store import LOCK_WINDOW, Store
from bot.telegram.client import Telegram
from bot.telegram.kinds import CLIP, EDITED, NEW, PICTURE


def handlers(
    settings: Settings,
    telegram: Telegram,
    store: Store,
    captures: Captures,
    account: Account,
    lookalike: Lookalike,
    chance: random.Random,
) -> list[BaseHandler[Any, Any, Any]]:
    """What answers what of the face login; these come before the others."""
    patience_s = 60 * settings.conversation_minutes
    enrolling = Enrolling(
        store=store,
        captures=captures,
        language=account.language,
        selfies=settings.enroll_selfies,
        lifetime_s=patience_s,
        reset_delay_s=3600 * settings.reset_hours,
        hold_hours=hold_hours(settings),
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
        CommandHandler("start", alerting.opened, NEW, has_args=1),
        CommandHandler("alerts", alerting.command, NEW),
        CommandHandler("move", moving.command, NEW),
        CommandHandler("enroll", enrolling.command, NEW),
        CommandHandler("verify", verifying.command, NEW),
        CommandHandler("recover", recovering.command, NEW),
        CommandHandler("mydata", own.my_data, NEW),
        CommandHandler("forget", own.forget, NEW),
        CommandHandler("cancel", flows.cancel, NEW),
        MessageHandler(NEW & PICTURE, flows.picture),
        MessageHandler(NEW & CLIP, flows.clip),
        MessageHandler(NEW & words, flows.words),
        MessageHandler(EDITED, flows.edited),
        CallbackQueryHandler(enrolling.button, enroll.BUTTON),
        CallbackQueryHandler(verifying.button, verify.BUTTON),
        CallbackQueryHandler(own.button, my_data.BUTTON),
        CallbackQueryHandler(alerting.button, alerts.BUTTON),
    ]


def hold_hours(settings: Settings) -> int:
    """How long the mark of somebody who was erased is kept at most, in whole hours."""
    return math.ceil(max(settings.reset_hours, LOCK_WINDOW / timedelta(hours=1)))


def _now() -> datetime:
    return datetime.now(UTC)
