"""Whom the engine knows: asked for once a bundle, and found by what people type."""

import asyncio
import math

import pytest

from bot.lookalike import countries
from bot.lookalike.gallery_people import Directory, GalleryPeople
from bot.texts import LANGUAGES
from engine.errors import Unavailable
from engine.types import EngineInfo, Person
from tests.bot.fakes import NAMES, PEOPLE, FakeEngine

MESSI = Person("Lionel Messi", "AR", {"es": "futbolista", "en": "footballer"})
DARIN = Person("Ricardo Darín", "AR", {"es": "actor", "en": "actor"})
NADAL = Person("Rafael Nadal", "ES", {"es": "tenista", "en": "tennis player"})
NUNEZ = Person("Ñusta Núñez", "US", {"es": "actriz y cantante", "en": "actress and singer"})
ARGENTINO = Person("Argentino Luna")
ALL = (MESSI, DARIN, NADAL, NUNEZ, ARGENTINO)


class CountingEngine(FakeEngine):
    """Counts how often its people are asked for; does not answer while `away`."""

    def __init__(self, people: tuple[Person, ...] = PEOPLE) -> None:
        super().__init__(people=people)
        self.told = 0
        self.away = False

    async def info(self) -> EngineInfo:
        if self.away:
            raise Unavailable("Nobody there.")
        return await super().info()

    async def people(self) -> tuple[Person, ...]:
        self.told += 1
        return await super().people()


@pytest.mark.parametrize(
    ("words", "people"),
    [
        ("messi", [MESSI]),
        ("MESSI", [MESSI]),
        ("lio mes", [MESSI]),
        ("darin", [DARIN]),
        ("Darín", [DARIN]),
        ("nunez", [NUNEZ]),
        ("ñusta", [NUNEZ]),
        ("argentina", [MESSI, DARIN]),
        ("argentin", [ARGENTINO, MESSI, DARIN]),  # by name first
        ("argentina actor", [DARIN]),
        ("actor argentina", [DARIN]),
        ("tenista", [NADAL]),
        ("tennis", [NADAL]),
        ("estados unidos", [NUNEZ]),
        ("united states", [NUNEZ]),
        ("españa", [NADAL]),
        ("espana", [NADAL]),
        ("spain", [NADAL]),
        ("cantante", [NUNEZ]),
        ("essi", []),
        ("messi nadal", []),
        ("...", []),
        ("", []),
        ("messi " * 800, [MESSI]),
    ],
)
def test_who_is_found(words: str, people: list[Person]) -> None:
    assert list(Directory(ALL).find(words)) == people


def test_people_stand_in_alphabetical_order_accents_aside() -> None:
    names = ["Zoe", "Álvaro", "alba", "Ñandú", "Nora", "Óscar"]
    directory = Directory(Person(name) for name in names)
    assert [person.name for person in directory.people] == [
        "alba",
        "Álvaro",
        "Ñandú",
        "Nora",
        "Óscar",
        "Zoe",
    ]
    assert len(directory) == 6
    assert directory.countries == 0
    assert Directory(ALL).countries == 3


async def test_people_are_fetched_once_a_bundle() -> None:
    engine = CountingEngine()
    people = GalleryPeople(engine)
    for _ in range(3):
        directory = await people.directory(math.inf)
        assert directory is not None
        assert {person.name for person in directory.people} == set(NAMES)
    assert engine.told == 1
    engine.bundle, engine.known = "other@1", ALL
    directory = await people.directory(math.inf)
    assert directory is not None
    assert set(directory.people) == set(ALL)
    assert engine.told == 2


async def test_people_of_a_bundle_that_is_being_changed_are_not_kept() -> None:
    class Changing(CountingEngine):
        async def people(self) -> tuple[Person, ...]:
            told = await super().people()
            self.bundle, self.known = "other@1", ALL
            return told

    engine = Changing()
    people = GalleryPeople(engine)
    await people.directory(math.inf)
    directory = await people.directory(math.inf)
    assert directory is not None
    assert set(directory.people) == set(ALL)
    assert engine.told == 2


async def test_people_known_before_are_told_while_the_engine_is_away() -> None:
    engine = CountingEngine()
    people = GalleryPeople(engine)
    engine.away = True
    assert await people.directory(math.inf) is None
    assert await people.count(math.inf) is None
    engine.away = False
    assert await people.directory(math.inf)
    engine.away = True
    assert await people.directory(math.inf)
    assert await people.count(math.inf) == len(NAMES)


async def test_an_engine_that_does_not_answer_is_not_waited_for() -> None:
    class Silent(FakeEngine):
        async def info(self) -> EngineInfo:
            await asyncio.Event().wait()
            raise AssertionError

    people = GalleryPeople(Silent())
    assert await people.directory(asyncio.get_running_loop().time() + 0.05) is None
    assert await people.count(asyncio.get_running_loop().time() + 0.05) is None


async def test_people_are_counted_by_bundle() -> None:
    engine = CountingEngine()
    people = GalleryPeople(engine)
    assert await people.count(math.inf, bundle=engine.bundle) == len(NAMES)
    engine.away = True
    assert await people.count(math.inf, bundle=engine.bundle) == len(NAMES)  # without asking
    assert await people.count(math.inf, bundle="other@1") is None
    engine.away, engine.bundle, engine.known = False, "other@1", ALL
    assert await people.count(math.inf, bundle="other@1") == len(ALL)
    # One that answered a photo before it was changed: nobody can tell any more.
    assert await people.count(math.inf, bundle="fake@00000000") is None
    assert await people.count(math.inf) == len(ALL)
    assert engine.told == 0


@pytest.mark.parametrize(
    ("code", "flag", "spanish", "english"),
    [
        ("AR", "🇦🇷", "Argentina", "Argentina"),
        ("US", "🇺🇸", "Estados Unidos", "United States"),
        ("GB", "🇬🇧", "Reino Unido", "United Kingdom"),
        ("QQ", "🇶🇶", "QQ", "QQ"),
    ],
)
def test_countries_have_names_and_flags(code: str, flag: str, spanish: str, english: str) -> None:
    assert countries.flag(code) == flag
    assert [countries.name(code, language) for language in LANGUAGES] == [spanish, english]
