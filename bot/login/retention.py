"""Deletes what was kept long enough, every hour, and tells people what becomes of their templates.

That they will go, where nobody uses them, and that another embedder will take over from theirs; and
of attempts that they may not have made, where they were not told at once.

Any replica may do it; what one has done the others find done, and who is to tell a person something
claims it in the database first. Knows nothing about what is kept.
"""

import asyncio
import logging
from functools import partial

from telegram import Bot

from bot import rounds
from bot.login import notices
from bot.store import Store, StoreError
from bot.texts import DEFAULT, moment, say

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
    about_faces = [
        (person, "rights.idle", when, partial(store.claim_notice, person), store.mark_noticed)
        for person, when in done.notices
    ]
    about_faces += [
        (
            person,
            "verify.takeover",
            due,
            partial(store.claim_announcement, person, due),
            partial(store.mark_announced, due=due),
        )
        for person, due in done.announcements
    ]
    for person, key, when, claim, mark in about_faces:
        try:
            if await claim(lease_s=notices.LEASE_S):
                language = await store.writing_language(person) or DEFAULT
                if await notices.told(bot, person, say(language, key, when=moment(when))):
                    await mark(person)
        except StoreError:
            raise
        except Exception:  # the others are told all the same
            logger.exception("a notice was not sent, and will be")
    for person in done.alarms:
        try:
            await notices.alarm(bot, store, person)
        except StoreError:
            raise
        except Exception:
            logger.exception("a notice was not sent, and will be")
