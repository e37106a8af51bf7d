"""Moving an enrolment to another Telegram account: by the recovery code and a video, together.

The code finds whose it is by a keyed mark. Knows nothing about how faces are compared.
"""

from datetime import timedelta

from sqlalchemy import delete, func, select, update

from bot.store import attempts, audit, contacts, faces, holds, people, recovery, seals
from bot.store.people import StoredPerson
from bot.store.rights import to_be_held_until
from bot.store.schema import attempts as attempts_table
from bot.store.schema import audit as audit_table
from bot.store.schema import (
    captures,
    challenges,
    consents,
    flows,
    invitations,
    recovery_marks,
)
from bot.store.schema import contacts as contacts_table
from bot.store.types import Attempt, Barred
from bot.store.work import Work

WRONG_CODES_AN_HOUR = 100
"""Of all accounts together: then nobody is answered for a while."""
_HOUR = timedelta(hours=1)
_REFUSED = "move_refused"


async def barred(work: Work, telegram_id: int) -> Barred | None:
    """Why nobody, or not this account, may try a code now ("delay"); None when it may."""
    newest = (
        select(audit_table.c.at)
        .where(audit_table.c.event == _REFUSED, work.lately(audit_table.c.at, _HOUR))
        .order_by(audit_table.c.number.desc())
        .offset(WRONG_CODES_AN_HOUR - 1)
        .limit(1)
    )
    first = (await work.connection.execute(newest)).scalar_one_or_none()
    if first is not None:
        return attempts.delay(work, first + _HOUR)
    return await attempts.recovery_barred(work, telegram_id)


async def begin(work: Work, telegram_id: int, code: str) -> tuple[int, bytes] | None:
    """Commit a try of somebody's code as a failure; None where there may be none now.

    Returns:
        Its number, and the digest to compare with: nobody's where the code finds nobody.
    """
    if await barred(work, telegram_id) is not None:
        return None
    person = await people.find_or_add(work, telegram_id)
    attempt_id = await attempts.begin_code(work, person)
    if attempt_id is None:
        return None
    owner = await _owner_of(work, people.recovery_mark(work, code))
    digest = None if owner is None else owner.recovery
    return attempt_id, recovery.NOBODYS if digest is None else digest


async def finish_code(
    work: Work, telegram_id: int, attempt_id: int, code: str, digest: bytes | None
) -> tuple[int, bytes] | None:
    """Write down how a try of somebody's code ended; see `Store.check_move_code`.

    Args:
        work: a transaction that writes.
        telegram_id: who tries.
        attempt_id: as `begin` gave it.
        code: as it was typed.
        digest: as `begin` gave it, where the code fits it.
    """
    mark = people.recovery_mark(work, code)
    person = await people.find(work, telegram_id)
    owner = None if digest is None else await _owner_of(work, mark)
    right = (
        owner is not None
        and owner.recovery == digest
        and await faces.row_of(work, owner) is not None
    )
    if person is None or not await attempts.end_code(work, person, attempt_id, right):
        return None
    if owner is None or not right:
        await audit.append(work, _REFUSED, person)
        return None
    await audit.append(work, "move_begun", owner)
    return owner.telegram_id, mark


async def move(
    work: Work,
    attempt: Attempt,
    telegram_id: int,
    used: bytes,
    new: tuple[str, bytes],
) -> bool:
    """See `Store.move`; `new` is the new code and its digest."""
    old = await people.find(work, attempt.telegram_id)
    heir = await people.find(work, telegram_id)
    if old is None or heir is None or not await _may(work, old, heir, attempt, used):
        return False
    for each in (old, heir):
        await seals.require(work, each.code)
    held_until = await to_be_held_until(work, old)
    # The secret goes along: fingerprints are masked by it, and the audit trail names them by it.
    secret = old.key.open(old.row["secret"], "people", "secret")
    await people.change(
        work,
        heir,
        secret=heir.key.seal(secret, "people", "secret"),
        enrolments=heir.row["enrolments"] + 1,
    )
    for table in (flows, challenges, contacts_table, invitations, captures):
        await work.connection.execute(delete(table).where(table.c.person == heir.code))
    for table in (captures, consents):
        await work.connection.execute(
            update(table).where(table.c.person == old.code).values(person=heir.code)
        )
    await people.reseal_face(work, old.key, heir.key)
    contact = await contacts.of(work, old)
    if contact is not None and contact.telegram_id != telegram_id:
        await people.reseal_contact(work, old.key, heir.key)
    await people.erase(work, old.code)
    await holds.leave(work, attempt.telegram_id, held_until)
    heir = await people.find_or_add(work, telegram_id)
    code, digest = new
    await people.set_recovery(work, heir, digest, people.recovery_mark(work, code))
    await audit.append(work, "moved", heir)
    return True


async def _may(
    work: Work, old: StoredPerson, heir: StoredPerson, attempt: Attempt, used: bytes
) -> bool:
    """Whether it is a pass by video of the face in force, and the code is in force as well."""
    passed = select(func.count()).where(
        attempts_table.c.id == attempt.id,
        attempts_table.c.person == old.code,
        attempts_table.c.level == "video",
        attempts_table.c.outcome == "passed",
        attempts_table.c.enrolment == old.row["enrolments"],
    )
    owner = await _owner_of(work, used)
    return (
        (await work.connection.execute(passed)).scalar_one() == 1
        and owner is not None
        and owner.code == old.code
        and old.row["locked"] is None
        and await faces.row_of(work, old) is not None
        and await faces.row_of(work, heir) is None
        and await holds.until(work, heir.telegram_id) is None
    )


async def _owner_of(work: Work, mark: bytes) -> StoredPerson | None:
    """Whose recovery code has this mark."""
    query = select(recovery_marks.c.person).where(recovery_marks.c.mark == mark).limit(1)
    found = (await work.connection.execute(query)).scalar_one_or_none()
    return None if found is None else await people.find_by_code(work, found)
