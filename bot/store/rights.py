"""What a person may ask about themselves: how they stand, all that is kept, and to be forgotten.

Knows nothing about how the answers are shown.
"""

import secrets
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from bot.store import audit, contacts, faces, flows, holds, people
from bot.store.attempts import failures_count_until
from bot.store.people import StoredPerson
from bot.store.schema import attempts, captures, challenges, consents, preferences
from bot.store.types import Membership, Receipt
from bot.store.work import Work

_RECEIPT_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
_UNTOLD = ("bucket", "reason")


async def membership(work: Work, telegram_id: int) -> Membership | None:
    """How a person stands; None for who is not enrolled."""
    person = await people.find(work, telegram_id)
    row = None if person is None else await faces.row_of(work, person)
    if person is None or row is None:
        return None
    return Membership(
        since=row["since"],
        last_used=row["last_used"],
        embedder=row["embedder"],
        templates=row["templates"],
        deleted_on=faces.deleted_on(work, row),
        locked=person.row["locked"] is not None,
    )


async def export(work: Work, telegram_id: int) -> dict[str, Any]:
    """See `Store.export`; all but the templates.

    Neither scores nor reasons: whoever has the account would learn from them what comes near.
    """
    person = await people.find(work, telegram_id)
    query = select(preferences.c.language)
    query = query.where(preferences.c.person == work.vault.code(telegram_id))
    exported: dict[str, Any] = {
        "language": (await work.connection.execute(query)).scalar_one_or_none(),
        "enrolled": None,
        "consents": [],
        "recovery_code": False,
        "reset_due": None,
        "held_until": _text(await holds.until(work, telegram_id)),
        "contact": None,
        "told_of": await contacts.count(work, telegram_id),
        "flow": None,
        "attempts": [],
        "challenges": 0,
        "captures": {"count": 0, "first": None, "last": None},
        "audit": [],
    }
    if person is None:
        return exported
    flow = await flows.read(work, telegram_id)
    contact = await contacts.of(work, person)
    exported |= {
        "enrolled": await _enrolled(work, telegram_id),
        "consents": await _consents(work, person),
        "recovery_code": person.row["recovery"] is not None,
        "reset_due": _text(person.row["reset_due"]),
        # Not which account: whoever has this one would learn whom to get out of the way.
        "contact": contact and {"since": _text(contact.since), "ends": _text(contact.ends)},
        "flow": flow and {"kind": flow.kind.value, "deadline": _text(flow.deadline)},
        "attempts": await _attempts(work, person),
        "challenges": await _challenges(work, person),
        "captures": await _captures(work, person),
        "audit": [
            {name: value for name, value in entry.items() if name not in _UNTOLD}
            for entry in await audit.of_person(work, person)
        ],
    }
    return exported


async def forget(work: Work, telegram_id: int) -> Receipt:
    """See `Store.forget`."""
    code = work.vault.code(telegram_id)
    # Neither opened nor checked: who is to be forgotten is forgotten even when a key is lost, or
    # somebody has changed their rows.
    person = await people.lock(work, code)
    held_until = await holds.until(work, telegram_id)
    if person is not None and await faces.row_of(work, person) is not None:
        held_until = await to_be_held_until(work, person)
        await holds.leave(work, telegram_id, held_until)
    left = await contacts.leave(work, telegram_id)
    await contacts.drop_mark(work, telegram_id)
    contact = None if person is None else await contacts.readable(work, person)
    counts = await people.erase(work, code)
    receipt = Receipt(_new_number(), work.clock(), counts, held_until, contact, left)
    await audit.append(work, "forgotten", receipt=receipt.number)
    return receipt


async def to_be_held_until(work: Work, person: StoredPerson) -> datetime:
    """Not before their failures count no more: they are erased, and must not be so for free."""
    until = work.clock() + timedelta(hours=work.retention.hold_hours)
    return max(until, await failures_count_until(work, person) or until)


async def note_export(work: Work, telegram_id: int) -> None:
    """Write down that a person was given all that is kept about them."""
    person = await people.find(work, telegram_id)
    if person is not None:
        await audit.append(work, "exported", person)


def _new_number() -> str:
    letters = "".join(secrets.choice(_RECEIPT_LETTERS) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


async def _enrolled(work: Work, telegram_id: int) -> dict[str, Any] | None:
    stands = await membership(work, telegram_id)
    if stands is None:
        return None
    return {
        "since": _text(stands.since),
        "last_used": _text(stands.last_used),
        "embedder": stands.embedder,
        "templates": stands.templates,
        "deleted_on": _text(stands.deleted_on),
        "locked": stands.locked,
    }


async def _consents(work: Work, person: StoredPerson) -> list[dict[str, Any]]:
    query = select(consents).where(consents.c.person == person.code).order_by(consents.c.id)
    return [
        {"version": row.version, "language": row.language, "given": _text(row.given)}
        for row in (await work.connection.execute(query)).all()
    ]


async def _attempts(work: Work, person: StoredPerson) -> list[dict[str, Any]]:
    query = select(attempts).where(attempts.c.person == person.code).order_by(attempts.c.id)
    return [
        {
            "level": row.level,
            "outcome": row.outcome,
            "begun": _text(row.begun),
            "ended": _text(row.ended),
        }
        for row in (await work.connection.execute(query)).all()
    ]


async def _challenges(work: Work, person: StoredPerson) -> int:
    query = select(func.count()).where(challenges.c.person == person.code)
    return (await work.connection.execute(query)).scalar_one()


async def _captures(work: Work, person: StoredPerson) -> dict[str, Any]:
    query = select(func.count(), func.min(captures.c.seen), func.max(captures.c.seen))
    query = query.where(captures.c.person == person.code)
    count, first, last = (await work.connection.execute(query)).one()
    return {"count": count, "first": _text(first), "last": _text(last)}
