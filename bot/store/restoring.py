"""What becomes of a database that came from a backup: what ended since it was made stays ended.

That is told by the tombstones, which are in a file too. Whoever was erased is erased again, and may
not enroll for a while; a face that was replaced, a recovery code that was used, and a contact who
is not told any more go; a lock that was in force is in force. Failed attempts since the backup are
forgotten. Knows nothing about how backups are made.
"""

import contextlib
import dataclasses
from collections import Counter
from datetime import timedelta

from sqlalchemy import delete, or_, select, update

from bot.store import audit, endings, faces, holds, people, seals, tombstones
from bot.store.errors import StoreError
from bot.store.people import StoredPerson
from bot.store.schema import challenges, contacts, enrolments, flows, preferences, templates
from bot.store.schema import people as people_table
from bot.store.schema import tombstones as tombstones_table
from bot.store.types import Ended
from bot.store.work import Work


async def end(work: Work, marks: frozenset[bytes], *, restored: bool) -> Ended:
    """End what must not go on; to be called at every start.

    Args:
        work: a transaction that writes.
        marks: what the file of the tombstones has.
        restored: whether the operator says that the database came from a backup: then nothing that
            was under way goes on, and rows without seals, of an older version, are sealed.
    """
    if restored:
        await seals.seal_unsealed(work)
    waits = await _end_what_is_under_way(work) if restored else 0
    news = await tombstones.add(work, marks)
    if not news and not restored:
        return Ended(erased=await _erase(work))
    known = await tombstones.read(work)
    told_of = dict((await work.connection.execute(select(contacts.c.person, contacts.c.id))).all())
    ended: Counter[str] = Counter()
    rows = (await work.connection.execute(select(people_table))).mappings().all()
    for row in rows:
        found = StoredPerson(row, work.vault)
        if found.mark not in known:
            over = _over(work, found, told_of.get(found.code), known)
            ended.update(over)
            await _end_of(work, found, over, known)
    told = Ended(erased=await _erase(work), waits=waits, **ended)
    if restored or told != Ended():
        counts = dataclasses.asdict(told)
        del counts["erased"]  # it has an entry of its own
        await audit.append(work, "restored", **counts)
    return told


def _over(
    work: Work, found: StoredPerson, contact: int | None, known: frozenset[bytes]
) -> frozenset[str]:
    """What of a person's ended since the backup was made, by the fields of `Ended`."""
    row, mark, recovery = found.row, found.mark, found.recovery
    checks = {
        "faces": endings.of_face(work, mark, row["enrolments"]) in known,
        "codes": recovery is not None and endings.of_code(work, mark, recovery) in known,
        "locks": row["locked"] is None and endings.is_locked(work, known, mark),
        "contacts": contact is not None and endings.of_contact(work, mark, contact) in known,
    }
    return frozenset(name for name, is_over in checks.items() if is_over)


async def _end_of(
    work: Work, found: StoredPerson, over: frozenset[str], known: frozenset[bytes]
) -> None:
    person = await people.lock(work, found.code) if over else None
    if person is None:
        return
    if "faces" in over:
        await _end_face(work, person, known)
    if "codes" in over:
        await people.set_recovery(work, person, None)
    if "locks" in over:
        await people.change(work, person, locked=work.clock(), locked_by=None)
    if "contacts" in over:
        await work.connection.execute(delete(contacts).where(contacts.c.person == person.code))


async def _end_what_is_under_way(work: Work) -> int:
    """End all conversations, challenges and waits; returns how many waits.

    A backup lacks the first two, so that they are left out where seals are checked.
    """
    for table in (flows, challenges):
        await work.connection.execute(delete(table))
    waits = 0
    under_way = [people_table.c.heads.contains(f'"{each.name}"') for each in seals.SHORT_LIVED]
    query = select(people_table).where(or_(*under_way, people_table.c.reset_due.is_not(None)))
    kept = [table for table in seals.USUAL if table not in seals.SHORT_LIVED]
    for row in (await work.connection.execute(query.with_for_update())).mappings().all():
        if not await seals.broken(work, row, kept):
            work.changing.setdefault(bytes(row["person"]), set())
        waits += row["reset_due"] is not None
    await work.connection.execute(update(people_table).values(reset_due=None))
    return waits


async def _end_face(work: Work, person: StoredPerson, known: frozenset[bytes]) -> None:
    """Delete a person's face; the next one has a number that none had before."""
    for table in (templates, enrolments):
        await work.connection.execute(delete(table).where(table.c.person == person.code))
    number = person.row["enrolments"]
    while endings.of_face(work, person.mark, number) in known:
        number += 1
    await people.change(work, person, enrolments=number)


async def _erase(work: Work) -> int:
    """Erase what has a tombstone; returns how many rows."""
    marked = select(tombstones_table.c.mark)
    query = select(people_table.c.person).where(people_table.c.mark.in_(marked))
    for code in (await work.connection.execute(query)).scalars().all():
        person = await people.lock(work, code)
        if person is not None and await faces.row_of(work, person) is not None:
            with contextlib.suppress(StoreError):  # whoever cannot be read has nothing to lose
                until = work.clock() + timedelta(hours=work.retention.hold_hours)
                await holds.leave(work, person.telegram_id, until)
    erased = 0
    for table in (people_table, preferences):
        result = await work.connection.execute(delete(table).where(table.c.mark.in_(marked)))
        erased += result.rowcount
    if erased:
        await audit.append(work, "erased_again", rows=erased)
    return erased
