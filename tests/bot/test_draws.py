"""Challenges that are seen and not passed: what is a failure, what a draw, and who is told."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.login.liveness import draw
from bot.sandbox import Fault, FaultKind, Person, Sandbox
from bot.sandbox.client import Message
from bot.store.limits import LIMITS
from bot.texts import moment, say
from engine import errors
from engine.types import Track
from tests.bot import clock, fakes
from tests.bot.login.test_verify import PASSED, clip_of
from tests.bot.logins import (
    LOT,
    SELFIES,
    LoginEngine,
    Shots,
    english,
    enroll,
    login_bot,
    verify,
)
from tests.bot.rewriting import rewrite
from tests.bot.store.places import Place


async def counted(person: Person, folder: Path) -> tuple[int, int]:
    """Failures by video, and draws that a fault of ours lost, once all that was asked is done."""
    await person.send_text("/language")
    await person.reply()
    place = Place(folder, folder / "bot.db")
    (row,) = await place.sql("SELECT failed_video, voided FROM people")
    return row[0], row[1]


async def drawn(person: Person) -> Message:
    """Another challenge; the one before has lapsed by it."""
    await person.send_text("/verify")
    while not (said := await person.reply()).photo:
        pass
    return said


def stopped(_clip: bytes) -> Track:
    raise errors.Unavailable("x")


async def test_an_engine_that_stops_in_the_middle_costs_a_draw_and_is_no_failure(
    tmp_path: Path,
) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        asked = await drawn(ana)
        engine.watch = stopped
        await ana.send_video_note(b"a clip", reply_to=asked)
        assert (await ana.reply()).text.startswith(say("en", "refusal.engine_down"))
        await drawn(ana)
        assert await counted(ana, tmp_path) == (0, 1)
        await drawn(ana)
        assert await counted(ana, tmp_path) == (1, 1), "this one was not answered"


async def test_what_is_no_answer_excuses_nobody_while_the_engine_is_stopped(
    tmp_path: Path,
) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        await drawn(ana)
        login, engine.login = engine.login, None
        await ana.send_video_note(b"a clip")  # in no reply
        assert (await ana.reply()).text.startswith(say("en", "refusal.not_a_reply"))
        engine.login = login
        await drawn(ana)
        assert await counted(ana, tmp_path) == (1, 0)


async def test_a_clip_of_the_last_half_second_costs_a_draw_and_is_no_failure(
    tmp_path: Path,
) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        asked = await drawn(ana)
        engine.gate = asyncio.Semaphore(0)
        engine.watch = clip_of(0, draw(random.Random(LOT)))
        await ana.send_video_note(b"a clip", reply_to=asked)
        await engine.until_asked(SELFIES + 1)
        # The deadline passes while the engine works.
        await rewrite(tmp_path, "UPDATE challenges SET deadline = drawn + 1")
        engine.gate.release()
        assert (await ana.reply()).text == say("en", "verify.barred_expired")
        await drawn(ana)
        assert await counted(ana, tmp_path) == (0, 1)


async def test_a_clip_for_which_there_is_no_time_is_a_draw_and_deleted_all_the_same(
    tmp_path: Path,
) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine, answer_timeout_s=120) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        asked = await drawn(ana)
        engine.gate = asyncio.Semaphore(0)
        sent = await ana.send_video_note(b"a clip", reply_to=asked)
        await engine.until_asked(SELFIES + 1)
        await clock.advance_to(engine.deadline_s)
        said = (await ana.reply()).text
        assert said.startswith((say("en", "refusal.deadline"), say("en", "turned.deadline")))
        await ana.deleted(sent)
        await drawn(ana)
        assert await counted(ana, tmp_path) == (0, 1)


async def test_an_answer_that_cannot_be_sent_in_time_leaves_no_capture_in_the_chat(
    tmp_path: Path,
) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine, answer_timeout_s=60) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        sandbox.faults.add(Fault(FaultKind.RESET, 1000, "sendMessage"))
        sent = await ana.send_photo(shots.new(), reply_to=asked)
        for _ in range(2):  # the answer, and that there was no time for one
            (cut,) = sandbox.faults.pending()
            await fakes.until_met(sandbox, cut)
            await clock.advance(60)
        await ana.deleted(sent)


async def test_what_was_under_way_when_a_bot_ended_is_counted_once(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with Sandbox() as sandbox:
        ana = await english(sandbox)
        async with login_bot(tmp_path, engine, sandbox):
            await enroll(ana, shots)
            await drawn(ana)
        async with login_bot(tmp_path, engine, sandbox):
            await drawn(ana)
            assert await counted(ana, tmp_path) == (1, 0)


async def test_another_model_costs_a_draw_and_is_no_failure(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        asked = await drawn(ana)
        login = engine.login
        assert login is not None
        watch = clip_of(0, draw(random.Random(LOT)))

        def rolled_out(clip: bytes) -> Track:
            seen = watch(clip)
            engine.login = replace(login, weights_sha256="1" * 64)
            return seen

        engine.watch = rolled_out  # between the question and the look
        await ana.send_video_note(b"a clip", reply_to=asked)
        assert (await ana.reply()).text == say("en", "verify.other_embedder")
        engine.login = login
        await drawn(ana)
        assert await counted(ana, tmp_path) == (0, 1)


async def test_draws_are_few_and_the_owner_is_told(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        for _ in range(LIMITS.draws_until_wait):
            before = datetime.now(UTC)
            await drawn(ana)
            after = datetime.now(UTC)
        assert (await ana.reply()).text == say("en", "notices.unanswered", failures=3, limit=50)
        waits = {moment(at + LIMITS.first_wait) for at in (before, after)}
        waits |= {moment(after + timedelta(seconds=1) + LIMITS.first_wait)}
        barred = {say("en", "verify.barred_draws", when=when) for when in waits}
        await ana.send_text("/verify")
        assert (await ana.reply()).text in barred
        assert (await verify(ana, shots)).text == PASSED, "by photo there is nothing to draw"
        await ana.send_text("/verify")
        assert (await ana.reply()).text in barred


async def test_the_owner_is_told_of_a_lock(tmp_path: Path) -> None:
    engine, shots = LoginEngine(), Shots()
    async with login_bot(tmp_path, engine) as sandbox:
        ana = await english(sandbox)
        await enroll(ana, shots)
        await rewrite(
            tmp_path, f"UPDATE people SET failed_photo = {LIMITS.failures_until_stop - 1}"
        )
        engine.person = 1
        assert (await verify(ana, shots)).text == say("en", "verify.failed_photo")
        assert (await ana.reply()).text == say("en", "notices.locked")
        await ana.send_text("/verify")
        assert (await ana.reply()).text == say("en", "verify.barred_locked")
        place = Place(tmp_path, tmp_path / "bot.db")
        assert await place.sql("SELECT alarm FROM people") == [(None,)]
