"""Tells people what becomes of their login without being asked: the one place it is sent from.

Security notices go to the person's chat, and to their contact's, the other account that is told.
Knows nothing about when one is due.
"""

import asyncio
import logging
from collections.abc import Mapping
from types import MappingProxyType
from unicodedata import category

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup
from telegram.error import BadRequest, Forbidden, TelegramError

from bot.store import Contact, Store, StoreError
from bot.texts import DEFAULT, say

logger = logging.getLogger(__name__)

SENDING_S = 300.0
"""For how long a notice may be on its way."""
_NAMING_S = 5.0
_NAME_LETTERS = 40
LEASE_S = 2 * SENDING_S
"""For how long no other replica sends it: longer than it is on its way, shorter than a round."""


async def security(bot: Bot, store: Store, telegram_id: int, key: str, **values: object) -> bool:
    """Tell a person, and their contact, something about the safety of their login.

    False: it is to be tried again.

    Args:
        bot: the way to Telegram.
        store: knows the language to write in.
        telegram_id: who is to be told.
        key: of the sentence; see `bot.texts.say`.
        values: what its placeholders stand for.
    """
    passed_on = await pass_on(bot, store, telegram_id, key, values)
    return await tell(bot, store, telegram_id, key, **values) and passed_on


async def tell(bot: Bot, store: Store, telegram_id: int, key: str, **values: object) -> bool:
    """Tell a person alone something, in their language: as `security`."""
    language = await store.writing_language(telegram_id) or DEFAULT
    return await told(bot, telegram_id, say(language, key, **values))


async def pass_on(
    bot: Bot,
    store: Store,
    telegram_id: int,
    key: str,
    values: Mapping[str, object] = MappingProxyType({}),
    *,
    contact: Contact | None = None,
    stoppable: bool = False,
) -> bool:
    """Tell a person's contact alone: what the person has been told, or did, in their own chat.

    Args:
        bot: the way to Telegram.
        store: knows the contact.
        telegram_id: whose contact is to be told; they hear of it where it has blocked the bot.
        key: of the sentence.
        values: what its placeholders stand for.
        contact: theirs, where it has just ended; None is the one that there is.
        stoppable: whether it is of something that the contact may stop.

    Returns:
        False where it is to be tried again.
    """
    lasts = contact is None
    contact = await store.contact(telegram_id) if contact is None else contact
    if contact is None:
        return True
    language = await store.writing_language(contact.telegram_id) or contact.language
    name = await name_of(bot, telegram_id) or say(language, "alerts.somebody")
    text = say(language, "alerts.passed_on", name=name, text=say(language, key, **values))
    verbs = (["stop"] if stoppable else []) + (["leave"] if lasts else [])
    buttons = [
        InlineKeyboardButton(
            say(language, f"buttons.alerts_{verb}"), callback_data=f"alerts:{verb}:{contact.id}"
        )
        for verb in verbs
    ]
    markup = InlineKeyboardMarkup([[button] for button in buttons])
    try:
        async with asyncio.timeout(SENDING_S):
            await bot.send_message(contact.telegram_id, text, reply_markup=markup)
    except (Forbidden, BadRequest):
        return not lasts or await tell(bot, store, telegram_id, "alerts.unreachable")
    except (TelegramError, TimeoutError) as error:
        logger.warning("a contact was not told: %s", type(error).__name__)
        return False
    return True


async def name_of(bot: Bot, telegram_id: int) -> str | None:
    """How a person is called on Telegram now, on one line; None where Telegram does not say.

    Nothing in it leads anywhere or changes what stands around it: a name is whatever they like.
    """
    try:
        async with asyncio.timeout(_NAMING_S):
            name = (await bot.get_chat(telegram_id)).full_name
    except (TelegramError, TimeoutError) as error:
        logger.info("no name: %s", type(error).__name__)
        return None
    assert name is not None, "a private chat has one"
    plain = "".join(each if category(each)[0] in "LMN" or each in "'-" else " " for each in name)
    return " ".join(plain.split())[:_NAME_LETTERS].strip() or None


async def alarm(bot: Bot, store: Store, telegram_id: int) -> None:
    """Tell a person of attempts that they may not have made, where there is something to tell.

    It stays in the database until they were told: what a fault or a death of this process kept from
    them, tidying tells them.

    Args:
        bot: the way to Telegram.
        store: knows whether there is something.
        telegram_id: whom it is about.
    """
    found = await store.claim_alarm(telegram_id, lease_s=LEASE_S)
    if found is None:
        return
    values = {"failures": found.failures, "limit": found.limit}
    if await security(bot, store, telegram_id, f"notices.{found.kind}", **values):
        await store.mark_alarmed(telegram_id, found)


async def alarm_at_once(bot: Bot, store: Store, telegram_id: int) -> None:
    """As `alarm`, after an answer, which no fault is to spoil: tidying tells the person then."""
    try:
        await alarm(bot, store, telegram_id)
    except (StoreError, TelegramError) as error:
        logger.warning("a notice was not sent, and will be: %s", error)


async def told(bot: Bot, telegram_id: int, text: str) -> bool:
    """Write to a person; False where it is to be tried again."""
    try:
        async with asyncio.timeout(SENDING_S):
            await bot.send_message(telegram_id, text)
    except (Forbidden, BadRequest):
        pass  # whoever blocked the bot or left Telegram cannot be told
    except (TelegramError, TimeoutError) as error:
        logger.warning("a notice was not sent, and will be: %s", type(error).__name__)
        return False
    return True
