"""Attempts: counted before they are judged, whoever is fast, crashes or comes from two devices."""

import asyncio
from datetime import timedelta

import pytest

from bot.store import (
    Attempt,
    Barred,
    Enrolment,
    FlowKind,
    Right,
    Store,
    StoreError,
    is_recovery_code,
    new_recovery_code,
)
from bot.store.limits import LIMITS
from tests.bot.store.places import (
    ANA,
    BEN,
    CODE,
    CODED,
    Place,
    begin,
    challenged,
    enroll,
    enrolment,
    fail,
    finish,
)


async def test_a_challenge_is_met_once_and_its_steps_come_back(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        flow, nonce = await challenged(store)
        attempt = await store.begin_attempt(flow, "video", nonce)
        assert isinstance(attempt, Attempt)
        assert (attempt.steps, attempt.level) == ("side up", "video")
        assert attempt.begun == place.clock.now
        assert await store.flow(ANA) is None
        again = await store.begin_flow(ANA, FlowKind.VERIFY, {}, lifetime_s=60)
        assert await store.begin_attempt(again, "video", nonce) == Barred("spent")
        await finish(store, attempt, passed=True)
        member = await store.membership(ANA)
        assert member is not None
        assert member.last_used == place.clock.now


async def test_of_two_devices_with_one_challenge_one_tries(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        await enroll(one)
        flow, nonce = await challenged(one)
        results = await asyncio.gather(
            *(store.begin_attempt(flow, "video", nonce) for store in (one, other) * 3)
        )
        assert sorted(isinstance(result, Attempt) for result in results) == [False] * 5 + [True]
        assert results.count(Barred("spent")) == 5


async def test_a_challenge_is_good_for_its_person_level_and_time_only(place: Place) -> None:
    async with place.store() as store:
        await enroll(store, ANA)
        await enroll(store, BEN)
        flow, nonce = await challenged(store, ANA)
        bens = await store.begin_flow(BEN, FlowKind.VERIFY, {}, lifetime_s=60)
        assert await store.begin_attempt(bens, "video", nonce) == Barred("spent")
        assert await store.begin_attempt(flow, "photo", nonce) == Barred("spent")
        assert await store.begin_attempt(flow, "video", b"n" * 16) == Barred("spent")
        place.clock.advance(seconds=60)
        assert await store.begin_attempt(flow, "video", nonce) == Barred("expired")
        assert (await store.export(ANA))["attempts"] == []


@pytest.mark.rules
async def test_a_new_challenge_spends_the_one_before(store: Store) -> None:
    await enroll(store)
    _, old = await challenged(store)
    flow, _ = await challenged(store)
    assert await store.begin_attempt(flow, "video", old) == Barred("spent")


@pytest.mark.rules
async def test_an_overtaken_flow_begins_nothing(store: Store) -> None:
    await enroll(store)
    flow, nonce = await challenged(store)
    assert await store.advance_flow(flow, {"x": 1}) is not None
    assert await store.begin_attempt(flow, "video", nonce) == Barred("expired")


@pytest.mark.rules
async def test_who_lets_challenges_lapse_until_one_suits_them_is_charged(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        for _ in range(5):
            await challenged(store, ANA, "video")
            place.clock.advance(seconds=61)
        assert await store.barred(ANA) is None
        flow, nonce = await challenged(store, ANA, "video")
        until = place.clock.now + timedelta(seconds=30)
        assert await store.begin_attempt(flow, "video", nonce) == Barred("delay", until)
        assert await place.sql("SELECT reason FROM attempts") == [("unanswered",)] * 5
        await enroll(store, BEN)
        for _ in range(6):
            await challenged(store, BEN, "photo")  # there is nothing to choose from
        assert await store.barred(BEN) is None


def test_delays_double_up_to_an_hour() -> None:
    assert [LIMITS.delay_s(failures) for failures in (0, 4, 5, 6, 7, 11, 12, 10_000)] == [
        0,
        0,
        30,
        60,
        120,
        1920,
        3600,
        3600,
    ]


@pytest.mark.rules
async def test_five_failures_in_a_row_delay_and_each_more_doubles(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await fail(store, times=4)
        assert await store.barred(ANA) is None
        await fail(store)
        until = place.clock.now + timedelta(seconds=30)
        assert await store.barred(ANA) == Barred("delay", until)
        assert await begin(store, ANA, "photo") == Barred("delay", until)
        place.clock.advance(seconds=29)
        assert await store.barred(ANA) is not None
        place.clock.advance(seconds=1)
        assert await store.barred(ANA) is None
        await fail(store)
    async with place.store() as store:  # counters outlive a restart
        until = place.clock.now + timedelta(seconds=60)
        assert await store.barred(ANA) == Barred("delay", until)
        assert await store.barred(BEN) is None


@pytest.mark.rules
async def test_a_success_ends_the_row_and_a_barred_challenge_is_not_spent(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await fail(store, times=5)
        flow, nonce = await challenged(store, lifetime_s=120)
        assert isinstance(await store.begin_attempt(flow, "video", nonce), Barred)
        place.clock.advance(seconds=30)
        await finish(store, await store.begin_attempt(flow, "video", nonce), passed=True)
        await fail(store, times=4)
        assert await store.barred(ANA) is None


async def test_attempts_that_nobody_ended_count_as_failures(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        for _ in range(5):
            assert isinstance(await begin(store), Attempt)
    async with place.store() as store:
        assert await store.barred(ANA) == Barred("delay", place.clock.now + timedelta(seconds=30))


async def test_two_replicas_never_begin_more_than_is_allowed(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        await enroll(one)

        async def device(store: Store) -> int:
            begun = 0
            for _ in range(8):
                begun += isinstance(await begin(store), Attempt)
            return begun

        begun = await asyncio.gather(*(device(store) for store in (one, other, one, other)))
        # Devices replace each other's challenges, so that fewer than five may come through.
        assert sum(begun) <= 5
        answered = "SELECT id FROM attempts WHERE reason IS NULL OR reason <> 'unanswered'"
        assert len(await place.sql(answered)) == sum(begun)


async def test_twenty_failures_in_a_day_lock_for_good(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        for _ in range(5):
            await fail(store, times=4)
            if (await store.export(ANA))["enrolled"]["locked"]:
                break
            # A success now and then does not help.
            await finish(store, await begin(store), passed=True)
        assert await store.barred(ANA) == Barred("locked")
        attempts = (await store.export(ANA))["attempts"]
        assert [attempt["outcome"] for attempt in attempts].count("failed") == 20
        place.clock.advance(days=3)
        assert await store.barred(ANA) == Barred("locked")
        assert await begin(store, ANA, "photo") == Barred("locked")
        member = await store.membership(ANA)
        assert member is not None
        assert member.locked
        assert await store.unlock(ANA)
        assert await store.barred(ANA) is None
        assert not await store.unlock(ANA)
        await fail(store, times=4)
        assert await store.barred(ANA) is None, "what was forgiven does not count again"


async def nearly_locked(store: Store, given: Enrolment | None = None) -> None:
    """Nineteen failures in a day, and a success now and then."""
    await enroll(store, ANA, given)
    for times in (4, 4, 4, 4, 3):
        await fail(store, times=times)
        await finish(store, await begin(store), passed=True)


@pytest.mark.rules
async def test_the_twentieth_attempt_may_still_succeed(place: Place, store: Store) -> None:
    await nearly_locked(store)
    attempt = await begin(store)
    assert await store.barred(ANA) == Barred("locked"), "it counts as failed while it is open"
    await finish(store, attempt, passed=True)
    assert await store.barred(ANA) is None


@pytest.mark.rules
async def test_the_twentieth_attempt_that_crashes_locks_for_good(place: Place) -> None:
    async with place.store() as store:
        await nearly_locked(store)
        assert isinstance(await begin(store), Attempt)
    place.clock.advance(days=2)
    async with place.store() as store:
        assert await store.barred(ANA) == Barred("locked")


@pytest.mark.rules
async def test_what_was_our_fault_is_not_charged(place: Place, store: Store) -> None:
    await nearly_locked(store)
    attempt = await begin(store)
    assert isinstance(attempt, Attempt)
    await store.void_attempt(attempt, "fault")
    assert await store.barred(ANA) is None
    await store.void_attempt(attempt, "fault")  # again: nothing
    with pytest.raises(StoreError, match="not open any more"):
        await finish(store, attempt, passed=True)


async def test_an_attempt_is_ended_once(store: Store) -> None:
    await enroll(store)
    attempt = await begin(store)
    await finish(store, attempt, passed=False)
    for passed in (True, False):
        with pytest.raises(StoreError, match="not open any more"):
            await finish(store, attempt, passed=passed)
    assert isinstance(attempt, Attempt)
    await store.void_attempt(attempt, "fault")
    assert [each["outcome"] for each in (await store.export(ANA))["attempts"]] == ["failed"]


async def test_nobody_succeeds_who_was_erased_or_enrolled_anew_meanwhile(store: Store) -> None:
    await enroll(store)
    attempt = await begin(store)
    await enroll(store)
    with pytest.raises(StoreError, match="not open any more"):
        await finish(store, attempt, passed=True)
    attempt = await begin(store)
    await store.forget(ANA)
    with pytest.raises(StoreError, match="not open any more"):
        await finish(store, attempt, passed=True)
    assert await store.unlock(ANA)
    await enroll(store)
    with pytest.raises(StoreError, match="not open any more"):
        await finish(store, attempt, passed=True)


@pytest.mark.rules
@pytest.mark.parametrize("right", [Right.VIDEO, Right.WAIT, Right.CODE])
async def test_of_all_enrolments_that_by_the_code_alone_forgives_failures(
    place: Place, right: Right
) -> None:
    async with place.store() as store:
        await enroll(store, ANA, CODED)
        await fail(store, times=5)
        bar = await store.barred(ANA)
        assert bar is not None
        await store.schedule_reset(ANA, delay_s=0)
        await enroll(store, ANA, enrolment(right=right))
        assert await store.barred(ANA) == (None if right is Right.CODE else bar)


def test_recovery_codes_are_strong_and_easy_to_copy() -> None:
    codes = {new_recovery_code() for _ in range(100)}
    assert len(codes) == 100
    assert all(len(code) == 23 and is_recovery_code(code) for code in codes)
    assert is_recovery_code(CODE.lower().replace("-", " "))
    assert not is_recovery_code(CODE[:-1])
    assert not is_recovery_code("")


@pytest.mark.rules
@pytest.mark.parametrize("typed", [CODE, CODE.lower(), CODE.replace("-", " ").replace("0", "O")])
async def test_a_recovery_code_is_right_however_it_is_typed(store: Store, typed: str) -> None:
    await enroll(store, ANA, CODED)
    assert not await store.check_recovery_code(BEN, typed)
    assert await store.check_recovery_code(ANA, typed)


@pytest.mark.rules
async def test_a_recovery_code_is_used_up_by_the_face_that_it_stores(store: Store) -> None:
    await enroll(store, ANA, CODED)
    await fail(store, times=5)
    for _ in range(2):
        assert await store.check_recovery_code(ANA, CODE)
        assert await store.barred(ANA) is not None, "a code that is right changes nothing yet"
    await enroll(store, ANA, enrolment(right=Right.CODE))
    assert await store.barred(ANA) is None, "delays are lifted"
    assert not await store.check_recovery_code(ANA, CODE)
    flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
    assert not await store.enroll(flow, enrolment(right=Right.CODE)), "there is no code any more"


@pytest.mark.rules
async def test_a_recovery_code_lifts_a_lock_and_nothing_else_does(
    place: Place, store: Store
) -> None:
    await nearly_locked(store, CODED)
    await fail(store)
    await store.schedule_reset(ANA, delay_s=0)
    for right in (Right.FIRST, Right.VIDEO, Right.WAIT):
        flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        assert not await store.enroll(flow, enrolment(right=right))
        assert await store.barred(ANA) == Barred("locked")
    await enroll(store, ANA, enrolment(right=Right.CODE))
    assert await store.barred(ANA) is None


async def test_wrong_recovery_codes_are_delayed_but_never_lock(place: Place) -> None:
    wrong = new_recovery_code()
    async with place.store() as store:
        await enroll(store, ANA, CODED)
        assert not await store.check_recovery_code(ANA, "hello")
        for _ in range(5):
            assert not await store.check_recovery_code(ANA, wrong)
        until = place.clock.now + timedelta(seconds=30)
        assert await store.recovery_barred(ANA) == Barred("delay", until)
        assert not await store.check_recovery_code(ANA, CODE), "not even the right one"
        assert await store.barred(ANA) is None, "verifying is another matter"
        place.clock.advance(seconds=30)
        assert await store.check_recovery_code(ANA, CODE)
        assert await store.recovery_barred(ANA) is None


async def test_a_recovery_code_stores_one_face_of_two_devices(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        await enroll(one, ANA, CODED)
        by_code = enrolment(right=Right.CODE)
        flow = await one.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        used = await asyncio.gather(
            *(store.enroll(flow, by_code) for store in (one, other, one, other))
        )
        assert sorted(used) == [False, False, False, True]


@pytest.mark.rules
async def test_without_a_recovery_code_none_is_right(store: Store) -> None:
    await enroll(store)
    assert not await store.check_recovery_code(ANA, CODE)
    assert await store.recovery_barred(BEN) is None


async def test_a_reset_is_due_after_its_delay_unless_cancelled(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        assert await store.reset_due(ANA) is None
        due = await store.schedule_reset(ANA, delay_s=86_400)
        assert due == place.clock.now + timedelta(days=1)
        place.clock.advance(hours=1)
        assert await store.schedule_reset(ANA, delay_s=86_400) == due, "asking again gains nothing"
    async with place.store() as store:
        assert await store.reset_due(ANA) == due
        assert await store.cancel_reset(ANA)
        assert not await store.cancel_reset(ANA)
        assert await store.reset_due(ANA) is None
        await store.schedule_reset(ANA, delay_s=1)
        await enroll(store)
        assert await store.reset_due(ANA) is None


@pytest.mark.rules
async def test_whoever_lets_challenges_lapse_to_draw_another_is_delayed_then_locked(
    place: Place,
) -> None:
    async with place.store() as store:
        await enroll(store)
        for _ in range(5):
            assert await store.barred(ANA) is None
            await challenged(store)
        assert await store.barred(ANA) is None  # the fifth may still be answered
        await challenged(store)
        bar = await store.barred(ANA)
        assert bar == Barred("delay", place.clock.now + timedelta(seconds=LIMITS.delay_s(5)))
        for _ in range(15):
            await challenged(store)
        assert await store.barred(ANA) == Barred("locked")
