"""What becomes of a database that came from a backup: what ended since it was made stays ended.

That is told by the tombstones, which are in a file too. Whoever was erased is erased again, and may
not enroll for a while; a face that was replaced or a recovery code that was used goes; a lock that
was in force is in force. Failed attempts since the backup are forgotten. Knows nothing about how
backups are made.
"""

import contextlib
from datetime import timedelta

from sqlalchemy import delete, or_, select, update

from bot.store import audit, endings, faces, holds, people, seals, tombstones
from bot.store.errors import StoreError
from bot.store.people import Person
from bot.store.schema import challenges, enrolments, flows, preferences, templates
from bot.store.schema import people as people_table
from bot.store.schema import tombstones as tombstones_table
from bot.store.types import Ended, Retention
from bot.store.work import Work


async def end(
    work: Work, marks: frozenset[bytes], retention: Retention, *, restored: bool
) -> Ended:
    """End what must not go on; to be called at every start.

    Args:
        work: a transaction that writes.
        marks: what the file of the tombstones has.
        retention: how long things are kept.
        restored: whether the operator says that the database came from a backup: then nothing that
            was under way goes on, and rows without seals, of an older version, are sealed.
    """
    if restored:
        await seals.seal_unsealed(work)
    waits = await _end_what_is_under_way(work) if restored else 0
    news = await tombstones.add(work, marks)
    if not news and not restored:
        return Ended(erased=await _erase(work, retention))
    known = await tombstones.read(work)
    ended = [0, 0, 0]
    rows = (await work.connection.execute(select(people_table))).mappings().all()
    for row in rows:
        found = Person(row, work.vault)
        if found.mark in known:
            continue
        face = endings.of_face(work, found.mark, row["enrolments"]) in known
        code = found.recovery is not None and (
            endings.of_code(work, found.mark, found.recovery) in known
        )
        locked = row["locked"] is None and endings.is_locked(work, known, found.mark)
        if not (face or code or locked):
            continue
        person = await people.lock(work, found.code)
        assert person is not None
        if face:
            ended[0] += await _end_face(work, person, known)
        if code:
            await people.set_recovery(work, person, None)
        if locked:
            await people.change(work, person, locked=work.clock(), locked_by=None)
        ended[1] += code
        ended[2] += locked
    faces_ended, codes, locks = ended
    told = Ended(await _erase(work, retention), faces_ended, codes, locks, waits)
    if restored or told != Ended():
        await audit.append(
            work, "restored", faces=told.faces, codes=told.codes, locks=told.locks, waits=waits
        )
    return told


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


async def _end_face(work: Work, person: Person, known: frozenset[bytes]) -> bool:
    """Delete a person's face; the next one has a number that none had before."""
    for table in (templates, enrolments):
        result = await work.connection.execute(delete(table).where(table.c.person == person.code))
    number = person.row["enrolments"]
    while endings.of_face(work, person.mark, number) in known:
        number += 1
    await people.change(work, person, enrolments=number)
    return result.rowcount == 1


async def _erase(work: Work, retention: Retention) -> int:
    """Erase what has a tombstone; returns how many rows."""
    marked = select(tombstones_table.c.mark)
    query = select(people_table.c.person).where(people_table.c.mark.in_(marked))
    for code in (await work.connection.execute(query)).scalars().all():
        person = await people.lock(work, code)
        if person is not None and await faces.row_of(work, person) is not None:
            with contextlib.suppress(StoreError):  # whoever cannot be read has nothing to lose
                until = work.clock() + timedelta(hours=retention.hold_hours)
                await holds.leave(work, person.telegram_id, until)
    erased = 0
    for table in (people_table, preferences):
        result = await work.connection.execute(delete(table).where(table.c.mark.in_(marked)))
        erased += result.rowcount
    if erased:
        await audit.append(work, "erased_again", rows=erased)
    return erased
