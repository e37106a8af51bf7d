"""A backup brings back everything but the erased, the spent and what was under way."""

import sqlite3
import stat
from contextlib import closing

import pytest

from bot.store import Barred, FlowKind, Keyring, StoreError, back_up, restore
from tests.bot.store.places import ANA, BEN, Place, challenged, enroll, fail
from tests.bot.store.test_rights import live, spellings


async def back(place: Place) -> None:
    await restore(
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
    assert left == {"bot.db", "backup.db"}, "no temporary file stays behind"


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
    assert {path.name for path in sqlite.folder.iterdir()} == {"bot.db", "backup.db"}


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
        await back_up(url, None)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


async def test_a_restored_postgresql_is_settled(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        flow, nonce = await challenged(store)
        await store.settle_restored()
        assert await store.flow(ANA) is None
        flow = await store.begin_flow(ANA, FlowKind.VERIFY, {}, lifetime_s=60)
        assert await store.begin_attempt(flow, "video", nonce) == Barred("spent")
        assert await store.check_audit() is None
