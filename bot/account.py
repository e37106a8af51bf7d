"""Commands about the bot itself: /start /help /privacy /language, and hints for everything else.

Knows nothing about photos or faces. Whom the bot knows is `bot.lookalike.who`'s to tell; here it is
only said how many they are.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from telegram import (
    Bot,
    BotCommand,
    CallbackQuery,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Update,
    User,
)
from telegram.ext import ContextTypes

from bot.lookalike.gallery_people import GalleryPeople
from bot.store import Store, StoreError
from bot.telegram.replies import reply, settle, toast
from bot.telegram.request import current
from bot.texts import LANGUAGES, language_of, say

logger = logging.getLogger(__name__)

COMMANDS = ("start", "who", "help", "privacy", "language")
LOGIN_COMMANDS = ("enroll", "verify", "recover", "alerts", "move", "mydata", "forget", "cancel")
LANGUAGE_BUTTON = r"^language:[a-z]{2}$"

_ASKING_S = 1.0
"""For how long an answer waits to hear which language a person chose."""
_COUNTING_S = 1.0
"""For how long a greeting waits to hear how many people the bot knows."""


@dataclass(eq=False)
class Account:
    """What a person can ask the bot about itself.

    Args:
        store: remembers the languages that people chose.
        facts: numbers that the sentences speak of, by placeholder.
        people: counts whom the bot knows.
        login: whether there is a face login to speak of.
    """

    store: Store
    facts: Mapping[str, int]
    people: GalleryPeople
    login: bool = field(kw_only=True)

    async def language(self, user: User) -> str:
        """The language that a person chose, or else that of their Telegram."""
        request = current.get(None)
        if request is not None and request.language is not None:
            return request.language
        wait_s = _ASKING_S if request is None else request.little_s(_ASKING_S)
        chosen = None
        try:
            async with asyncio.timeout(wait_s):
                chosen = await self.store.language(user.id)
        except (StoreError, TimeoutError) as error:
            # A person is better answered in the wrong language than late or not at all.
            reason = str(error) or "no answer in time"
            logger.warning("the chosen language could not be read: %s", reason)
        if chosen is None or chosen not in LANGUAGES:
            chosen = language_of(user.language_code)
        if request is not None:
            request.language = chosen
        return chosen

    async def start(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Greet."""
        await self._say(update, "account.start", count=True)

    async def help(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Say how it works."""
        await self._say(update, "account.help", "account.help_login", count=True)

    async def privacy(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Say what is kept and what is not."""
        await self._say(update, "account.privacy", "account.privacy_login")

    async def unknown(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Name the commands that there are."""
        await self._say(update, "account.unknown")

    async def hint(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Say what the bot is for, to whoever sends something else."""
        current.get().outcome = "hint"
        await self._say(update, "account.hint")

    async def choose(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Offer the languages."""
        buttons = [
            InlineKeyboardButton(name, callback_data=f"language:{language}")
            for language, name in LANGUAGES.items()
        ]
        await self._say(update, "account.language", buttons=InlineKeyboardMarkup([buttons]))

    async def chosen(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Remember the language whose button was pressed."""
        query = update.callback_query
        assert isinstance(query, CallbackQuery)
        language = (query.data or "").partition(":")[2]
        if language in LANGUAGES:
            await self.store.choose_language(query.from_user.id, language)
            current.get().language = language
        done = say(await self.language(query.from_user), "account.language_chosen")
        await settle(query, done)
        await toast(context.bot, query.id, done)

    async def _say(
        self,
        update: Update,
        key: str,
        of_login: str | None = None,
        buttons: InlineKeyboardMarkup | None = None,
        *,
        count: bool = False,
    ) -> None:
        """Say a sentence, and another one behind it where there is a login.

        Args:
            update: whose message is answered.
            key: of the sentence.
            of_login: of the other one.
            buttons: what hangs below.
            count: whether the sentences speak of how many people the bot knows.
        """
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        language = await self.language(user)
        keys = (key, of_login) if of_login and self.login else (key,)
        values: dict[str, object] = dict(self.facts)
        if count:
            values["people"] = await self._counted(language)
        await reply(message, "".join(say(language, one, **values) for one in keys), buttons)

    async def _counted(self, language: str) -> str:
        """How many people the bot knows, in words; also while the engine cannot tell."""
        count = await self.people.count(current.get().look_until_s(_COUNTING_S))
        if count is None:
            return say(language, "account.people_all")
        return say(language, "account.people", count=count)


async def publish_commands(bot: Bot, *, login: bool) -> None:
    """Show the commands in Telegram's menu, in each language; English for all the others."""
    names = (*COMMANDS, *LOGIN_COMMANDS) if login else COMMANDS
    for language in (*LANGUAGES, None):
        commands = [BotCommand(name, say(language or "en", f"commands.{name}")) for name in names]
        await bot.set_my_commands(commands, language_code=language)
