"""The audit trail: whole unless somebody tampers, and then the first broken entry is named."""

import asyncio

import pytest

from bot.store import Store
from tests.bot.store.places import ANA, BEN, Place, begin, enroll, fail, finish

TRIGGERS = {
    True: ("DROP TRIGGER audit_is_not_changed", "DROP TRIGGER audit_is_not_deleted"),
    False: ("ALTER TABLE audit DISABLE TRIGGER ALL",),
}
TAMPERING = {
    "an event changed": ("UPDATE audit SET event = 'verified' WHERE number = 3", 3),
    "a detail changed": ("UPDATE audit SET detail = '{}' WHERE number = 4", 4),
    "a time changed": ("UPDATE audit SET at = at + 1 WHERE number = 2", 2),
    "a subject removed": ("UPDATE audit SET subject = NULL WHERE number = 5", 5),
    "one in the middle removed": ("DELETE FROM audit WHERE number = 3", 3),
    "the last removed": ("DELETE FROM audit WHERE number = 7", 7),
    "the first removed": ("DELETE FROM audit WHERE number = 1", 1),
    "one added at the end": (
        "INSERT INTO audit SELECT 8, at, subject, event, detail, link FROM audit WHERE number = 7",
        8,
    ),
    "the end moved back": (
        "UPDATE audit_ends SET last = 6, last_link = (SELECT link FROM audit WHERE number = 6)",
        7,
    ),
    "a link changed": (
        "UPDATE audit SET link = (SELECT link FROM audit AS other WHERE other.number = 1) "
        "WHERE number = 2",
        2,
    ),
    "the ends removed": ("DELETE FROM audit_ends", 1),
}


async def a_trail_of_seven(store: Store) -> None:
    await enroll(store)  # 1
    await fail(store, times=2)  # 2 to 5
    await finish(store, await begin(store), passed=True)  # 6 and 7


@pytest.mark.rules
@pytest.mark.parametrize(("statement", "number"), TAMPERING.values(), ids=TAMPERING)
async def test_tampering_is_found_at_its_first_entry(
    place: Place, statement: str, number: int
) -> None:
    async with place.store() as store:
        assert await store.check_audit() is None
        await a_trail_of_seven(store)
        assert await store.check_audit() is None
        for trigger in TRIGGERS[place.is_sqlite]:
            await place.sql(trigger)
        await place.sql(statement)
        assert await store.check_audit() == number


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET event = 'x'", "DELETE FROM audit", "TRUNCATE audit"]
)
async def test_the_database_refuses_changes(place: Place, statement: str) -> None:
    async with place.store() as store:
        await a_trail_of_seven(store)
        with pytest.raises(Exception, match=r"only added to|syntax error"):
            await place.sql(statement)
        assert await store.check_audit() is None
        assert len(await place.sql("SELECT * FROM audit")) == 7


async def test_replicas_add_to_one_chain(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        await asyncio.gather(
            *(
                enroll(store, person)
                for store, person in zip((one, other) * 4, range(8), strict=True)
            )
        )
        assert await one.check_audit() is None
        assert len(await place.sql("SELECT * FROM audit")) == 8


async def test_pruning_keeps_the_rest_checkable(place: Place) -> None:
    async with place.store() as store:
        await a_trail_of_seven(store)
        place.clock.advance(days=179)
        await fail(store)
        place.clock.advance(days=2)
        assert (await store.tidy()).counts["audit"] == 7
        assert await store.check_audit() is None
        numbers = [number for (number,) in await place.sql("SELECT number FROM audit ORDER BY 1")]
        assert numbers == [8, 9, 10]
        events = [event for (event,) in await place.sql("SELECT event FROM audit ORDER BY number")]
        assert events == ["attempt", "refused", "pruned"]
        assert (await store.tidy()).counts["audit"] == 0
        place.clock.advance(days=400)
        await store.tidy()
        assert await store.check_audit() is None


async def test_erasing_cuts_the_link_and_not_the_chain(place: Place) -> None:
    async with place.store() as store:
        await a_trail_of_seven(store)
        await enroll(store, BEN)
        before = (await store.export(ANA))["audit"]
        assert [entry["event"] for entry in before] == [
            "enrolled",
            *("attempt", "refused") * 2,
            "attempt",
            "verified",
        ]
        await store.forget(ANA)
        assert await store.check_audit() is None
        assert len(await place.sql("SELECT * FROM audit WHERE subject IS NOT NULL")) >= 8
        place.clock.advance(hours=24)
        await enroll(store, ANA)
        after = (await store.export(ANA))["audit"]
        assert [entry["event"] for entry in after] == ["enrolled"], "nobody knows any more"


@pytest.mark.rules
async def test_no_score_and_no_id_is_in_the_trail(place: Place) -> None:
    async with place.store() as store:
        await a_trail_of_seven(store)
        details = str(await place.sql("SELECT event, detail FROM audit"))
    assert str(ANA) not in details
    assert '"bucket":3' in details
