"""When another embedder takes over: one date for every replica, and everybody is told once."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from bot.store import Enrolment, Store
from tests.bot.store.places import ANA, BEN, EMBEDDER, Place, enroll, enrolment

NEW = "mobilefacenet"
FORTNIGHT = timedelta(days=14)


def by_new() -> Enrolment:
    return replace(enrolment(), embedder=NEW)


async def left(store: Store, notice_days: float = 14) -> timedelta:
    return (await store.plan_takeover(NEW, EMBEDDER, notice_days=notice_days)).left


async def announcements(store: Store) -> tuple[tuple[int, datetime], ...]:
    return (await store.tidy()).announcements


async def test_where_nobody_is_enrolled_it_takes_over_at_once_for_good(place: Place) -> None:
    async with place.store() as store:
        assert await left(store) == timedelta(0)
        # A replica that had not heard of it enrolls somebody with the old one: nobody goes back.
        await enroll(store)
        place.clock.advance(days=1)
        assert await left(store) == timedelta(0)
        assert await announcements(store) == ()


async def test_it_waits_for_people_who_are_enrolled_with_the_other_one(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        planned = await store.plan_takeover(NEW, EMBEDDER, notice_days=14)
        assert (planned.left, planned.people) == (FORTNIGHT, 1)
        place.clock.advance(days=4)
        assert await left(store, notice_days=30) == timedelta(days=10), "the date stays"
        await enroll(store, BEN)
        place.clock.advance(days=10)
        planned = await store.plan_takeover(NEW, EMBEDDER, notice_days=14)
        assert (planned.left, planned.people) == (timedelta(0), 2)
        place.clock.advance(days=100)
        assert await left(store) == timedelta(0)
        assert await store.enrolled() == {EMBEDDER: 2}
        assert await store.check_audit() is None


@pytest.mark.rules
async def test_it_does_not_wait_where_more_people_are_enrolled_with_it(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await enroll(store, BEN, by_new())
        assert await left(store) == FORTNIGHT
        await store.withdraw_takeover()
        await enroll(store, 1, by_new())
        assert await left(store) == timedelta(0)


@pytest.mark.rules
async def test_no_notice_is_at_once_even_when_a_date_was_noted(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        assert await left(store) == FORTNIGHT
        assert await left(store, notice_days=0) == timedelta(0)
        assert await left(store) == timedelta(0), "and so it stays"
        assert await announcements(store) == ()


async def test_replicas_that_start_together_agree(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)

    async def start(days: float) -> datetime:
        async with place.store() as store:
            return (await store.plan_takeover(NEW, EMBEDDER, notice_days=days)).due

    dates = await asyncio.gather(*(start(days) for days in (14, 15, 16, 17)))
    assert len(set(dates)) == 1
    assert len(await place.sql("SELECT * FROM takeover")) == 1


async def test_whoever_is_affected_is_told_once_of_each_date(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await enroll(store, BEN, by_new())
        assert await announcements(store) == ()
        due = place.clock.now + FORTNIGHT
        assert await left(store) == FORTNIGHT
        assert await announcements(store) == ((ANA, due),)
        assert await announcements(store) == ((ANA, due),), "until it was said"
        await store.mark_announced(ANA, due)
        assert await announcements(store) == ()
        events = [entry["event"] for entry in (await store.export(ANA))["audit"]]
        assert "takeover_announced" in events
        # Enrolled once more, with the old one again, is something new.
        await enroll(store)
        assert await announcements(store) == ((ANA, due),)
        await store.mark_announced(ANA, due)
        # So is another date.
        assert await store.withdraw_takeover()
        assert not await store.withdraw_takeover()
        assert await announcements(store) == ()
        place.clock.advance(days=1)
        assert await left(store) == FORTNIGHT
        later = due + timedelta(days=1)
        assert await announcements(store) == ((ANA, later),)
        # When it has happened /verify says so.
        place.clock.advance(days=14)
        assert await announcements(store) == ()
        await store.forget(ANA)
        await store.mark_announced(ANA, later)
        assert await store.check_audit() is None


@pytest.mark.rules
async def test_another_pair_of_embedders_takes_the_date_s_place(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        assert await left(store) == FORTNIGHT
        place.clock.advance(days=13)
        planned = await store.plan_takeover("better", EMBEDDER, notice_days=14)
        assert planned.left == FORTNIGHT
        assert await announcements(store) == ((ANA, planned.due),)


async def test_people_are_written_to_as_they_chose_or_consented(place: Place) -> None:
    async with place.store() as store:
        assert await store.writing_language(ANA) is None
        await enroll(store, given=replace(enrolment(), language="es"))
        await enroll(store, given=replace(enrolment(), language="en"))
        assert await store.writing_language(ANA) == "en"
        await store.choose_language(ANA, "es")
        assert await store.writing_language(ANA) == "es"
