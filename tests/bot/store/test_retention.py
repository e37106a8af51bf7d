"""What was kept long enough goes, and nobody's templates without a word."""

from datetime import timedelta

import pytest

from bot.store import FlowKind, Retention, Store
from tests.bot import fakes
from tests.bot.store.places import ANA, BEN, Place, begin, challenged, enroll, fail, finish

EVE = 7_000_000_002


async def test_short_lived_things_go_in_their_time(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await fail(store)
        await challenged(store)
        await store.claim_capture(EVE, "1", b"1", [fakes.pattern(0)])
        await store.begin_flow(BEN, FlowKind.ENROLL, {}, lifetime_s=60)
        assert not any((await store.tidy()).counts.values())
        place.clock.advance(hours=24)
        counts = (await store.tidy()).counts
        assert {name: count for name, count in counts.items() if count} == {
            "challenges": 2,
            "flows": 2,
            "people": 1,
        }
        place.clock.advance(days=29)
        counts = (await store.tidy()).counts
        assert {name: count for name, count in counts.items() if count} == {
            "captures": 1,
            "people": 1,
        }
        assert await place.sql("SELECT * FROM fingerprints") == []
        assert await store.claim_capture(BEN, "1", b"1")
        place.clock.advance(days=150)
        counts = (await store.tidy()).counts
        assert counts["attempts"] == 2, "one of them by letting a challenge lapse"
        assert counts["audit"] == 3
        assert await store.check_audit() is None
        assert await store.membership(ANA) is not None


async def tidied(store: Store, place: Place, days: float) -> tuple[tuple[int, timedelta], ...]:
    place.clock.advance(days=days)
    notices = (await store.tidy()).notices
    return tuple((person, when - place.clock.now) for person, when in notices)


MONTH = timedelta(days=30)


async def test_idle_templates_go_after_a_notice(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await store.choose_language(ANA, "es")
        assert await tidied(store, place, 334) == ()
        assert await tidied(store, place, 1) == ((ANA, MONTH),)
        assert await tidied(store, place, 0) == ((ANA, MONTH),), "until it was said"
        await store.mark_noticed(ANA)
        assert await tidied(store, place, 29) == ()
        assert await store.membership(ANA) is not None
        place.clock.advance(days=1)
        assert (await store.tidy()).counts["enrolments"] == 1
        assert await store.membership(ANA) is await store.language(ANA) is None
        assert await place.sql("SELECT * FROM people") == []
        assert await store.check_audit() is None


@pytest.mark.rules
async def test_a_late_notice_still_gives_its_full_time(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        assert await tidied(store, place, 800) == ((ANA, MONTH),)
        await store.mark_noticed(ANA)
        member = await store.membership(ANA)
        assert member is not None
        assert member.deleted_on == place.clock.now + MONTH
        assert await tidied(store, place, 29) == ()
        assert await store.membership(ANA) is not None


@pytest.mark.rules
async def test_templates_in_use_stay(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        assert await tidied(store, place, 340) != ()
        await store.mark_noticed(ANA)
        await finish(store, await begin(store), passed=True)
        assert await tidied(store, place, 30) == ()
        assert await store.membership(ANA) is not None
        await store.mark_noticed(ANA)  # a notice that came too late says nothing
        assert await tidied(store, place, 334 - 30) == ()
        assert len(await tidied(store, place, 1)) == 1


async def test_what_was_sent_for_a_face_is_known_again_while_it_is_here(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await store.claim_capture(ANA, "1", b"1", [fakes.pattern(0)])
        place.clock.advance(days=300)
        assert (await store.tidy()).counts["captures"] == 0
        assert not await store.claim_capture(ANA, "2", b"2", [fakes.pattern(0)])
        await store.forget(ANA)
        assert await place.sql("SELECT * FROM fingerprints") == []


@pytest.mark.rules
async def test_retention_is_the_operator_s(place: Place) -> None:
    short = Retention(
        challenges_hours=1, captures_days=1, audit_days=3, idle_days=10, notice_days=2
    )
    async with place.store(retention=short) as store:
        await enroll(store)
        await fail(store)
        await store.claim_capture(EVE, "1", b"1")
        place.clock.advance(days=3)
        counts = (await store.tidy()).counts
        assert (counts["challenges"], counts["captures"], counts["attempts"]) == (1, 1, 0)
        place.clock.advance(days=5)
        done = await store.tidy()
        assert done.counts["attempts"] == 1, "not before they count no more"
        assert done.notices == ((ANA, place.clock.now + timedelta(days=2)),)
