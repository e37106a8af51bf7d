"""Recovery codes, through real HTTP and a real database."""

from pathlib import Path

from bot.sandbox import Person
from bot.texts import say
from tests.bot.logins import LoginEngine, Shots, capture_all, english, enroll, enrolled, login_bot


async def take_selfies(person: Person, shots: Shots) -> str:
    """Agree and enroll where consent is asked for already; returns the new code."""
    asked = await person.reply()
    await person.press(asked, say("en", "buttons.agree"))
    await person.reply()
    code = await capture_all(person, shots)
    assert code is not None
    return code


async def test_the_code_replaces_a_face_once(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    code = await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/recover")
        assert (await ana.reply()).text == say("en", "recover.ask")
        written = await ana.send_text(code.lower().replace("-", " "))
        await ana.deleted(written)
        assert (await ana.reply()).text == say("en", "recover.done")
        engine.person = 1
        other = await take_selfies(ana, shots)
        assert other != code
        await ana.send_text(f"/recover {code}")
        assert (await ana.reply()).text == say("en", "recover.wrong")
        await ana.send_text(f"/recover {other}")
        assert (await ana.reply()).text == say("en", "recover.done")


async def test_a_wrong_code_opens_nothing(tmp_path: Path) -> None:
    shots = Shots()
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/recover")
        assert (await ana.reply()).text == say("en", "verify.not_enrolled")
        await enroll(ana, shots)
        await ana.send_text("/recover AAAAA-BBBBB-CCCCC-DDDDD")
        assert (await ana.reply()).text == say("en", "recover.wrong")
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == say("en", "enroll.already", hours=24)
