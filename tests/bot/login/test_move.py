"""A login that goes to another account, through real HTTP and a real database.

Ana's account is lost, and Ben's is her new one; or else Ben's is the thief's, who has her code.
"""

import random
from pathlib import Path

from bot.login.liveness import draw
from bot.sandbox import Person
from bot.sandbox.client import Message
from bot.texts import say
from tests.bot.login.test_alerts import name_other, passed_on
from tests.bot.login.test_verify import clip_of
from tests.bot.logins import (
    LOT,
    LoginEngine,
    Shots,
    code_of,
    english,
    enroll,
    enrolled,
    login_bot,
    verify,
)
from tests.bot.test_thief import OWNER, THIEF

WRONG = "AAAAA-BBBBB-CCCCC-DDDDD"


async def ask(person: Person, code: str) -> Message:
    """/move with a code; what comes of it."""
    await person.send_text("/move")
    asked = await person.reply()
    assert asked.text == say("en", "move.ask")
    written = await person.send_text(code)
    await person.deleted(written)
    return await person.reply()


async def answer(
    person: Person, engine: LoginEngine, drawn: random.Random, asked: Message, who: int
) -> Message:
    """The video of somebody in reply to a challenge; what comes of it."""
    assert asked.photo
    engine.watch = clip_of(who, draw(drawn))
    await person.send_video_note(b"clip %d" % asked.message_id, reply_to=asked)
    return await person.reply()


async def test_code_and_video_move_a_login_to_another_account(tmp_path: Path) -> None:
    engine, shots, drawn = LoginEngine(), Shots(), random.Random(LOT)
    async with login_bot(tmp_path, engine) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        code = await enroll(ana, shots)
        asked = await ask(ben, code.lower())
        assert (await ana.reply()).text == say("en", "move.begun"), "at once"
        assert (await answer(ben, engine, drawn, asked, OWNER)).text == say(
            "en", "verify.passed_video"
        )
        new = code_of(await ben.reply())
        assert (await ben.reply()).text == say("en", "move.done")
        assert (await ana.reply()).text == say("en", "move.gone")
        assert (await verify(ben, shots)).text == say("en", "verify.passed_photo")
        await ana.send_text("/verify")
        assert (await ana.reply()).text == say("en", "verify.not_enrolled")
        await ana.send_text("/enroll")
        assert "not long ago" in (await ana.reply()).text, "nor another face there at once"
        await ben.send_text(f"/recover {code}")
        assert (await ben.reply()).text == say("en", "recover.wrong"), "used up"
        await ben.send_text(f"/recover {new}")
        assert (await ben.reply()).text == say("en", "recover.done")


async def test_a_thief_with_the_code_and_no_face_moves_nothing_and_is_counted(
    tmp_path: Path,
) -> None:
    engine, shots, drawn = LoginEngine(), Shots(), random.Random(LOT)
    async with login_bot(tmp_path, engine) as sandbox:
        ana, thief = await english(sandbox), await english(sandbox, "ben")
        code = await enroll(ana, shots)
        tries = 0
        while (asked := await ask(thief, code)).photo:
            assert (await ana.reply()).text == say("en", "move.begun")
            said = await answer(thief, engine, drawn, asked, THIEF)
            assert said.text.startswith(say("en", "verify.failed_video"))
            assert said.text.endswith(say("en", "move.again"))
            tries += 1
            assert tries < 6
        heard = [message.text for message in await ana.messages()]
        assert say("en", "move.gone") not in heard
        # It is Ana's account that these count for, and that is told so.
        await ana.send_text("/verify")
        assert not (await last(ana)).photo
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")


async def last(person: Person) -> Message:
    """The answer to what was written last, whatever else was said before it."""
    written = (await person.messages())[-1]
    while (said := await person.reply()).message_id < written.message_id:
        pass
    return said


async def test_a_clip_from_the_history_of_the_old_account_is_known_again(tmp_path: Path) -> None:
    engine, drawn = LoginEngine(), random.Random(LOT)
    code = await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana, thief = await english(sandbox), await english(sandbox, "ben")
        await ana.send_text("/verify video")
        first = await ana.reply()
        engine.watch = clip_of(OWNER, draw(drawn))
        await ana.send_video_note(b"a clip", reply_to=first)
        assert (await ana.reply()).text == say("en", "verify.passed_video")
        asked = await ask(thief, code)
        await thief.send_video_note(b"a clip", reply_to=asked)
        assert (await thief.reply()).text.startswith(say("en", "refusal.seen_before"))


async def test_a_code_of_nobody_is_answered_like_any_other(tmp_path: Path) -> None:
    engine = LoginEngine()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ben = await english(sandbox, "ben")
        for code in (WRONG, "no code", WRONG, WRONG, WRONG, WRONG):
            assert (await ask(ben, code)).text == say("en", "move.wrong")
        await ben.send_text("/move")
        assert "wrong codes" in (await ben.reply()).text


async def test_who_has_a_login_takes_no_other_one(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    code = await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ben = await english(sandbox, "ben")
        await enroll(ben, shots)
        written = await ben.send_text(f"/move {code}")
        await ben.deleted(written)
        assert (await ben.reply()).text == say("en", "move.enrolled")


async def test_the_other_account_is_told_and_goes_along(tmp_path: Path) -> None:
    engine, drawn = LoginEngine(), random.Random(LOT)
    code = await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await name_other(ana, ben)
        # The other account takes it over itself, and is told nothing about itself any more.
        asked = await ask(ben, code)
        assert asked.text == passed_on("move.begun")
        asked = await ben.reply()
        await answer(ben, engine, drawn, asked, OWNER)
        code_of(await ben.reply())
        assert (await ben.reply()).text == say("en", "move.done")
        await ben.send_text("/alerts")
        assert "start=" in (await ben.reply()).text
