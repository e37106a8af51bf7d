"""Copies of a SQLite database, and the way back, on which nobody who was erased returns.

A backup has no conversations and no challenges, so that none goes on when it is restored. With
PostgreSQL, `pg_dump` and `pg_restore` make copies, and a `Store` that is told so does the rest.
Knows nothing about what is in the tables beyond their names.
"""

import asyncio
import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from bot.store import tombstones
from bot.store.errors import StoreError
from bot.store.migrate import require_not_newer
from bot.store.store import Store, tombstones_beside, utc_now
from bot.store.types import Ended, Retention
from bot.store.vault import Vault

_RETENTION = Retention()
_BUSY_TIMEOUT_S = 10.0
_SHORT_LIVED = ("flows", "challenges")
_LOG_FILES = ("-wal", "-shm", "-journal")


async def back_up(database: Path | str, destination: Path) -> None:
    """Copy a database, as it is at one moment; whoever uses it may go on.

    Args:
        database: a file of SQLite's; for PostgreSQL's URL it says how else.
        destination: the file to be made, its owner's alone; one that is there already is replaced
            when the copy is whole.

    Raises:
        StoreError: it could not be done; an older copy is left as it was.
    """
    path = _sqlite_only(database, "pg_dump --format=custom --file=BACKUP")
    await asyncio.to_thread(_back_up, path, destination)


async def restore(
    backup: Path,
    database: Path | str,
    vault: Vault,
    *,
    tombstones_file: Path | None = None,
    retention: Retention = _RETENTION,
    clock: Callable[[], datetime] = utc_now,
) -> Ended:
    """Put a backup in a database's place; the bot must not be running.

    What ended since the backup was made ends in it too (`bot.store.restoring`): that is known from
    the database that is replaced, if it can still be read, and from the file beside it. The
    database is replaced at the very end, in one step.

    Args:
        backup: as `back_up` made it.
        database: what it replaces, if it is there; for PostgreSQL's URL it says how else.
        vault: the keys that the backup was made with.
        tombstones_file: the file of the erased, where it is not beside the database.
        retention: how long things are kept.
        clock: the time, in UTC.

    Returns:
        What was ended.

    Raises:
        StoreError: it could not be done; the database is left as it was.
    """
    how = "pg_restore --clean --if-exists, and then: python -m bot db settle"
    path = _sqlite_only(database, how)
    erased = tombstones_beside(path) if tombstones_file is None else tombstones_file
    prepared = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _cleaning_up(prepared), _faults(backup):
        await asyncio.to_thread(_prepare, backup, prepared, path, erased)
        store = Store(
            prepared,
            vault,
            updates_kept=1,
            retention=retention,
            clock=clock,
            tombstones=erased,
            restored=True,
        )
        async with store:
            pass
        await asyncio.to_thread(_put_in_place, prepared, path)
    return store.ended


def _sqlite_only(database: Path | str, instead: str) -> Path:
    if isinstance(database, Path):
        return database
    raise StoreError(f"For a PostgreSQL database use its own tools: {instead}")


def _back_up(database: Path, destination: Path) -> None:
    if not database.exists():
        raise StoreError(f"There is no database {database} to make a backup of.")
    copy = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}")
    with _cleaning_up(copy), _faults(database):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _copy(database, copy)
        with closing(_connect(copy)) as connection:
            _strip(connection)
        _flush(copy)
        copy.replace(destination)
        _flush(destination.parent)


def _prepare(backup: Path, prepared: Path, database: Path, erased: Path) -> None:
    """Make the database that is to be, beside the one that is."""
    if not backup.exists():
        raise StoreError(f"There is no backup {backup}.")
    _copy(backup, prepared)
    with closing(_connect(prepared)) as connection:
        require_not_newer(_revision(connection))
        _strip(connection)
    # What is erased in the database that goes must stay erased in the one that comes.
    with contextlib.suppress(sqlite3.DatabaseError):
        tombstones.add_to_file(erased, _tombstones(database))


def _put_in_place(prepared: Path, database: Path) -> None:
    with closing(_connect(prepared)) as connection:
        _leave_log(connection)
    _flush(prepared)
    if database.exists():
        try:
            with closing(_connect(database)) as connection:
                _leave_log(connection)
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) == sqlite3.SQLITE_BUSY:
                raise StoreError(
                    f"The database {database} is in use: stop the bot, and try again."
                ) from None
            raise
        except sqlite3.DatabaseError:
            pass  # damaged, which is why it is replaced
    # A write-ahead log that is left from the old one must not be taken for the new one's.
    for suffix in _LOG_FILES:
        database.with_name(f"{database.name}{suffix}").unlink(missing_ok=True)
    prepared.replace(database)
    _flush(database.parent)


def _copy(source: Path, target: Path) -> None:
    """Copy what a database is at one moment, and see that it is whole."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(_connect(source)) as old, closing(_connect(target)) as new:
        old.backup(new)
        (found,) = new.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StoreError(f"{source} is damaged: use an older backup.")


def _strip(connection: sqlite3.Connection) -> None:
    """Take out what must not go on later, down to its bytes; one file is left."""
    _leave_log(connection)
    connection.execute("PRAGMA secure_delete = ON")
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for table in _SHORT_LIVED:
        if table in there:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
    connection.commit()
    connection.execute("VACUUM")


def _leave_log(connection: sqlite3.Connection) -> None:
    """Empty the write-ahead log into the database; fails where others have it open."""
    (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    assert mode == "delete"


def _revision(connection: sqlite3.Connection) -> str | None:
    with contextlib.suppress(sqlite3.OperationalError):
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    return None


def _tombstones(database: Path) -> frozenset[bytes]:
    if not database.exists():
        return frozenset()
    with closing(_connect(database)) as connection:
        return frozenset(mark for (mark,) in connection.execute("SELECT mark FROM tombstones"))


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _cleaning_up(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for suffix in ("", *_LOG_FILES):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be copied ({error}): see that it is whole.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be copied ({error.strerror}): mend that.") from None
