"""A backup brings back everything but the erased, the spent and what was under way."""

import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from bot.store import (
    Barred,
    Ended,
    FlowKind,
    Keyring,
    Right,
    StoreError,
    Tampered,
    back_up,
    new_recovery_code,
    restore,
)
from tests.bot.store.places import (
    ANA,
    BEN,
    CODE,
    CODED,
    Place,
    begin,
    challenged,
    enroll,
    enrolment,
    fail,
    finish,
    name_contact,
)
from tests.bot.store.test_rights import live, spellings


async def back(place: Place) -> Ended:
    return await restore(
        place.folder / "backup.db",
        place.address,
        place.vault,
        tombstones_file=place.tombstones,
        clock=place.clock,
    )


async def test_a_backup_brings_back_what_was_there(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await live(store, ANA)
        # Of a database in use, with what is still in its write-ahead log.
        await back_up(sqlite.path, sqlite.folder / "backup.db")
    assert stat.S_IMODE((sqlite.folder / "backup.db").stat().st_mode) == 0o600
    sqlite.path.unlink()
    await back(sqlite)
    assert stat.S_IMODE(sqlite.path.stat().st_mode) == 0o600
    async with sqlite.store() as store:
        assert await store.templates(ANA) is not None
        assert await store.language(ANA) == "es"
        assert [each["outcome"] for each in (await store.export(ANA))["attempts"]] == [
            "failed",
            "failed",
            "passed",
        ]
        assert await store.flow(ANA) is None
        assert await store.check_audit() is None
    left = {path.name for path in sqlite.folder.iterdir()}
    assert left == {"bot.db", "backup.db", "bot.db.tombstones"}, "no temporary file stays behind"


async def test_a_backup_has_no_flow_no_challenge_and_nobody_in_the_open(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await live(store, ANA)
        states = await sqlite.sql("SELECT state FROM flows")
        await back_up(sqlite.path, sqlite.folder / "backup.db")
    raw = (sqlite.folder / "backup.db").read_bytes()
    assert all(bytes(state) not in raw for (state,) in states)
    assert not [each for each in spellings(ANA) if each in raw]
    with closing(sqlite3.connect(sqlite.folder / "backup.db")) as connection:
        for table in ("flows", "challenges"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


async def test_the_erased_the_spent_and_the_open_do_not_come_back(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await live(store, ANA)
        await enroll(store, BEN)
        _, unspent = await challenged(store, BEN)
        _, spent = await challenged(store, BEN)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        flow = await store.begin_flow(BEN, FlowKind.VERIFY, {}, lifetime_s=60)
        await store.begin_attempt(flow, "video", spent)
        await store.forget(ANA)
    await back(sqlite)
    async with sqlite.store() as store:
        assert await store.membership(ANA) is await store.language(ANA) is None
        assert await store.membership(BEN) is not None
        for nonce in (spent, unspent):
            flow = await store.begin_flow(BEN, FlowKind.VERIFY, {}, lifetime_s=60)
            assert await store.begin_attempt(flow, "video", nonce) == Barred("spent")
        assert await store.check_audit() is None
        events = [event for (event,) in await sqlite.sql("SELECT event FROM audit")]
        assert {"erased_again", "restored"} <= set(events)


async def test_the_erased_stay_erased_when_only_the_file_remembers(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await live(store, ANA)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        await store.forget(ANA)
    sqlite.path.write_bytes(b"\xff" * 8192)  # the database is beyond reading
    await back(sqlite)
    async with sqlite.store() as store:
        assert await store.membership(ANA) is None


async def test_the_erased_stay_erased_when_only_the_database_remembers(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await live(store, ANA)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        await store.forget(ANA)
    sqlite.tombstones.unlink()
    await back(sqlite)
    async with sqlite.store() as store:
        assert await store.membership(ANA) is None


async def test_a_running_bot_s_database_is_not_replaced(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await enroll(store)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        await fail(store)
        with pytest.raises(StoreError, match="is in use: stop the bot"):
            await back(sqlite)
        assert len((await store.export(ANA))["attempts"]) == 1
    left = {path.name for path in sqlite.folder.iterdir()}
    assert left == {"bot.db", "backup.db", "bot.db.tombstones"}


async def test_what_is_no_backup_of_ours_replaces_nothing(sqlite: Place) -> None:
    backup = sqlite.folder / "backup.db"
    async with sqlite.store() as store:
        await enroll(store)
    with pytest.raises(StoreError, match="There is no backup"):
        await back(sqlite)
    backup.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="cannot be copied"):
        await back(sqlite)
    await back_up(sqlite.path, backup)
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="newer version"):
        await back(sqlite)
    await back_up(sqlite.path, backup)
    sqlite.keyring = Keyring({"other": b"o" * 32})
    with pytest.raises(StoreError, match="Key first is missing"):
        await back(sqlite)
    sqlite.keyring = Keyring({"first": b"1" * 32})
    async with sqlite.store() as store:
        assert await store.membership(ANA) is not None


async def test_a_backup_that_fails_leaves_the_last_one(sqlite: Place) -> None:
    backup = sqlite.folder / "backup.db"
    async with sqlite.store() as store:
        await enroll(store)
    await back_up(sqlite.path, backup)
    before = backup.read_bytes()
    whole = sqlite.path.read_bytes()
    sqlite.path.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    with pytest.raises(StoreError):
        await back_up(sqlite.path, backup)
    assert backup.read_bytes() == before
    with pytest.raises(StoreError, match="There is no database"):
        await back_up(sqlite.folder / "none.db", backup)
    assert backup.read_bytes() == before


async def test_postgresql_has_its_own_tools() -> None:
    url = "postgresql://bot:secret@localhost/bot"
    with pytest.raises(StoreError, match="pg_dump") as caught:
        await back_up(url, None)
    assert "secret" not in str(caught.value)


async def test_a_restored_postgresql_is_settled(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        flow, nonce = await challenged(store)
    async with place.store(restored=True) as store:
        assert await store.flow(ANA) is None
        flow = await store.begin_flow(ANA, FlowKind.VERIFY, {}, lifetime_s=60)
        assert await store.begin_attempt(flow, "video", nonce) == Barred("spent")
        assert await store.check_audit() is None


async def test_a_replaced_face_and_a_used_code_do_not_come_back(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await enroll(store, ANA, CODED)
        await enroll(store, BEN, replace(CODED, recovery_code=new_recovery_code()))
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        await enroll(store, ANA, replace(CODED, recovery_code=None, right=Right.CODE))
    assert await back(sqlite) == Ended(faces=1, codes=1)
    async with sqlite.store() as store:
        assert await store.membership(ANA) is await store.templates(ANA) is None
        assert not await store.check_recovery_code(ANA, CODE)
        assert await store.membership(BEN) is not None
        assert (await store.export(BEN))["recovery_code"]
        assert await store.check_seals() == []
        assert await store.check_audit() is None
        await enroll(store, ANA, enrolment(right=Right.FIRST))  # and from now on it stays
    async with sqlite.store() as store:
        assert store.ended == Ended()
        assert await store.membership(ANA) is not None
    assert await back(sqlite) == Ended(faces=1, codes=1)


@pytest.mark.parametrize("way", ["leaves", "ended", "time"])
async def test_a_contact_who_ended_since_the_backup_is_not_told_again(
    sqlite: Place, way: str
) -> None:
    async with sqlite.store() as store:
        await enroll(store)
        await name_contact(store)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        if way == "leaves":
            await store.leave_contact(BEN)
        elif way == "ended":
            await store.end_contact(ANA)
        else:
            await store.end_contact_later(ANA, delay_s=60)
            sqlite.clock.advance(seconds=61)
            await store.tidy()
        assert await store.contact(ANA) is None
    assert await back(sqlite) == Ended(contacts=1)
    async with sqlite.store() as store:
        assert await store.contact(ANA) is None
        assert await store.told_of(BEN) == 0
        assert await store.check_seals() == []
        await name_contact(store)
    async with sqlite.store() as store:
        assert store.ended == Ended(), "the new one has another mark"
        assert await store.contact(ANA) is not None


async def test_a_lock_since_the_backup_is_in_force_and_a_lifted_one_is_not(sqlite: Place) -> None:
    async with sqlite.store() as store:
        for person in (ANA, BEN):
            await enroll(store, person)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        for person in (ANA, BEN):
            while await store.barred(person) != Barred("locked"):
                sqlite.clock.advance(hours=1)
                await finish(store, await begin(store, person, "photo"), passed=False)
        assert await store.unlock(BEN)
    assert await back(sqlite) == Ended(locks=1)
    async with sqlite.store() as store:
        assert await store.barred(ANA) == Barred("locked")
        assert await store.barred(BEN) is None
        assert await store.check_seals() == []
        assert await store.unlock(ANA)
    assert await back(sqlite) == Ended()


async def test_a_wait_of_the_backup_is_over_without_its_right(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await enroll(store)
        await store.schedule_reset(ANA, delay_s=60)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        assert await store.cancel_reset(ANA)
    assert await back(sqlite) == Ended(waits=1)
    async with sqlite.store() as store:
        assert await store.reset_due(ANA) is None
        assert await store.check_seals() == []


async def test_whoever_was_erased_since_may_not_enroll_at_once(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await enroll(store)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
        await store.forget(ANA)
    assert (await back(sqlite)).erased == 1
    async with sqlite.store() as store:
        assert await store.held_until(ANA) == sqlite.clock.now + timedelta(hours=24)
        flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        assert not await store.enroll(flow, enrolment(right=Right.FIRST))


async def test_people_in_the_middle_of_something_are_whole_after_it(sqlite: Place) -> None:
    """A backup lacks their conversations and challenges, and is made without keys."""
    async with sqlite.store() as store:
        await enroll(store)
        await challenged(store)
        await back_up(sqlite.path, sqlite.folder / "backup.db")
    await back(sqlite)
    async with sqlite.store() as store:
        assert await store.check_seals() == []
        await fail(store)


async def test_what_was_forged_before_a_backup_stays_seen(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await enroll(store)
        await challenged(store)
    await sqlite.sql("UPDATE people SET reset_due = 1")
    await back_up(sqlite.path, sqlite.folder / "backup.db")
    await back(sqlite)
    async with sqlite.store() as store:
        with pytest.raises(Tampered):
            await store.membership(ANA)
