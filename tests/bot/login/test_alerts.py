"""Another account that is told, through real HTTP and a real database; and the thief of the first.

The thief has Ana's account, and so whatever `ana` does here may be the thief's. Ben's is the other
account.
"""

import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from telegram import Bot

from bot import storing
from bot.login import notices
from bot.login.liveness import draw
from bot.sandbox import Person
from bot.sandbox.client import Message
from bot.texts import moment, say
from tests.bot import fakes
from tests.bot.login.test_recover import take_selfies
from tests.bot.login.test_verify import clip_of
from tests.bot.logins import LOT, LoginEngine, Shots, english, enroll, enrolled, login_bot
from tests.bot.test_thief import (
    ALREADY,
    OWNER,
    THIEF,
    ask_for_the_wait,
    forget,
    let_the_wait_be_over,
)

NAME = "Ana"


def code_in(message: Message) -> str:
    """What stands behind `start=` in the link of a message."""
    found = re.search(r"https://t\.me/\w+\?start=([\w-]+)", message.text)
    assert found is not None, message.text
    return found[1]


async def link_of(person: Person) -> str:
    """/alerts where there is no other account yet."""
    await person.send_text("/alerts")
    return code_in(await person.reply())


def passed_on(key: str, **values: object) -> str:
    return say("en", "alerts.passed_on", name=NAME, text=say("en", key, **values))


async def name_other(owner: Person, other: Person) -> None:
    """All of naming another account."""
    await other.send_text(f"/start {await link_of(owner)}")
    asked = await other.reply()
    await other.press(asked, say("en", "buttons.alerts_yes"))
    assert (await other.edited(asked)).text == say("en", "alerts.confirmed")
    assert (await owner.reply()).text == say("en", "alerts.confirmed_there")


async def test_the_end_of_an_enrolment_offers_it_and_the_other_account_must_agree(
    tmp_path: Path,
) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await enroll(ana, Shots())
        done = (await ana.messages())[-1]
        await ana.press(done, say("en", "buttons.alerts_show"))
        code = code_in(await ana.reply())
        await ana.send_text(f"/start {code}")
        assert (await ana.reply()).text == say("en", "alerts.link_own")
        await ben.send_text(f"/start {code}")
        asked = await ben.reply()
        assert asked.text == say("en", "alerts.asked", name=NAME)
        await ask_for_the_wait(ana)
        await ben.press(asked, say("en", "buttons.alerts_no"))
        assert (await ben.edited(asked)).text == say("en", "alerts.declined"), "nothing before that"
        assert (await ana.reply()).text == say("en", "alerts.declined_there")
        await name_other(ana, ben)


async def test_a_link_is_good_once_and_for_a_short_while(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await ana.send_text("/alerts")
        assert (await ana.reply()).text == say("en", "verify.not_enrolled")
        await enroll(ana, Shots())
        first = await link_of(ana)
        second = await link_of(ana)
        await ben.send_text(f"/start {first}")
        assert (await ben.reply()).text == say("en", "alerts.link_dead"), "a newer one is there"
        await ben.send_text(f"/start {second}")
        asked = await ben.reply()
        await ben.send_text(f"/start {second}")
        assert (await ben.reply()).text == say("en", "alerts.link_dead")
        await ana.press(await stale(ana), say("en", "buttons.alerts_show"))
        code_in(await ana.reply())
        said = await ben.press(asked, say("en", "buttons.alerts_yes"))
        assert said.text == say("en", "toast.button_expired")
        for _ in range(2):
            await link_of(ana)
        await ana.send_text("/alerts")
        assert (await ana.reply()).text == say("en", "alerts.too_many_links")


async def stale(person: Person) -> Message:
    """The message that ended the enrolment."""
    wanted = say("en", "enroll.done", days=365)
    return next(each for each in await person.messages() if each.text == wanted)


async def test_the_thief_s_wait_is_seen_and_stopped_by_the_other_account(tmp_path: Path) -> None:
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await name_other(ana, ben)
        before = datetime.now(UTC)
        await ask_for_the_wait(ana)
        told = await ben.reply()
        whens = [moment(at + timedelta(hours=24)) for at in (before, datetime.now(UTC))]
        assert told.text in {passed_on("alerts.waiting_there", when=when) for when in whens}
        await ben.press(told, say("en", "buttons.alerts_stop"))
        assert (await ben.reply()).text == say("en", "alerts.stop_done")
        assert (await ana.reply()).text == say("en", "alerts.stop_there")
        await let_the_wait_be_over(tmp_path)
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == say("en", "enroll.already", hours=24)
        said = await ben.press(told, say("en", "buttons.alerts_stop"))
        assert said.text == say("en", "toast.button_expired")


async def standing(person: Person) -> Message:
    """/alerts where there is another account."""
    await person.send_text("/alerts")
    return await person.reply()


async def test_the_thief_does_not_remove_the_other_account_unseen(tmp_path: Path) -> None:
    engine = LoginEngine()
    async with login_bot(tmp_path, engine) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await enroll(ana, Shots())
        await name_other(ana, ben)
        shown = await standing(ana)
        with pytest.raises(LookupError):
            shown.button(say("en", "buttons.alerts_show"))
        # By the thief's own face.
        await ana.press(shown, say("en", "buttons.alerts_video"))
        asked = await ana.reply()
        engine.watch = clip_of(THIEF, draw(random.Random(LOT)))
        await ana.send_video_note(b"a clip", reply_to=asked)
        assert (await ana.reply()).text == say("en", "verify.failed_video")
        # By guessing the code.
        await ana.press(shown, say("en", "buttons.alerts_code"))
        assert (await ana.reply()).text == say("en", "recover.ask")
        await ana.send_text("AAAAA-BBBBB-CCCCC-DDDDD")
        assert (await ana.reply()).text == say("en", "recover.wrong")
        # By waiting: the other account sees it, and stops it.
        await ana.press(shown, say("en", "buttons.alerts_wait"))
        await ana.edited(shown)
        told = await ben.reply()
        assert "no more notices" in told.text
        await ben.press(told, say("en", "buttons.alerts_stop"))
        assert (await ben.reply()).text == say("en", "alerts.stop_done")
        assert (await ana.reply()).text == say("en", "alerts.stop_there")
        # By having it opened anew: there is no link while there is another account.
        await ana.press(await stale(ana), say("en", "buttons.alerts_show"))
        assert (await ana.reply()).buttons
        await ask_for_the_wait(ana)
        assert "replace the face" in (await ben.reply()).text


async def test_the_owner_removes_it_by_video_by_code_or_after_the_wait(tmp_path: Path) -> None:
    engine, drawn = LoginEngine(), random.Random(LOT)
    code = await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await name_other(ana, ben)
        await ana.press(await standing(ana), say("en", "buttons.alerts_video"))
        asked = await ana.reply()
        engine.watch = clip_of(OWNER, draw(drawn))
        await ana.send_video_note(b"a clip", reply_to=asked)
        assert (await ana.reply()).text == say("en", "verify.passed_video")
        assert (await ana.reply()).text == say("en", "alerts.ended")
        gone = await ben.reply()
        assert gone.text == passed_on("alerts.ended_there")
        assert not gone.buttons
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY, "it was a challenge for that purpose alone"
        await name_other(ana, ben)
        await ana.press(await standing(ana), say("en", "buttons.alerts_code"))
        await ana.reply()
        written = await ana.send_text(code)
        await ana.deleted(written)
        assert (await ana.reply()).text == say("en", "alerts.ended")
        assert (await ben.reply()).text == passed_on("alerts.recovered_there")
        assert (await ben.reply()).text == passed_on("alerts.ended_there")
        await name_other(ana, ben)
        shown = await standing(ana)
        await ana.press(shown, say("en", "buttons.alerts_wait"))
        shown = await ana.edited(shown)
        await ben.reply()
        await ana.press(shown, say("en", "buttons.alerts_keep"))
        assert (await ana.edited(shown)).text == say("en", "alerts.kept")
        assert (await ben.reply()).text == passed_on("alerts.kept")


async def test_what_happens_to_the_login_is_told_there(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    code = await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await name_other(ana, ben)
        await ana.send_text(f"/recover {code}")
        assert (await ana.reply()).text == say("en", "recover.done")
        assert (await ben.reply()).text == passed_on("alerts.recovered_there")
        await take_selfies(ana, shots)
        assert (await ben.reply()).text == passed_on("alerts.replaced_there")
        await forget(ana)
        last = await ben.reply()
        assert last.text == passed_on("alerts.forgotten_there")
        assert not last.buttons
        assert (await standing(ben)).text == say("en", "verify.not_enrolled")


async def test_the_other_account_leaves_when_it_likes(tmp_path: Path) -> None:
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await name_other(ana, ben)
        told = await standing(ben)
        assert told.text == say("en", "alerts.told_of", count=1)
        await ben.press(told, say("en", "buttons.alerts_leave"))
        assert (await ben.reply()).text == say("en", "alerts.leave_done")
        assert (await ana.reply()).text == say("en", "alerts.leave_there")
        await name_other(ana, ben)
        await forget(ben)
        assert (await ana.reply()).text == say("en", "alerts.leave_there")
        await link_of(ana)


async def test_who_blocked_the_bot_is_made_known_to_the_owner(tmp_path: Path) -> None:
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await name_other(ana, ben)
        await ben.block()
        await ask_for_the_wait(ana)
        assert (await ana.reply()).text == say("en", "alerts.unreachable")


async def test_a_lock_is_told_there(tmp_path: Path) -> None:
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await name_other(ana, ben)
        number = (await ana.messages())[-1].raw["chat"]["id"]
        async with (
            storing.store(fakes.settings(sandbox, tmp_path)) as store,
            Bot(sandbox.token, base_url=f"{sandbox.url}/bot") as bot,
        ):
            assert await notices.security(bot, store, number, "notices.locked")
        assert (await ana.reply()).text == say("en", "notices.locked")
        assert (await ben.reply()).text == passed_on("notices.locked")
