"""Says things to people: replies, toasts and, when something broke, an error's number.

Knows nothing about photos.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from telegram import Bot, InlineKeyboardMarkup, Message, ReplyParameters, User
from telegram.error import BadRequest, Forbidden, TelegramError
from telegram.ext import ContextTypes

from bot.fairness import Turned
from bot.request import Request, current
from bot.texts import say

logger = logging.getLogger(__name__)

TOAST_MAX = 200
"""Telegram's limit on the text that answers a button."""

Language = Callable[[User], Awaitable[str]]
"""Tells which language a person is spoken to in."""


def replying_to(message: Message) -> ReplyParameters:
    """Marks a message as the reply to another, also if that one was deleted meanwhile."""
    return ReplyParameters(message.message_id, allow_sending_without_reply=True)


async def reply(message: Message, text: str, buttons: InlineKeyboardMarkup | None = None) -> None:
    """Answer a message with text, timing it for the log."""
    with current.get().timed("send"):
        await message.reply_text(text, reply_parameters=replying_to(message), reply_markup=buttons)


async def toast(bot: Bot, query_id: str, text: str | None = None) -> None:
    """Answer a button, so that it stops turning."""
    try:
        await bot.answer_callback_query(query_id, text and text[:TOAST_MAX])
    except BadRequest as error:
        # Telegram takes answers for some minutes only; nobody waits for this one any more.
        logger.info("a button was answered too late: %s", error)


@contextmanager
def unchanged_is_fine() -> Iterator[None]:
    """Bear that an edit changes nothing, as when a button is pressed twice."""
    try:
        yield
    except BadRequest as error:
        if "not modified" not in str(error).lower():
            raise


class Replies:
    """What is said where no handler could answer.

    Args:
        bot: the way to Telegram.
        language: see `Language`.
        error_code: makes a number for an error.
    """

    def __init__(
        self,
        bot: Bot,
        language: Language,
        *,
        error_code: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        self._bot = bot
        self._language = language
        self._error_code = error_code

    async def turn_away(self, request: Request, turned: Turned) -> None:
        """Tell a person why their request gets no answer of its own."""
        await self._tell(request, f"turned.{turned.value}")

    async def report(self, _update: object, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Log a fault under a number and tell the number to whoever waits; PTB's error handler."""
        error = context.error
        request = current.get(None)
        if request is None:
            logger.error("a fault outside of any answer", exc_info=error or True)
            return
        if isinstance(error, Forbidden):  # the person blocked the bot, and wants no answer
            request.outcome = "blocked"
            return
        code = self._error_code()
        request.outcome = "error"
        logger.error("error=%s update=%s", code, request.update.update_id, exc_info=error or True)
        try:
            await self._tell(request, "turned.error", code=code)
        except TelegramError as second:
            request.outcome = "error_unsent"
            logger.error("error=%s could not be told: %s", code, type(second).__name__)

    async def _tell(self, request: Request, key: str, **values: object) -> None:
        update = request.update
        user = update.effective_user
        if user is None:
            return
        text = say(await self._language(user), key, **values)
        if update.callback_query is not None:
            await toast(self._bot, update.callback_query.id, text)
        elif update.message is not None:
            await reply(update.message, text)
