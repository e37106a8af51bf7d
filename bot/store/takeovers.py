"""When another embedder takes over from the one that people are enrolled with.

The date is in the database, so that every start goes by the same one. Knows nothing about which
bundles there are or how people are told.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update

from bot.store import audit, faces, people, seals
from bot.store.database import insert_of
from bot.store.schema import audit as audit_table
from bot.store.schema import enrolments, takeover
from bot.store.types import Takeover
from bot.store.work import CLOCKS_DIFFER, Work

_ONLY = 1
"""Number of the only row."""
_PLANNED = "takeover_planned"


async def enrolled(work: Work) -> dict[str, int]:
    """How many people are enrolled with each embedder, by its id."""
    query = select(enrolments.c.embedder, func.count()).group_by(enrolments.c.embedder)
    rows = (await work.connection.execute(query)).all()
    return {row[0]: row[1] for row in rows}


async def plan(work: Work, embedder: str, replaces: str, *, notice_days: float) -> Takeover:
    """When an embedder takes over from another one: noted once, for every replica.

    It takes over at once where nobody is enrolled with the other one, or fewer people than are
    with this one already.

    Args:
        work: a transaction.
        embedder: id of the one that takes over.
        replaces: id of the other one.
        notice_days: how long people who are enrolled with the other one are told before; 0 ends
            a wait that was noted, too.
    """
    counts = await enrolled(work)
    affected = counts.get(replaces, 0)
    now = work.clock()
    # Whom most people are enrolled with already has no need to wait for the others.
    waits = affected > 0 and affected >= counts.get(embedder, 0)
    values: dict[str, Any] = {
        "embedder": embedder,
        "replaces": replaces,
        "due": now + timedelta(days=notice_days) if waits else now,
    }
    values["seal"] = seals.of_row(work, takeover, {"id": _ONLY, **values})
    # Of replicas that begin together one makes the row; the others wait for it here, and read it.
    statement = insert_of(work.connection, takeover).values(id=_ONLY, **values)
    made = await work.connection.execute(statement.on_conflict_do_nothing())
    found = await work.connection.execute(select(takeover).with_for_update())
    row = found.mappings().one()
    changed = made.rowcount == 1
    # A date that somebody else has written is no date: the wait begins anew.
    the_same = seals.is_whole(work, takeover, row)
    the_same &= (row["embedder"], row["replaces"]) == (embedder, replaces)
    if the_same and not await _is_yet_to_come(work, now):
        values["due"] = row["due"] if notice_days or row["due"] <= now else now
        values["seal"] = seals.of_row(work, takeover, {"id": _ONLY, **values})
    if {**row} != {"id": _ONLY, **values}:
        await work.connection.execute(update(takeover).values(values))
        changed = True
    due: datetime = values["due"]
    if changed:
        await audit.append(
            work, _PLANNED, embedder=embedder, replaces=replaces, due=due.isoformat()
        )
    return Takeover(due=due, left=max(timedelta(0), due - now), people=affected)


async def _is_yet_to_come(work: Work, now: datetime) -> bool:
    """Whether the date was noted later than now, by a clock that was ahead: the wait is longer."""
    query = select(audit_table.c.at).where(audit_table.c.event == _PLANNED)
    newest = query.order_by(audit_table.c.number.desc()).limit(1)
    noted = (await work.connection.execute(newest)).scalar_one_or_none()
    return noted is not None and noted > now + CLOCKS_DIFFER


async def withdraw(work: Work) -> bool:
    """Take `plan_takeover` back; whether there was one."""
    if (await work.connection.execute(delete(takeover))).rowcount == 0:
        return False
    await audit.append(work, "takeover_withdrawn")
    return True


async def notices(work: Work) -> Sequence[tuple[int, datetime]]:
    """(Telegram id, when) of those to be told that an embedder takes over from theirs."""
    query = (
        select(enrolments.c.person, takeover.c.due)
        .join(takeover, takeover.c.replaces == enrolments.c.embedder)
        .where(
            takeover.c.due > work.clock(),
            or_(enrolments.c.announced.is_(None), enrolments.c.announced != takeover.c.due),
        )
    )
    found = []
    for code, due in (await work.connection.execute(query)).all():
        person = await people.find_by_code(work, code)
        if person is not None:
            found.append((person.telegram_id, due))
    return found


async def mark_announced(work: Work, telegram_id: int, due: datetime) -> None:
    """Note that a person was told, or cannot be told, of a takeover's date."""
    person = await people.find(work, telegram_id)
    if person is None or await faces.row_of(work, person) is None:
        return
    await work.connection.execute(
        update(enrolments).where(enrolments.c.person == person.code).values(announced=due)
    )
    await audit.append(work, "takeover_announced", person, due=due.isoformat())
