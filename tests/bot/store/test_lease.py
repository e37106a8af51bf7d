"""Who may serve with a database: one at a time, the next at once or when the lease has expired."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bot.store import Lease, Store, StoreError
from tests.bot.store.crash import killed
from tests.bot.store.places import Place
from tests.bot.store.test_dsn import pooler

LONG_S = 600.0


@asynccontextmanager
async def two(place: Place, lifetime_s: float = LONG_S) -> AsyncIterator[tuple[Lease, Lease]]:
    async with place.store() as one, place.store() as other:
        yield one.lease("one", lifetime_s), other.lease("other", lifetime_s)


async def expire(place: Place) -> None:
    await place.sql("UPDATE lease SET expires = clock_timestamp() - interval '1 second'")


async def test_one_has_it_until_it_is_released(place: Place) -> None:
    async with two(place) as (one, other):
        assert await one.take() is None
        held = await other.take()
        assert held is not None
        assert ("bot.db.lock" if place.is_sqlite else "the bot on one") in held
        assert await one.renew()
        await other.release()  # of what it does not have
        assert await other.take() == held
        await one.release()
        assert await other.take() is None
        assert await one.take() is not None


async def test_of_many_one_gets_it(place: Place) -> None:
    async with place.store() as store:
        leases = [store.lease(str(number), LONG_S) for number in range(8)]
        taken = await asyncio.gather(*(lease.take() for lease in leases))
        assert taken.count(None) == 1


async def test_what_expired_is_taken_and_its_holder_told(place: Place) -> None:
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with two(place) as (one, other):
        assert await one.take() is None
        await expire(place)
        assert await one.renew(), "nobody had taken it"
        assert await other.take() is not None
        await expire(place)
        assert await other.take() is None
        assert not await one.renew()
        await one.release()
        assert await other.renew(), "what was lost is not released"


async def test_this_machine_s_clock_does_not_matter(place: Place) -> None:
    async with two(place) as (one, other):
        assert await one.take() is None
        place.clock.advance(days=3)
        assert await other.take() is not None


async def test_it_works_through_a_pooler(place: Place) -> None:
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with pooler(str(place.address), "transaction") as address:
        place.address = address
        async with two(place) as (one, other):
            assert await one.take() is None
            assert await other.take() is not None
            assert await one.renew()


async def takes(store: Store, _place: Place, _person: int) -> None:
    assert await store.lease("gone", LONG_S).take() is None
    await asyncio.sleep(0)


async def test_what_a_killed_process_had_is_free_at_once_with_sqlite(sqlite: Place) -> None:
    for at in range(1, 100):
        died = await killed(takes, sqlite, 0, at)
        async with sqlite.store() as store:
            lease = store.lease("next", LONG_S)
            assert await lease.take() is None
            await lease.release()
        if not died:
            return


async def test_a_database_that_fails_is_said(place: Place) -> None:
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with two(place) as (one, _):
        assert await one.take() is None
        await place.sql("DROP TABLE lease")
        asks: tuple[Callable[[], object], ...] = (one.take, one.renew, one.release)
        for ask in asks:
            with pytest.raises(StoreError, match="42P01"):
                await ask()  # type: ignore[misc]
