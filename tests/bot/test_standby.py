"""Which bot serves: waiting for one's turn, keeping it, and ending in time when it is lost."""

import asyncio
import logging
import math
from dataclasses import dataclass, field

import pytest

from bot.standby import LeaseLost, Turn, turn
from bot.store import StoreError

LIFETIME_S = 20.0


@dataclass
class Scripted:
    """A lease whose answers a test has written: holders, whether it is renewed, or faults."""

    taking: list[str | Exception | None] = field(default_factory=lambda: [None])
    renewing: list[bool | Exception] = field(default_factory=list)
    lifetime_s: float = LIFETIME_S
    released: int = 0

    async def take(self) -> str | None:
        said = self.taking.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    async def renew(self) -> bool:
        said = self.renewing.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    async def release(self) -> None:
        self.released += 1


@dataclass
class Time:
    """Time that goes on where somebody waits; `leap_s` is how much later the next wait ends."""

    now_s: float = 1000.0
    leap_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def pause(self, wait_s: float) -> None:
        await asyncio.sleep(0)
        self.now_s += wait_s + self.leap_s
        self.leap_s = 0.0


def own(lease: Scripted, time: Time) -> Turn:
    return Turn(lease, clock=time, pause=time.pause)


async def test_whoever_waits_says_so_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    time = Time()
    lease = Scripted([*["the bot on web-1"] * 1000, StoreError("away"), "the bot on web-1", None])
    waiting = own(lease, time)
    assert not waiting.may_take
    await waiting.begin()
    assert waiting.may_take
    told = [line for line in caplog.messages if line.startswith("standing by: ")]
    assert len(told) == 2
    assert "the bot on web-1" in told[0]
    assert "20 s after it was killed" in told[0]


async def test_a_database_that_fails_at_the_start_is_a_fault() -> None:
    with pytest.raises(StoreError, match="away"):
        await own(Scripted([StoreError("away")]), Time()).begin()


async def test_a_lease_that_is_renewed_is_kept() -> None:
    time = Time()
    lease = Scripted(renewing=[*[True] * 50, False])
    kept = own(lease, time)
    await kept.begin()
    with pytest.raises(LeaseLost, match="Another bot has taken over"):
        await kept.keep()
    assert time.now_s - 1000 > 5 * LIFETIME_S
    assert not kept.may_take
    assert kept.left_s == 0


async def test_a_lease_that_cannot_be_renewed_leaves_time_to_end() -> None:
    time = Time()
    kept = own(Scripted(renewing=[StoreError("away")] * 50), time)
    await kept.begin()
    with pytest.raises(LeaseLost, match="could not be asked in time"):
        await kept.keep()
    assert not kept.may_take
    assert LIFETIME_S / 4 < kept.left_s < LIFETIME_S / 2


async def test_a_database_that_was_away_for_a_moment_is_borne() -> None:
    time = Time()
    away = StoreError("away")
    kept = own(Scripted(renewing=[away, away, True, away, away, True, False]), time)
    await kept.begin()
    with pytest.raises(LeaseLost, match="Another bot has taken over"):
        await kept.keep()


async def test_a_process_that_slept_takes_nothing_until_it_has_asked() -> None:
    time = Time()
    lease = Scripted(renewing=[True, False])
    kept = own(lease, time)
    await kept.begin()
    time.now_s += 3600
    assert not kept.may_take
    with pytest.raises(LeaseLost, match="Another bot"):
        await kept.keep()
    assert lease.renewing == []
    assert not kept.may_take


async def test_a_lease_that_ends_with_the_process_needs_no_renewing() -> None:
    lease = Scripted(lifetime_s=math.inf)
    async with turn(lease, 1.0) as kept:
        assert kept.may_take
        assert kept.left_s == math.inf
        assert not kept.kept.done()
    assert lease.released == 1


async def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    lease = Scripted(["the bot on web-1"] * 1000)

    async def wait() -> None:
        async with turn(lease, 1.0):
            raise AssertionError

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert lease.released == 1
