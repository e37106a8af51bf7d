"""Says things to people: replies, toasts and, when something broke, an error's number.

Knows nothing about photos.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from telegram import (
    Bot,
    CallbackQuery,
    ForceReply,
    InlineKeyboardMarkup,
    Message,
    ReplyParameters,
    Update,
    User,
)
from telegram.constants import ChatAction
from telegram.error import BadRequest, Forbidden, NetworkError, RetryAfter, TelegramError
from telegram.ext import ContextTypes

from bot import rounds
from bot.store import Tampered
from bot.telegram.incoming import Refusal
from bot.telegram.request import Request, current
from bot.telegram.update_processor import Turned
from bot.texts import say
from engine import request_id

logger = logging.getLogger(__name__)

_ACTION_EVERY_S = 4.0  # Telegram shows a chat action for five seconds

Markup = InlineKeyboardMarkup | ForceReply
"""What may hang below a message of the bot: buttons, or the wish for a reply."""

TOAST_MAX = 200
"""Telegram's limit on the text that answers a button."""

Language = Callable[[User], Awaitable[str]]
"""Tells which language a person is spoken to in."""


async def who_asks(update: Update, language: Language) -> tuple[Message, User, str]:
    """A message of a person, the person, and the language to answer in."""
    message, user = update.message, update.effective_user
    assert message is not None
    assert user is not None
    return message, user, await language(user)


async def who_pressed(update: Update, language: Language) -> tuple[CallbackQuery, str, str, str]:
    """A button that was pressed, the language to answer in, and what its data says.

    Data is `purpose:verb:what`; what is not there is "".
    """
    query = update.callback_query
    assert query is not None
    _, verb, what = ((query.data or "") + "::").split(":")[:3]
    return query, await language(query.from_user), verb, what


def replying_to(message: Message) -> ReplyParameters:
    """Marks a message as the reply to another, also if that one was deleted meanwhile."""
    return ReplyParameters(message.message_id, allow_sending_without_reply=True)


async def reply(
    message: Message, text: str, markup: Markup | None = None, *, protected: bool = False
) -> Message:
    """Answer a message with text, timing it for the log.

    Args:
        message: whose answer it is.
        text: what is said.
        markup: what hangs below.
        protected: whether Telegram's apps are to keep it from being forwarded and saved.

    Returns:
        The answer as Telegram has it.
    """
    with current.get().timed("send"):
        return await message.reply_text(
            text,
            reply_parameters=replying_to(message),
            reply_markup=markup,
            protect_content=protected,
        )


def refused(refusal: Refusal, language: str) -> str:
    """A refusal in words of a language, a key of `bot.texts.LANGUAGES`."""
    return say(language, f"refusal.{refusal.reason.value}", **refusal.values)


async def toast(bot: Bot, query_id: str, text: str | None = None) -> None:
    """Answer a button, so that it stops turning."""
    try:
        await bot.answer_callback_query(query_id, text and text[:TOAST_MAX])
    except BadRequest as error:
        # Telegram takes answers for some minutes only; nobody waits for this one any more.
        logger.info("a button was answered too late: %s", error)


async def delete(bot: Bot, *messages: Message) -> None:
    """Delete messages of a private chat; where Telegram does not, they stay, and the log says so.

    Telegram lets a bot delete what came within the last 48 hours.
    """
    for message in messages:
        try:
            await bot.delete_message(message.chat.id, message.message_id)
        except TelegramError as error:
            logger.info("a message could not be deleted: %s", error)


@asynccontextmanager
async def deleting(bot: Bot, messages: Iterable[Message]) -> AsyncIterator[None]:
    """Delete what a person sent, once it was answered or could not be.

    Where the time for an answer is over, it is deleted once that was said: see `turn_away`.
    """
    request = current.get()
    request.to_delete = tuple(messages)
    try:
        yield
    except Exception:
        await _delete_now(bot, request)
        raise
    await _delete_now(bot, request)


async def _delete_now(bot: Bot, request: Request) -> None:
    await delete(bot, *request.to_delete)
    request.to_delete = ()


@asynccontextmanager
async def working(
    bot: Bot, chat_id: int, action: ChatAction = ChatAction.UPLOAD_PHOTO
) -> AsyncIterator[None]:
    """Show the person that something is being done, for as long as it is."""

    async def show() -> None:
        while True:
            try:
                await bot.send_chat_action(chat_id, action)
            except TelegramError as error:
                logger.debug("no chat action: %s", type(error).__name__)
            await asyncio.sleep(_ACTION_EVERY_S)

    showing = asyncio.create_task(show(), name="chat action")
    showing.add_done_callback(rounds.log_fault)
    try:
        yield
    finally:
        showing.cancel()
        # Waiting for it would take in a cancellation of our own; asyncio.wait does not.
        await asyncio.wait([showing])


@contextmanager
def unchanged_is_fine() -> Iterator[None]:
    """Bear that an edit changes nothing, as when a button is pressed twice, or nothing is left."""
    try:
        yield
    except BadRequest as error:
        if not _is_unchanged(error) and not _is_gone(error):
            raise


async def settle(
    query: CallbackQuery, text: str | None, markup: InlineKeyboardMarkup | None = None
) -> None:
    """Take the buttons of a button's message away, and put other words where there are any.

    Where the message is gone, as when the person deleted it meanwhile, the words are sent anew.

    Args:
        query: the button's.
        text: what is said instead; None leaves the words.
        markup: buttons instead.
    """
    message = query.message
    if isinstance(message, Message):
        try:
            if text is None:
                await message.edit_reply_markup(markup)
            else:
                await message.edit_text(text, reply_markup=markup)
            return
        except BadRequest as error:
            if _is_unchanged(error):
                return
            if not _is_gone(error):
                raise
    if text is not None and message is not None:
        await query.get_bot().send_message(message.chat.id, text, reply_markup=markup)


def _is_unchanged(error: BadRequest) -> bool:
    return "not modified" in str(error).lower()


def _is_gone(error: BadRequest) -> bool:
    """Whether there is no message any more, or none that can be edited."""
    said = str(error).lower()
    return any(each in said for each in ("to edit not found", "can't be edited", "id_invalid"))


class Replies:
    """What is said where no handler could answer.

    Args:
        bot: the way to Telegram.
        language: see `Language`.
    """

    def __init__(self, bot: Bot, language: Language) -> None:
        self._bot = bot
        self._language = language

    async def turn_away(self, request: Request, turned: Turned) -> None:
        """Tell a person why their request gets no answer of its own."""
        try:
            await self._tell(request, f"turned.{turned.value}")
        finally:
            await delete(self._bot, *request.to_delete)

    async def report(self, _update: object, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Log a fault and tell whoever waits its request's id, shortened; PTB's error handler."""
        error = context.error
        request = current.get(None)
        if request is None:
            logger.error("a fault outside of any answer", exc_info=error or True)
            return
        if isinstance(error, Forbidden):  # the person blocked the bot, and wants no answer
            request.outcome = "blocked"
            return
        if isinstance(error, RetryAfter):  # told later, when the chat takes messages again
            request.late = True
            return
        # Such calls are made again as long as there is time (`bot.telegram.rate_limits`), so it is
        # over now: told with a time of its own, or that might be cut off after it was carried out.
        if isinstance(error, NetworkError) and not isinstance(error, BadRequest):
            kind = type(error).__name__
            logger.warning(
                "update=%s could not be sent in time: %s", request.update.update_id, kind
            )
            request.late = True
            return
        code = request_id.short()
        request.outcome = "error"
        logger.error("error=%s update=%s", code, request.update.update_id, exc_info=error or True)
        try:
            key = "turned.tampered" if isinstance(error, Tampered) else "turned.error"
            await self._tell(request, key, code=code)
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
        elif update.effective_message is not None:
            await reply(update.effective_message, text)
