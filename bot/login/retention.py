"""Deletes what was kept long enough, every hour, and tells people what becomes of their templates.

That they will go, where nobody uses them, and that another embedder will take over from theirs; and
of attempts that they may not have made, where they were not told at once.

The one bot that serves does it. Knows nothing about what is kept.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from telegram import Bot

from bot import rounds
from bot.login import notices
from bot.store import Store, StoreError
from bot.texts import moment

logger = logging.getLogger(__name__)

EVERY_S = 3600.0


async def run_retention(store: Store, bot: Bot, pause: rounds.Pause = asyncio.sleep) -> None:
    """Tidy now, and every hour until it is cancelled.

    Args:
        store: what is tidied.
        bot: the way to Telegram.
        pause: waits for the next round.
    """

    async def one_round() -> float:
        await tidy(store, bot)
        return EVERY_S

    await rounds.repeat(one_round, "tidying", pause)


async def tidy(store: Store, bot: Bot) -> None:
    """One round: arguments as in `run_retention`."""
    doubted_until = await store.erasing_waits()
    if doubted_until is not None:
        logger.warning(
            "nothing is erased, and nobody told of it, before %s: the bot was not in use for more "
            "than a week, or this machine's clock is wrong. If it is wrong, set it right; if not, "
            "there is nothing to do, or: python -m bot db clock",
            moment(doubted_until),
        )
        return
    done = await store.tidy()
    if any(done.counts.values()):
        logger.info(
            "tidied %s", " ".join(f"{name}={count}" for name, count in done.counts.items() if count)
        )
    for person, when in done.notices:
        with _faults_logged():
            if await notices.tell(bot, store, person, "rights.idle", when=moment(when)):
                await store.mark_noticed(person)
    for person, due in done.announcements:
        with _faults_logged():
            if await notices.tell(bot, store, person, "verify.takeover", when=moment(due)):
                await store.mark_announced(person, due)
    for person in done.alarms:
        with _faults_logged():
            await notices.alarm(bot, store, person)


@contextmanager
def _faults_logged() -> Iterator[None]:
    """Whatever happens to one person's notice, the others are told all the same."""
    try:
        yield
    except StoreError:
        raise
    except Exception:
        logger.exception("a notice was not sent, and will be")
