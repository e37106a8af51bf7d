"""Retention: what was kept long enough goes, each kind in a transaction of its own.

Knows nothing about when it is called or how people are told.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, RowMapping, Table, delete, func, select, update

from bot.store import audit, faces, holds, people
from bot.store.attempts import LOCK_WINDOW
from bot.store.flows import LONGEST
from bot.store.schema import (
    attempts,
    captures,
    challenges,
    consents,
    enrolments,
    fingerprints,
    flows,
)
from bot.store.schema import audit as audit_table
from bot.store.schema import people as people_table
from bot.store.types import Retention
from bot.store.work import CLOCKS_DIFFER, Work

# Attempts count for this long, whatever their retention.
_ATTEMPTS_COUNT = 2 * LOCK_WINDOW

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
    enrolments.c.since,
    enrolments.c.noticed,
    people_table.c.locked,
)
"""Moments that are never to come."""


async def clock_doubted_until(work: Work, retention: Retention) -> datetime | None:
    """See `Store.erasing_waits`.

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
        await holds.shorten(work, max(timedelta(hours=retention.hold_hours), LOCK_WINDOW))
        return None
    first: datetime | None = (
        await work.connection.execute(select(func.min(at)).where(of_late))
    ).scalar_one()
    # None where the clock was set while this looked at it, so that the new entry is yet to come.
    return (first or now) + _DOUBTED


async def confirm_clock(work: Work) -> None:
    """See `Store.confirm_clock`."""
    await audit.append(work, _CONFIRMED)


async def _any(work: Work, *conditions: ColumnElement[bool]) -> bool:
    query = select(audit_table.c.number).where(*conditions).limit(1)
    return (await work.connection.execute(query)).one_or_none() is not None


async def _forget_what_is_to_come(work: Work, now: datetime) -> None:
    """Set moments that a clock wrote which was ahead to now, the latest that they can have been."""
    latest = now + CLOCKS_DIFFER
    for moment in _PAST:
        await work.connection.execute(
            update(moment.table).where(moment > latest).values({moment: now})
        )
    await work.connection.execute(
        # Not to now: nobody knows when it was.
        update(enrolments).where(enrolments.c.last_used > latest).values(last_used=None)
    )
    await _delete(work, challenges, challenges.c.drawn > latest)


async def old_flows(work: Work) -> int:
    """Delete the flows whose deadline is past; returns how many."""
    now = work.clock()
    over = (flows.c.deadline <= now) | (flows.c.deadline > now + LONGEST)
    return await _delete(work, flows, over)


async def old_challenges(work: Work, retention: Retention) -> int:
    """Delete old challenges; returns how many."""
    age = timedelta(hours=retention.challenges_hours)
    return await _delete(work, challenges, challenges.c.drawn <= work.clock() - age)


async def old_captures(work: Work, retention: Retention) -> int:
    """Delete old captures with their fingerprints; returns how many."""
    old = captures.c.seen <= work.clock() - timedelta(days=retention.captures_days)
    theirs = select(captures.c.id).where(old)
    await _delete(work, fingerprints, fingerprints.c.capture.in_(theirs))
    return await _delete(work, captures, old)


async def old_attempts(work: Work, retention: Retention) -> int:
    """Delete old attempts; returns how many."""
    age = max(timedelta(days=retention.audit_days), _ATTEMPTS_COUNT)
    return await _delete(work, attempts, attempts.c.begun <= work.clock() - age)


async def old_audit(work: Work, retention: Retention) -> int:
    """Prune the audit trail; returns how many entries went."""
    return await audit.prune(work, work.clock() - timedelta(days=retention.audit_days))


async def idle(work: Work, retention: Retention) -> tuple[list[bytes], list[tuple[int, datetime]]]:
    """Codes of people whose templates are to go, and (Telegram id, when) of those to be told."""
    now = work.clock()
    notice = timedelta(days=retention.notice_days)
    leaving, notices = [], []
    used = func.coalesce(enrolments.c.last_used, enrolments.c.since)
    idle_since = now - timedelta(days=retention.idle_days) + notice
    query = select(enrolments).where(used <= idle_since)
    for row in (await work.connection.execute(query)).mappings().all():
        when = faces.deleted_on(row, retention)
        if row["noticed"] is not None:
            if when <= now:
                leaving.append(bytes(row["person"]))
        elif when - notice <= now:
            person = await people.find_by_code(work, row["person"])
            if person is not None:
                notices.append((person.telegram_id, max(when, now + notice)))
    return leaving, notices


async def leave(work: Work, code: bytes, retention: Retention) -> bool:
    """Erase a person whose templates were idle for too long, if they still are."""
    person = await people.find_by_code(work, code)
    row = None if person is None else await faces.row_of(work, person)
    if row is None or row["noticed"] is None or faces.deleted_on(row, retention) > work.clock():
        return False
    await people.erase(work, code)
    await audit.append(work, "left_idle")
    return True


async def claim_notice(work: Work, telegram_id: int, retention: Retention, lease_s: float) -> bool:
    """See `Store.claim_notice`."""
    person = await people.find(work, telegram_id)
    row = None if person is None else await faces.row_of(work, person)
    if row is None or not _is_to_be_noticed(work, row, retention):
        return False
    return await faces.claim_telling(work, row, lease_s)


async def mark_noticed(work: Work, telegram_id: int, retention: Retention) -> None:
    """See `Store.mark_noticed`."""
    person = await people.find(work, telegram_id)
    row = None if person is None else await faces.row_of(work, person)
    if person is None or row is None or not _is_to_be_noticed(work, row, retention):
        return
    await work.connection.execute(
        update(enrolments)
        .where(enrolments.c.person == person.code)
        .values(noticed=work.clock(), claimed=None)
    )
    await audit.append(work, "noticed", person)


def _is_to_be_noticed(work: Work, row: RowMapping, retention: Retention) -> bool:
    """Whether a person is to be told: not if they were, or have used their templates meanwhile."""
    notice = timedelta(days=retention.notice_days)
    return row["noticed"] is None and faces.deleted_on(row, retention) - notice <= work.clock()


async def _delete(work: Work, table: Table, which: ColumnElement[bool]) -> int:
    return (await work.connection.execute(delete(table).where(which))).rowcount
