"""Deletes what was kept long enough, every hour, and tells people what becomes of their templates.

That they will go, where nobody uses them, and that another embedder will take over from theirs.

Any replica may do it; what one has done the others find done. Knows nothing about what is kept.
"""

import asyncio
import logging

from telegram import Bot
from telegram.error import BadRequest, Forbidden, TelegramError

from bot.store import Store, StoreError
from bot.texts import DEFAULT, moment, say

logger = logging.getLogger(__name__)

EVERY_S = 3600.0


async def keep_house(store: Store, bot: Bot, every_s: float = EVERY_S) -> None:
    """Tidy now, and again and again until it is cancelled.

    Args:
        store: what is tidied.
        bot: the way to Telegram.
        every_s: seconds between two rounds.
    """
    while True:
        try:
            await tidy(store, bot)
        except StoreError:
            logger.exception("what was kept long enough could not be deleted; the next round will")
        await asyncio.sleep(every_s)


async def tidy(store: Store, bot: Bot) -> None:
    """One round: arguments as in `keep_house`."""
    done = await store.tidy()
    if any(done.counts.values()):
        logger.info(
            "tidied %s", " ".join(f"{name}={count}" for name, count in done.counts.items() if count)
        )
    for telegram_id, when in done.notices:
        language = await store.writing_language(telegram_id) or DEFAULT
        if await _told(bot, telegram_id, say(language, "rights.idle", when=moment(when))):
            await store.mark_noticed(telegram_id)
    for telegram_id, due in done.announcements:
        language = await store.writing_language(telegram_id) or DEFAULT
        if await _told(bot, telegram_id, say(language, "verify.takeover", when=moment(due))):
            await store.mark_announced(telegram_id, due)


async def _told(bot: Bot, telegram_id: int, text: str) -> bool:
    """Write to a person; False where it is to be tried again."""
    try:
        await bot.send_message(telegram_id, text)
    except (Forbidden, BadRequest):
        pass  # whoever blocked the bot or left Telegram cannot be told
    except TelegramError as error:
        logger.warning("a notice was not sent, and will be: %s", type(error).__name__)
        return False
    return True
