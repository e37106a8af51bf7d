"""Marks of what is over though the person stays: a face, a code, a contact, a lock or its end.

They stand among the tombstones, so that a restored backup, which has a face that was replaced since
or a code that was used, does not bring it back (`bot.store.tombstones` sees to that). They follow
from the mark of the person's row, which is in every copy of it, and are keyed: without the key of
the ids they say nothing about what or whose they are. Knows nothing about backups.
"""

from sqlalchemy import select

from bot.store.database import insert_of
from bot.store.schema import tombstones
from bot.store.work import Work


def of_face(work: Work, person_mark: bytes, enrolments: int) -> bytes:
    """The mark of a person's face that is not in force any more.

    Args:
        work: has the keys.
        person_mark: of their row in `people`.
        enrolments: how often they had enrolled then.
    """
    return work.vault.mark("ended face", person_mark + str(enrolments).encode())


def of_code(work: Work, person_mark: bytes, digest: bytes) -> bytes:
    """The mark of a recovery code that is not good any more, by its salt and hash."""
    return work.vault.mark("ended code", person_mark + digest)


def of_contact(work: Work, person_mark: bytes, number: int) -> bytes:
    """The mark of another account that is not told any more, by its `Contact.id`."""
    return work.vault.mark("ended contact", person_mark + str(number).encode())


async def note(work: Work, mark: bytes) -> None:
    """Remember a mark, in the transaction in which what it is of ends."""
    statement = insert_of(work.connection, tombstones).values(mark=mark)
    await work.connection.execute(statement.on_conflict_do_nothing())


async def is_noted(work: Work, mark: bytes) -> bool:
    """Whether a mark is remembered."""
    query = select(tombstones.c.mark).where(tombstones.c.mark == mark)
    return (await work.connection.execute(query)).one_or_none() is not None


async def note_lock(work: Work, person_mark: bytes, *, locked: bool) -> None:
    """Remember that a person is locked, or is not any more."""
    number = 0
    while await is_noted(work, _of_lock(work, person_mark, number, locked=False)):
        number += 1
    if locked != await is_noted(work, _of_lock(work, person_mark, number, locked=True)):
        await note(work, _of_lock(work, person_mark, number, locked=locked))


def is_locked(work: Work, known: frozenset[bytes], person_mark: bytes) -> bool:
    """Whether a person is locked, by all marks that are remembered."""
    number = 0
    while _of_lock(work, person_mark, number, locked=False) in known:
        number += 1
    return _of_lock(work, person_mark, number, locked=True) in known


def _of_lock(work: Work, person_mark: bytes, number: int, *, locked: bool) -> bytes:
    purpose = "lock" if locked else "ended lock"
    return work.vault.mark(purpose, person_mark + str(number).encode())
