"""Whoever writes to the database, and lacks its keys, lets nobody in, and is found out."""

import logging

import pytest

from bot.store import Barred, Flow, FlowKind, Level, Right, Store, StoreError, Tampered
from bot.store.schema import metadata
from bot.store.seals import ON_USE, OTHERWISE, USUAL
from tests.bot.store.places import (
    ANA,
    BEN,
    CODED,
    Place,
    begin,
    challenged,
    enroll,
    enrolment,
    fail,
    finish,
)

A_DAY_MICROS = 86_400_000_000
FORGERIES = {
    "failures not counted": "UPDATE people SET failed_video = 0",
    "failures forgiven": "UPDATE people SET cleared_through = 1000",
    "a wait made up": "UPDATE people SET reset_due = 1",
    "the code taken away": "UPDATE people SET recovery = NULL",
    "an earlier enrolment": "UPDATE people SET enrolments = enrolments - 1",
    "the seal taken away": "UPDATE people SET seal = NULL",
    "seal and heads taken away": "UPDATE people SET seal = NULL, heads = NULL",
    "attempts taken away": "DELETE FROM attempts",
    "an attempt passed": "UPDATE attempts SET outcome = 'passed'",
    "attempts of long ago": f"UPDATE attempts SET begun = begun - {A_DAY_MICROS}",
    "attempts of somebody else": (
        "UPDATE attempts SET person = (SELECT person FROM people WHERE person <> attempts.person)"
    ),
    "a challenge not spent": "UPDATE challenges SET spent = NULL",
    "a challenge that lives": f"UPDATE challenges SET deadline = deadline + {A_DAY_MICROS}",
    "easier steps": "UPDATE challenges SET steps = 'up'",
    "another level": "UPDATE challenges SET level = 'photo'",
    "challenges taken away": "DELETE FROM challenges",
    "a conversation that lives": f"UPDATE flows SET deadline = deadline + {A_DAY_MICROS}",
    "an older embedder": "UPDATE enrolments SET embedder = 'other'",
    "a face used lately": "UPDATE enrolments SET since = since + 1",
}


async def at_risk(store: Store) -> tuple[Flow, bytes]:
    """Ana has a face, a code, failures and a challenge that she may meet; so has Ben."""
    for person in (BEN, ANA):
        await enroll(store, person, CODED if person == ANA else enrolment())
        await fail(store, person, times=2)
        flow, nonce = await challenged(store, person)
    return flow, nonce


@pytest.mark.rules
@pytest.mark.parametrize("statement", FORGERIES.values(), ids=FORGERIES)
async def test_with_forged_rows_nobody_passes(
    place: Place, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.store() as store:
        flow, nonce = await at_risk(store)
        assert await store.check_seals() == []
        await place.sql(statement)
        with pytest.raises(Tampered, match="db check"):
            await store.begin_attempt(flow, "video", nonce)
        with pytest.raises(Tampered):
            await store.barred(ANA)
        with pytest.raises(Tampered):
            await store.schedule_reset(ANA, delay_s=0)
        assert await store.check_seals() != []
        assert [each.levelno for each in caplog.records if "tampered" in each.message] == [
            logging.ERROR
        ], "said once"
        events = [event for (event,) in await place.sql("SELECT event FROM audit ORDER BY number")]
        assert events[-1] == "tampered"
        assert await store.check_audit() is None


@pytest.mark.rules
async def test_a_lock_that_was_lifted_by_hand_is_still_one(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        while await store.barred(ANA) != Barred("locked"):
            place.clock.advance(hours=1)
            await finish(store, await begin(store, level="photo"), passed=False)
        await place.sql("UPDATE people SET locked = NULL, failed_video = 0, failed_photo = 0")
        place.clock.advance(days=40)
        with pytest.raises(Tampered):
            await begin(store)


async def test_what_was_changed_is_named(place: Place) -> None:
    async with place.store() as store:
        await at_risk(store)
        await place.sql("UPDATE attempts SET outcome = 'void' WHERE id = 1")
        (found,) = await store.check_seals()
        assert found.startswith("attempts: of person ")
        await place.sql("UPDATE attempts SET outcome = 'failed' WHERE id = 1")
        assert await store.check_seals() == []
        await fail(store, BEN)


@pytest.mark.rules
async def test_rows_put_back_beside_newer_ones_are_seen(place: Place) -> None:
    if not place.is_sqlite:
        pytest.skip("one kind of database shows it")
    async with place.store() as store:
        await at_risk(store)
        await place.sql("CREATE TABLE older AS SELECT * FROM people")
        await fail(store)
        columns = [row[1] for row in await place.sql("PRAGMA table_info(people)")]
        changed = ", ".join(
            f"{name} = (SELECT {name} FROM older WHERE older.person = people.person)"
            for name in columns
        )
        await place.sql(f"UPDATE people SET {changed}")
        with pytest.raises(Tampered):
            await begin(store)


@pytest.mark.rules
async def test_seen_captures_cannot_be_taken_away(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        assert await store.claim_capture(ANA, "file", b"bytes")
        await place.sql("DELETE FROM captures")
        with pytest.raises(Tampered):
            await store.claim_capture(ANA, "file", b"bytes")
        with pytest.raises(Tampered):
            await store.claim_capture(ANA, "another", b"another")
        assert [each.split(":")[0] for each in await store.check_seals()] == ["captures"]


async def test_others_go_on_and_the_person_may_be_forgotten(place: Place) -> None:
    async with place.store() as store:
        await at_risk(store)
        await place.sql(
            "UPDATE people SET reset_due = 1 WHERE person IN "
            "(SELECT person FROM people WHERE recovery IS NOT NULL)"
        )
        with pytest.raises(Tampered):
            await store.membership(ANA)
        await finish(store, await begin(store, BEN), passed=True)
        place.clock.advance(days=400)
        await store.tidy()
        assert await store.rotate_keys() == 0
        with pytest.raises(Tampered):
            await store.membership(ANA)  # whatever is done to them, they are not sealed anew
        await store.begin_flow(ANA, FlowKind.FORGET, {}, lifetime_s=60)
        flow = await store.flow(ANA)
        assert flow is not None
        assert (await store.forget(ANA)).held_until is not None
        assert await store.check_seals() == []
        place.clock.advance(days=2)
        await enroll(store, ANA, enrolment(right=Right.FIRST))


async def test_rows_of_before_are_sealed_once(place: Place) -> None:
    async with place.store() as store:
        await at_risk(store)
    for statement in (
        "UPDATE people SET seal = NULL, heads = NULL",
        "UPDATE audit_ends SET seal = NULL",
    ):
        await place.sql(statement)
    before = place.tombstones.read_bytes()
    # A writer who takes the mark out of the database, too, is seen by the file.
    await place.sql("DELETE FROM tombstones")
    async with place.store() as store:
        with pytest.raises(Tampered):
            await store.membership(ANA)
    await place.sql("DELETE FROM tombstones")
    place.tombstones.unlink()
    async with place.store() as store:
        assert await store.membership(ANA) is not None
        assert await store.check_audit() is None
    assert place.tombstones.read_bytes() == before


@pytest.mark.rules
async def test_a_cut_audit_trail_is_seen_whatever_its_end_says(place: Place) -> None:
    async with place.store() as store:
        await at_risk(store)
        drop = (
            ("DROP TRIGGER audit_is_not_changed", "DROP TRIGGER audit_is_not_deleted")
            if place.is_sqlite
            else ("ALTER TABLE audit DISABLE TRIGGER ALL",)
        )
        for statement in (
            *drop,
            "DELETE FROM audit WHERE number > 5",
            "UPDATE audit_ends SET last = 5, last_link = (SELECT link FROM audit WHERE number = 5)",
        ):
            await place.sql(statement)
        assert await store.check_audit() == 6
        with pytest.raises(Tampered):
            await fail(store)


@pytest.mark.rules
async def test_a_forged_takeover_begins_anew(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        planned = await store.plan_takeover("better", "dlib-resnet29", notice_days=30)
        await place.sql("UPDATE takeover SET due = 1")
        assert await store.check_seals() == ["takeover: the date"]
        again = await store.plan_takeover("better", "dlib-resnet29", notice_days=30)
        assert again.due == planned.due
        assert await store.check_seals() == []


@pytest.mark.parametrize("level", ["photo", "video"])
async def test_a_login_goes_on_whoever_else_reads(place: Place, level: Level) -> None:
    async with place.store() as one, place.store() as other:
        await enroll(one)
        attempt = await begin(one, level=level)
        assert await other.barred(ANA) is None
        await finish(other, attempt, passed=True)
        assert await one.check_seals() == []


def test_every_table_of_a_person_is_sealed_or_says_why_not() -> None:
    theirs = {table for table in metadata.tables.values() if "person" in table.c}
    named = {metadata.tables[name] for name in ("people", "preferences", "fingerprints")}
    assert theirs | named == {*USUAL, *ON_USE, *OTHERWISE} | named


@pytest.mark.rules
async def test_the_wrong_key_of_the_ids_seals_nothing(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
    place.ids_key = b"x" * 32
    with pytest.raises(StoreError, match="key of the ids"):
        async with place.store():
            pass
