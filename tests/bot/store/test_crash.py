"""A process that is killed at any await leaves no half state, no free try, and nobody's rest.

Every 29th await is tried, which with three awaits a statement comes to all kinds of them;
with `--whole` every one is, which takes 29 times as long.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import numpy as np
import pytest

from bot.store import Attempt, Barred, FlowKind, Keyring, Right, Store
from tests.bot import fakes
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
    finish,
    vectors,
)

FIRST = 6_000_000_000
Prepare = Callable[[Store, int], Awaitable[None]]


@pytest.fixture
def stride(one_in: Callable[[int], int]) -> int:
    """From one await at which a verb is killed to the next."""
    return one_in(29)


async def kills(
    store: Store, place: Place, verb: Verb, prepare: Prepare, stride: int
) -> AsyncIterator[int]:
    """People for each of whom a verb was killed, at the first await, in strides to the last.

    Args:
        store: stays open meanwhile, as another replica's would.
        place: its database.
        verb: what is killed.
        prepare: what comes before, for each person.
        stride: from one await to the next.
    """
    for at in count(1, stride):
        person = FIRST + at
        await prepare(store, person)
        died = await killed(verb, place, person, at)
        # Waits for whatever the dead one's transaction still holds.
        await store.mark_noticed(person)
        yield person
        if not died:
            assert at > 10, "it was killed often enough to mean something"
            return


def literal(place: Place, person: int) -> str:
    """A person's code, in SQL."""
    code = place.vault.code(person).hex()
    return f"x'{code}'" if place.is_sqlite else f"'\\x{code}'"


async def rows(place: Place, table: str, person: int) -> int:
    code = literal(place, person)
    ((number,),) = await place.sql(f"SELECT count(*) FROM {table} WHERE person = {code}")
    return int(number)


async def begun_enrolment(store: Store, person: int) -> None:
    await store.begin_flow(person, FlowKind.ENROLL, {"n": 1}, lifetime_s=600)


async def enrolls(store: Store, _place: Place, person: int) -> None:
    flow = await store.flow(person)
    assert flow is not None
    assert await store.enroll(flow, enrolment(vectors(seed=1)))


async def test_enrolling_is_whole_or_nothing(place: Place, stride: int) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, enrolls, begun_enrolment, stride):
            member = await store.membership(person)
            flow = await store.flow(person)
            enrolled = member is not None
            outcomes.add(enrolled)
            assert (flow is None) == enrolled
            assert await rows(place, "templates", person) == 3 * enrolled
            assert await rows(place, "consents", person) == enrolled
            if flow is not None:
                assert await store.enroll(flow, enrolment()), "and it can go on"
        assert await store.check_audit() is None
    assert outcomes == {True, False}


async def enrolled_and_enrolling(store: Store, person: int) -> None:
    await enroll(store, person)
    await begun_enrolment(store, person)


async def test_enrolling_anew_leaves_the_old_face_or_the_new_one(place: Place, stride: int) -> None:
    async with place.store() as store:
        async for person in kills(store, place, enrolls, enrolled_and_enrolling, stride):
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


async def test_no_challenge_is_met_twice_and_no_attempt_uncounted(
    place: Place, stride: int
) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, verifies, about_to_verify, stride):
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


async def counts(place: Place, person: int) -> tuple[int, int, bool, str | None]:
    """Failures and voids as they are counted, whether it is locked, and of what is to be told.

    They must be those of the attempts that are there, none lost and none twice.
    """
    query = "SELECT failed_photo + failed_video, voided, locked, alarm FROM people WHERE person = "
    ((failed, voided, locked, alarm),) = await place.sql(query + literal(place, person))
    query = f"SELECT outcome FROM attempts WHERE person = {literal(place, person)} ORDER BY id"
    outcomes = [outcome for (outcome,) in await place.sql(query)]
    if "passed" in outcomes:
        outcomes = outcomes[len(outcomes) - outcomes[::-1].index("passed") :]
    assert failed == sum(outcome in ("open", "failed") for outcome in outcomes), outcomes
    assert voided == outcomes.count("void"), outcomes
    return failed, voided, locked is not None, alarm


async def unmet(store: Store, person: int) -> None:
    """Two challenges that nobody met are counted; a third is open."""
    await enroll(store, person)
    for _ in range(3):
        await challenged(store, person)


async def draws(store: Store, _place: Place, person: int) -> None:
    await challenged(store, person)


async def test_a_draw_that_is_killed_is_counted_once_or_not_at_all(
    place: Place, stride: int
) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, draws, unmet, stride):
            failed, voided, locked, alarm = await counts(place, person)
            outcomes.add(failed)
            assert (voided, locked) == (0, False)
            assert alarm == ("unanswered" if failed == 3 else None)
            query = f"SELECT spent FROM challenges WHERE person = {literal(place, person)}"
            spent = [moment for (moment,) in await place.sql(query)]
            assert spent.count(None) == 1, "one is open, and those before are counted"
            assert len(spent) == failed + 1
        assert await store.check_audit() is None
    assert outcomes == {2, 3}


async def excused(store: Store, person: int) -> None:
    await enroll(store, person)
    _, nonce = await challenged(store, person, lifetime_s=0)
    await store.excuse_challenge(person, nonce)


async def tidies(store: Store, place: Place, person: int) -> None:
    del person
    place.clock.advance(seconds=1)
    await store.tidy()


async def test_lapses_that_tidying_counts_are_counted_once(place: Place, stride: int) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, tidies, excused, stride):
            failed, voided, *_ = await counts(place, person)
            outcomes.add(voided)
            assert failed == 0
            place.clock.advance(seconds=1)
            await store.tidy()
            assert (await counts(place, person))[:2] == (0, 1)
        assert await store.check_audit() is None
    assert outcomes == {0, 1}


async def voids(store: Store, _place: Place, person: int) -> None:
    attempt = await begin(store, person)
    assert isinstance(attempt, Attempt)
    await store.void_attempt(attempt, "fault")


async def failed_now_and_then(store: Store, person: int) -> None:
    await enroll(store, person)
    await fail(store, person, times=2)
    await finish(store, await begin(store, person), passed=True)
    await fail(store, person)


async def test_a_fault_that_is_killed_too_is_a_failure_or_a_draw(place: Place, stride: int) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, voids, failed_now_and_then, stride):
            failed, voided, *_ = await counts(place, person)
            outcomes.add((failed, voided))
        assert await store.check_audit() is None
    assert outcomes == {(1, 0), (2, 0), (1, 1)}


async def alarmed(store: Store, person: int) -> None:
    await enroll(store, person)
    for _ in range(4):
        await challenged(store, person)


async def tells(store: Store, _place: Place, person: int) -> None:
    alarm = await store.claim_alarm(person, lease_s=60)
    assert alarm is not None
    await store.mark_alarmed(person, alarm)


async def test_an_alarm_is_told_or_stays(place: Place, stride: int) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, tells, alarmed, stride):
            *_, alarm = await counts(place, person)
            outcomes.add(alarm)
            place.clock.advance(seconds=61)
            claimed = await store.claim_alarm(person, lease_s=60)
            assert (claimed is None) == (alarm is None)
    assert outcomes == {None, "unanswered"}


async def forgets(store: Store, _place: Place, person: int) -> None:
    await store.forget(person)


async def everything_kept(store: Store, person: int) -> None:
    await store.choose_language(person, "es")
    await enroll(store, person)
    await store.claim_capture(person, f"{person}", b"%d" % person, [fakes.pattern(0)])
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


async def test_forgetting_is_whole_or_nothing_and_stays(place: Place, stride: int) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, forgets, everything_kept, stride):
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


async def test_a_rotation_goes_on_where_it_was_killed(place: Place, stride: int) -> None:
    people = range(FIRST - 3, FIRST)
    async with place.store() as store:
        for person in people:
            await enroll(store, person, enrolment(vectors(seed=person)))
    keys = {"first": b"1" * 32}
    left = set()
    for at in count(1, stride):
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


async def test_a_recovery_code_is_used_up_with_the_face_or_not_at_all(
    place: Place, stride: int
) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, recovers, failed_often, stride):
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
