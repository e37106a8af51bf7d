"""Challenges and attempts: single use, counted before they are judged, delayed, locked.

An attempt is committed as a failure before anybody looks at the face, and only its end can say
otherwise: a crash, or a second device at the same time, never gains a try. Knows nothing about
faces or how attempts are judged.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select, update

from bot.store import audit, faces, flows, holds, people, resets
from bot.store.errors import StoreError
from bot.store.people import Person
from bot.store.schema import attempts, challenges
from bot.store.schema import flows as flows_table
from bot.store.types import Attempt, Barred, Flow, Level
from bot.store.work import CLOCKS_DIFFER, Work

FAILURES_UNTIL_DELAY = 5
FIRST_DELAY_S = 30.0
# Doubling goes no further, or it would keep everybody from ever reaching the lock, and a person
# who comes back after days of somebody else's attempts out for weeks.
LONGEST_DELAY_S = 3600.0
FAILURES_UNTIL_LOCK = 20
LOCK_WINDOW = timedelta(hours=24)

_NONCE_BYTES = 16
_RECOVERY = "recovery"
_DRAWN_BY_LOT = "video"
_CHARGED = ("open", "failed")
_CHARGED_VERIFICATION = attempts.c.outcome.in_(_CHARGED) & (attempts.c.level != _RECOVERY)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a person's attempts went of late.

    Attributes:
        locked: whether only the recovery code or an operator helps.
        until: before this moment there is no next attempt, if there is one at all.
    """

    locked: bool
    until: datetime | None

    def barred(self, now: datetime) -> Barred | None:
        """What keeps the person from trying now."""
        if self.locked:
            return Barred("locked")
        if self.until is not None and now < self.until:
            return Barred("delay", self.until)
        return None


def delay_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    if failures < FAILURES_UNTIL_DELAY:
        return 0.0
    # The exponent is bounded, because a float's is.
    doublings = min(failures - FAILURES_UNTIL_DELAY, 30)
    return min(FIRST_DELAY_S * 2.0**doublings, LONGEST_DELAY_S)


async def standing(work: Work, person: Person) -> Standing:
    """How a person's attempts to be verified went."""
    until = await _delayed_until(work, person, attempts.c.level != _RECOVERY)
    return Standing(person.row["locked"] is not None, until)


async def new_challenge(
    work: Work, telegram_id: int, level: Level, steps: str, lifetime_s: float
) -> bytes:
    """See `Store.new_challenge`."""
    person = await people.find_or_add(work, telegram_id)
    now = work.clock()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    older = (challenges.c.person == person.code) & challenges.c.spent.is_(None)
    drawn = select(func.count()).where(older, challenges.c.level == _DRAWN_BY_LOT)
    unanswered = (await work.connection.execute(drawn)).scalar_one()
    await work.connection.execute(update(challenges).where(older).values(spent=now))
    for _ in range(unanswered):
        await _charge_unanswered(work, person, now)
    await work.connection.execute(
        challenges.insert().values(
            nonce_hash=_hash(nonce),
            person=person.code,
            level=level,
            steps=steps,
            drawn=now,
            deadline=now + timedelta(seconds=lifetime_s),
        )
    )
    return nonce


async def barred(work: Work, telegram_id: int) -> Barred | None:
    """See `Store.barred`."""
    person = await people.find(work, telegram_id)
    return None if person is None else (await standing(work, person)).barred(work.clock())


async def begin(work: Work, flow: Flow, level: Level, nonce: bytes) -> Attempt | Barred:
    """See `Store.begin_attempt`."""
    person = await people.find(work, flow.telegram_id)
    if person is None:
        return Barred("expired")
    now = work.clock()
    query = select(challenges).where(
        challenges.c.nonce_hash == _hash(nonce),
        challenges.c.person == person.code,
        challenges.c.level == level,
    )
    challenge = (await work.connection.execute(query)).one_or_none()
    if challenge is None or challenge.spent is not None:
        return Barred("spent")
    in_time = challenge.drawn <= now + CLOCKS_DIFFER and now < challenge.deadline
    if not in_time or not await flows.is_current(work, person, flow):
        return Barred("expired")
    bar = (await standing(work, person)).barred(now)
    if bar is not None:
        return bar
    spent = await work.connection.execute(
        update(challenges)
        .where(challenges.c.nonce_hash == _hash(nonce), challenges.c.spent.is_(None))
        .values(spent=now)
    )
    ended = await work.connection.execute(
        delete(flows_table).where(
            flows_table.c.id == flow.id, flows_table.c.revision == flow.revision
        )
    )
    assert spent.rowcount == ended.rowcount == 1, "the person's row is locked"
    attempt_id = await _insert(work, person, level, now)
    await audit.append(work, "attempt", person, attempt=attempt_id, level=level)
    await _lock_if_due(work, person, attempt_id)
    return Attempt(attempt_id, flow.telegram_id, level, challenge.steps, now)


async def finish(
    work: Work, attempt: Attempt, passed: bool, reason: str, version: str, bucket: int
) -> bool:
    """See `Store.finish_attempt`."""
    person = await people.find(work, attempt.telegram_id)
    condition = _open(person, attempt.id)
    if person is not None and passed:
        # Judged by templates that are not in force any more.
        condition &= attempts.c.enrolment == person.row["enrolments"]
    if person is None or not await _end(work, condition, "passed" if passed else "failed", reason):
        raise StoreError(
            "This attempt is not open any more: its person was erased or enrolled anew in the "
            "meantime, or it was ended before. It did not succeed."
        )
    await _leave_lock(work, person, attempt.id, charged=not passed)
    if passed:
        await faces.note_use(work, person)
    # Whoever shows that they are there wants no other face. A picture shows no such thing.
    reset_ended = passed and attempt.level == "video" and await resets.end(work, person)
    await audit.append(
        work,
        "verified" if passed else "refused",
        person,
        attempt=attempt.id,
        bucket=bucket,
        level=attempt.level,
        reason=reason,
        version=version,
    )
    return reset_ended


async def void(work: Work, attempt: Attempt, reason: str) -> None:
    """See `Store.void_attempt`."""
    person = await people.find(work, attempt.telegram_id)
    if person is None or not await _end(work, _open(person, attempt.id), "void", reason):
        return
    await _leave_lock(work, person, attempt.id, charged=False)
    await audit.append(work, "void", person, attempt=attempt.id, reason=reason)


async def recovery_barred(work: Work, telegram_id: int) -> Barred | None:
    """See `Store.recovery_barred`."""
    person = await people.find(work, telegram_id)
    return None if person is None else await _recovery_barred(work, person)


async def begin_recovery(work: Work, telegram_id: int) -> tuple[int, bytes] | None:
    """Commit a try of the recovery code as a failure; its number, and the hash to compare with.

    None where the person has no code or may not try now.
    """
    person = await people.find(work, telegram_id)
    digest = None if person is None else person.recovery
    if person is None or digest is None or await _recovery_barred(work, person) is not None:
        return None
    return await _insert(work, person, _RECOVERY, work.clock()), digest


async def finish_recovery(
    work: Work, telegram_id: int, attempt_id: int, digest: bytes, right: bool
) -> bool:
    """Write down how a try of the recovery code ended; whether it is accepted.

    It is not used up, and a lock stays, until a face is stored by it: see `faces.enroll`.

    Args:
        work: a transaction that writes.
        telegram_id: whose it is.
        attempt_id: as `begin_recovery` gave it.
        digest: as `begin_recovery` gave it.
        right: whether the code fits the hash.
    """
    person = await people.find(work, telegram_id)
    if person is None or person.recovery != digest:
        return False  # erased, or the code was replaced in the meantime
    if not await _end(work, _open(person, attempt_id), "passed" if right else "failed", _RECOVERY):
        return False
    await audit.append(work, "recovered" if right else "recovery_refused", person)
    return right


async def unlock(work: Work, telegram_id: int) -> bool:
    """See `Store.unlock`."""
    person = await people.find(work, telegram_id)
    if await holds.lift(work, telegram_id):
        await audit.append(work, "hold_lifted")
        return True
    if person is None:
        return False
    now = work.clock()
    bars = (await standing(work, person)).barred(now), await _recovery_barred(work, person)
    if bars == (None, None):
        return False
    await people.forgive(work, person)
    await audit.append(work, "unlocked", person)
    return True


async def _delayed_until(work: Work, person: Person, which: ColumnElement[bool]) -> datetime | None:
    """When the delay after a person's newest failures in a row is over."""
    theirs = (attempts.c.person == person.code) & which
    passed = select(func.coalesce(func.max(attempts.c.id), 0))
    passed = passed.where(theirs, attempts.c.outcome == "passed")
    now = work.clock()
    when = func.coalesce(attempts.c.ended, attempts.c.begun)
    # A failure of which nobody knows when it was counts, and delays no more.
    known = func.max(when).filter(when <= now + CLOCKS_DIFFER)
    query = select(func.count(), known).where(
        theirs,
        attempts.c.outcome.in_(_CHARGED),
        attempts.c.id > passed.scalar_subquery(),
        attempts.c.id > person.row["cleared_through"],
    )
    failures, newest = (await work.connection.execute(query)).one()
    wait_s = delay_s(failures)
    if not wait_s or newest is None:
        return None
    known_by_now: datetime = min(newest, now)
    return known_by_now + timedelta(seconds=wait_s)


async def failures_count_until(work: Work, person: Person) -> datetime | None:
    """When the last of a person's failures leaves the window in which they bring a lock."""
    query = select(func.max(attempts.c.begun)).where(_of_late(work, person))
    newest: datetime | None = (await work.connection.execute(query)).scalar_one()
    return None if newest is None else newest + LOCK_WINDOW


async def _failures_of_late(work: Work, person: Person) -> int:
    query = select(func.count()).where(_of_late(work, person))
    return (await work.connection.execute(query)).scalar_one()


def _of_late(work: Work, person: Person) -> ColumnElement[bool]:
    return and_(
        attempts.c.person == person.code,
        _CHARGED_VERIFICATION,
        work.lately(attempts.c.begun, LOCK_WINDOW),
        attempts.c.id > person.row["cleared_through"],
    )


async def _recovery_barred(work: Work, person: Person) -> Barred | None:
    until = await _delayed_until(work, person, attempts.c.level == _RECOVERY)
    return Standing(locked=False, until=until).barred(work.clock())


async def _insert(work: Work, person: Person, level: str, now: datetime) -> int:
    statement = attempts.insert().values(
        person=person.code,
        level=level,
        outcome="open",
        enrolment=person.row["enrolments"],
        begun=now,
    )
    result = await work.connection.execute(statement.returning(attempts.c.id))
    attempt_id: int = result.scalar_one()
    return attempt_id


async def _charge_unanswered(work: Work, person: Person, now: datetime) -> None:
    """Count a challenge that was let lapse as a failure.

    Or whoever has a clip of somebody's head would ask until the lot falls on what is in it.
    """
    attempt_id = await _insert(work, person, _DRAWN_BY_LOT, now)
    await _end(work, _open(person, attempt_id), "failed", "unanswered")
    await audit.append(work, "unanswered", person, attempt=attempt_id)
    await _lock_if_due(work, person, attempt_id)


async def _lock_if_due(work: Work, person: Person, attempt_id: int) -> None:
    if await _failures_of_late(work, person) >= FAILURES_UNTIL_LOCK:
        await people.change(work, person, locked=work.clock(), locked_by=attempt_id)
        await audit.append(work, "locked", person, attempt=attempt_id)


def _open(person: Person | None, attempt_id: int) -> ColumnElement[bool]:
    code = b"" if person is None else person.code
    return and_(
        attempts.c.id == attempt_id, attempts.c.person == code, attempts.c.outcome == "open"
    )


async def _end(work: Work, which: ColumnElement[bool], outcome: str, reason: str) -> bool:
    values = {"outcome": outcome, "reason": reason, "ended": work.clock()}
    result = await work.connection.execute(update(attempts).where(which).values(values))
    return result.rowcount == 1


async def _leave_lock(work: Work, person: Person, attempt_id: int, *, charged: bool) -> None:
    """The attempt that locked has ended: without it there is no lock, if it is not charged."""
    if person.row["locked_by"] == attempt_id:
        locked = {} if charged else {"locked": None}
        await people.change(work, person, locked_by=None, **locked)
        if not charged:
            await audit.append(work, "lock_lifted", person, attempt=attempt_id)


def _hash(nonce: bytes) -> bytes:
    return hashlib.sha256(nonce).digest()
