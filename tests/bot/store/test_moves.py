"""An enrolment that goes to another account: by the code and a video together, whole or not."""

import asyncio
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store import (
    Attempt,
    FlowKind,
    Right,
    Store,
    Vault,
    new_recovery_code,
    people,
    recovery,
    seals,
)
from bot.store.moves import WRONG_CODES_AN_HOUR
from bot.store.work import Work
from tests.bot import fakes
from tests.bot.store.crash import killed
from tests.bot.store.places import (
    ANA,
    BEN,
    CODE,
    CODED,
    Place,
    begin,
    enroll,
    enrolment,
    fail,
    finish,
    name_contact,
    vectors,
)
from tests.bot.store.test_contacts import EVE

WRONG = "00000-00000-00000-00000"
NEW = "11111-22222-33333-44444"
CONTENT = b"a clip"
PATTERN = fakes.pattern(0)


async def passed(store: Store, person: int = ANA, heir: int = BEN, *, yes: bool = True) -> Attempt:
    """A video of the person, sent by the account that is to take over."""
    nonce = await store.new_challenge(person, "video", "side up", lifetime_s=60)
    flow = await store.begin_flow(heir, FlowKind.VERIFY, {}, lifetime_s=60)
    attempt = await store.begin_attempt(flow, "video", nonce, subject=person)
    assert isinstance(attempt, Attempt)
    assert attempt.telegram_id == person
    await finish(store, attempt, passed=yes)
    return attempt


async def try_code(store: Store, code: str, person: int = BEN) -> int | None:
    found = await store.check_move_code(person, code)
    return None if found is None else found[0]


def used(code: str) -> bytes:
    """The mark of a code, by the key that all places have."""
    return Vault(Place.ids_key).mark("recovery", code.replace("-", "").encode())


async def test_code_and_video_move_everything(place: Place) -> None:
    async with place.store() as store:
        await enroll(store, given=CODED)
        await name_contact(store, EVE)
        assert await store.claim_capture(ANA, "file", CONTENT, [PATTERN])
        assert await try_code(store, CODE.lower(), BEN) == ANA
        attempt = await passed(store)
        before = place.clock.now
        assert await store.move(attempt, BEN, used=used(CODE), code=NEW)
        assert await store.membership(ANA) is None
        assert await store.contact(ANA) is None
        member, contact = await store.membership(BEN), await store.contact(BEN)
        assert member is not None
        assert member.since == member.last_used == before
        assert contact is not None
        assert contact.telegram_id == EVE
        found = await store.templates(BEN)
        assert found is not None
        np.testing.assert_allclose(found.vectors, vectors(), atol=1e-6)
        assert not await store.claim_capture(BEN, "other", b"bytes", [PATTERN]), "fingerprints too"
        exported = await store.export(BEN)
        assert len(exported["consents"]) == 1
        assert [entry["event"] for entry in exported["audit"]][:1] == ["enrolled"]
        assert await store.held_until(ANA) is not None, "no other face is put there at once"
        # The code that was shown is dead, and the new one alive.
        assert not await store.check_recovery_code(BEN, CODE)
        assert await try_code(store, CODE, EVE) is None
        assert await store.check_recovery_code(BEN, NEW)
        assert await try_code(store, NEW, EVE) == BEN
        assert await store.check_audit() is None
        await finish(store, await begin(store, BEN), passed=True)


@pytest.mark.rules
async def test_neither_alone_is_enough(store: Store) -> None:
    await enroll(store, given=CODED)
    failed = await passed(store, yes=False)
    assert not await store.move(failed, BEN, used=used(CODE), code=NEW)
    attempt = await passed(store)
    assert not await store.move(attempt, BEN, used=used(WRONG), code=NEW)
    await enroll(store, EVE, enrolment(recovery_code=NEW))
    assert not await store.move(attempt, BEN, used=used(NEW), code=WRONG), "somebody else's code"
    assert await store.membership(ANA) is not None
    assert await store.membership(BEN) is None
    assert await store.move(attempt, BEN, used=used(CODE), code=WRONG)
    assert not await store.move(attempt, BEN, used=used(CODE), code=WRONG)


@pytest.mark.rules
async def test_a_photo_does_not_move_it(store: Store) -> None:
    await enroll(store, given=CODED)
    attempt = await begin(store, level="photo")
    await finish(store, attempt, passed=True)
    assert isinstance(attempt, Attempt)
    await store.begin_flow(BEN, FlowKind.VERIFY, {}, lifetime_s=60)
    assert not await store.move(attempt, BEN, used=used(CODE), code=NEW)


@pytest.mark.rules
async def test_a_pass_of_an_earlier_face_moves_nothing(store: Store) -> None:
    await enroll(store, given=CODED)
    attempt = await passed(store)
    await enroll(store)
    assert not await store.move(attempt, BEN, used=used(CODE), code=NEW)


@pytest.mark.rules
async def test_who_is_enrolled_or_held_takes_nothing_over(store: Store) -> None:
    await enroll(store, given=CODED)
    await enroll(store, BEN)
    attempt = await passed(store)
    assert not await store.move(attempt, BEN, used=used(CODE), code=NEW)
    await store.forget(BEN)
    attempt = await passed(store)
    assert not await store.move(attempt, BEN, used=used(CODE), code=NEW)
    assert await store.membership(ANA) is not None


@pytest.mark.rules
async def test_a_locked_enrolment_stays(place: Place) -> None:
    async with place.store() as store:
        await enroll(store, given=CODED)
        attempt = await passed(store)
        for _ in range(20):
            await fail(store)
            place.clock.advance(hours=1)
        member = await store.membership(ANA)
        assert member is not None
        assert member.locked
        assert not await store.move(attempt, BEN, used=used(CODE), code=NEW)


@pytest.mark.rules
async def test_the_contact_that_takes_over_is_no_contact_of_itself(store: Store) -> None:
    await enroll(store, given=CODED)
    await name_contact(store)
    assert await store.move(await passed(store), BEN, used=used(CODE), code=NEW)
    assert await store.contact(BEN) is None


@pytest.mark.rules
async def test_failures_count_for_whose_face_it_is_to_be(store: Store) -> None:
    await enroll(store, given=CODED)
    for _ in range(5):
        await passed(store, yes=False)
    barred = await store.barred(ANA)
    assert barred is not None
    assert barred.reason == "delay"
    assert await store.barred(BEN) is None


async def test_wrong_codes_are_counted_for_who_tries_and_for_all(place: Place) -> None:
    async with place.store() as store:
        await enroll(store, given=CODED)
        for _ in range(5):
            assert await try_code(store, WRONG, BEN) is None
        assert await store.move_barred(BEN) is not None
        assert await try_code(store, CODE, BEN) is None
        assert await store.move_barred(EVE) is None
        await store.forget(BEN)  # which is no way round it for ever
        for number in range(WRONG_CODES_AN_HOUR - 5):
            assert await try_code(store, WRONG, 8_000_000_000 + number) is None
        assert await store.move_barred(EVE) is not None
        assert await try_code(store, CODE, EVE) is None
        place.clock.advance(hours=1)
        assert await try_code(store, CODE, EVE) == ANA


@pytest.mark.rules
@pytest.mark.parametrize("code", ["", "no code", WRONG])
async def test_what_is_nobodys_code_finds_nobody(store: Store, code: str) -> None:
    assert await try_code(store, code, BEN) is None


async def test_a_code_of_before_there_were_marks_gets_one_when_it_is_shown(store: Store) -> None:
    digest = await asyncio.to_thread(recovery.digest, CODE)
    await enroll(store)

    async def without_mark(connection: AsyncConnection) -> None:
        work = Work(connection, Vault(Place.ids_key, store._vault.keyring), store._clock, True)
        person = await people.find(work, ANA)
        assert person is not None
        await people.set_recovery(work, person, digest)
        await seals.renew(work)

    await store._database.write(without_mark)
    assert await try_code(store, CODE) is None
    assert await store.check_recovery_code(ANA, CODE)
    assert await try_code(store, CODE) == ANA


async def test_the_mark_tells_nothing_and_is_not_moved_to_another(place: Place) -> None:
    async with place.store() as store:
        await enroll(store, given=CODED)
        await enroll(store, EVE, enrolment(recovery_code=NEW))
        await place.sql("DELETE FROM recovery_marks WHERE person = " + literal(place, ANA))
        await place.sql("UPDATE recovery_marks SET person = " + literal(place, ANA))
        # Who writes the database leads their own code to somebody else: the hash does not fit.
        try:
            assert await try_code(store, NEW, BEN) is None
        finally:
            assert await store.check_audit() is None


def literal(place: Place, person: int) -> str:
    code = place.vault.code(person).hex()
    return f"x'{code}'" if place.is_sqlite else f"'\\x{code}'"


async def test_a_restored_database_does_not_bring_the_old_account_back(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await enroll(store, given=CODED)
    kept = sqlite.path.read_bytes()
    async with sqlite.store() as store:
        assert await store.move(await passed(store), BEN, used=used(CODE), code=NEW)
    sqlite.path.write_bytes(kept)
    async with sqlite.store() as store:
        assert await store.membership(ANA) is None


async def moves(store: Store, _place: Place, person: int) -> None:
    attempt = await passed(store, person, person + HEIR)
    assert await store.move(attempt, person + HEIR, used=used(code_of(person)), code=NEW)


HEIR = 1_000_000
FIRST = 6_500_000_000


def code_of(person: int) -> str:
    return f"{person:020d}"


async def test_a_move_is_whole_or_nothing(place: Place, one_in: Callable[[int], int]) -> None:
    stride = one_in(97)
    async with place.store() as store:
        for number in count(1):
            person, at = FIRST + number, 1 + stride * (number - 1)
            given = enrolment(recovery_code=code_of(person), right=Right.FIRST)
            await enroll(store, person, given)
            died = await killed(moves, place, person, at)
            old = await store.membership(person)
            new = await store.membership(person + HEIR)
            assert (old is None) != (new is None)
            standing = person if new is None else person + HEIR
            assert await store.templates(standing) is not None
            code = code_of(person) if new is None else NEW
            assert await store.check_recovery_code(standing, code)
            if new is not None:
                await store.forget(person + HEIR)  # NEW is one person's
            if not died:
                assert number > 3
                break
        assert await store.check_audit() is None


def test_codes_are_as_long_as_ever() -> None:
    assert len(new_recovery_code()) == len(CODE)
