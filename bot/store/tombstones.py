"""Marks of what was erased, so that a restored backup does not bring it back.

Every row that says something of a person has a random mark, which is in every copy of the row and
says nothing about whom it is about. Erasing leaves the mark in the table `tombstones`, and in a
file beside the database: the table is lost when an older database takes its place, by whatever
means, and the file is not. At every start each learns what only the other knows, and what has a
tombstone is erased (`bot.store.restoring`). There are marks of what ended while its person stayed
(`bot.store.endings`), and one that says that no row is without a seal any more (`bot.store.seals`).
With PostgreSQL the file is wherever the store's `tombstones` says; each replica has its own, and
learns from the table what the others erased. Knows nothing about people.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select

from bot.store.database import insert_of
from bot.store.schema import tombstones
from bot.store.work import Work

_LINE = re.compile(r"[0-9a-f]{64}")


def read_file(path: Path) -> frozenset[bytes]:
    """The marks in a file; none where there is no file.

    Raises:
        OSError: it cannot be read.
    """
    try:
        lines = path.read_text("ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return frozenset()
    # A line that a power cut tore is in the table, whole.
    return frozenset(bytes.fromhex(line) for line in lines if _LINE.fullmatch(line))


def add_to_file(path: Path, marks: Iterable[bytes]) -> None:
    """Add those marks to a file that it lacks.

    Raises:
        OSError: it cannot be written.
    """
    new = sorted(set(marks) - read_file(path))
    if not new:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        # Begins with an end of line, in case that the last one was torn; written as one.
        file.write(b"\n" + b"".join(f"{mark.hex()}\n".encode() for mark in new))
        file.flush()
        os.fsync(file.fileno())


async def read(work: Work) -> frozenset[bytes]:
    """The marks in the table."""
    marks = (await work.connection.execute(select(tombstones.c.mark))).scalars()
    return frozenset(bytes(mark) for mark in marks)


async def add(work: Work, marks: Iterable[bytes]) -> bool:
    """Add marks to the table; whether there were any that it lacked."""
    new = set(marks) - await read(work)
    for mark in new:
        statement = insert_of(work.connection, tombstones).values(mark=mark)
        await work.connection.execute(statement.on_conflict_do_nothing())
    return bool(new)
