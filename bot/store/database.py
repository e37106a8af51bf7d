"""The connection to SQLite or PostgreSQL: transactions that are whole or not at all, and faults.

Reading sees one moment. Writing is serial where it must be. SQLite has one writer at a time, who
says so at the beginning (BEGIN IMMEDIATE, because a reader who becomes a writer cannot wait). Where
another program writes, the event loop waits: a thread in which SQLite waits cannot be cancelled.
With PostgreSQL, whose writers are many, whoever changes something of a person locks their row first
(`bot.store.people`). A transaction that began goes on to its end even when its caller is cancelled,
because one that hangs between write and commit keeps every other writer out; but no transaction,
and so no caller, waits longer than its limit for a server that says nothing. Knows nothing about
tables.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.store.dsn import Server
from bot.store.errors import StoreError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

LONG_S = 120.0
"""The limit of work on many rows, which nobody waits for."""
_LIMIT_S = 12.0  # longer than SQLite's writers wait in this process, and then for other processes
CLOSE_S = 5.0
"""How long letting go of a database may take."""
_WRITES = "face_matcher_writes"
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_READ_ONLY = "25006"
_PROGRAM = "face-matcher"
# Of PostgreSQL: a transaction whose client hangs is ended after this.
_IDLE_LIMIT_MS = 60_000
_WAL_PATIENCE_S = 5.0
_BUSY_PAUSE_S = 0.02
_IN_SQLITE_S = 0.1
"""How long SQLite itself waits for others, in its thread: as long may a cancelled call go on."""


class Database:
    """Where the tables are.

    Args:
        address: a file of SQLite's, or PostgreSQL's URL (`postgresql://...`).
        busy_timeout_s: how long to wait for other writers, and for a connection.
        limit_s: how long a transaction may take where its caller does not say, waiting included.
        close_s: how long `close` may take.

    Attributes:
        path: SQLite's file; None for PostgreSQL.
        name: of the database, for people; no secret is in it.

    Raises:
        StoreError: the address is no such thing.
    """

    def __init__(
        self,
        address: Path | str,
        *,
        busy_timeout_s: float,
        limit_s: float = _LIMIT_S,
        close_s: float = CLOSE_S,
    ) -> None:
        self.path = address if isinstance(address, Path) else None
        self._busy_timeout_s = busy_timeout_s
        self._limit_s = limit_s
        self._close_s = close_s
        self._closed = False
        self._under_way: set[asyncio.Task[Any]] = set()
        self._writers = asyncio.Lock()
        self._sessions: weakref.WeakSet[Any] = weakref.WeakSet()
        if self.path is not None:
            self.name = str(self.path)
            self._engine = self._sqlite(self.path)
        else:
            server = Server.parse(str(address))
            self.name = server.name
            self._engine = self._postgresql(server)
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

    async def read(
        self,
        work: Callable[[AsyncConnection], Awaitable[Result]],
        *,
        limit_s: float | None = None,
    ) -> Result:
        """Do some work that sees everything as it was at one moment.

        Args:
            work: changes nothing.
            limit_s: how long it may take, waiting included; None is the database's own limit.

        Raises:
            StoreError: the database failed, or took too long.
        """
        return await self._limited(self._look(work), limit_s)

    async def write(
        self,
        work: Callable[[AsyncConnection], Awaitable[Result]],
        *,
        limit_s: float | None = None,
    ) -> Result:
        """Do some work in one transaction: all of it is kept, or nothing when it raises.

        Once begun it goes on, and is kept, even when the caller is cancelled.

        Args:
            work: what to do.
            limit_s: as in `read`.

        Raises:
            StoreError: the database failed; nothing is kept. Where the server took too long to
                answer a commit, nobody can know whether it is kept.
        """
        return await self._limited(self._transact(work), limit_s)

    async def close(self) -> None:
        """Let go of the database: what is under way has some time to end, and is then cut off."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._close_s / 2)
        self._closed = True
        for task in self._under_way:
            task.cancel()
        ending = {*self._under_way, asyncio.create_task(self._engine.dispose())}
        await asyncio.wait(ending, timeout=self._close_s / 4)
        for session in self._sessions:
            session.terminate()
        _, left = await asyncio.wait(ending, timeout=self._close_s / 4)
        for task in left:
            task.cancel()
            logger.warning("the database %s did not let go in time", self.name)

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
            if self.path is not None:
                with self._faults():
                    await self._truncate()
            else:
                await self._limited(self._vacuum(tables), LONG_S)
        except StoreError as error:
            logger.warning("deleted rows could not be wiped yet: %s", error)

    def complain(self, reason: str) -> StoreError:
        """What to say when the database cannot be used at all."""
        if self.path is None:
            return StoreError(
                f"The database {self.name} cannot be reached ({reason}): see that its server runs "
                "and that DATABASE_URL leads to it."
            )
        return StoreError(
            f"The database {self.name} cannot be used ({reason}): {_MAKE_WRITABLE}, or name "
            "another one in DATABASE."
        )

    async def _limited(
        self, transaction: Coroutine[Any, Any, Result], limit_s: float | None
    ) -> Result:
        """Wait for a transaction no longer than its limit, and for its cleaning up not at all."""
        limit_s = self._limit_s if limit_s is None else limit_s
        task = asyncio.create_task(transaction)
        # Also where nobody waits for it any more.
        expiry = asyncio.get_running_loop().call_later(limit_s, task.cancel)
        self._under_way.add(task)
        task.add_done_callback(lambda task: self._ended(task, expiry))
        await asyncio.wait([task], timeout=limit_s)
        if task.done() and not task.cancelled():
            return task.result()
        if self._closed:
            raise StoreError(f"The database {self.name} was let go of before it answered.")
        raise StoreError(
            f"The database {self.name} did not answer within {limit_s:g} s: try again later; if it "
            "goes on, look whether it is overloaded, or its machine away."
        )

    async def _look(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        with self._faults():
            async with self._reading.begin() as connection:
                return await work(connection)

    async def _transact(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        with self._faults():
            async with self._turn_to_write(), self._begun() as connection:
                return await work(connection)

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; where another program has SQLite's lock it is waited for."""
        end_s = time.monotonic() + self._busy_timeout_s
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    connection = await stack.enter_async_context(self._writing.begin())
                    break
                except DBAPIError as error:
                    if not _is_busy(error.orig) or time.monotonic() > end_s:
                        raise
                await asyncio.sleep(_BUSY_PAUSE_S)
            yield connection

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

    def _ended(self, task: "asyncio.Task[Any]", expiry: asyncio.TimerHandle) -> None:
        expiry.cancel()
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
            connect_args={"timeout": min(self._busy_timeout_s, _IN_SQLITE_S)},
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine

    def _postgresql(self, server: Server) -> AsyncEngine:
        async def connect() -> Any:
            session = await server.connect(name=_PROGRAM, command_s=LONG_S)
            self._sessions.add(session)
            return session

        engine = create_async_engine(
            "postgresql+asyncpg://",
            hide_parameters=True,
            pool_pre_ping=True,  # the server may have been restarted
            pool_timeout=self._busy_timeout_s,
            # As poolers want it that hand each transaction to another session: no setting and no
            # statement with a name outlives a transaction.
            connect_args={
                "async_creator_fn": connect,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": str,
            },
        )
        event.listen(engine.sync_engine, "begin", self._begin_postgresql)
        event.listen(engine.sync_engine, "handle_error", _drop_read_only_sessions)
        return engine

    def _begin_postgresql(self, connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITES, False):
            connection.exec_driver_sql(
                f"SELECT set_config('lock_timeout', '{round(1000 * self._busy_timeout_s)}', true), "
                f"set_config('idle_in_transaction_session_timeout', '{_IDLE_LIMIT_MS}', true)"
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
        with self._faults():
            async with engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                for table in tables:
                    # One message each, because outside a transaction a pooler may send the next
                    # one to another session. Shortening the file waits 5 s where another vacuums.
                    await driver.execute(f"VACUUM (TRUNCATE false) {table.name}")


def insert_of(connection: AsyncConnection, table: Table) -> Any:
    """The dialect's own INSERT, which knows what to do about rows that are there already."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def make_private_file(path: Path) -> None:
    """Make a database that is its owner's alone, where there is no file.

    It is never an empty file, so that one which is empty is known to be none of ours.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    # mkstemp's files are their owner's alone.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        _enter_wal(Path(name), 0.0)
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


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
            if not _is_busy(error) or time.monotonic() > end:
                return
        time.sleep(_BUSY_PAUSE_S)


def _is_busy(error: BaseException | None) -> bool:
    """Whether another program has SQLite's lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


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


def _drop_read_only_sessions(context: ExceptionContext) -> None:
    """After a failover, sessions on the old primary server are left, which takes no changes now."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True  # so that all pooled connections are made anew


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


_MAKE_WRITABLE = (
    "make the file and its folder writable for the bot's user, and their volume where it is "
    "mounted read-only"
)
_MEND = "restore the newest backup with: python -m bot db restore"
_SQLITE_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program has locked it for too long; end that program.",
    sqlite3.SQLITE_LOCKED: "another program has locked it for too long; end that program.",
    sqlite3.SQLITE_READONLY: f"{_MAKE_WRITABLE}.",
    sqlite3.SQLITE_PERM: "make the file and its folder writable for the bot's user.",
    sqlite3.SQLITE_CANTOPEN: f"{_MAKE_WRITABLE}.",
    sqlite3.SQLITE_FULL: "make room on its disk.",
    sqlite3.SQLITE_IOERR: "look after its disk.",
    sqlite3.SQLITE_CORRUPT: f"it is damaged; {_MEND}",
    sqlite3.SQLITE_NOTADB: f"it is damaged or no database; {_MEND}",
}
_POSTGRESQL_ADVICE = {
    "55P03": "another program has locked it for too long; end that program.",
    "40P01": "two programs waited for each other; try again.",
    "53100": "make room on its disk.",
    _READ_ONLY: "it takes no changes; connect to the primary server.",
    "08P01": "it, or a pooler before it, refuses a parameter of DATABASE_URL; leave it out.",
    "57P03": "it is starting or stopping; try again later.",
}
