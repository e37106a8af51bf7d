"""The machine under a running bot: whether its clock is set, and its database's file taken away.

Knows nothing about what is in the database.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bot import rounds
from bot.store import StoreError
from bot.texts import moment

logger = logging.getLogger(__name__)

EVERY_S = 10.0
_LEAP_S = 60.0
_IN_MEMORY = ("tmpfs", "ramfs")


def steady() -> float:
    """Seconds that only move forward, while the machine sleeps as well where that can be known."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def watch(
    database: Path | None,
    *,
    wall: Callable[[], float] = time.time,
    steady: Callable[[], float] = steady,
    pause: rounds.Pause = asyncio.sleep,
) -> Coroutine[Any, Any, None]:
    """Look at the file now, and every few seconds until cancelled; a clock that was set is logged.

    Args:
        database: SQLite's file, which is there; None for a database elsewhere.
        wall: the time, in seconds since 1970.
        steady: seconds that only move forward.
        pause: waits for the next look.

    Raises:
        StoreError: the file is gone, empty, or another one than now.
    """
    return _watch(database, None if database is None else _file(database), wall, steady, pause)


async def _watch(
    database: Path | None,
    file: tuple[int, int] | None,
    wall: Callable[[], float],
    steady: Callable[[], float],
    pause: rounds.Pause,
) -> None:
    ahead_s = wall() - steady()

    async def look() -> float | None:
        nonlocal ahead_s
        now_s = wall()
        before_s, ahead_s = ahead_s, now_s - steady()
        leap_s = ahead_s - before_s
        if abs(leap_s) >= _LEAP_S:
            logger.warning(
                "this machine's clock was set %.0f s %s, to %s: where that is wrong, set it right",
                abs(leap_s),
                "forward" if leap_s > 0 else "back",
                moment(datetime.fromtimestamp(now_s, UTC)),
            )
        return None if database is not None and _file(database) != file else EVERY_S

    await rounds.repeat(look, "watching the machine", pause)
    raise StoreError(
        f"{database} was removed, replaced or emptied while the bot ran, which would lose all that "
        "happens from now on: put the right file back, or the newest backup with: python -m bot db "
        "restore; then start the bot again. Stop the bot before you change its database."
    )


def in_memory(path: Path) -> bool:
    """Whether a file, be it there yet or not, is in memory, and gone when the machine restarts."""
    resolved = path.resolve()
    mounts = psutil.disk_partitions(all=True)
    above = [each for each in mounts if resolved.is_relative_to(each.mountpoint)]
    # Of several on one folder the last one is seen.
    nearest = max(reversed(above), key=lambda each: len(each.mountpoint), default=None)
    return nearest is not None and nearest.fstype in _IN_MEMORY


def _file(path: Path) -> tuple[int, int] | None:
    """Which file it is; None where there is none, or nothing in it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if found.st_size else None
