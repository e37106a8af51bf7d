"""Challenges, fresh selfies and clips, and what is said of them; through HTTP and a database."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from telegram import Message, Update

from bot.login.captures import Captures
from bot.login.liveness import Challenge, Failure, FailureReason, draw
from bot.login.verify import Alarm, Remind, Terms, Verifying, _LoginAnswer
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.store import Attempt, Flow, FlowKind, Store
from bot.telegram.replies import Language
from bot.telegram.request import Request
from bot.texts import say
from engine import errors
from engine.types import Analysis, Track
from tests.bot import fakes
from tests.bot.fakes import picture
from tests.bot.login.test_liveness import film, path
from tests.bot.logins import (
    CALIBRATION,
    LOT,
    PHOTOS,
    LoginEngine,
    Shots,
    english,
    enroll,
    enrolled,
    login_bot,
    vector,
    verify,
)
from tests.bot.rewriting import rewrite
from tests.bot.store.places import Place

FAILED, PASSED = say("en", "verify.failed_photo"), say("en", "verify.passed_photo")


async def test_the_right_person_passes_and_another_does_not(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        assert (await verify(ana, shots)).text == PASSED
        engine.person = 1
        assert (await verify(ana, shots)).text == FAILED
        engine.person = 0
        assert (await verify(ana, shots)).text == PASSED


async def test_nobody_verifies_as_somebody_else(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        engine.person = 1
        await enroll(ben, shots)
        engine.person = 0
        assert (await verify(ben, shots)).text == FAILED
        assert (await verify(ana, shots)).text == PASSED


async def test_whoever_is_not_enrolled_is_told_so(tmp_path: Path) -> None:
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify")
        assert (await ana.reply()).text == say("en", "verify.not_enrolled")
        await ana.send_text("/verify dance")
        assert (await ana.reply()).text == say("en", "verify.which")


LIES = [
    ({"origin": "user"}, "forwarded"),
    ({"via_bot": True}, "via_bot"),
    ({"edited": True}, "edited"),
    ({"in_album": True}, "in_album"),
    ({"offline": True}, "scheduled"),
    ({"as_channel": True}, "not_their_own"),
    ({"age_s": 5}, "too_early"),
]


@pytest.mark.parametrize(("lie", "reason"), LIES)
async def test_a_capture_from_elsewhere_is_refused_and_not_charged(
    tmp_path: Path, lie: dict[str, object], reason: str
) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        await ana.send_photo(shots.new(), reply_to=asked, **lie)  # type: ignore[arg-type]
        assert (await ana.reply()).text.startswith(say("en", f"refusal.{reason}"))
        await ana.send_photo(shots.new(), reply_to=asked)
        await ana.send_photo(shots.new(), reply_to=await ana.reply())
        assert (await ana.reply()).text == PASSED


async def test_it_must_be_a_reply_to_the_last_message_of_the_challenge(tmp_path: Path) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        assert asked.asks_reply
        await ana.send_photo(shots.new())
        assert (await ana.reply()).text.startswith(say("en", "refusal.not_a_reply"))
        await ana.send_photo(shots.new(), reply_to=asked)
        second = await ana.reply()
        await ana.send_photo(shots.new(), reply_to=asked)
        assert (await ana.reply()).text.startswith(say("en", "refusal.not_a_reply"))
        await ana.send_photo(shots.new(), reply_to=second)
        assert (await ana.reply()).text == PASSED


async def test_too_late_is_too_late(tmp_path: Path) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine(), photo_challenge_s=10) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        await ana.send_photo(shots.new(), reply_to=asked, age_s=-30)
        assert (await ana.reply()).text.startswith(say("en", "refusal.too_late"))
        # The challenge is over, whatever comes now; and it does not stay in the chat either.
        await ana.deleted(await ana.send_photo(shots.new(), reply_to=asked, age_s=-31))
        assert (await ana.reply()).text.startswith(say("en", "refusal.too_late"))


@pytest.mark.parametrize("late_s", [31, 1800])
async def test_a_selfie_in_reply_that_comes_late_is_told_so(tmp_path: Path, late_s: int) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine(), photo_challenge_s=10) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        await grow_older(tmp_path, 10 + late_s)
        await ana.send_photo(shots.new(), reply_to=asked, age_s=-10 - late_s)
        assert (await ana.reply()).text.startswith(say("en", "refusal.too_late"))


async def test_a_photo_in_no_reply_after_the_time_of_a_challenge_is_for_fun(tmp_path: Path) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine(), photo_challenge_s=10) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify photo")
        await ana.reply()
        await grow_older(tmp_path, 41)
        await ana.send_photo(shots.new(), age_s=-41)
        assert (await ana.reply()).photo
        await ana.send_text("/verify video")
        await ana.reply()
        await grow_older(tmp_path, 121)
        await ana.send_video_note(b"clip" * 500, age_s=-121)
        assert (await ana.reply()).text == say("en", "verify.no_challenge")


async def grow_older(folder: Path, seconds: int) -> None:
    """As though a conversation had begun earlier."""
    place = Place(folder, folder / "bot.db")
    # The question may be out and not written down yet; nobody says when it is.
    fresh = int((time.time() + 3600) * 1e6)
    while not await place.sql(f"SELECT id FROM flows WHERE deadline > {fresh}"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await rewrite(folder, f"UPDATE flows SET deadline = deadline - {seconds} * 1000000")


async def test_taking_an_attempt_back_keeps_nobody_waiting_whose_time_is_over() -> None:
    attempt = Attempt(1, 2, "photo", "", datetime.now(UTC))
    store = Stuck()
    verifying = Verifying(
        store=cast("Store", store),
        captures=cast("Captures", None),
        language=cast("Language", None),
        terms=Terms("photo", by_photo=True, photos=2, photo_s=60, video_s=90),
        remind=cast("Remind", None),
        alarm=cast("Alarm", None),
        then={},
        chance=random.Random(1),
        clock=lambda: datetime.now(UTC),
    )
    state = {"level": "photo", "subject": 2, "nonce": ""}
    flow = Flow(1, FlowKind.VERIFY, state, 0, datetime.now(UTC), 2)
    request = Request(Update(1), person=2, kind="photo")
    answer = _LoginAnswer(request, cast("Message", None), flow, "en", {})

    async def no_templates() -> None:
        return None

    def failure() -> Failure:
        return Failure(FailureReason.TOO_SHORT)

    judging = asyncio.create_task(
        verifying._judge(answer, CALIBRATION, attempt, no_templates, failure)
    )
    await store.finishing.wait()
    judging.cancel()
    await store.voiding.wait()
    await asyncio.wait([judging])
    assert judging.cancelled()
    assert not store.voided.is_set()
    store.unlock.set()
    await store.voided.wait()


class Stuck:
    """A store that lets nobody write until it is unlocked."""

    def __init__(self) -> None:
        self.finishing, self.voiding = asyncio.Event(), asyncio.Event()
        self.unlock, self.voided = asyncio.Event(), asyncio.Event()

    async def finish_attempt(self, *_: object, **__: object) -> None:
        self.finishing.set()
        await self.unlock.wait()

    async def void_attempt(self, *_: object) -> None:
        self.voiding.set()
        await self.unlock.wait()
        self.voided.set()


async def test_a_selfie_of_the_enrolment_is_known_again(tmp_path: Path) -> None:
    shots = Shots()
    engine = LoginEngine()
    async with login_bot(tmp_path, engine) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        await enroll(ana, shots)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        await ana.send_photo(picture(101), reply_to=asked)  # the first of the enrolment
        assert (await ana.reply()).text.startswith(say("en", "refusal.seen_before"))
        engine.person = 1
        await enroll(ben, shots)
        await ben.send_text("/verify photo")
        asked = await ben.reply()
        await ben.send_photo(picture(102), reply_to=asked)  # another person's
        assert (await ben.reply()).text.startswith(say("en", "refusal.seen_before"))


async def test_a_photo_does_where_a_video_is_wanted_as_little_as_the_reverse(
    tmp_path: Path,
) -> None:
    shots = Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify")
        asked = await ana.reply()
        assert asked.photo
        assert asked.asks_reply
        assert asked.protected
        await ana.send_photo(shots.new(), reply_to=asked)
        assert (await ana.reply()).text.startswith(say("en", "refusal.not_a_round_video"))
        await ana.send_video(reply_to=asked)
        assert (await ana.reply()).text.startswith(say("en", "refusal.not_a_round_video"))
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        await ana.send_video_note(reply_to=asked)
        assert (await ana.reply()).text.startswith(say("en", "refusal.not_a_selfie"))
        await ana.send_text("/cancel")
        await ana.reply()
        await ana.send_video_note()
        assert (await ana.reply()).text == say("en", "verify.no_challenge")


async def test_failures_bring_delays(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        engine.person = 1
        for _ in range(5):
            assert (await verify(ana, shots)).text == FAILED
        await ana.send_text("/verify photo")
        waits = {say("en", "verify.barred_delay", count=seconds) for seconds in range(1, 31)}
        assert (await ana.reply()).text in waits


def broken(_photo: bytes) -> Analysis:
    raise errors.InternalError("a bug")


async def test_a_fault_denies_and_is_not_charged(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    look = engine.see
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        for _ in range(6):
            await ana.send_text("/verify photo")
            asked = await ana.reply()
            engine.see = broken
            await ana.send_photo(shots.new(), reply_to=asked)
            assert "code" in (await ana.reply()).text
            engine.see = look
            await ana.send_photo(shots.new(), reply_to=asked)
            await ana.send_photo(shots.new(), reply_to=await ana.reply())
            assert (await ana.reply()).text == PASSED


async def test_two_devices_at_once_have_one_attempt(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        for _ in range(PHOTOS - 1):
            await ana.send_photo(shots.new(), reply_to=asked)
            asked = await ana.reply()
        sent = [ana.send_photo(shots.new(), reply_to=asked) for _ in range(2)]
        await asyncio.gather(*sent)
        said = [await ana.reply() for _ in range(2)]
        assert sum(one.text == PASSED for one in said) == 1


async def test_another_model_wants_another_enrolment(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, engine, sandbox):
            await enroll(ana, shots)
        other = LoginEngine()
        assert other.login is not None
        other.login = replace(other.login, weights_sha256="1" * 64)
        async with login_bot(tmp_path, other, sandbox):
            await ana.send_text("/verify photo")
            assert (await ana.reply()).text == say("en", "verify.other_embedder")


async def test_a_model_that_changes_during_a_challenge_charges_nobody(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        login = engine.login
        assert login is not None
        for _ in range(6):
            engine.login = login
            await ana.send_text("/verify photo")
            asked = await ana.reply()
            engine.login = replace(login, weights_sha256="1" * 64)
            await ana.send_photo(shots.new(), reply_to=asked)
            assert (await ana.reply()).text == say("en", "verify.other_embedder")
        engine.login = login
        assert (await verify(ana, shots)).text == PASSED


def clip_of(person: int, challenge: Challenge) -> Callable[[bytes], Track]:
    """An engine's eyes before which a person does a challenge's steps."""

    def watch(clip: bytes) -> Track:
        seen = film(path(challenge.steps))
        frames = []
        for index, frame in enumerate(seen.frames):
            face = frame.face
            if face is not None and face.embedding is not None:
                mark = hashlib.sha256(clip + bytes([index % 256])).digest()
                face = replace(face, embedding=vector(person, index), pattern=fakes.pattern(*mark))
            frames.append(replace(frame, face=face))
        return replace(seen, frames=tuple(frames))

    return watch


async def test_by_video_the_steps_and_the_face_must_be_right(tmp_path: Path) -> None:
    engine = LoginEngine()
    drawn = random.Random(LOT)
    clips = [b"clip one", b"clip two", b"clip three", b"clip four"]
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)

        async def answer(person: int, steps: Challenge | None = None) -> str:
            await ana.send_text("/verify")
            asked = await ana.reply()
            challenge = draw(drawn)
            engine.watch = clip_of(person, steps or challenge)
            await ana.send_video_note(clips.pop(), reply_to=asked)
            return (await ana.reply()).text

        assert await answer(0) == say("en", "verify.passed_video")
        assert await answer(1) == say("en", "verify.failed_video")
        wrong = Challenge.parse("udud")
        assert await answer(0, wrong) == say("en", "liveness.wrong_steps")
        assert await answer(0) == say("en", "verify.passed_video")


async def test_a_clip_is_known_again(tmp_path: Path) -> None:
    engine = LoginEngine()
    drawn = random.Random(LOT)
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        for expected in ("verify.passed_video", "refusal.seen_before"):
            await ana.send_text("/verify")
            asked = await ana.reply()
            engine.watch = clip_of(0, draw(drawn))
            await ana.send_video_note(b"the same clip", reply_to=asked)
            assert (await ana.reply()).text.startswith(say("en", expected))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (errors.BrokenVideo("x"), "refusal.broken_clip"),
        (errors.Unavailable("x"), "refusal.engine_down"),
        (errors.DeadlineExceeded("x"), "refusal.deadline"),
    ],
)
async def test_a_clip_that_cannot_be_seen_is_not_charged(
    tmp_path: Path, fault: errors.EngineError, sentence: str
) -> None:
    engine = LoginEngine()

    def broken(_clip: bytes) -> Track:
        raise fault

    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify")
        asked = await ana.reply()
        engine.watch = broken
        for number in range(6):
            await ana.send_video_note(bytes([number]), reply_to=asked)
            assert (await ana.reply()).text.startswith(say("en", sentence))
        engine.watch = clip_of(0, draw(random.Random(LOT)))
        await ana.send_video_note(b"a sound one", reply_to=asked)
        assert (await ana.reply()).text == say("en", "verify.passed_video")


async def test_every_refusal_may_be_replied_to_and_says_what_is_left(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        for number in range(PHOTOS):
            engine.faces = ()
            await ana.send_photo(shots.new(), reply_to=asked)
            refusal = await ana.reply()
            assert refusal.text.startswith(say("en", "refusal.no_face"))
            lefts = {
                say("en", "verify.left_photo", number=number, of=PHOTOS, seconds=seconds)
                for seconds in range(61)
            }
            assert refusal.text.partition("\n\n")[2] in lefts
            assert refusal.asks_reply
            await ana.send_photo(shots.new())
            refusal = await ana.reply()
            assert refusal.text.startswith(say("en", "refusal.not_a_reply"))
            engine.faces = None
            await ana.send_photo(shots.new(), reply_to=refusal)
            asked = await ana.reply()
        assert asked.text == PASSED


async def test_a_challenge_that_was_never_delivered_is_charged_to_nobody(tmp_path: Path) -> None:
    engine = LoginEngine()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        undelivered = Fault(FaultKind.SERVER_ERROR, count=1, method="sendPhoto", status=400)
        for _ in range(7):
            sandbox.faults.add(undelivered)
            await ana.send_text("/verify")
            assert "code" in (await ana.reply()).text
        await ana.send_text("/verify")
        assert (await ana.reply()).photo
        place = Place(tmp_path, tmp_path / "bot.db")
        assert await place.sql("SELECT reason FROM attempts") == []


async def test_photos_do_not_verify_where_videos_are_asked_for(tmp_path: Path) -> None:
    shots = Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, LoginEngine(), sandbox):
            await enroll(ana, shots)
            await ana.send_text("/verify photo")
            asked = await ana.reply()
        async with login_bot(tmp_path, LoginEngine(), sandbox, allow_photo_verify=None):
            await ana.send_photo(shots.new(), reply_to=asked)
            assert (await ana.reply()).text == say("en", "verify.no_photo")
            await ana.send_text("/verify photo")
            assert (await ana.reply()).text == say("en", "verify.no_photo")
            await ana.send_text("/verify")
            assert (await ana.reply()).photo


async def test_what_was_judged_is_deleted_from_the_chat(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    await enrolled(tmp_path)
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        selfies = [message for message in await ana.messages() if message.raw.get("photo")]
        assert selfies == [], "those of the enrolment"
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        await ana.deleted(await ana.send_photo(shots.new()))  # refused unseen
        await ana.reply()
        for _ in range(PHOTOS):
            sent = await ana.send_photo(shots.new(), reply_to=asked)
            await ana.deleted(sent)
            asked = await ana.reply()
        assert asked.text == PASSED
        await ana.send_text("/verify")
        asked = await ana.reply()
        engine.watch = clip_of(1, draw(random.Random(LOT)))
        await ana.deleted(await ana.send_video_note(b"a clip", reply_to=asked))
        await ana.deleted(await ana.send_video_note(b"another", reply_to=asked))


async def test_what_telegram_does_not_delete_is_borne(tmp_path: Path) -> None:
    shots = Shots()
    async with login_bot(tmp_path, LoginEngine()) as sandbox:
        ana = await english(sandbox)
        sandbox.faults.add(
            Fault(FaultKind.SERVER_ERROR, count=20, method="deleteMessage", status=400)
        )
        await enroll(ana, shots)
        assert (await verify(ana, shots)).text == PASSED
