"""Somebody who holds the account, its history and its devices, but not the face.

Pictures from the history are as good as the person's own where the test lets them be: `engine`
sees the person on them. Every link of a takeover of the enrolment is tried; each fails. Through
real HTTP and a real database.
"""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.login.liveness import draw
from bot.sandbox import Person, Sandbox
from bot.sandbox.client import Message
from bot.texts import moment, say
from tests.bot.login.test_verify import clip_of
from tests.bot.logins import (
    LOT,
    LoginEngine,
    Shots,
    capture_all,
    english,
    enroll,
    login_bot,
    verify,
)
from tests.bot.rewriting import rewrite
from tests.bot.store.places import Place

OWNER, THIEF = 0, 1
ALREADY = say("en", "enroll.already", hours=24)


async def start_replacing(person: Person) -> Message:
    """/enroll where there is a face, and the challenge by video that it takes."""
    await person.send_text("/enroll")
    offer = await person.reply()
    assert offer.text == ALREADY
    await person.press(offer, say("en", "buttons.replace"))
    return await person.reply()


async def test_a_pass_by_photo_does_not_open_the_replacement_of_a_face(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY


async def test_an_ordinary_pass_by_video_does_not_open_it_either(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        await ana.send_text("/verify")
        asked = await ana.reply()
        engine.watch = clip_of(OWNER, draw(random.Random(LOT)))
        await ana.send_video_note(b"a clip", reply_to=asked)
        assert (await ana.reply()).text == say("en", "verify.passed_video")
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY


async def test_a_video_for_that_purpose_opens_it_once(tmp_path: Path) -> None:
    engine, shots, drawn = LoginEngine(), Shots(), random.Random(LOT)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)

        async def answer(person: int) -> str:
            asked = await start_replacing(ana)
            assert asked.photo
            assert asked.asks_reply
            engine.watch = clip_of(person, draw(drawn))
            await ana.send_video_note(b"clip" + shots.new(), reply_to=asked)
            return (await ana.reply()).text

        assert await answer(THIEF) == say("en", "verify.failed_video")
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY
        assert await answer(OWNER) == say("en", "verify.passed_video")
        consent = await ana.reply()
        assert consent.text.startswith("🔐")
        await ana.send_text("/cancel")
        await ana.reply()
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY
        said = await ana.press(consent, say("en", "buttons.agree"))
        assert said.text == say("en", "toast.button_expired")
        assert await answer(OWNER) == say("en", "verify.passed_video")
        await ana.press(await ana.reply(), say("en", "buttons.agree"))
        await ana.reply()
        engine.person = THIEF
        await capture_all(ana, shots, new_code=False)
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY


async def ask_for_the_wait(person: Person) -> None:
    await person.send_text("/enroll")
    offer = await person.reply()
    await person.press(offer, say("en", "buttons.wait"))
    await person.edited(offer)


async def let_the_wait_be_over(folder: Path) -> None:
    await rewrite(folder, "UPDATE people SET reset_due = reset_due - 3600000000 * 24")


async def pass_by_video(person: Person, engine: LoginEngine) -> str:
    await person.send_text("/verify")
    asked = await person.reply()
    engine.watch = clip_of(OWNER, draw(random.Random(LOT)))
    await person.send_video_note(b"a clip", reply_to=asked)
    said = (await person.reply()).text
    assert said.startswith(say("en", "verify.passed_video"))
    return said


async def test_a_pass_by_video_ends_the_wait_that_somebody_else_asked_for(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        await ask_for_the_wait(ana)
        assert say("en", "verify.reset_ended") in await pass_by_video(ana, engine)
        await let_the_wait_be_over(tmp_path)
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY


async def test_taking_the_wait_back_ends_the_enrolment_that_it_opened(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        await ana.send_text("/enroll")
        offer = await ana.reply()
        await ana.press(offer, say("en", "buttons.wait"))
        notice = await ana.edited(offer)
        await let_the_wait_be_over(tmp_path)
        await ana.send_text("/enroll")
        await ana.press(await ana.reply(), say("en", "buttons.agree"))
        await ana.reply()
        await ana.press(notice, say("en", "buttons.keep"))
        await ana.edited(notice)
        engine.person = THIEF
        await ana.send_photo(shots.new())
        assert (await ana.reply()).photo, "no selfie is waited for"
        engine.person = OWNER
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")


async def forget(person: Person) -> str:
    await person.send_text("/forget")
    asked = await person.reply()
    await person.press(asked, say("en", "buttons.forget_yes"))
    return (await person.edited(asked)).text


async def test_forgetting_does_not_put_another_face_there_at_once(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        before = datetime.now(UTC)
        receipt = await forget(ana)
        after = datetime.now(UTC)
        await ana.set_language("en")
        whens = {moment(at + timedelta(hours=24)) for at in (before, after)}
        assert any(when in receipt for when in whens), "the receipt names the mark"
        engine.person = THIEF
        for _ in range(2):
            await ana.send_text("/enroll")
            assert (await ana.reply()).text in {
                say("en", "enroll.held", when=each) for each in whens
            }
            await forget(ana)  # neither sooner nor later
        ben = await english(sandbox, "ben")
        await enroll(ben, shots)
        place = Place(tmp_path, tmp_path / "bot.db")
        await place.sql("UPDATE holds SET until = until - 3600000000 * 24")
        await enroll(ana, shots)


async def lock(folder: Path) -> None:
    await rewrite(folder, "UPDATE people SET locked = 1")


async def test_a_lock_does_not_end_by_waiting(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        await ask_for_the_wait(ana)
        await lock(tmp_path)
        await let_the_wait_be_over(tmp_path)
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == say("en", "verify.barred_locked")


async def test_a_recovery_code_is_used_up_by_the_new_face_alone(
    tmp_path: Path,
) -> None:
    engine, shots = LoginEngine(), Shots()
    async with Sandbox() as own, login_bot(tmp_path, engine, own) as sandbox:
        ana = await english(sandbox)
        code = await enroll(ana, shots)
        await lock(tmp_path)
        for _ in range(2):
            await ana.send_text(f"/recover {code}")
            assert (await ana.reply()).text == say("en", "recover.done")
            consent = await ana.reply()
            await ana.send_text("/cancel")
            assert (await ana.reply()).text == say("en", "account.cancelled")
            await ana.send_text("/verify photo")
            assert (await ana.reply()).text == say("en", "verify.barred_locked")
        await ana.send_text(f"/recover {code}")
        await ana.reply()
        consent = await ana.reply()
        await ana.press(consent, say("en", "buttons.agree"))
        await ana.reply()
        other = await capture_all(ana, shots)
        assert other is not None
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")
        await ana.send_text(f"/recover {code}")
        assert (await ana.reply()).text == say("en", "recover.wrong")
