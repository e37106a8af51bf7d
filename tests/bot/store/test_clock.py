"""A machine's clock that was wrong: no delay outlives it, and nothing is erased on its word."""

from datetime import datetime, timedelta

import pytest

from bot.store import Attempt, Barred, FlowKind, Store
from tests.bot import fakes
from tests.bot.store.places import (
    ANA,
    CODE,
    CODED,
    Clock,
    Place,
    begin,
    challenged,
    enroll,
    fail,
    finish,
)

FAR = timedelta(days=26_000)


@pytest.mark.rules
async def test_failures_of_a_clock_that_was_ahead_delay_nobody_after_its_repair(
    place: Place, store: Store
) -> None:
    await enroll(store)
    place.clock.advance(days=3)
    await fail(store, times=5)
    assert isinstance(await store.barred(ANA), Barred)
    place.clock.advance(days=-3)
    assert await store.barred(ANA) is None
    await fail(store)
    until = place.clock.now + timedelta(seconds=60)
    assert await store.barred(ANA) == Barred("delay", until), "the sixth in a row"


@pytest.mark.rules
async def test_failures_of_a_clock_that_was_ahead_do_not_lock_after_its_repair(
    place: Place, store: Store
) -> None:
    await enroll(store)
    place.clock.advance(days=3)
    for _ in range(4):
        await fail(store, times=4)
        await finish(store, await begin(store), passed=True)
    await fail(store, times=3)
    place.clock.advance(days=-3)
    await fail(store)
    bar = await store.barred(ANA)
    assert bar is None or bar.reason != "locked"


@pytest.mark.rules
async def test_clocks_of_replicas_that_differ_a_little_give_no_try_away(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await fail(store, times=5)
        place.clock.advance(seconds=-20)
        bar = await store.barred(ANA)
        assert bar == Barred("delay", place.clock.now + timedelta(seconds=30))


async def test_wrong_codes_of_a_clock_that_was_ahead_delay_nobody_after_its_repair(
    place: Place, store: Store
) -> None:
    await enroll(store, ANA, CODED)
    place.clock.advance(days=3)
    for _ in range(5):
        assert not await store.check_recovery_code(ANA, CODE[:-1] + "B")
    assert await store.recovery_barred(ANA) is not None
    place.clock.advance(days=-3)
    assert await store.recovery_barred(ANA) is None


@pytest.mark.rules
async def test_a_challenge_of_a_clock_that_was_ahead_is_expired(place: Place, store: Store) -> None:
    await enroll(store)
    place.clock.advance(days=3)
    flow, nonce = await challenged(store)
    place.clock.advance(days=-3)
    assert await store.begin_attempt(flow, "video", nonce) == Barred("expired")
    assert isinstance(await begin(store), Attempt)


async def test_a_conversation_of_a_clock_that_was_ahead_is_over(place: Place, store: Store) -> None:
    place.clock.advance(days=3)
    flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=900)
    place.clock.advance(days=-3)
    assert await store.flow(ANA) is None
    assert await store.advance_flow(flow, {"x": 1}) is None
    assert (await store.tidy()).counts["flows"] == 1


@pytest.mark.rules
async def test_the_delay_before_a_new_face_is_never_longer_than_itself(
    place: Place, store: Store
) -> None:
    await enroll(store)
    place.clock.advance(days=30)
    await store.schedule_reset(ANA, delay_s=86_400)
    place.clock.advance(days=-30)
    due = await store.schedule_reset(ANA, delay_s=86_400)
    assert due == place.clock.now + timedelta(days=1)
    assert await store.reset_due(ANA) == due


async def test_the_wait_for_an_embedder_is_never_longer_than_itself(
    place: Place, store: Store
) -> None:
    await enroll(store)
    place.clock.advance(days=30)
    await store.plan_takeover("better", "dlib-resnet29", notice_days=14)
    place.clock.advance(days=-30)
    planned = await store.plan_takeover("better", "dlib-resnet29", notice_days=14)
    assert planned.left == timedelta(days=14)
    place.clock.advance(days=1)
    planned = await store.plan_takeover("better", "dlib-resnet29", notice_days=14)
    assert planned.left == timedelta(days=13)


# What is erased


async def old(place: Place, store: Store) -> None:
    """A database that has been in use for a fortnight."""
    await enroll(store)
    await fail(store)
    await store.claim_capture(ANA, "1", b"1", [fakes.pattern(0)])
    for _ in range(14):
        place.clock.advance(days=1)
        assert await store.erasing_waits() is None


@pytest.mark.rules
async def test_a_clock_that_is_far_ahead_erases_nothing_until_it_is_confirmed(
    place: Place, store: Store
) -> None:
    await old(place, store)
    place.clock.now += FAR
    due = await store.erasing_waits()
    assert due == place.clock.now + timedelta(days=3)
    await fail(store)  # whatever happens meanwhile
    place.clock.advance(days=1)
    assert await store.erasing_waits() == due
    await store.confirm_clock()
    assert await store.erasing_waits() is None


async def test_a_bot_that_was_off_for_months_erases_after_three_days(
    place: Place, store: Store
) -> None:
    await old(place, store)
    place.clock.advance(days=100)
    for _ in range(3):
        assert await store.erasing_waits() is not None
        place.clock.advance(days=1)
    assert await store.erasing_waits() is None


async def test_after_the_repair_erasing_goes_on_and_times_to_come_are_set_to_now(
    place: Place, store: Store
) -> None:
    await old(place, store)
    place.clock.now += FAR
    assert await store.erasing_waits() is not None
    await fail(store)
    await finish(store, await begin(store), passed=True)
    await store.claim_capture(ANA, "2", b"2")
    place.clock.now -= FAR
    assert await store.erasing_waits() is None
    member = await store.membership(ANA)
    assert member is not None
    assert member.last_used is None, "nobody knows when it was"
    exported = await store.export(ANA)
    times = [each["begun"] for each in exported["attempts"]]
    assert max(map(datetime.fromisoformat, times)) == place.clock.now
    assert datetime.fromisoformat(exported["captures"]["last"]) == place.clock.now
    assert await store.check_audit() is None


@pytest.mark.rules
@pytest.mark.parametrize("ahead", [FAR, -FAR / 2])
async def test_a_clock_that_was_wrong_at_the_first_start_erases_after_its_repair(
    place: Place, ahead: timedelta
) -> None:
    place.clock.now += ahead
    async with place.store() as store:
        assert await store.erasing_waits() is None
        await enroll(store)
        place.clock.now -= ahead
        assert await store.erasing_waits() is not None
        place.clock.advance(days=3)
        assert await store.erasing_waits() is None


@pytest.mark.rules
async def test_a_clock_that_is_behind_changes_nothing(place: Place, store: Store) -> None:
    await old(place, store)
    before = await store.export(ANA)
    place.clock.now -= FAR / 2
    assert await store.erasing_waits() is not None
    place.clock.now += FAR / 2
    after = await store.export(ANA)
    assert {**after, "audit": None} == {**before, "audit": None}


@pytest.mark.rules
async def test_the_audit_trail_goes_on_losing_its_oldest_after_a_clock_was_ahead(
    place: Place, store: Store
) -> None:
    await enroll(store)
    place.clock.now += FAR
    await fail(store)
    place.clock.now -= FAR
    assert (await store.tidy()).counts["audit"] == 0
    await fail(store)
    place.clock.advance(days=179)
    await fail(store)
    place.clock.advance(days=2)
    ((before,),) = await place.sql("SELECT count(*) FROM audit")
    pruned = (await store.tidy()).counts["audit"]
    assert pruned == before - 2, "all but the two of two days ago"
    assert await store.check_audit() is None


class Leaping(Clock):
    """A clock that is set two hours ahead whenever somebody looked at it."""

    def __call__(self) -> datetime:
        self.advance(hours=2)
        return self.now


@pytest.mark.rules
async def test_a_clock_that_is_set_while_it_is_looked_at_is_doubted(place: Place) -> None:
    place.clock = Leaping()
    async with place.store() as store:
        assert await store.erasing_waits() is not None
