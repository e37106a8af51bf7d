"""Whom the engine's bundle knows: asked for once a bundle, kept in memory, and searched.

Knows nothing about Telegram or about how people are listed.
"""

import asyncio
import logging
import re
import unicodedata
from collections.abc import Iterable

from bot.lookalike import countries
from bot.texts import LANGUAGES
from engine.client import Engine
from engine.errors import EngineError
from engine.types import EngineInfo, Person

logger = logging.getLogger(__name__)


class Directory:
    """The people of one bundle, in alphabetical order, ready to be searched.

    Args:
        people: in any order.
    """

    def __init__(self, people: Iterable[Person]) -> None:
        self.people = tuple(sorted(people, key=lambda person: (_words(person.name), person.name)))
        self._names = [_words(person.name) for person in self.people]
        self._words = [
            names + _words_about(person)
            for names, person in zip(self._names, self.people, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.people)

    @property
    def countries(self) -> int:
        """From how many countries they are, where that is told."""
        return len({person.country for person in self.people} - {""})

    def find(self, text: str) -> tuple[Person, ...]:
        """The people whom every word of a text fits, by name first and then in alphabetical order.

        A word fits that begins a word of the name, of the country in any language of the bot, or of
        what the person is known for. Accents and capitals make no difference.

        Args:
            text: as somebody typed it; without a word in it, nobody is found.
        """
        wanted = set(_words(text))  # a word said a thousand times is looked for once
        if not wanted:
            return ()
        found = [place for place, words in enumerate(self._words) if _all_begin(wanted, words)]
        found.sort(key=lambda place: not _all_begin(wanted, self._names[place]))
        return tuple(self.people[place] for place in found)


class GalleryPeople:
    """Tells whom the engine knows, and how many they are.

    Args:
        engine: knows them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._directory: tuple[str, Directory] | None = None
        self._count: tuple[str, int] | None = None

    async def directory(self, until_s: float) -> Directory | None:
        """The people of the bundle that answers now; those known last while the engine is away.

        Args:
            until_s: the event loop's time until which to wait.

        Returns:
            None where the engine is away and never told.
        """
        try:
            async with asyncio.timeout_at(until_s):
                return await self._asked()
        except (TimeoutError, EngineError) as error:
            logger.warning(
                "the engine's people are unknown: %s", str(error) or type(error).__name__
            )
        return None if self._directory is None else self._directory[1]

    async def count(self, until_s: float, *, bundle: str | None = None) -> int | None:
        """How many people there are.

        Args:
            until_s: the event loop's time until which to wait.
            bundle: of which bundle, by its id; None is the one that answers now, or the last one
                that did while the engine is away.

        Returns:
            None where that cannot be told.
        """
        if bundle is not None and self._count is not None and self._count[0] == bundle:
            return self._count[1]
        try:
            async with asyncio.timeout_at(until_s):
                await self._info()
        except (TimeoutError, EngineError) as error:
            logger.warning(
                "the engine's people are uncounted: %s", str(error) or type(error).__name__
            )
        if self._count is None or bundle not in (None, self._count[0]):
            return None
        return self._count[1]

    async def _info(self) -> EngineInfo:
        info = await self._engine.info()
        self._count = info.bundle, info.people
        return info

    async def _asked(self) -> Directory:
        """The present bundle's, fetched where it is another than before."""
        info = await self._info()
        if self._directory is not None and self._directory[0] == info.bundle:
            return self._directory[1]
        people = await self._engine.people()
        # In a thread: sorting a hundred thousand names takes a second.
        directory = await asyncio.to_thread(Directory, people)
        # Kept only where no other bundle came in between, whose people these may be.
        if (await self._info()).bundle == info.bundle and len(directory) == info.people:
            self._directory = info.bundle, directory
        return directory


def _words(text: str) -> list[str]:
    """The words of a text without capitals and accents."""
    bare = "".join(
        character
        for character in unicodedata.normalize("NFKD", text.casefold())
        if unicodedata.category(character) != "Mn"
    )
    return re.findall(r"\w+", bare)


def _words_about(person: Person) -> list[str]:
    called = [countries.name(person.country, language) for language in LANGUAGES if person.country]
    return [word for text in (*called, *person.known_for.values()) for word in _words(text)]


def _all_begin(wanted: Iterable[str], words: list[str]) -> bool:
    return all(any(word.startswith(one) for word in words) for one in wanted)
