"""/who: whom the bot knows, page by page, or those whom some words fit.

Knows nothing about where the people come from or how words are compared.
"""

import re
from collections.abc import Sequence

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Message, Update
from telegram.ext import ContextTypes

from bot.lookalike import countries
from bot.lookalike.captions import TEXT_MAX, fit
from bot.lookalike.gallery_people import Directory, GalleryPeople
from bot.telegram.replies import Language, reply, toast, unchanged_is_fine
from bot.telegram.request import current
from bot.texts import say
from engine.types import Person

BUTTON = r"^who:[0-9]{1,6}$"

PAGE = 20
"""People on a page, and people found who are told."""

_ASKING_S = 5.0


class Who:
    """Tells whom the bot knows.

    Args:
        people: see `bot.lookalike.gallery_people`.
        language: see `replies.Language`.
    """

    def __init__(self, *, people: GalleryPeople, language: Language) -> None:
        self._people = people
        self._language = language

    async def command(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Show the first page, or whom the words behind the command fit."""
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        language = await self._language(user)
        directory = await self._directory()
        words = " ".join(context.args or ())
        if directory is None:
            await reply(message, say(language, "who.away"))
        elif words:
            await reply(message, found(directory, words, language))
        else:
            await reply(message, page(directory, 0, language), _buttons(directory, 0, language))

    async def button(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Turn to another page; whatever happens, the button is answered."""
        query = update.callback_query
        assert query is not None
        language = await self._language(query.from_user)
        directory = await self._directory()
        said = None
        if directory is None:
            said = say(language, "who.away")
        elif isinstance(query.message, Message):
            # The bundle may have changed since, and have fewer pages.
            number = min(int((query.data or "").partition(":")[2]), _pages(directory) - 1)
            with current.get().timed("send"), unchanged_is_fine():
                await query.message.edit_text(
                    page(directory, number, language),
                    reply_markup=_buttons(directory, number, language),
                )
        else:
            said = say(language, "toast.button_expired")
        await toast(context.bot, query.id, said)

    async def _directory(self) -> Directory | None:
        request = current.get()
        with request.timed("engine"):
            directory = await self._people.directory(request.look_until_s(_ASKING_S))
        if directory is None:
            request.outcome = "refused_engine_down"
        return directory


def page(directory: Directory, number: int, language: str) -> str:
    """How many people there are, how to search, and one page of them.

    Args:
        directory: the people.
        number: of the page, counted from 0.
        language: a key of `bot.texts.LANGUAGES`.
    """
    if not directory:
        return say(language, "who.empty")
    lines = [_counted(directory, language), "", say(language, "who.search")]
    lines += [f"/who {words}" for words in examples(directory, language)]
    lines.append("")
    if _pages(directory) > 1:
        lines.append(say(language, "who.page", number=number + 1, of=_pages(directory)))
    lines += _lines(directory.people[number * PAGE : (number + 1) * PAGE], language)
    return fit("\n".join(lines), TEXT_MAX)


def found(directory: Directory, words: str, language: str) -> str:
    """Whom some words fit, and how many more there are than are told."""
    people = directory.find(words)
    if not people:
        return say(language, "who.nobody")
    lines = [say(language, "who.found", count=len(people)), *_lines(people[:PAGE], language)]
    if len(people) > PAGE:
        lines.append(say(language, "who.further", count=len(people) - PAGE))
    return fit("\n".join(lines), TEXT_MAX)


def examples(directory: Directory, language: str) -> list[str]:
    """Words that find somebody: of a name, a country, and what somebody is known for."""
    told = [
        person for person in directory.people if person.country and _known_for(person, language)
    ]
    if not told:
        return [_word(directory.people[0].name, -1)]
    # Three people's, so that they are not taken for one search.
    first, second, third = (told[len(told) * place // 4] for place in (1, 2, 3))
    return [
        _word(first.name, -1),
        countries.name(second.country, language).lower(),
        _word(_known_for(third, language), 0),
    ]


def _counted(directory: Directory, language: str) -> str:
    count, of = len(directory), directory.countries
    if of < 2:
        return say(language, "who.all", count=count)
    people = say(language, "account.people", count=count)
    return say(language, "who.countries", people=people, count=of)


def _lines(people: Sequence[Person], language: str) -> list[str]:
    return [f"• {_told(person, language)}" for person in people]


def _told(person: Person, language: str) -> str:
    """One person on one line: name, country, and what for, as far as they are told."""
    country = ""
    if person.country:
        flag = countries.flag(person.country)
        country = f"{flag} {countries.name(person.country, language)}"
    parts = (person.name, country, _known_for(person, language))
    # A name may have been a folder's, with whatever characters folders have.
    return " · ".join(" ".join(part.split()) for part in parts if part)


def _known_for(person: Person, language: str) -> str:
    return person.known_for.get(language) or person.known_for.get("en", "")


def _word(text: str, place: int) -> str:
    """One word of a text, as somebody in a hurry types it."""
    words: list[str] = re.findall(r"\w+", text)
    return (words or [text])[place].lower()


def _pages(directory: Directory) -> int:
    return max(1, -(-len(directory) // PAGE))


def _buttons(directory: Directory, number: int, language: str) -> InlineKeyboardMarkup | None:
    """Buttons to the pages before and behind, where there are any."""
    row = []
    if number > 0:
        words = say(language, "buttons.previous")
        row.append(InlineKeyboardButton(words, callback_data=f"who:{number - 1}"))
    if number < _pages(directory) - 1:
        words = say(language, "buttons.following")
        row.append(InlineKeyboardButton(words, callback_data=f"who:{number + 1}"))
    return InlineKeyboardMarkup([row]) if row else None
