"""The connection to SQLite or PostgreSQL: transactions that are whole or not at all, and faults.

Reading sees one moment. Writing is serial where it must be: SQLite has one writer at a time, who
says so at the beginning (BEGIN IMMEDIATE, because a reader who becomes a writer cannot wait); with
PostgreSQL, whose writers are many, whoever changes something of a person locks their row first
(`bot.store.people`). A transaction that began goes on to its end even when its caller is cancelled,
because one that hangs between write and commit keeps every other writer out. Knows nothing about
tables.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.store.errors import StoreError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_PLAIN_SCHEMES = ("postgres", "postgresql")
_WRITES = "face_matcher_writes"
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
# Of PostgreSQL: a transaction whose client hangs is ended after this.
_IDLE_LIMIT_MS = 60_000
_WAL_PATIENCE_S = 5.0
_WAL_PAUSE_S = 0.02


class Database:
    """Where the tables are.

    Args:
        address: a file of SQLite's, or PostgreSQL's URL (`postgresql://...`).
        busy_timeout_s: how long to wait for other writers.

    Raises:
        StoreError: the address is no such thing.
    """

    def __init__(self, address: Path | str, *, busy_timeout_s: float) -> None:
        self.path = address if isinstance(address, Path) else None
        self._busy_timeout_s = busy_timeout_s
        self._under_way: set[asyncio.Task[Any]] = set()
        self._writers = asyncio.Lock()
        if self.path is not None:
            self.name = str(self.path)
            self._engine = self._sqlite(self.path)
        else:
            url = postgresql_url(str(address))
            self.name = url.render_as_string(hide_password=True)
            self._engine = self._postgresql(url)
        self._reading: AsyncEngine = self._engine
        if self.path is None:
            self._reading = self._engine.execution_options(**_SNAPSHOT)
        self._writing: AsyncEngine = self._engine.execution_options(**{_WRITES: True})

    async def prepare(self) -> None:
        """See that the database can be used.

        Raises:
            StoreError: it cannot.
        """
        if self.path is None:
            return
        patience_s = min(self._busy_timeout_s, _WAL_PATIENCE_S)
        await asyncio.to_thread(_enter_wal, self.path, patience_s)
        with self._faults():
            async with self._engine.connect() as connection:
                result = await connection.exec_driver_sql("PRAGMA quick_check(1)")
                found = result.scalar_one()
        if found != "ok":
            raise StoreError(f"The database {self.name} cannot be used (it is damaged): {_MEND}")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees everything as it was at one moment.

        Raises:
            StoreError: the database failed.
        """
        with self._faults():
            async with self._reading.begin() as connection:
                yield connection

    async def write(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Do some work in one transaction: all of it is kept, or nothing when it raises.

        Once begun it goes on, and is kept, even when the caller is cancelled.

        Raises:
            StoreError: the database failed; nothing is kept.
        """
        task = asyncio.create_task(self._transact(work))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for what is under way, and let go of the database."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._engine.dispose()

    async def wipe(self, *tables: Table) -> None:
        """Clean up behind deleted rows, so that their bytes are not left on disk.

        SQLite: `secure_delete` has overwritten them in the database; here the write-ahead log is
        emptied. PostgreSQL: the dead rows are vacuumed; its own write-ahead log and backups keep
        them, and what is a person's there is beyond reading once no key is left that wraps theirs.
        What cannot be done now, because others are reading, is left to the next time.

        Args:
            tables: which had the rows.
        """
        try:
            with self._faults():
                if self.path is not None:
                    await self._truncate()
                else:
                    await self._vacuum(tables)
        except StoreError as error:
            logger.warning("deleted rows could not be wiped yet: %s", error)

    def complain(self, reason: str) -> StoreError:
        """What to say when the database cannot be used at all."""
        return StoreError(
            f"The database {self.name} cannot be used ({reason}): mend it or its permissions, "
            "restore a backup, or name another one in DATABASE or DATABASE_URL."
        )

    async def _transact(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        with self._faults():
            async with self._turn_to_write(), self._writing.begin() as connection:
                return await work(connection)

    @asynccontextmanager
    async def _turn_to_write(self) -> AsyncIterator[None]:
        """SQLite's writers of one process come in the order of asking.

        SQLite itself lets whoever happens to look next go first, so that one of many could wait
        for ever; it is left to choose among processes only.
        """
        if self.path is None:
            yield
            return
        try:
            async with asyncio.timeout(self._busy_timeout_s):
                await self._writers.acquire()
        except TimeoutError:
            raise StoreError(
                f"The database {self.name} cannot be used (too many want to write): try again "
                "later; if it goes on, end whatever has locked it for too long."
            ) from None
        try:
            yield
        finally:
            self._writers.release()

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever was to see it may have been cancelled

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn the database's faults into ours; `from None`, because theirs may quote rows."""
        try:
            yield
        except DBAPIError as error:
            raise _translate(self.name, error) from None
        except SQLAlchemyError as error:
            raise StoreError(
                f"The database {self.name} cannot be used ({type(error).__name__}): try again "
                "later."
            ) from None
        except OSError as error:
            raise self.complain(error.strerror or type(error).__name__) from None

    def _sqlite(self, path: Path) -> AsyncEngine:
        engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)),
            hide_parameters=True,  # in faults, which are logged
            connect_args={"timeout": self._busy_timeout_s},
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine

    def _postgresql(self, url: URL) -> AsyncEngine:
        limits = {
            "lock_timeout": f"{round(1000 * self._busy_timeout_s)}",
            "idle_in_transaction_session_timeout": f"{_IDLE_LIMIT_MS}",
            "application_name": "face-matcher",
        }
        return create_async_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,  # the server may have been restarted
            connect_args={"server_settings": limits, "timeout": 10},
        )

    async def _truncate(self) -> None:
        async with self._engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            # On the driver's connection, because SQLAlchemy's would begin a transaction first.
            async with driver.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
                busy, *_ = await cursor.fetchone()
        if busy:
            logger.warning("the write-ahead log could not be emptied yet: others are reading")

    async def _vacuum(self, tables: tuple[Table, ...]) -> None:
        engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for table in tables:
                await connection.exec_driver_sql(f"VACUUM {table.name}")


def insert_of(connection: AsyncConnection, table: Table) -> Any:
    """The dialect's own INSERT, which knows what to do about rows that are there already."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def make_private_file(path: Path) -> None:
    """Make an empty file that is its owner's alone, where there is none, before SQLite makes it.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def postgresql_url(address: str) -> URL:
    """The address of a PostgreSQL database as the driver wants it.

    Raises:
        StoreError: it is no such address.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in (*_PLAIN_SCHEMES, "postgresql+asyncpg"):
        # The address is not repeated: it may have a password in it.
        raise StoreError(
            "DATABASE_URL is no address of a PostgreSQL database: it looks like "
            "postgresql://user:password@host/name; for SQLite name a file in DATABASE instead."
        )
    # What libpq, and so everybody's address, calls sslmode, this driver calls ssl.
    query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


def _enter_wal(path: Path, patience_s: float) -> None:
    """Have a new file keep a write-ahead log.

    SQLite does not wait for others when it changes a file's mode: of several processes that meet a
    new file together, all but one were told that it is locked. Whatever else is wrong is said by
    the next connection.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                return
        time.sleep(_WAL_PAUSE_S)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # SQLAlchemy's recipe: the driver begins no transactions by itself, `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    # A login's counters must survive a power cut as well: NORMAL may lose the last transactions.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _translate(name: str, error: DBAPIError) -> StoreError:
    """What happened and what to do, without a word that may come from a row."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        # SQLite's messages name tables and columns, never values.
        reason = str(original)
        code = getattr(original, "sqlite_errorcode", 0) & 0xFF
        advice = _SQLITE_ADVICE.get(code, "try again later; if it goes on, look into the database.")
    else:
        # PostgreSQL's quote values, so that only the code is told.
        state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
        reason = f"SQLSTATE {state}" if state else type(original).__name__
        advice = _POSTGRESQL_ADVICE.get(state or "", "try again later, and look into its log.")
    return StoreError(f"The database {name} cannot be used ({reason}): {advice}")


_MEND = "restore the newest backup with: python -m bot db restore"
_SQLITE_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program has locked it for too long; end that program.",
    sqlite3.SQLITE_LOCKED: "another program has locked it for too long; end that program.",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable for the bot's user.",
    sqlite3.SQLITE_PERM: "make the file and its folder writable for the bot's user.",
    sqlite3.SQLITE_CANTOPEN: "make the file and its folder readable for the bot's user.",
    sqlite3.SQLITE_FULL: "make room on its disk.",
    sqlite3.SQLITE_IOERR: "look after its disk.",
    sqlite3.SQLITE_CORRUPT: f"it is damaged; {_MEND}",
    sqlite3.SQLITE_NOTADB: f"it is damaged or no database; {_MEND}",
}
_POSTGRESQL_ADVICE = {
    "55P03": "another program has locked it for too long; end that program.",
    "40P01": "two programs waited for each other; try again.",
    "53100": "make room on its disk.",
    "25006": "it takes no changes; connect to the primary server.",
    "57P03": "it is starting or stopping; try again later.",
}
