"""Who serves with a database: one bot at a time.

SQLite's file is on one machine, where a lock beside it ends with the process that holds it, needs
no clock and costs no writes. PostgreSQL's machines have no lock in common that ends with a process
and passes through a pooler, so a row names the holder until a moment of the server's clock. Knows
nothing about what serving is.
"""

import math
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.database import Database
from bot.store.schema import lease

_ONLY = 1
"""Number of the only row."""


class Lease(Protocol):
    """The right to serve.

    Attributes:
        lifetime_s: seconds after which others may take it, unless it was renewed; infinite where it
            ends with the process.
    """

    lifetime_s: float

    async def take(self) -> str | None:
        """Take it; None, or who has it, for people to read.

        Raises:
            StoreError: the database failed.
        """
        ...

    async def renew(self) -> bool:
        """Have it for its whole lifetime from now on; False where another one has taken it.

        Raises:
            StoreError: the database failed; it lasts as long as it would have.
        """
        ...

    async def release(self) -> None:
        """Leave it to others at once, if it is had.

        Raises:
            StoreError: the database failed; others wait until it has expired.
        """
        ...


class FileLease:
    """A lock on a file beside SQLite's."""

    lifetime_s = math.inf

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.lock")
        self._lock = FileLock(self._path, timeout=0, mode=0o600, thread_local=False)

    async def take(self) -> str | None:
        """See `Lease`."""
        try:
            self._lock.acquire()
        except Timeout:
            return f"the process that has locked {self._path}"
        return None

    async def renew(self) -> bool:
        """See `Lease`."""
        return True

    async def release(self) -> None:
        """See `Lease`."""
        self._lock.release()


class RowLease:
    """A row of PostgreSQL's.

    Args:
        database: has it.
        place: where this bot runs, for people to read.
        lifetime_s: see `Lease`.
    """

    def __init__(self, database: Database, place: str, lifetime_s: float) -> None:
        self._database = database
        self._place = place[:255]
        self._holder = secrets.token_bytes(16)
        self.lifetime_s = lifetime_s

    async def take(self) -> str | None:
        """See `Lease`."""
        return await self._database.write(self._take)

    async def renew(self) -> bool:
        """See `Lease`."""
        return await self._database.write(self._renew)

    async def release(self) -> None:
        """See `Lease`."""
        await self._database.write(self._release)

    async def _take(self, connection: AsyncConnection) -> str | None:
        values = {"holder": self._holder, "place": self._place, "expires": self._expires()}
        statement = insert(lease).values(id=_ONLY, **values)
        free = or_(lease.c.expires <= func.clock_timestamp(), lease.c.holder == self._holder)
        statement = statement.on_conflict_do_update(
            index_elements=[lease.c.id], set_=values, where=free
        )
        if (await connection.execute(statement)).rowcount == 1:
            return None
        place = (await connection.execute(select(lease.c.place))).scalar_one_or_none()
        return "another bot" if place is None else f"the bot on {place}"

    async def _renew(self, connection: AsyncConnection) -> bool:
        statement = update(lease).where(lease.c.holder == self._holder)
        changed = await connection.execute(statement.values(expires=self._expires()))
        return changed.rowcount == 1

    async def _release(self, connection: AsyncConnection) -> None:
        await connection.execute(delete(lease).where(lease.c.holder == self._holder))

    def _expires(self) -> Any:
        return func.clock_timestamp() + timedelta(seconds=self.lifetime_s)
