"""Databases that are locked, full, damaged or out of reach: said clearly, and nothing is lost."""

import asyncio
import contextlib
import errno
import os
import re
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bot.store import Attempt, FlowKind, Store, StoreError, Tampered, Vault, add_key
from tests.bot.store.places import (
    ANA,
    BEN,
    Place,
    begin,
    challenged,
    enroll,
    finish,
    vectors,
)

AS_ROOT = os.geteuid() == 0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skips where there may be none."""
    if not AS_ROOT:
        pytest.skip("a file system of its own takes root")
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


async def test_a_lock_denies_after_a_while_and_loses_nothing(sqlite: Place) -> None:
    # 30 s in life, by BUSY_TIMEOUT_S; what counts is that it is longer than a verb waits.
    async with sqlite.store(busy_timeout_s=0.2) as store:
        await enroll(store)
        flow, nonce = await challenged(store)
        attempt = await begin(store, ANA)
        flow, nonce = await challenged(store)
        with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for verb in (
                store.begin_attempt(flow, "video", nonce),
                finish(store, attempt, passed=True),
                store.begin_flow(BEN, FlowKind.ENROLL, {}, lifetime_s=60),
                store.forget(ANA),
            ):
                with pytest.raises(StoreError, match=r"locked it for too long"):
                    await verb
            # Reading goes on meanwhile.
            assert await store.membership(ANA) is not None
            assert await store.flow(ANA) == flow
            other.execute("ROLLBACK")
        await finish(store, attempt, passed=True)
        assert isinstance(await store.begin_attempt(flow, "video", nonce), Attempt)
        assert await store.check_audit() is None


async def test_closing_ends_who_waits_for_a_lock(sqlite: Place) -> None:
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as closing_late:
        async with sqlite.store(busy_timeout_s=60, close_s=2) as store:
            await enroll(store)
            other = closing_late.enter_context(closing(sqlite3.connect(sqlite.path)))
            other.execute("BEGIN IMMEDIATE")
            verbs = (
                store.begin_flow(who, FlowKind.ENROLL, {}, lifetime_s=60) for who in (ANA, BEN)
            )
            waiting = [asyncio.create_task(verb) for verb in verbs]
            await asyncio.wait(waiting, timeout=0.5)
        for task in waiting:
            with pytest.raises(StoreError):
                await task
        # asyncio.run waits for tasks without end, so that the process would not end either.
        if left := asyncio.all_tasks() - before:
            await asyncio.wait(left, timeout=20)
        assert not asyncio.all_tasks() - before


async def test_a_lock_on_postgresql_denies_after_a_while(place: Place) -> None:
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    import asyncpg

    async with place.store(busy_timeout_s=0.2) as store:
        await enroll(store)
        flow, nonce = await challenged(store)
        other = await asyncpg.connect(str(place.address))
        await other.execute("BEGIN; SELECT * FROM people FOR UPDATE")
        with pytest.raises(StoreError, match=r"55P03.*locked it for too long"):
            await store.begin_attempt(flow, "video", nonce)
        await other.close()
        assert isinstance(await store.begin_attempt(flow, "video", nonce), Attempt)


async def test_a_server_that_went_away_is_said_and_comes_back(place: Place) -> None:
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with place.store() as store:
        await enroll(store)
        await place.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'face-matcher' AND datname = current_database()"
        )
        assert await store.membership(ANA) is not None, "connections are looked after"
    port = str(place.address).rpartition(":")[2].partition("/")[0]
    place.address = str(place.address).replace(port, "1")
    with pytest.raises(StoreError, match=r"cannot be reached.*DATABASE_URL leads to it") as caught:
        async with place.store():
            pass
    password = str(place.address).partition("//")[2].partition("@")[0].partition(":")[2]
    assert password not in str(caught.value)


async def test_a_file_that_takes_no_changes_is_said(sqlite: Place, tmp_path: Path) -> None:
    async with sqlite.store() as store:
        await enroll(store)
    with small_disk(tmp_path / "disk", "8m") as disk:
        moved = Place(disk, disk / "bot.db", sqlite.clock)
        shutil.copy(sqlite.path, moved.path)
        remount(disk, "ro")
        with pytest.raises(StoreError, match=r"bot\.db cannot be used.*mounted read-only"):
            async with moved.store():
                pass
        with pytest.raises(StoreError, match=r"new\.db cannot be used.*mounted read-only"):
            async with Place(disk, disk / "new.db").store():
                pass
        with pytest.raises(StoreError, match=r"ids\.key.*mounted read-only"):
            Vault.open(disk / "ids.key")
        with pytest.raises(StoreError, match=r"template\.keys.*mounted read-only"):
            add_key(disk / "template.keys")
        remount(disk, "rw")
        async with moved.store() as store:
            assert await store.membership(ANA) is not None


async def test_a_file_without_permissions_is_said(sqlite: Place) -> None:
    if AS_ROOT:
        pytest.skip("root may write everywhere")
    async with sqlite.store() as store:
        await enroll(store)
    sqlite.path.chmod(stat.S_IRUSR)
    with pytest.raises(StoreError, match=r"writable for the bot's user"):
        async with sqlite.store():
            pass
    sqlite.path.chmod(0o600)


async def test_a_full_disk_denies_and_loses_nothing(sqlite: Place, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        place = Place(disk, disk / "bot.db", sqlite.clock)
        async with place.store() as store:
            await enroll(store)
            flow, nonce = await challenged(store)
            filler = disk / "filler"
            fill(filler)
            said = set()
            for _ in range(3):
                with pytest.raises(StoreError) as caught:
                    await store.begin_attempt(flow, "video", nonce)
                said.add(str(caught.value))
            assert all("make room on its disk" in text or "disk" in text for text in said)
            assert await store.membership(ANA) is not None
            filler.unlink()
            attempt = await store.begin_attempt(flow, "video", nonce)
            await finish(store, attempt, passed=True)
            assert await store.check_audit() is None


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


async def test_a_damaged_page_is_said_and_nobody_is_let_in(sqlite: Place) -> None:
    async with sqlite.store() as store:
        for person in range(5):
            await enroll(store, person)
    ((root,),) = await sqlite.sql("SELECT rootpage FROM sqlite_master WHERE name = 'templates'")
    ((size,),) = await sqlite.sql("PRAGMA page_size")
    whole = sqlite.path.read_bytes()
    at = (root - 1) * size
    async with sqlite.store() as store:
        damage(sqlite.path, at, size)
        # At the same time, so that one of them reads the file and not what another one kept of it.
        found = await asyncio.gather(*map(store.templates, range(5)), return_exceptions=True)
        faults = [each for each in found if isinstance(each, BaseException)]
        assert faults
        for fault in faults:
            assert isinstance(fault, StoreError)
            assert re.search(r"is damaged.*python -m bot db restore", str(fault))
        flow = await store.begin_flow(1, FlowKind.ENROLL, {}, lifetime_s=60)
        assert flow.telegram_id == 1, "what is whole goes on"
    with pytest.raises(StoreError, match="damaged"):
        async with sqlite.store():
            pass
    assert len(whole) > at + size


def damage(path: Path, at: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * size)


async def test_a_damaged_value_is_said_and_nobody_is_let_in(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        attempt = await begin(store)
        turned = "zeroblob(100)" if place.is_sqlite else "decode(repeat('00', 100), 'hex')"
        await place.sql(f"UPDATE people SET wrapped_key = {turned}")
        for verb in (
            lambda: store.templates(ANA),
            lambda: finish(store, attempt, passed=True),
            lambda: begin(store),
            lambda: store.barred(ANA),
        ):
            with pytest.raises(Tampered, match="db check"):
                await verb()
        assert await store.flow(BEN) is None
        assert (await place.sql("SELECT outcome FROM attempts")) == [("open",)]


async def test_an_address_that_is_none_is_said_without_its_password(sqlite: Place) -> None:
    for address in ("mysql://bot:secret@host/name", "nonsense secret", "postgresql://"):
        with pytest.raises(StoreError) as caught:
            async with Store(address, sqlite.vault, updates_kept=1):
                pass
        assert "secret" not in str(caught.value)


async def test_writers_wait_for_each_other(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        await asyncio.gather(*(enroll((one, other)[person % 2], person) for person in range(8)))
        assert await one.check_audit() is None
        for person in range(8):
            found = await other.templates(person)
            assert found is not None
            assert abs(found.vectors - vectors()).max() < 1e-6
