"""A process that is killed at any await leaves no half state, no free try, and nobody's rest.

Every eleventh await is tried, which with three awaits a statement comes to all kinds of them;
CRASH_STRIDE=1 tries every one, and takes eleven times as long.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import numpy as np

from bot.store import Attempt, Barred, FlowKind, Keyring, Right, Store
from tests.bot.store.crash import Verb, killed
from tests.bot.store.places import (
    CODE,
    CODED,
    Place,
    begin,
    challenged,
    enroll,
    enrolment,
    fail,
    vectors,
)

STRIDE = int(os.environ.get("CRASH_STRIDE", "11"))
FIRST = 6_000_000_000
Prepare = Callable[[Store, int], Awaitable[None]]


async def kills(store: Store, place: Place, verb: Verb, prepare: Prepare) -> AsyncIterator[int]:
    """People for each of whom a verb was killed, at the first await, the second, to the last.

    Args:
        store: stays open meanwhile, as another replica's would.
        place: its database.
        verb: what is killed.
        prepare: what comes before, for each person.
    """
    for at in count(1, STRIDE):
        person = FIRST + at
        await prepare(store, person)
        died = await killed(verb, place, person, at)
        # Waits for whatever the dead one's transaction still holds.
        await store.mark_noticed(person)
        yield person
        if not died:
            assert at > 10, "it was killed often enough to mean something"
            return


async def rows(place: Place, table: str, person: int) -> int:
    code = place.vault.code(person).hex()
    literal = f"x'{code}'" if place.is_sqlite else f"'\\x{code}'"
    ((number,),) = await place.sql(f"SELECT count(*) FROM {table} WHERE person = {literal}")
    return int(number)


async def begun_enrolment(store: Store, person: int) -> None:
    await store.begin_flow(person, FlowKind.ENROLL, {"n": 1}, lifetime_s=600)


async def enrolls(store: Store, _place: Place, person: int) -> None:
    flow = await store.flow(person)
    assert flow is not None
    assert await store.enroll(flow, enrolment(vectors(seed=1)))


async def test_enrolling_is_whole_or_nothing(place: Place) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, enrolls, begun_enrolment):
            member = await store.membership(person)
            flow = await store.flow(person)
            enrolled = member is not None
            outcomes.add(enrolled)
            assert (flow is None) == enrolled
            assert await rows(place, "templates", person) == 4 * enrolled
            assert await rows(place, "consents", person) == enrolled
            if flow is not None:
                assert await store.enroll(flow, enrolment()), "and it can go on"
        assert await store.check_audit() is None
    assert outcomes == {True, False}


async def enrolled_and_enrolling(store: Store, person: int) -> None:
    await enroll(store, person)
    await begun_enrolment(store, person)


async def test_enrolling_anew_leaves_the_old_face_or_the_new_one(place: Place) -> None:
    async with place.store() as store:
        async for person in kills(store, place, enrolls, enrolled_and_enrolling):
            found = await store.templates(person)
            assert found is not None
            seed = int(await store.flow(person) is None)
            np.testing.assert_allclose(found.vectors, vectors(seed=seed), atol=1e-6)


async def about_to_verify(store: Store, person: int) -> None:
    await enroll(store, person)
    await fail(store, person, times=4)
    flow, nonce = await challenged(store, person)
    assert await store.advance_flow(flow, {"nonce": nonce.hex()}) is not None


async def verifies(store: Store, _place: Place, person: int) -> None:
    flow = await store.flow(person)
    assert flow is not None
    attempt = await store.begin_attempt(flow, "video", bytes.fromhex(flow.state["nonce"]))
    assert isinstance(attempt, Attempt)
    await store.finish_attempt(attempt, passed=True, reason="match", version="v1", bucket=9)


async def test_no_challenge_is_met_twice_and_no_attempt_uncounted(place: Place) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, verifies, about_to_verify):
            attempts = (await store.export(person))["attempts"][4:]
            outcome = attempts[0]["outcome"] if attempts else None
            outcomes.add(outcome)
            flow = await store.flow(person)
            assert (flow is None) == bool(attempts)
            if flow is not None:
                nonce = bytes.fromhex(flow.state["nonce"])
                begun = await store.begin_attempt(flow, "video", nonce)
                assert isinstance(begun, Attempt), "it was not spent, and can be met once"
            barred = await store.barred(person)
            assert (barred is None) == (outcome == "passed")
            (spent,) = {row for (row,) in await place.sql("SELECT spent IS NULL FROM challenges")}
            assert not spent
        assert await store.check_audit() is None
    assert outcomes == {None, "open", "passed"}


async def forgets(store: Store, _place: Place, person: int) -> None:
    await store.forget(person)


async def everything_kept(store: Store, person: int) -> None:
    await store.choose_language(person, "es")
    await enroll(store, person)
    await store.claim_capture(person, f"{person}", b"%d" % person, [b"p" * 32])
    await begin(store, person)
    await challenged(store, person)


KEPT = (
    "people",
    "enrolments",
    "templates",
    "consents",
    "flows",
    "challenges",
    "attempts",
    "captures",
    "preferences",
)


async def test_forgetting_is_whole_or_nothing_and_stays(place: Place) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, forgets, everything_kept):
            kept = {table: await rows(place, table, person) for table in KEPT}
            gone = not any(kept.values())
            assert gone or all(kept.values()), kept
            outcomes.add(gone)
            await store.forget(person)
            assert not any([await rows(place, table, person) for table in KEPT])
            ((prints,),) = await place.sql("SELECT count(*) FROM fingerprints")
            assert prints == 0
        assert await store.check_audit() is None
    async with place.store():
        pass
    (marks,) = {number for (number,) in await place.sql("SELECT count(*) FROM tombstones")}
    assert len(place.tombstones.read_text().split()) == marks
    assert outcomes == {True, False}


async def rotates(store: Store, place: Place, person: int) -> None:
    del place, person
    await store.rotate_keys()


async def test_a_rotation_goes_on_where_it_was_killed(place: Place) -> None:
    people = range(FIRST - 3, FIRST)
    async with place.store() as store:
        for person in people:
            await enroll(store, person, enrolment(vectors(seed=person)))
    keys = {"first": b"1" * 32}
    left = set()
    for at in count(1, STRIDE):
        newest = f"key{at}"
        keys = {**keys, newest: at.to_bytes(32, "big")}
        place.keyring = Keyring(keys)
        died = await killed(rotates, place, FIRST, at)
        async with place.store() as store:
            in_use = await store.keys_in_use()
            assert sum(in_use.values()) == len(people)
            for person in people:
                found = await store.templates(person)
                assert found is not None
                np.testing.assert_allclose(found.vectors, vectors(seed=person), atol=1e-6)
            left.add(len(people) - in_use.get(newest, 0))
            assert await store.rotate_keys() == len(people) - in_use.get(newest, 0)
            assert await store.keys_in_use() == {newest: len(people)}
            assert await store.check_audit() is None
        # Without the retired ones, to see that nothing is left of them.
        keys = {newest: keys[newest]}
        place.keyring = Keyring(keys)
        if not died:
            break
    assert left == {0, 1, 2, 3}


async def recovers(store: Store, _place: Place, person: int) -> None:
    await enroll(store, person, enrolment(right=Right.CODE))


async def failed_often(store: Store, person: int) -> None:
    await enroll(store, person, CODED)
    await fail(store, person, times=5)


async def test_a_recovery_code_is_used_up_with_the_face_or_not_at_all(place: Place) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, recovers, failed_often):
            spent = not (await store.export(person))["recovery_code"]
            outcomes.add(spent)
            assert (await store.barred(person) is None) == spent
            for _ in range(2):
                assert await store.check_recovery_code(person, CODE) != spent
    assert outcomes == {True, False}


async def test_a_cancelled_caller_leaves_no_writer_behind(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        for steps in range(0, 60, 5):
            flow, nonce = await challenged(store)
            task = asyncio.create_task(store.begin_attempt(flow, "video", nonce))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            # Another writer comes through, and what was begun is whole.
            await store.choose_language(1, "es")
            barred = await store.barred(flow.telegram_id)
            if isinstance(barred, Barred):
                await store.unlock(flow.telegram_id)
        assert await store.check_audit() is None
