"""A PostgreSQL server that goes silent, as when its host dies: nobody waits for it for long."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bot.store import StoreError
from bot.store.database import Database
from tests.bot.store.places import ANA, BEN, Place, enroll
from tests.bot.store.proxies import Proxy, proxied

PATIENCE_S = 20
"""Long enough for a loaded machine, shorter than a driver waits by itself."""


@asynccontextmanager
async def opened(place: Place, **options: Any) -> AsyncIterator[tuple[Proxy, Database]]:
    """A database behind a proxy, with a session in its pool."""
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with proxied(str(place.address)) as (proxy, address):
        database = Database(address, **{"busy_timeout_s": 0.5, "close_s": 1.0, **options})
        await asked(database.write, limit_s=PATIENCE_S)
        yield proxy, database
        await database.close()


async def asked(way: Callable[..., Awaitable[object]], *, limit_s: float | None = None) -> None:
    """Have a database do something small."""

    async def work(connection: Any) -> None:
        await connection.exec_driver_sql("SELECT 1")

    await way(work, limit_s=limit_s)


async def test_nobody_waits_longer_than_the_limit(place: Place) -> None:
    async with opened(place, limit_s=1.0) as (proxy, database), asyncio.timeout(PATIENCE_S):
        proxy.silence()
        ways = [database.read, database.write] * 10  # more than there are connections
        found = await asyncio.gather(*map(asked, ways), return_exceptions=True)
        assert {type(each) for each in found} == {StoreError}
        assert "did not answer within 1 s" in str(found[0])


async def test_a_silence_under_a_transaction_ends_it(place: Place) -> None:
    async with opened(place, limit_s=1.0) as (proxy, database), asyncio.timeout(PATIENCE_S):

        async def work(connection: Any) -> None:
            await connection.exec_driver_sql("CREATE TABLE written (x int)")
            proxy.silence()
            await connection.exec_driver_sql("SELECT 1")

        with pytest.raises(StoreError, match="did not answer within 1 s"):
            await database.write(work)
        proxy.speak()
        await asked(database.write, limit_s=PATIENCE_S)
    assert await place.sql("SELECT to_regclass('written')") == [(None,)]


async def test_a_caller_who_gives_up_waits_no_more(place: Place) -> None:
    async with opened(place, limit_s=60.0) as (proxy, database), asyncio.timeout(PATIENCE_S):
        proxy.silence()
        for way in (database.read, database.write):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asked(way)


async def test_letting_go_is_bounded(place: Place) -> None:
    async with opened(place, limit_s=60.0) as (proxy, database), asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(asked(database.read) for _ in range(4)))
        proxy.silence()
        waiting = [asyncio.create_task(asked(way)) for way in (database.read, database.write)]
        await asyncio.sleep(0)
        await database.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in found} == {StoreError}


async def test_what_comes_back_is_used_again(place: Place) -> None:
    async with opened(place, limit_s=1.0) as (proxy, database), asyncio.timeout(PATIENCE_S):
        proxy.silence()
        with pytest.raises(StoreError):
            await asked(database.write)
        proxy.speak()
        await asked(database.write, limit_s=PATIENCE_S)


async def test_after_a_failover_no_session_on_the_old_primary_is_kept(place: Place) -> None:
    """Sessions that take no changes any more, as on a server that became a standby."""
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with place.store() as store:
        await asyncio.gather(*(enroll(store, person) for person in (ANA, BEN)))
        old = tuple(store._database._sessions)
        assert len(old) > 1
        for session in old:
            await session.execute("SET default_transaction_read_only = on")
        with pytest.raises(StoreError, match="25006"):
            await store.choose_language(ANA, "en")
        await asyncio.gather(*(store.choose_language(person, "es") for person in range(10)))
        assert all(session.is_closed() for session in old)


async def test_people_who_leave_together_do_not_wait_for_each_other(place: Place) -> None:
    """Cleaning up behind one held up the next, five seconds each."""
    async with place.store() as store:
        await asyncio.gather(*(enroll(store, person) for person in range(8)))
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(store.forget(person) for person in range(8)))
