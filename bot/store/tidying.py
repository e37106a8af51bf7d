"""Retention: what was kept long enough goes, of each person in a transaction of its own.

Knows nothing about when it is called or how people are told.
"""

import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, RowMapping, Table, delete, func, select, union, update

from bot.store import audit, faces, holds, people, seals
from bot.store.attempts import LOCK_WINDOW
from bot.store.errors import Tampered
from bot.store.flows import LONGEST
from bot.store.limits import LIMITS
from bot.store.rights import to_be_held_until
from bot.store.schema import (
    attempts,
    captures,
    challenges,
    consents,
    contacts,
    enrolments,
    flows,
    invitations,
)
from bot.store.schema import audit as audit_table
from bot.store.schema import people as people_table
from bot.store.work import CLOCKS_DIFFER, Work

ATTEMPTS_COUNT = LIMITS.draw_window + LOCK_WINDOW
"""How long attempts are kept at least, because they count."""

_AWAY = timedelta(days=7)
"""For how long nobody need have seen the clock for what it says to be doubted."""
_DOUBTED = timedelta(days=3)
"""For how long nothing is erased then; time for an operator to read the log."""
_SEEN_EVERY = timedelta(days=1)
_SEEN, _CONFIRMED = "clock_seen", "clock_confirmed"

_PAST = (
    attempts.c.begun,
    attempts.c.ended,
    captures.c.seen,
    consents.c.given,
    contacts.c.since,
    invitations.c.made,
    enrolments.c.since,
    enrolments.c.noticed,
    people_table.c.locked,
    people_table.c.drawn,
)
"""Moments that are never to come."""


async def clock_doubted_until(work: Work) -> datetime | None:
    """Until when nothing should be erased, because the clock may be wrong; to be asked hourly.

    That is where the database has been in use, and not within the week before the last three
    days: either nobody ran the bot, or the clock has leapt. None: the clock is believed, and
    moments of the past that are later than it says are set to now.

    The audit trail is what tells: it has an entry a day, and cannot be written into by others. The
    clock is believed where there is an entry from three to ten days ago, or no other that is older
    or yet to come.
    """
    now = work.clock()
    at = audit_table.c.at
    by_now = at <= now + CLOCKS_DIFFER
    if not await _any(work, by_now, at > now - _SEEN_EVERY):
        await audit.append(work, _SEEN)
    of_late = by_now & (at > now - _DOUBTED)
    before = now - _DOUBTED - _AWAY
    believed = await _any(work, at <= now - _DOUBTED, at > before)
    confirmed = await _any(work, of_late, audit_table.c.event == _CONFIRMED)
    if believed or confirmed or not await _any(work, ~by_now | (at <= before)):
        await _forget_what_is_to_come(work, now)
        await holds.shorten(work, max(timedelta(hours=work.retention.hold_hours), LOCK_WINDOW))
        return None
    first: datetime | None = (
        await work.connection.execute(select(func.min(at)).where(of_late))
    ).scalar_one()
    # None where the clock was set while this looked at it, so that the new entry is yet to come.
    return (first or now) + _DOUBTED


async def confirm_clock(work: Work) -> None:
    """Believe the clock for three days, on an operator's word."""
    await audit.append(work, _CONFIRMED)


async def _any(work: Work, *conditions: ColumnElement[bool]) -> bool:
    query = select(audit_table.c.number).where(*conditions).limit(1)
    return (await work.connection.execute(query)).one_or_none() is not None


async def _forget_what_is_to_come(work: Work, now: datetime) -> None:
    """Set moments that a clock wrote which was ahead to now, the latest that they can have been."""
    latest = now + CLOCKS_DIFFER
    for moment in (*_PAST, enrolments.c.last_used, challenges.c.drawn):
        theirs = select(moment.table.c.person).where(moment > latest).distinct()
        for code in sorted((await work.connection.execute(theirs)).scalars().all()):
            await people.lock(work, code)
            if moment.table is captures:
                await _see(work, code)
    for moment in _PAST:
        await work.connection.execute(
            update(moment.table).where(moment > latest).values({moment: now})
        )
    await work.connection.execute(
        # Not to now: nobody knows when it was.
        update(enrolments).where(enrolments.c.last_used > latest).values(last_used=None)
    )
    await _delete(work, challenges, challenges.c.drawn > latest)


async def with_old(work: Work) -> Sequence[bytes]:
    """Codes of people of whom something was kept long enough."""
    each = [select(table.c.person).where(old) for table, old in _old(work).items()]
    return sorted((await work.connection.execute(union(*each))).scalars().all())


async def drop_old(work: Work, code: bytes) -> Counter[str]:
    """Delete what was kept long enough of a person; returns how many rows of which table."""
    counts = Counter[str]()
    if await people.lock(work, code) is None:
        return counts
    for table, old in _old(work).items():
        if table is captures:
            await _see(work, code)
        counts[table.name] += await _delete(work, table, old & (table.c.person == code))
    return counts


def _old(work: Work) -> dict[Table, ColumnElement[bool]]:
    """Which rows of a person were kept long enough, by table."""
    now = work.clock()
    attempts_age = max(timedelta(days=work.retention.audit_days), ATTEMPTS_COUNT)
    return {
        flows: (flows.c.deadline <= now) | (flows.c.deadline > now + LONGEST),
        challenges: challenges.c.drawn <= now - timedelta(hours=work.retention.challenges_hours),
        # While there is a face, nothing that was sent for it may be sent again.
        captures: (captures.c.seen <= now - timedelta(days=work.retention.captures_days))
        & captures.c.person.not_in(select(enrolments.c.person)),
        attempts: attempts.c.begun <= now - attempts_age,
    }


async def _see(work: Work, code: bytes) -> None:
    """Have a person's captures change; where somebody else has changed them that stays seen."""
    if code in work.changing:
        with contextlib.suppress(Tampered):
            await seals.require(work, code)


async def old_audit(work: Work) -> int:
    """Prune the audit trail; returns how many entries went."""
    return await audit.prune(work, work.clock() - timedelta(days=work.retention.audit_days))


async def idle(work: Work) -> tuple[list[bytes], list[tuple[int, datetime]]]:
    """Codes of people whose templates are to go, and (Telegram id, when) of those to be told."""
    now = work.clock()
    notice = timedelta(days=work.retention.notice_days)
    leaving, notices = [], []
    used = func.coalesce(enrolments.c.last_used, enrolments.c.since)
    idle_since = now - timedelta(days=work.retention.idle_days) + notice
    query = select(enrolments).where(used <= idle_since)
    for row in (await work.connection.execute(query)).mappings().all():
        when = faces.deleted_on(work, row)
        if row["noticed"] is not None:
            if when <= now:
                leaving.append(bytes(row["person"]))
        elif when - notice <= now:
            person = await people.find_by_code(work, row["person"])
            if person is not None:
                notices.append((person.telegram_id, max(when, now + notice)))
    return leaving, notices


async def leave(work: Work, code: bytes) -> bool:
    """Erase a person whose templates were idle for too long, if they still are."""
    person = await people.lock(work, code)
    row = None if person is None else await faces.row_of(work, person)
    if person is None or row is None or row["noticed"] is None:
        return False
    if faces.deleted_on(work, row) > work.clock():
        return False
    if not person.broken:
        # As with /forget: whoever waited for this with somebody's account waits a little longer.
        until = await to_be_held_until(work, person)
        await holds.leave(work, person.telegram_id, until)
    await people.erase(work, code)
    await audit.append(work, "left_idle")
    return True


async def mark_noticed(work: Work, telegram_id: int) -> None:
    """Note that a person was told, or cannot be told, that their templates will go."""
    person = await people.find(work, telegram_id)
    row = None if person is None else await faces.row_of(work, person)
    if person is None or row is None or not _is_to_be_noticed(work, row):
        return
    await work.connection.execute(
        update(enrolments).where(enrolments.c.person == person.code).values(noticed=work.clock())
    )
    await audit.append(work, "noticed", person)


def _is_to_be_noticed(work: Work, row: RowMapping) -> bool:
    """Whether a person is to be told: not if they were, or have used their templates meanwhile."""
    notice = timedelta(days=work.retention.notice_days)
    return row["noticed"] is None and faces.deleted_on(work, row) - notice <= work.clock()


async def _delete(work: Work, table: Table, which: ColumnElement[bool]) -> int:
    return (await work.connection.execute(delete(table).where(which))).rowcount
