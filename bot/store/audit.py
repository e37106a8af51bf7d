"""The audit trail: what happened to whom, in a chain that shows where it was tampered with.

Each entry's link is an HMAC, under a key that comes from the key of the ids, of the link before it
and of the entry: who can write to the database but lacks the key cannot make links. Entries are
only added; pruning moves the anchor, from which the chain is then checked, and the database's own
triggers refuse everything else. Anchor and end have a seal (`bot.store.seals`), so that the chain
is not cut short either. Whom an entry is about is a code that comes from the person's
secret: when that is erased, the chain stays whole and nobody can tell any more. Knows nothing about
what the events mean.
"""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, delete, func, select, update

from bot.store import seals
from bot.store.errors import Tampered
from bot.store.people import StoredPerson
from bot.store.schema import Instant, audit, audit_ends
from bot.store.work import Work

_BATCH = 1000


async def append(work: Work, event: str, person: StoredPerson | None = None, **detail: Any) -> None:
    """Add an entry; the chain's end stays locked until the transaction ends.

    Args:
        work: a transaction that writes; its person, if any, is locked already.
        event: a code.
        person: whom it is about.
        detail: JSON-able facts; nothing that tells who the person is, and no score.

    Raises:
        Tampered: the chain's ends are missing, or were changed without the key.
    """
    ends = await _ends(work)
    entry = {
        "number": ends["last"] + 1,
        "at": work.clock(),
        "subject": None if person is None else person.subject,
        "event": event,
        "detail": json.dumps(detail, sort_keys=True, separators=(",", ":")),
    }
    link = _link(work, ends["last_link"], **entry)
    await work.connection.execute(audit.insert().values(link=link, **entry))
    await _move(work, ends, last=entry["number"], last_link=link)


async def check(work: Work) -> int | None:
    """Number of the first entry that is changed, missing, or not one of ours; None: none is."""
    ends = (await work.connection.execute(select(audit_ends))).mappings().one_or_none()
    if ends is None:
        return 1
    number: int = ends["anchor"]
    link = bytes(ends["anchor_link"])
    while True:
        query = select(audit).where(audit.c.number > number).order_by(audit.c.number).limit(_BATCH)
        rows = (await work.connection.execute(query)).all()
        for row in rows:
            number += 1
            expected = _link(work, link, number, row.at, row.subject, row.event, row.detail)
            if row.number != number or bytes(row.link) != expected:
                return number
            link = expected
        if len(rows) < _BATCH:
            break
    if (number, link) != (ends["last"], bytes(ends["last_link"])):
        return number + 1 if number < ends["last"] else number
    # Whoever cuts the chain short moves its end, for which they have no seal.
    return None if seals.is_whole(work, audit_ends, ends) else number + 1


async def prune(work: Work, before: datetime) -> int:
    """Delete the entries up to a time, and say so in a new one; returns how many."""
    ends = await _ends(work)
    now = work.clock()
    kept = select(func.min(audit.c.number)).where(audit.c.at > before)
    # One that is yet to come is of a clock that was ahead, and as old as those beside it.
    first_kept = (await work.connection.execute(kept.where(audit.c.at <= now))).scalar_one()
    if first_kept is None:
        first_kept = (await work.connection.execute(kept)).scalar_one()
    anchor = ends["last"] if first_kept is None else first_kept - 1
    if anchor <= ends["anchor"]:
        return 0
    query = select(audit.c.link).where(audit.c.number == anchor)
    link = (await work.connection.execute(query)).scalar_one()
    await _move(work, ends, anchor=anchor, anchor_link=link)
    result = await work.connection.execute(delete(audit).where(audit.c.number <= anchor))
    await append(work, "pruned", entries=result.rowcount)
    return result.rowcount


async def of_person(work: Work, person: StoredPerson) -> list[dict[str, Any]]:
    """A person's entries, JSON-able, oldest first."""
    query = select(audit).where(audit.c.subject == person.subject).order_by(audit.c.number)
    return [
        {"at": row.at.isoformat(), "event": row.event, **json.loads(row.detail)}
        for row in (await work.connection.execute(query)).all()
    ]


async def _ends(work: Work) -> RowMapping:
    """The chain's ends, locked where the transaction writes."""
    query = select(audit_ends)
    if work.writes:
        query = query.with_for_update()
    row = (await work.connection.execute(query)).mappings().one_or_none()
    if row is None or not seals.is_whole(work, audit_ends, row):
        raise Tampered(None, (audit_ends.name,))
    return row


async def _move(work: Work, ends: RowMapping, **values: Any) -> None:
    values["seal"] = seals.of_row(work, audit_ends, {**ends, **values})
    await work.connection.execute(update(audit_ends).values(values))


def _link(
    work: Work,
    before: bytes,
    number: int,
    at: datetime,
    subject: bytes | None,
    event: str,
    detail: str,
) -> bytes:
    moment = Instant().process_bind_param(at, work.connection.dialect)
    whom = None if subject is None else bytes(subject).hex()
    entry = json.dumps([number, moment, whom, event, detail], separators=(",", ":"))
    return work.vault.mark("audit", bytes(before) + entry.encode())
