"""The account that is told beside the person's own: by a link that is good once, and no other."""

from datetime import timedelta

import pytest

from bot.store import Keyring, Store
from bot.store.contacts import LINKS_A_DAY
from tests.bot.store.places import ANA, BEN, CODED, Place, enroll, name_contact

EVE = 7_000_000_002


async def test_a_link_makes_a_contact_once_it_was_confirmed_there(store: Store) -> None:
    assert await store.invite_contact(ANA) is None, "who is not enrolled has nothing to tell of"
    await enroll(store)
    code = await store.invite_contact(ANA)
    assert code is not None
    assert await store.open_invitation(code, ANA) == ANA, "who made it does not use it up"
    assert await store.answer_invitation(code, ANA, "en") is None
    assert await store.answer_invitation(code, BEN, "en") is None, "not opened there"
    assert await store.open_invitation(code, BEN) == ANA
    assert await store.open_invitation(code, BEN) is None
    assert await store.open_invitation(code, EVE) is None
    assert await store.answer_invitation(code, EVE, "en") is None
    assert await store.contact(ANA) is None
    assert await store.answer_invitation(code, BEN, "en") == ANA
    contact = await store.contact(ANA)
    assert contact is not None
    assert (contact.telegram_id, contact.ends) == (BEN, None)
    assert await store.answer_invitation(code, BEN, "en") is None
    assert await store.invite_contact(ANA) is None, "there is one already"
    assert (await store.told_of(BEN), await store.told_of(ANA)) == (1, 0)


@pytest.mark.rules
async def test_who_declines_is_told_nothing(store: Store) -> None:
    await enroll(store)
    code = await store.invite_contact(ANA)
    assert code is not None
    await store.open_invitation(code, BEN)
    assert await store.answer_invitation(code, BEN, None) == ANA
    assert await store.answer_invitation(code, BEN, "en") is None
    assert await store.contact(ANA) is None


async def test_links_expire_and_give_way_and_are_few(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        first, second = [await store.invite_contact(ANA) for _ in range(2)]
        assert first is not None
        assert second is not None
        assert await store.open_invitation(first, BEN) is None, "a newer one took its place"
        assert await store.open_invitation(second, BEN) == ANA
        place.clock.advance(minutes=15)
        assert await store.answer_invitation(second, BEN, "en") is None
        third = await store.invite_contact(ANA)
        assert third is not None
        place.clock.advance(minutes=15)
        assert await store.open_invitation(third, BEN) is None
        for _ in range(LINKS_A_DAY - 3):
            assert await store.invite_contact(ANA) is not None
        assert await store.invite_contact(ANA) is None
        place.clock.advance(days=1)
        assert (await store.tidy()).counts["contacts"] == LINKS_A_DAY
        assert await store.invite_contact(ANA) is not None


async def test_nothing_in_the_database_says_which_account_it_is(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await enroll(store)
        code = await name_contact(store)
    raw = b"".join(path.read_bytes() for path in sqlite.folder.rglob("*") if path.is_file())
    for spelt in (str(BEN).encode(), BEN.to_bytes(8, "big"), code.encode()):
        assert spelt not in raw


async def test_an_end_takes_its_time_and_may_be_taken_back_by_either(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        assert await store.end_contact_later(ANA, delay_s=60) is None
        await name_contact(store)
        due = place.clock.now + timedelta(seconds=60)
        assert await store.end_contact_later(ANA, delay_s=60) == due
        assert await store.end_contact_later(ANA, delay_s=600) == due
        contact = await store.contact(ANA)
        assert contact is not None
        assert contact.ends == due
        assert await store.keep_contact(ANA)
        assert not await store.keep_contact(ANA)
        await store.end_contact_later(ANA, delay_s=60)
        assert await store.stop_for_contact(EVE, contact.id) is None
        assert await store.stop_for_contact(BEN, contact.id + 1) is None
        assert await store.stop_for_contact(BEN, contact.id) == ANA
        assert await store.stop_for_contact(BEN, contact.id) is None
        await store.end_contact_later(ANA, delay_s=60)
        place.clock.advance(seconds=60)
        assert await store.contact(ANA) is None
        assert not await store.keep_contact(ANA)
        assert await store.invite_contact(ANA) is not None
        assert await store.told_of(BEN) == 0
        assert (await store.tidy()).counts["contacts"] == 1
        assert await place.sql("SELECT id FROM contacts") == []


@pytest.mark.rules
async def test_a_contact_stops_the_wait_for_another_face(store: Store) -> None:
    await enroll(store)
    await name_contact(store)
    contact = await store.contact(ANA)
    assert contact is not None
    await store.schedule_reset(ANA, delay_s=60)
    assert await store.stop_for_contact(BEN, contact.id) == ANA
    assert await store.reset_due(ANA) is None


async def test_a_contact_leaves_one_or_all(store: Store) -> None:
    for person in (ANA, EVE):
        await enroll(store, person)
        await name_contact(store, person=person)
    contact = await store.contact(ANA)
    assert contact is not None
    assert await store.leave_contact(EVE, contact.id) == ()
    assert await store.leave_contact(BEN, contact.id) == (ANA,)
    assert await store.contact(ANA) is None
    assert await store.leave_contact(BEN, None) == (EVE,)
    assert await store.told_of(BEN) == 0


async def test_erasing_either_account_ends_it(store: Store) -> None:
    for person in (ANA, EVE):
        await enroll(store, person)
        await name_contact(store, person=person)
    receipt = await store.forget(ANA)
    assert receipt.contact is not None
    assert receipt.contact.telegram_id == BEN
    assert receipt.counts["contacts"] == receipt.counts["invitations"] == 1
    receipt = await store.forget(BEN)
    assert (receipt.contact, receipt.left) == (None, (EVE,))
    assert await store.contact(EVE) is None


async def test_an_opened_link_forgets_an_account_that_is_erased(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        code = await store.invite_contact(ANA)
        assert code is not None
        await store.open_invitation(code, BEN)
        await store.forget(BEN)
        assert await place.sql("SELECT opener FROM invitations") == [(None,)]
        assert await store.answer_invitation(code, BEN, "en") is None


@pytest.mark.rules
async def test_it_outlives_another_face_and_another_key(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await name_contact(store)
        await enroll(store, given=CODED)
        assert await store.contact(ANA) is not None
    place.keyring = Keyring({"first": b"1" * 32, "second": b"2" * 32})
    async with place.store() as store:
        await store.rotate_keys()
        contact = await store.contact(ANA)
        assert contact is not None
        assert contact.telegram_id == BEN


@pytest.mark.rules
async def test_the_export_tells_of_it_and_not_which_account(store: Store) -> None:
    await enroll(store)
    await name_contact(store)
    exported = await store.export(ANA)
    assert exported["contact"]["ends"] is None
    assert str(BEN) not in str(exported)
    assert (await store.export(BEN))["told_of"] == 1


@pytest.mark.rules
@pytest.mark.parametrize("code", ["", "x" * 64, "ñ", "\0"])
async def test_what_is_no_link_opens_nothing(store: Store, code: str) -> None:
    assert await store.open_invitation(code, BEN) is None
