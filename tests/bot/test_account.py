"""Commands, languages and hints, through real HTTP."""

from pathlib import Path

import pytest

from bot import app
from bot.account import COMMANDS, LOGIN_COMMANDS
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.sandbox.client import Event
from bot.texts import LANGUAGES, say
from engine.errors import Unavailable
from engine.types import EngineInfo
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, bot, picture


@pytest.mark.parametrize(
    ("code", "language"), [("es-AR", "es"), ("en", "en"), ("pt-br", "en"), (None, "es")]
)
async def test_commands_answer_in_the_persons_language(
    tmp_path: Path, code: str | None, language: str
) -> None:
    facts = {
        "minutes": 60,
        "faces_max": 12,
        "updates_kept": 10_000,
        "selfies": 4,
        "capture_days": 30,
        "audit_days": 180,
        "idle_days": 365,
        "notice_days": 30,
        "hold_hours": 24,
        "people": say(language, "account.people", count=len(fakes.NAMES)),
    }
    said = {
        "start": ("start",),
        "help": ("help", "help_login"),
        "privacy": ("privacy", "privacy_login"),
        "nonsense": ("unknown",),
    }
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language(code)
        for command, keys in said.items():
            await ana.send_text(f"/{command}")
            words = "".join(say(language, f"account.{key}", **facts) for key in keys)
            assert (await ana.reply()).text == words.strip()


class AwayEngine(FakeEngine):
    async def info(self) -> EngineInfo:
        raise Unavailable("Nobody there.")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_greetings_tell_of_who_also_while_the_engine_is_away(
    tmp_path: Path, language: str
) -> None:
    async with bot(tmp_path, AwayEngine()) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language(language)
        for command in ("/start", "/help"):
            await ana.send_text(command)
            text = (await ana.reply()).text
            assert say(language, "account.people_all") in text
            assert "/who" in text


async def test_without_a_login_nobody_hears_of_it(tmp_path: Path) -> None:
    async with bot(tmp_path, face_login=False, template_keys_file=tmp_path / "none") as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_text("/help")
        assert "/enroll" not in (await ana.reply()).text
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == say("en", "account.unknown")
        await ana.send_photo(picture())
        assert (await ana.reply()).photo


async def test_privacy_names_the_numbers_that_hold(tmp_path: Path) -> None:
    async with bot(tmp_path, buttons_minutes=5, updates_kept=777) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_text("/privacy")
        text = (await ana.reply()).text
        assert "up to 5 minutes" in text
        assert "last 777 updates" in text


async def test_a_chosen_language_is_remembered_also_after_a_restart(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path)
        ana = sandbox.person("ana")
        await ana.set_language("es")
        async with app.running(chosen, fakes.FakeEngine(), draw=fakes.draw):
            await ana.send_text("/language")
            choice = await ana.reply()
            assert choice.text == say("es", "account.language")
            said = await ana.press(choice, LANGUAGES["en"])
            assert said.text == say("en", "account.language_chosen")
            assert (await ana.edited(choice)).text == said.text
            await ana.send_sticker()
            assert (await ana.reply()).text == say("en", "account.hint")
        async with app.running(chosen, fakes.FakeEngine(), draw=fakes.draw):
            await ana.send_text("hola")
            assert (await ana.reply()).text == say("en", "account.hint")


async def test_everything_that_is_no_photo_gets_a_hint(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("es")
        kinds = ("sticker", "voice", "location", "contact", "video", "animation")
        for kind in kinds:
            await ana.send_other(kind)
            assert (await ana.reply()).text == say("es", "account.hint"), kind


async def test_the_menu_of_commands_is_published_in_each_language(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        published = 0

        def third(event: Event) -> bool:
            nonlocal published
            published += event.kind == "commands"
            return published == 3

        await ana.wait_for(third)
        for code, language in (("es", "es"), ("en", "en"), ("pt", "en")):
            await ana.set_language(code)
            assert await ana.commands() == {
                name: say(language, f"commands.{name}") for name in (*COMMANDS, *LOGIN_COMMANDS)
            }


async def test_an_edited_message_is_not_answered_again(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        sent = await ana.send_text("hello")
        await ana.reply()
        await ana.edit(sent, "hello!")
        await ana.send_photo(picture())
        assert (await ana.reply()).photo


async def test_a_menu_that_cannot_be_published_stops_nothing(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, method="setMyCommands", count=99))
        chosen = fakes.settings(sandbox, tmp_path)
        async with app.running(chosen, fakes.FakeEngine(), draw=fakes.draw):
            ana = sandbox.person("ana")
            await ana.send_photo(picture())
            assert (await ana.reply()).photo
