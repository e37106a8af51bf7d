"""Challenge shopping: draws are few and failures stop hard, whatever time it takes."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from bot.store import Alarm, Attempt, Barred, Level, Right, Store
from bot.store.limits import LIMITS, AttemptLimits
from tests.bot.store.places import (
    ANA,
    BEN,
    CODED,
    Clock,
    Place,
    begin,
    challenged,
    enroll,
    enrolment,
    fail,
    finish,
)

WEEK = timedelta(days=7)
STOP = LIMITS.failures_until_stop


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    async with place.store() as opened:
        await enroll(opened, ANA, CODED)
        yield opened


async def counts(place: Place) -> tuple[int, int, int]:
    """Failures by photo and by video, and draws that a fault of ours lost."""
    (row,) = await place.sql("SELECT failed_photo, failed_video, voided FROM people")
    photo, video, voided = row
    return photo, video, voided


async def let_lapse(place: Place, store: Store, times: int = 1) -> None:
    for _ in range(times):
        await challenged(store)
        place.clock.advance(seconds=61)
        await store.tidy()


def test_waits_double_up_to_a_month() -> None:
    days = [LIMITS.wait(draws) / timedelta(days=1) for draws in (0, 3, 4, 5, 6, 7, 8, 10_000)]
    assert days == [0, 0, 2.5, 5, 10, 20, 30, 30]


def test_draws_are_counted_in_a_row_and_of_late() -> None:
    limits = AttemptLimits(draws_until_wait=3, first_wait=timedelta(hours=1), draws_in_window=4)
    now = Clock().now
    earlier = [now - timedelta(days=days) for days in (6, 5, 4, 3)]
    assert limits.no_draw_until(2, now, []) is None
    assert limits.no_draw_until(3, now, []) == now + timedelta(hours=1)
    assert limits.no_draw_until(0, None, earlier[1:]) is None
    assert limits.no_draw_until(0, None, earlier) == earlier[0] + WEEK
    assert limits.no_draw_until(4, now, earlier) == max(now + timedelta(hours=2), earlier[0] + WEEK)
    assert limits.no_draw_until(9, None, []) is None, "nobody knows when it was"


@pytest.mark.rules
async def test_a_thief_draws_five_times_a_week(place: Place, store: Store) -> None:
    end, draws = place.clock.now + WEEK, 0
    while place.clock.now < end:
        bar = await store.barred(ANA, drawing=True)
        if bar is None:
            await challenged(store)
            draws += 1
            place.clock.advance(seconds=1)
        else:
            assert bar.reason == "draws"
            assert bar.until is not None
            place.clock.now = min(bar.until, end)
    assert draws == 5
    assert await store.barred(ANA) is None, "what was drawn may be answered"


@pytest.mark.rules
async def test_nobody_draws_for_free_by_waiting_until_a_challenge_is_forgotten(
    place: Place, store: Store
) -> None:
    for _ in range(LIMITS.draws_until_wait):
        assert await store.barred(ANA, drawing=True) is None
        await challenged(store)
        place.clock.advance(hours=25)
        assert (await store.tidy()).counts["challenges"] == 1
    assert await counts(place) == (0, 4, 0)
    bar = await store.barred(ANA, drawing=True)
    assert bar is not None
    assert bar.reason == "draws"


async def test_passes_between_them_give_no_more_draws_than_there_are_in_a_week(
    place: Place, store: Store
) -> None:
    first = place.clock.now
    for _ in range(LIMITS.draws_in_window // 3):
        await let_lapse(place, store, 3)
        await finish(store, await begin(store), passed=True)
        place.clock.advance(hours=6)
    assert await store.barred(ANA, drawing=True) == Barred("draws", first + WEEK)
    place.clock.now = first + WEEK
    assert await store.barred(ANA, drawing=True) is None


@pytest.mark.rules
async def test_by_photo_there_is_nothing_to_draw_and_no_wait(place: Place, store: Store) -> None:
    for _ in range(2 * LIMITS.draws_until_wait):
        await challenged(store, ANA, "photo")
        place.clock.advance(seconds=61)
    assert await store.barred(ANA, drawing=True) is None
    assert await counts(place) == (0, 0, 0)


@pytest.mark.rules
@pytest.mark.parametrize("level", ["photo", "video"])
async def test_fifty_failures_since_the_last_pass_lock_however_long_they_take(
    place: Place, store: Store, level: Level
) -> None:
    for number in range(STOP):
        assert await store.barred(ANA) is None, number
        await finish(store, await begin(store, ANA, level), passed=False)
        place.clock.advance(days=9)
        await store.tidy()
    assert await store.barred(ANA) == Barred("locked")
    place.clock.advance(days=60)
    assert await store.barred(ANA) == Barred("locked")
    await enroll(store, ANA, enrolment(right=Right.CODE))
    assert await store.barred(ANA, drawing=True) is None
    assert await counts(place) == (0, 0, 0)


@pytest.mark.rules
async def test_lapses_lock_as_failures_do(place: Place, store: Store) -> None:
    for _ in range(STOP):
        await let_lapse(place, store)
        place.clock.advance(days=9)
    assert await store.barred(ANA) == Barred("locked")
    assert await store.unlock(ANA)
    assert await store.barred(ANA, drawing=True) is None


@pytest.mark.rules
async def test_the_fiftieth_may_still_succeed(place: Place, store: Store) -> None:
    for _ in range(STOP - 1):
        await fail(store)
        place.clock.advance(days=2)
    attempt = await begin(store)
    assert await store.barred(ANA) == Barred("locked")
    await finish(store, attempt, passed=True)
    assert await store.barred(ANA) is None
    assert await counts(place) == (0, 0, 0)
    alarm = await store.claim_alarm(ANA, lease_s=60)
    assert alarm is None or alarm.kind != "locked"


async def test_a_pass_by_photo_forgives_no_failures_by_video(place: Place, store: Store) -> None:
    await fail(store, times=3)
    await finish(store, await begin(store, ANA, "photo"), passed=False)
    assert await counts(place) == (1, 3, 0)
    await finish(store, await begin(store, ANA, "photo"), passed=True)
    assert await counts(place) == (0, 3, 0)
    await fail(store, times=2)
    assert await store.barred(ANA) == Barred("delay", place.clock.now + timedelta(seconds=30))
    place.clock.advance(seconds=30)
    await finish(store, await begin(store), passed=True)
    assert await counts(place) == (0, 0, 0)


@pytest.mark.rules
async def test_a_fault_of_ours_costs_a_draw_and_is_no_failure(place: Place, store: Store) -> None:
    for _ in range(LIMITS.draws_until_wait):
        attempt = await begin(store)
        assert isinstance(attempt, Attempt)
        await store.void_attempt(attempt, "fault")
    assert await counts(place) == (0, 0, LIMITS.draws_until_wait)
    bar = await store.barred(ANA, drawing=True)
    assert bar == Barred("draws", place.clock.now + LIMITS.first_wait)
    assert await store.barred(ANA) is None
    for _ in range(2 * STOP):  # and never a lock
        attempt = await begin(store)
        assert isinstance(attempt, Attempt)
        await store.void_attempt(attempt, "fault")
    assert await store.barred(ANA) is None


async def test_an_excused_challenge_that_lapses_is_a_draw_and_no_failure(
    place: Place, store: Store
) -> None:
    _, nonce = await challenged(store)
    await store.excuse_challenge(BEN, nonce)  # nobody else's to excuse
    await store.excuse_challenge(ANA, nonce)
    place.clock.advance(seconds=61)
    await store.tidy()
    await store.tidy()
    assert await counts(place) == (0, 0, 1)
    assert await place.sql("SELECT outcome, reason FROM attempts") == [("void", "fault")]


@pytest.mark.rules
async def test_what_was_forgiven_meanwhile_is_not_taken_back_twice(
    place: Place, store: Store
) -> None:
    first, second = await begin(store), await begin(store)
    assert isinstance(first, Attempt)
    await finish(store, second, passed=True)
    await fail(store)
    await store.void_attempt(first, "fault")
    assert await counts(place) == (0, 1, 0)


@pytest.mark.rules
async def test_lapses_of_somebody_whose_rows_were_changed_keep_nobody_from_tidying(
    place: Place, store: Store
) -> None:
    await challenged(store)
    place.clock.advance(seconds=61)
    await place.sql("UPDATE people SET failed_video = 1")
    await store.tidy()
    assert await place.sql("SELECT reason FROM attempts") == []


async def told(store: Store) -> str | None:
    alarm = await store.claim_alarm(ANA, lease_s=60)
    if alarm is None:
        return None
    await store.mark_alarmed(ANA, alarm)
    return alarm.kind


async def test_the_owner_is_told_of_unanswered_draws(place: Place, store: Store) -> None:
    await let_lapse(place, store, 2)
    assert await told(store) is None
    await let_lapse(place, store)
    assert await told(store) == "unanswered"
    assert await told(store) is None, "once"
    # With passes between them as well.
    for _ in range(2):
        await finish(store, await begin(store), passed=True)
        await let_lapse(place, store, 2)
        assert await told(store) is None
    await finish(store, await begin(store), passed=True)
    await let_lapse(place, store)
    assert await told(store) == "unanswered"


@pytest.mark.rules
async def test_the_owner_is_told_before_a_lock_and_of_it(place: Place, store: Store) -> None:
    said = []
    for number in range(1, STOP + 1):
        await finish(store, await begin(store, ANA, "photo"), passed=False)
        place.clock.advance(days=2)
        alarm = await store.claim_alarm(ANA, lease_s=60)
        if alarm is not None:
            said.append((number, alarm))
            assert (await store.tidy()).alarms == (ANA,), "until they were told"
            assert await store.claim_alarm(ANA, lease_s=60) is None, "by one replica"
            await store.mark_alarmed(ANA, alarm)
            assert (await store.tidy()).alarms == ()
    assert said == [
        (25, Alarm("failures", 25, STOP)),
        (40, Alarm("failures", 40, STOP)),
        (50, Alarm("locked", 50, STOP)),
    ]


@pytest.mark.rules
async def test_what_was_not_told_is_claimed_again_after_a_while(place: Place, store: Store) -> None:
    await let_lapse(place, store, 3)
    assert await store.claim_alarm(ANA, lease_s=60) is not None
    assert await store.claim_alarm(ANA, lease_s=60) is None
    place.clock.advance(seconds=61)
    assert await store.claim_alarm(ANA, lease_s=60) == Alarm("unanswered", 3, STOP)


@pytest.mark.rules
async def test_a_claim_of_a_clock_that_was_ahead_keeps_nobody_from_an_alarm(
    place: Place, store: Store
) -> None:
    await let_lapse(place, store, 3)
    place.clock.advance(days=3)
    assert await store.claim_alarm(ANA, lease_s=600) is not None
    place.clock.advance(days=-3)
    assert await store.claim_alarm(ANA, lease_s=600) is not None
    assert await store.claim_alarm(ANA, lease_s=600) is None


async def test_the_erased_for_being_idle_are_held_as_those_of_forget(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        place.clock.advance(days=335)
        await store.mark_noticed(ANA)
        place.clock.advance(days=30)
        assert (await store.tidy()).counts["enrolments"] == 1
        until = await store.held_until(ANA)
        assert until == place.clock.now + timedelta(hours=24)
        place.clock.advance(hours=24)
        assert await store.held_until(ANA) is None
        assert (await store.tidy()).counts["holds"] == 1
