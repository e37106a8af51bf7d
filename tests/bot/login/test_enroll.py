"""Consent, selfies and what becomes of them, through real HTTP and a real database."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot import storing
from bot.login.enroll import consent_version
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.texts import moment, say
from engine import errors
from engine.types import Analysis, Pose, Quality
from tests.bot.fakes import picture, settings
from tests.bot.logins import (
    SELFIES,
    LoginEngine,
    Shots,
    agree,
    capture_all,
    code_of,
    english,
    enroll,
    enrolled,
    good_face,
    login_bot,
    verify,
)
from tests.bot.rewriting import rewrite

NOT_DELETED = Fault(FaultKind.SERVER_ERROR, count=20, method="deleteMessage", status=400)


def test_the_consents_version_follows_its_words() -> None:
    assert len(consent_version()) == 12
    assert consent_version() == consent_version()


async def test_selfies_after_a_consent_make_a_login(tmp_path: Path) -> None:
    shots = Shots()
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        asked = await ana.reply()
        assert asked.text == say("en", "enroll.consent", count=SELFIES, days=365, hours=24).strip()
        await ana.press(asked, say("en", "buttons.agree"))
        assert (await ana.reply()).text == say("en", "enroll.first", count=SELFIES)
        for number in range(1, SELFIES):
            await ana.send_photo(shots.new())
            hint = say("en", f"enroll.hint_{number}")
            said = say("en", "enroll.next", number=number, of=SELFIES)
            assert (await ana.reply()).text == f"{said} {hint}"
        await ana.send_photo(shots.new())
        code = await ana.reply()
        assert code.protected
        assert len(code_of(code).replace("-", "")) == 20
        assert (await ana.reply()).text == say("en", "enroll.done", days=365)
        # Nothing is left open: the next photo is for fun again.
        await ana.send_photo(shots.new())
        assert (await ana.reply()).photo


async def test_whoever_declines_leaves_nothing(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        asked = await ana.reply()
        await ana.press(asked, say("en", "buttons.decline"))
        settled = await ana.edited(asked)
        assert settled.text == say("en", "enroll.declined")
        assert not settled.buttons
        await ana.send_photo(picture())
        assert (await ana.reply()).photo
        await ana.send_text("/verify")
        assert (await ana.reply()).text == say("en", "verify.not_enrolled")


async def test_no_selfie_counts_before_the_consent(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        await ana.reply()
        await ana.send_photo(picture())
        assert (await ana.reply()).text == say("en", "enroll.consent_first")


async def test_a_button_of_an_older_question_is_of_no_use(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        older = await ana.reply()
        await ana.send_text("/enroll")
        await ana.reply()
        said = await ana.press(older, say("en", "buttons.agree"))
        assert said.text == say("en", "toast.button_expired")


LIES = [
    ({"origin": "user"}, "forwarded"),
    ({"origin": "hidden_user"}, "forwarded"),
    ({"origin": "channel"}, "forwarded"),
    ({"via_bot": True}, "via_bot"),
    ({"edited": True}, "edited"),
    ({"in_album": True}, "in_album"),
    ({"offline": True}, "scheduled"),
    ({"as_channel": True}, "not_their_own"),
    ({"age_s": 600}, "too_early"),
]


@pytest.mark.parametrize(("lie", "reason"), LIES)
async def test_a_selfie_from_elsewhere_is_refused(
    tmp_path: Path, lie: dict[str, object], reason: str
) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        await ana.send_photo(picture(1), **lie)  # type: ignore[arg-type]
        assert (await ana.reply()).text == say("en", f"refusal.{reason}")
        # It may be sent as it should: what was refused unseen is not held against it.
        await ana.send_photo(picture(1))
        assert say("en", "enroll.next", number=1, of=SELFIES) in (await ana.reply()).text


async def test_a_true_album_a_file_and_a_video_are_refused(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        await ana.send_album([picture(1), picture(2)])
        assert (await ana.reply()).text == say("en", "refusal.in_album")
        await ana.send_document(picture(3), name="me.jpg", mime_type="image/jpeg")
        assert (await ana.reply()).text == say("en", "refusal.as_file")
        await ana.send_video_note()
        assert (await ana.reply()).text == say("en", "refusal.not_a_selfie")
        sandbox.faults.add(NOT_DELETED)
        sent = await ana.send_photo(picture(4))
        await ana.reply()
        await ana.edit_photo(sent, picture(5))
        assert (await ana.reply()).text == say("en", "refusal.edited")


async def test_a_forward_that_hides_its_author_is_known_by_its_file(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        # Telegram deletes nothing: what is left in the chat is of no use all the same.
        sandbox.faults.add(NOT_DELETED)
        sent = await ana.send_photo(picture(1))
        await ana.reply()
        await ana.forward(sent)
        assert (await ana.reply()).text == say("en", "refusal.forwarded")
        await ana.forward(sent, copy=True)
        assert (await ana.reply()).text == say("en", "refusal.seen_before")
        # Uploaded anew the file has another name, but the same bytes.
        await ana.send_photo(picture(1))
        assert (await ana.reply()).text == say("en", "refusal.seen_before")


UNFIT = [
    ((), "no_face"),
    ((good_face(), good_face(1)), "several_faces"),
    ((replace(good_face(), quality=Quality(60, 0.2, 0.5, 0.1)),), "face_too_far"),
    ((replace(good_face(), quality=Quality(120, 0.9, 0.5, 0.1)),), "face_blurred"),
    ((replace(good_face(), quality=Quality(120, 0.2, 0.05, 0.1)),), "too_dark"),
    ((replace(good_face(), quality=Quality(120, 0.2, 0.95, 0.1)),), "too_bright"),
    ((replace(good_face(), quality=Quality(120, 0.2, 0.5, 0.8)),), "uneven_light"),
    ((replace(good_face(), pose=Pose(-0.2, 0.56)),), "turned_away"),
    ((replace(good_face(), pose=Pose(0.0, 0.8)),), "tilted"),
    ((replace(good_face(), probability=0.95),), "face_unclear"),
    ((replace(good_face(), pose=Pose(float("nan"), 0.56)),), "face_unclear"),
]


@pytest.mark.parametrize(("faces", "reason"), UNFIT)
async def test_what_is_wrong_with_a_selfie_is_said(
    tmp_path: Path, faces: tuple[object, ...], reason: str
) -> None:
    engine = LoginEngine()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        engine.faces = faces  # type: ignore[assignment]
        await ana.send_photo(picture(1))
        assert (await ana.reply()).text == say("en", f"refusal.{reason}")
        engine.faces = None
        await ana.send_photo(picture(2))
        assert say("en", "enroll.next", number=1, of=SELFIES) in (await ana.reply()).text


async def test_somebody_else_between_the_selfies_is_refused(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        await ana.send_photo(shots.new())
        await ana.reply()
        engine.person = 1
        await ana.send_photo(shots.new())
        assert (await ana.reply()).text == say("en", "refusal.somebody_else")
        engine.person = 0
        await ana.send_photo(shots.new())
        assert say("en", "enroll.next", number=2, of=SELFIES) in (await ana.reply()).text


async def test_a_fault_of_ours_costs_nothing(tmp_path: Path) -> None:
    engine = LoginEngine()
    look = engine.see

    def broken(_photo: bytes) -> Analysis:
        raise errors.Unavailable("gone")

    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        engine.see = broken
        await ana.send_photo(picture(1))
        assert (await ana.reply()).text == say("en", "refusal.engine_down")
        engine.see = look
        await ana.send_photo(picture(1))
        assert say("en", "enroll.next", number=1, of=SELFIES) in (await ana.reply()).text


async def test_cancelling_leaves_nothing_half_enrolled(tmp_path: Path) -> None:
    shots = Shots()
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/cancel")
        assert (await ana.reply()).text == say("en", "account.nothing_to_cancel")
        await agree(ana)
        await ana.send_photo(shots.new())
        await ana.reply()
        await ana.send_text("/cancel")
        assert (await ana.reply()).text == say("en", "account.cancelled")
        await ana.send_text("/verify photo")
        assert (await ana.reply()).text == say("en", "verify.not_enrolled")
        await ana.send_photo(shots.new())
        assert (await ana.reply()).photo


async def test_an_enrolment_goes_on_after_a_restart_and_with_another_replica(
    tmp_path: Path,
) -> None:
    shots = Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, LoginEngine(), sandbox):
            await agree(ana)
            await ana.send_photo(shots.new())
            await ana.reply()
        async with login_bot(tmp_path, LoginEngine(), sandbox):
            await ana.send_photo(shots.new())
            assert say("en", "enroll.next", number=2, of=SELFIES) in (await ana.reply()).text
            await ana.send_photo(shots.new())
            assert code_of(await ana.reply())
            assert (await ana.reply()).text == say("en", "enroll.done", days=365)


async def test_an_enrolment_expires(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine(), conversation_minutes=1e-5) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        asked = await ana.reply()
        said = await ana.press(asked, say("en", "buttons.agree"))
        assert said.text == say("en", "toast.button_expired")


async def test_without_a_calibration_there_is_no_login(tmp_path: Path) -> None:
    engine = LoginEngine()
    engine.login = None
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        for command in ("/enroll", "/verify"):
            await ana.send_text(command)
            assert (await ana.reply()).text == say("en", "refusal.no_login")


async def test_replacing_without_verifying_waits_and_can_be_cancelled(tmp_path: Path) -> None:
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        offer = await ana.reply()
        before = datetime.now(UTC)
        await ana.press(offer, say("en", "buttons.wait"))
        notice = await ana.edited(offer)
        latest = datetime.now(UTC)
        dues = {
            say("en", "enroll.waiting", when=moment(at + timedelta(hours=24)))
            for at in (before, latest)
        }
        assert notice.text in dues
        await ana.send_text("/enroll")
        again = await ana.reply()
        assert again.text == notice.text
        await ana.press(again, say("en", "buttons.keep"))
        assert (await ana.edited(again)).text == say("en", "enroll.kept")
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == say("en", "enroll.already", hours=24)


async def test_whoever_passes_is_told_that_somebody_wants_another_face(tmp_path: Path) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        offer = await ana.reply()
        await ana.press(offer, say("en", "buttons.wait"))
        notice = await ana.edited(offer)
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")
        reminder = await ana.reply()
        assert reminder.text == notice.text
        await ana.press(reminder, say("en", "buttons.keep"))
        assert (await ana.edited(reminder)).text == say("en", "enroll.kept")


@pytest.mark.parametrize(
    ("command", "button", "said"),
    [
        ("/enroll", "agree", say("en", "enroll.first", count=SELFIES)),
        ("/enroll", "decline", say("en", "enroll.declined")),
        ("/forget", "forget_no", say("en", "rights.kept")),
        ("/language", "", say("en", "account.language_chosen")),
    ],
)
async def test_a_button_whose_message_is_gone_is_answered_all_the_same(
    tmp_path: Path, command: str, button: str, said: str
) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text(command)
        asked = await ana.reply()
        with closing(
            sqlite3.connect(tmp_path / "bot.db", isolation_level=None, check_same_thread=False)
        ) as other:
            # The bot waits, until the message is gone; what it is writing ends in this thread.
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            label = say("en", f"buttons.{button}") if button else "English"
            data = asked.button(label).data
            body = {"message_id": asked.message_id, "data": data}
            await ana._ask("POST", f"{ana._home}/presses", json=body)
            await ana.delete(asked)
            other.execute("ROLLBACK")
        assert (await ana.reply()).text == said


async def test_a_wait_that_a_clock_noted_which_was_ahead_is_as_long_as_any(tmp_path: Path) -> None:
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        offer = await ana.reply()
        await ana.press(offer, say("en", "buttons.wait"))
        await ana.edited(offer)
        await set_ahead(tmp_path, "people", "reset_due")
        before = datetime.now(UTC)
        await ana.send_text("/enroll")
        told = (await ana.reply()).text
        after = datetime.now(UTC)
        assert told in {
            say("en", "enroll.waiting", when=moment(at + timedelta(hours=24)))
            for at in (before, after)
        }


async def set_ahead(folder: Path, table: str, column: str) -> None:
    """As though the clock had been three days ahead when it was written."""
    await rewrite(folder, f"UPDATE {table} SET {column} = {column} + 3600000000 * 72")


def other_model() -> LoginEngine:
    """As `LoginEngine`, of another embedder."""
    engine = LoginEngine()
    assert engine.login is not None
    engine.login = replace(engine.login, weights_sha256="1" * 64)
    return engine


async def let_the_wait_be_over(folder: Path) -> None:
    await rewrite(folder, "UPDATE people SET reset_due = reset_due - 3600000000 * 24")


async def test_after_a_takeover_a_thief_of_the_account_gets_no_shortcut(tmp_path: Path) -> None:
    shots = Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, LoginEngine(), sandbox):
            await enroll(ana, shots)
            old = await store_of(sandbox, tmp_path)
        thief = other_model()
        thief.person = 1
        async with login_bot(tmp_path, thief, sandbox):
            await ana.send_text("/enroll")
            offer = await ana.reply()
            assert offer.text == say("en", "enroll.already_other", hours=24)
            assert "/verify can't compare it" in offer.text
            await ana.press(offer, say("en", "buttons.wait"))
            notice = await ana.edited(offer)
            await ana.send_text("/enroll")
            assert (await ana.reply()).text == notice.text
            await ana.send_text("/recover AAAAA-AAAAA-AAAAA-AAAAA")
            assert (await ana.reply()).text == say("en", "recover.wrong")
            # Whoever tries to verify hears of it, though nobody can pass, and takes it back.
            await ana.send_text("/verify")
            assert (await ana.reply()).text == say("en", "verify.other_embedder")
            reminder = await ana.reply()
            assert reminder.text == notice.text
            await ana.press(reminder, say("en", "buttons.keep"))
            assert (await ana.edited(reminder)).text == say("en", "enroll.kept")
            await let_the_wait_be_over(tmp_path)
            await ana.send_text("/enroll")
            assert (await ana.reply()).text == say("en", "enroll.already_other", hours=24)
            assert await store_of(sandbox, tmp_path) == old, "the old templates are there"
        async with login_bot(tmp_path, LoginEngine(), sandbox):
            assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")


async def store_of(sandbox: Sandbox, folder: Path) -> dict[str, int]:
    """How many people are enrolled with which embedder."""
    async with storing.store(settings(sandbox, folder)) as store:
        return await store.enrolled()


async def test_after_a_takeover_the_recovery_code_lets_a_person_enroll_again(
    tmp_path: Path,
) -> None:
    shots = Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, LoginEngine(), sandbox):
            code = await enroll(ana, shots)
        async with login_bot(tmp_path, other_model(), sandbox):
            await ana.send_text(f"/recover {code}")
            assert (await ana.reply()).text == say("en", "recover.done")
            await ana.press(await ana.reply(), say("en", "buttons.agree"))
            await ana.reply()
            assert await capture_all(ana, shots) != code
            assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")


async def test_after_a_takeover_the_wait_lets_a_person_enroll_again(tmp_path: Path) -> None:
    shots = Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, LoginEngine(), sandbox):
            await enroll(ana, shots)
        async with login_bot(tmp_path, other_model(), sandbox):
            await ana.send_text("/enroll")
            offer = await ana.reply()
            await ana.press(offer, say("en", "buttons.wait"))
            await ana.edited(offer)
            await let_the_wait_be_over(tmp_path)
            await enroll(ana, shots)
            assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")


async def test_selfies_of_two_models_never_meet(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        await ana.send_photo(shots.new())
        await ana.reply()
        engine.login = other_model().login
        await ana.send_photo(shots.new())
        said = (await ana.reply()).text
        assert said.startswith(say("en", "enroll.changed", count=1))
        assert say("en", "enroll.next", number=1, of=SELFIES) in said
        for _ in range(SELFIES - 2):
            await ana.send_photo(shots.new())
            await ana.reply()
        await ana.send_photo(shots.new())
        code_of(await ana.reply())
        assert (await ana.reply()).text == say("en", "enroll.done", days=365)


async def test_a_model_that_changes_between_the_question_and_the_look_stores_nothing(
    tmp_path: Path,
) -> None:
    engine, shots = LoginEngine(), Shots()
    look = engine.see
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await agree(ana)

        def rolled_out(photo: bytes) -> Analysis:
            seen = look(photo)  # by the old one
            engine.bundle = "newer@00000000"
            return seen

        engine.see = rolled_out
        await ana.send_photo(shots.new())
        assert (await ana.reply()).text == say("en", "refusal.model_changed")
        engine.see = look
        await capture_all(ana, shots)


async def test_no_recovery_code_is_in_force_that_telegram_did_not_deliver(tmp_path: Path) -> None:
    shots = Shots()
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await agree(ana)
        for _ in range(SELFIES - 1):
            await ana.send_photo(shots.new())
            await ana.reply()
        sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, method="sendMessage", status=400))
        await ana.send_photo(shots.new())
        assert "code" in (await ana.reply()).text  # that of the error
        await ana.send_text("/mydata")
        assert (await ana.reply()).text == say("en", "rights.no_face")
        await ana.send_photo(shots.new())
        code = code_of(await ana.reply())
        assert (await ana.reply()).text == say("en", "enroll.done", days=365)
        await ana.send_text(f"/recover {code}")
        assert (await ana.reply()).text == say("en", "recover.done")


async def test_a_recovery_code_that_did_not_come_into_force_is_deleted(tmp_path: Path) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/enroll")
        offer = await ana.reply()
        await ana.press(offer, say("en", "buttons.wait"))
        await ana.edited(offer)
        await let_the_wait_be_over(tmp_path)
        await agree(ana)
        for _ in range(SELFIES - 1):
            await ana.send_photo(shots.new())
            await ana.reply()
        await rewrite(
            tmp_path, "UPDATE people SET locked = 1"
        )  # as another device may do meanwhile
        await ana.send_photo(shots.new())
        shown = await ana.reply()
        assert code_of(shown)
        await ana.deleted(shown)
        assert (await ana.reply()).text == say("en", "refusal.overtaken")
