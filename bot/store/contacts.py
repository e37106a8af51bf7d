"""The other Telegram account that is told when something happens to a person's login.

It is named by a link that is good once and for a short while, and counts only after it has said
yes itself: nobody is written to who did not open the link. Knows nothing about what is told.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, func, select, update

from bot.store import audit, endings, faces, people, resets
from bot.store.errors import StoreError
from bot.store.people import StoredPerson
from bot.store.schema import contacts, invitations
from bot.store.types import Contact
from bot.store.work import Work

LINK_LIVES = timedelta(minutes=15)
"""For how long a link is good, and may be answered."""
LINKS_A_DAY = 5
_DAY = timedelta(days=1)
_CODE_BYTES = 16


async def invite(work: Work, telegram_id: int) -> str | None:
    """A code for a link by which another account may become a person's contact.

    It is good for `contacts.LINK_LIVES`, once, until there is a newer one.

    Returns:
        It, of which only a keyed hash is kept; None where the person is not enrolled, has a
        contact, or made as many links today as there may be.
    """
    person = await people.find(work, telegram_id)
    if person is None or await faces.row_of(work, person) is None:
        return None
    if await of(work, person) is not None:
        return None
    now = work.clock()
    theirs = invitations.c.person == person.code
    query = select(func.count()).where(theirs, invitations.c.made > now - _DAY)
    if (await work.connection.execute(query)).scalar_one() >= LINKS_A_DAY:
        return None
    code = secrets.token_urlsafe(_CODE_BYTES)
    await work.connection.execute(
        update(invitations).where(theirs).values(spent=now, opener=None)  # older ones are over
    )
    await work.connection.execute(
        invitations.insert().values(mark=_link_mark(work, code), person=person.code, made=now)
    )
    await audit.append(work, "contact_invited", person)
    return code


async def open_link(work: Work, code: str, telegram_id: int) -> int | None:
    """Use a link up: nobody but this account may answer it now; whose it is, or None.

    Who made it may open it, and it stays good.

    Args:
        work: a transaction.
        code: as `invite_contact` gave it.
        telegram_id: who opened it.
    """
    person = await _inviting(work, code, invitations.c.spent.is_(None))
    if person is None:
        return None
    if work.vault.code(telegram_id) != person.code:  # who made it may look, and it stays good
        await work.connection.execute(
            update(invitations)
            .where(invitations.c.mark == _link_mark(work, code))
            .values(spent=work.clock(), opener=_mark(work, telegram_id))
        )
    return person.telegram_id


async def answer(work: Work, code: str, telegram_id: int, language: str | None) -> int | None:
    """Answer a link that this account opened.

    Args:
        work: a transaction.
        code: as it was opened.
        telegram_id: who opened it.
        language: to be written to in; None declines.

    Returns:
        Whose it is, or None where it is too late.
    """
    person = await _inviting(work, code, invitations.c.opener == _mark(work, telegram_id))
    if person is None:
        return None
    await work.connection.execute(
        update(invitations).where(invitations.c.mark == _link_mark(work, code)).values(opener=None)
    )
    if language is None:
        return person.telegram_id
    if await of(work, person) is not None:
        return None
    await _delete(work, person)
    await work.connection.execute(
        contacts.insert().values(
            person=person.code,
            id=secrets.randbits(63),
            address=person.key.seal(str(telegram_id).encode(), "contacts", "address"),
            mark=_mark(work, telegram_id),
            language=language,
            since=work.clock(),
        )
    )
    await audit.append(work, "contact_confirmed", person)
    return person.telegram_id


async def read(work: Work, telegram_id: int) -> Contact | None:
    """The other account that is told of what happens to a person's login, if there is one."""
    person = await people.find(work, telegram_id)
    return None if person is None else await of(work, person)


async def of(work: Work, person: StoredPerson) -> Contact | None:
    """A person's contact, unless its time is over."""
    row = await _row(work, contacts.c.person == person.code)
    if row is None or (row.ends is not None and row.ends <= work.clock()):
        return None
    other = int(person.key.open(row.address, "contacts", "address"))
    return Contact(row.id, other, row.language, row.since, row.ends)


async def readable(work: Work, person: StoredPerson) -> Contact | None:
    """As `of`; None, too, where a key is lost: who is to be forgotten is forgotten even then."""
    try:
        return await of(work, person)
    except StoreError:
        return None


async def end_later(work: Work, telegram_id: int, *, delay_s: float) -> datetime | None:
    """End it after a delay; returns when. One that was noted before keeps its time."""
    person = await people.find(work, telegram_id)
    contact = None if person is None else await of(work, person)
    if person is None or contact is None:
        return None
    ends = work.clock() + timedelta(seconds=delay_s)
    if contact.ends is not None:
        ends = min(ends, contact.ends)
    await work.connection.execute(
        update(contacts).where(contacts.c.person == person.code).values(ends=ends)
    )
    await audit.append(work, "contact_ending", person, due=ends.isoformat())
    return ends


async def keep(work: Work, telegram_id: int) -> bool:
    """Take `end_contact_later` back; whether it was under way."""
    person = await people.find(work, telegram_id)
    return person is not None and await _keep(work, person)


async def end(work: Work, telegram_id: int) -> Contact | None:
    """End it at once, by a right to that; the contact that it was, if there was one."""
    person = await people.find(work, telegram_id)
    contact = None if person is None else await of(work, person)
    if person is not None and contact is not None:
        await _delete(work, person)
        await audit.append(work, "contact_ended", person)
    return contact


async def stop(work: Work, telegram_id: int, number: int) -> int | None:
    """On a contact's word, end the wait for another face, and that for their own end.

    Args:
        work: a transaction.
        telegram_id: the contact's.
        number: `Contact.id`.

    Returns:
        Whose waits they were; None where there were none, or it is nobody's contact.
    """
    for person in await _told_of(work, telegram_id, contacts.c.id == number):
        stopped = await resets.end(work, person), await _keep(work, person)
        return person.telegram_id if any(stopped) else None
    return None


async def count(work: Work, telegram_id: int) -> int:
    """Of how many people an account is the contact."""
    lasts = contacts.c.ends.is_(None) | (contacts.c.ends > work.clock())
    query = select(func.count()).where(contacts.c.mark == _mark(work, telegram_id), lasts)
    return (await work.connection.execute(query)).scalar_one()


async def leave(work: Work, telegram_id: int, number: int | None = None) -> tuple[int, ...]:
    """End it on the contact's own word: of one person, or of all; returns of whom."""
    which = contacts.c.id == number if number is not None else contacts.c.id.is_not(None)
    left = []
    for person in await _told_of(work, telegram_id, which):
        try:
            left.append(person.telegram_id)
            await audit.append(work, "contact_left", person)
        except StoreError:
            pass  # their key is lost: they cannot be told, and it ends all the same
        await _delete(work, person)
    return tuple(left)


async def drop_mark(work: Work, telegram_id: int) -> None:
    """Let an account that opened a link, and has said nothing yet, be known to no link any more."""
    opened = invitations.c.opener == _mark(work, telegram_id)
    for code in await _people_of(work, invitations, opened):
        if await people.lock(work, code) is not None:
            theirs = opened & (invitations.c.person == code)
            await work.connection.execute(update(invitations).where(theirs).values(opener=None))


async def drop_old(work: Work) -> int:
    """Delete contacts whose time is over, and links that count no more; returns how many."""
    now = work.clock()
    dropped = 0
    old = invitations.c.made <= now - _DAY
    for code in await _people_of(work, invitations, old):
        if await people.lock(work, code) is not None:
            theirs = delete(invitations).where(old, invitations.c.person == code)
            dropped += (await work.connection.execute(theirs)).rowcount
    over = contacts.c.ends <= now
    for code in await _people_of(work, contacts, over):
        person = await people.lock(work, code)
        if person is not None:
            dropped += await _delete(work, person, over)
    return dropped


async def _delete(
    work: Work, person: StoredPerson, which: ColumnElement[bool] | None = None
) -> int:
    """Delete a locked person's contact, and remember that it ended; returns how many rows."""
    theirs = contacts.c.person == person.code
    if which is not None:
        theirs &= which
    query = delete(contacts).where(theirs).returning(contacts.c.id)
    numbers = (await work.connection.execute(query)).scalars().all()
    for number in numbers:
        await endings.note(work, endings.of_contact(work, person.mark, number))
    return len(numbers)


async def _people_of(work: Work, table: Table, which: ColumnElement[bool]) -> Sequence[bytes]:
    """Codes of the people with such rows, in their order."""
    query = select(table.c.person).where(which).distinct().order_by(table.c.person)
    return (await work.connection.execute(query)).scalars().all()


async def _inviting(work: Work, code: str, which: ColumnElement[bool]) -> StoredPerson | None:
    """Who made a link that is still good, locked."""
    query = select(invitations.c.person).where(
        invitations.c.mark == _link_mark(work, code),
        work.lately(invitations.c.made, LINK_LIVES),
        which,
    )
    found = (await work.connection.execute(query)).scalar_one_or_none()
    person = None if found is None else await people.find_by_code(work, found)
    # Again: what was read before the person was locked may have changed.
    if person is None or (await work.connection.execute(query)).scalar_one_or_none() is None:
        return None
    return None if await faces.row_of(work, person) is None else person


async def _told_of(work: Work, telegram_id: int, which: ColumnElement[bool]) -> list[StoredPerson]:
    """Whose contact an account is, locked, in the order of their codes."""
    theirs = (contacts.c.mark == _mark(work, telegram_id)) & which
    codes = await _people_of(work, contacts, theirs)
    found = [await people.find_by_code(work, code) for code in codes]
    return [person for person in found if person is not None]


async def _keep(work: Work, person: StoredPerson) -> bool:
    kept = await work.connection.execute(
        update(contacts)
        .where(
            contacts.c.person == person.code,
            contacts.c.ends > work.clock(),
        )
        .values(ends=None)
    )
    if kept.rowcount == 1:
        await audit.append(work, "contact_kept", person)
    return kept.rowcount == 1


async def _row(work: Work, which: ColumnElement[bool]) -> Any:
    return (await work.connection.execute(select(contacts).where(which))).one_or_none()


def _mark(work: Work, telegram_id: int) -> bytes:
    return work.vault.mark("contact", str(telegram_id).encode())


def _link_mark(work: Work, code: str) -> bytes:
    return work.vault.mark("invitation", code.encode())
