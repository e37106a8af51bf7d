"""/who through real HTTP: pages, searches, and what it says while the engine is away."""

from pathlib import Path

import pytest

from bot import app
from bot.lookalike.captions import TEXT_MAX
from bot.lookalike.gallery_people import Directory
from bot.lookalike.who import PAGE, examples, found, page
from bot.sandbox import Sandbox
from bot.telegram.replies import TOAST_MAX
from bot.texts import LANGUAGES, say
from engine.errors import Unavailable
from engine.types import EngineInfo, Person
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, bot
from tests.bot.logged import logged

MESSI = Person("Lionel Messi", "AR", {"es": "futbolista", "en": "footballer"})
SHAKIRA = Person("Shakira", "CO", {"es": "cantante", "en": "singer"})
NADAL = Person("Rafael Nadal", "ES", {"es": "tenista", "en": "tennis player"})
FEW = (MESSI, SHAKIRA, NADAL)
MANY = tuple(Person(f"Person {n:03}", ("AR", "US")[n % 2], {"es": "actor"}) for n in range(45))


class AwayEngine(FakeEngine):
    async def info(self) -> EngineInfo:
        raise Unavailable("Nobody there.")


async def test_without_words_it_counts_shows_how_to_search_and_lists(tmp_path: Path) -> None:
    async with bot(tmp_path, FakeEngine(people=FEW)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("es")
        sent = await ana.send_text("/who")
        answer = await ana.reply()
        assert answer.reply_to == sent.message_id
        lines = answer.text.splitlines()
        assert lines[0] == "Conozco a 3 famosos de 3 países."
        assert "• Lionel Messi · 🇦🇷 Argentina · futbolista" in lines
        assert "• Shakira · 🇨🇴 Colombia · cantante" in lines
        assert sum(line.startswith("/who ") for line in lines) == 3
        assert answer.buttons == ()


async def test_pages_are_turned_by_buttons(tmp_path: Path) -> None:
    async with bot(tmp_path, FakeEngine(people=MANY)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_text("/who")
        first = await ana.reply()
        assert first.text.startswith("I know 45 celebrities from 2 countries.")
        assert "Page 1 of 3" in first.text
        assert listed(first.text) == [person.name for person in MANY[:20]]
        assert labels(first) == ["Next ➡️"]
        assert (await ana.press(first, "Next")).text == ""
        second = await ana.edited(first)
        assert listed(second.text) == [person.name for person in MANY[20:40]]
        assert labels(second) == ["⬅️ Previous", "Next ➡️"]
        await ana.press(second, "Next")
        third = await ana.edited(second)
        assert listed(third.text) == [person.name for person in MANY[40:]]
        assert labels(third) == ["⬅️ Previous"]
        await ana.press(third, "Previous")
        assert (await ana.edited(third)).text == second.text
        for message in (first, second, third):
            for row in message.buttons:
                for one in row:
                    assert len((one.data or "").encode()) <= 64


async def test_a_page_that_is_gone_with_its_bundle_is_the_last_one(tmp_path: Path) -> None:
    engine = FakeEngine(people=MANY)
    async with bot(tmp_path, engine) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_text("/who")
        first = await ana.reply()
        engine.bundle, engine.known = "other@1", FEW
        await ana.press(first, "Next")
        changed = await ana.edited(first)
        assert listed(changed.text) == ["Lionel Messi", "Rafael Nadal", "Shakira"]
        assert changed.buttons == ()


def listed(text: str) -> list[str]:
    return [
        line.removeprefix("• ").split(" · ")[0]
        for line in text.splitlines()
        if line.startswith("• ")
    ]


def labels(message: object) -> list[str]:
    return [one.text for row in message.buttons for one in row]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("language", "words", "line"),
    [
        ("es", "messi", "• Lionel Messi · 🇦🇷 Argentina · futbolista"),
        ("en", "MESSI", "• Lionel Messi · 🇦🇷 Argentina · footballer"),
        ("es", "españa", "• Rafael Nadal · 🇪🇸 España · tenista"),
        ("es", "spain", "• Rafael Nadal · 🇪🇸 España · tenista"),
        ("en", "tennis  SPAIN", "• Rafael Nadal · 🇪🇸 Spain · tennis player"),
    ],
)
async def test_words_find_somebody(tmp_path: Path, language: str, words: str, line: str) -> None:
    async with bot(tmp_path, FakeEngine(people=FEW)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language(language)
        await ana.send_text(f"/who {words}")
        assert (await ana.reply()).text == f"{say(language, 'who.found', count=1)}\n{line}"


async def test_who_finds_nobody_hears_what_else_to_try(tmp_path: Path) -> None:
    async with bot(tmp_path, FakeEngine(people=FEW)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("es")
        for words in ("zzz", "…", "messi tenista"):
            await ana.send_text(f"/who {words}")
            assert (await ana.reply()).text == say("es", "who.nobody")


@pytest.mark.parametrize("language", LANGUAGES)
def test_those_found_beyond_a_page_are_counted(language: str) -> None:
    text = found(Directory(MANY), "person", language)
    assert text.startswith(say(language, "who.found", count=45))
    assert len(listed(text)) == PAGE
    assert text.endswith(say(language, "who.further", count=25))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("people", [FEW, MANY, FEW[:1], (Person("Ana"), Person("Ben Bo"))])
def test_the_examples_find_somebody(language: str, people: tuple[Person, ...]) -> None:
    directory = Directory(people)
    told = examples(directory, language)
    assert told
    for words in told:
        assert directory.find(words)
        assert f"/who {words}" in page(directory, 0, language).splitlines()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_of_the_longest_names_fits_a_message(language: str) -> None:
    words = {"es": "ñ " * 200, "en": "x " * 200}
    people = [Person(f"{n} " + "🙂" * 200, "US", words) for n in range(60)]
    directory = Directory(people)
    for text in (page(directory, 1, language), found(directory, "us united", language)):
        assert len(text.encode("utf-16-le")) // 2 <= TEXT_MAX


def test_a_name_stays_on_its_line() -> None:
    assert listed(page(Directory([Person("Ana\n • Ben")]), 0, "en")) == ["Ana • Ben"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_while_the_engine_is_away_it_says_so(tmp_path: Path, language: str) -> None:
    async with bot(tmp_path, AwayEngine()) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language(language)
        for words in ("", " messi"):
            await ana.send_text(f"/who{words}")
            assert (await ana.reply()).text == say(language, "who.away")


async def test_a_button_pressed_while_the_engine_is_away_says_so(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path)
        ana = sandbox.person("ana")
        await ana.set_language("es")
        async with app.running(chosen, FakeEngine(people=MANY), draw=fakes.draw):
            await ana.send_text("/who")
            first = await ana.reply()
        # After a restart nobody is known until the engine is there.
        async with app.running(chosen, AwayEngine(), draw=fakes.draw):
            assert (await ana.press(first, "Siguientes")).text == say("es", "who.away")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_button_says_is_not_cut(language: str) -> None:
    assert len(say(language, "who.away")) <= TOAST_MAX


async def test_an_empty_gallery_is_told(tmp_path: Path) -> None:
    async with bot(tmp_path, FakeEngine(people=())) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("es")
        await ana.send_text("/who")
        assert (await ana.reply()).text == say("es", "who.empty")


async def test_what_is_searched_is_not_logged(tmp_path: Path) -> None:
    with logged() as stream:
        async with bot(tmp_path, FakeEngine(people=FEW)) as sandbox:
            ana = sandbox.person("ana")
            await ana.send_text("/who nadal")
            await ana.reply()
    assert "kind=command" in stream.getvalue()
    assert "nadal" not in stream.getvalue().lower()
