"""Challenges and attempts: single use, counted before they are judged, delayed, locked.

An attempt is committed as a failure before anybody looks at the face, and only its end can say
otherwise: a crash, or a second device at the same time, never gains a try. Knows nothing about
faces or how attempts are judged.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from bot.store import audit, faces, flows, holds, people, resets
from bot.store.errors import StoreError
from bot.store.limits import LIMITS
from bot.store.people import NOTHING_COUNTED, StoredPerson
from bot.store.schema import attempts, challenges, enrolments
from bot.store.schema import flows as flows_table
from bot.store.schema import people as people_table
from bot.store.types import Alarm, Attempt, Barred, Finished, Flow, Level
from bot.store.work import CLOCKS_DIFFER, Work

LOCK_WINDOW = LIMITS.lock_window

_TOLD_AT_FAILURES = (LIMITS.failures_until_stop // 2, LIMITS.failures_until_stop * 4 // 5)
_TOLD_AT_DRAWS = LIMITS.draws_until_wait - 1
_TOLD_AT_DRAWS_OF_LATE = LIMITS.draws_in_window * 2 // 3
"""Which failures, and unanswered draws, the owner is told of: in a row, and within the window."""

_NONCE_BYTES = 16
_RECOVERY = "recovery"
_DRAWN_BY_LOT = "video"
_CHARGED = ("open", "failed")
_CHARGED_VERIFICATION = attempts.c.outcome.in_(_CHARGED) & (attempts.c.level != _RECOVERY)
_FORGIVEN_BY = {"photo": ("photo", "video"), "video": ("video",)}
"""By passes of which levels failures are: a pass by photo gives no new tries by video."""


async def new_challenge(
    work: Work, telegram_id: int, level: Level, steps: str, *, lifetime_s: float
) -> bytes:
    """Draw a challenge; older open ones of the person are spent.

    One by video that was let lapse counts as a failed attempt, or somebody could draw until a
    challenge fits a clip that they have; see `bot.store.limits`.

    Args:
        work: a transaction.
        telegram_id: who is to meet it.
        level: "photo" or "video".
        steps: what is to be done, to be had back with the attempt.
        lifetime_s: seconds until it expires.

    Returns:
        Its nonce, 16 random bytes, of which only a hash is kept.
    """
    person = await people.find_or_add(work, telegram_id)
    now = work.clock()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    await _spend(work, person.code, challenges.c.spent.is_(None))
    await work.connection.execute(
        challenges.insert().values(
            nonce_hash=_hash(nonce),
            person=person.code,
            level=level,
            steps=steps,
            drawn=now,
            deadline=now + timedelta(seconds=lifetime_s),
            excused=False,
        )
    )
    return nonce


async def excuse(work: Work, telegram_id: int, nonce: bytes) -> None:
    """Something of ours kept an answer that came from being judged.

    Let lapse, the challenge counts as a draw, and not as a failure; see `bot.store.limits`.
    """
    person = await people.find(work, telegram_id)
    if person is not None:
        await work.connection.execute(
            update(challenges)
            .where(challenges.c.person == person.code, challenges.c.nonce_hash == _hash(nonce))
            .values(excused=True)
        )


async def barred(work: Work, telegram_id: int, *, drawing: bool = False) -> Barred | None:
    """Why a person may not try now ("delay" or "locked"); None when they may.

    Args:
        work: a transaction.
        telegram_id: whom it is about.
        drawing: whether a challenge by video is to be drawn, which may be too early ("draws").
    """
    person = await people.find(work, telegram_id)
    return None if person is None else await _barred(work, person, drawing)


async def _barred(work: Work, person: StoredPerson, drawing: bool) -> Barred | None:
    now = work.clock()
    bar = await _locked_or_delayed(work, person)
    if bar is not None or not drawing:
        return bar
    until = await _no_draw_until(work, person)
    return None if until is None or until <= now else Barred("draws", until)


async def _locked_or_delayed(work: Work, person: StoredPerson) -> Barred | None:
    if person.row["locked"] is not None:
        return Barred("locked")
    return delay(work, await _delayed_until(work, person, _FORGIVEN_BY))


def delay(work: Work, until: datetime | None) -> Barred | None:
    """What keeps a person from trying before a moment."""
    return None if until is None or until <= work.clock() else Barred("delay", until)


async def _no_draw_until(work: Work, person: StoredPerson) -> datetime | None:
    """Before when there is no draw: one that is open still counts, as drawing would spend it."""
    is_open = challenges.c.spent.is_(None) & (challenges.c.level == _DRAWN_BY_LOT)
    query = select(challenges.c.drawn).where(challenges.c.person == person.code, is_open)
    open_draws = (await work.connection.execute(query)).scalars().all()
    draws = person.row["failed_video"] + person.row["voided"] + len(open_draws)
    now = work.clock()
    # As with delays: what is yet to come by this clock counts, and nobody waits for it.
    known = [when for when in (person.row["drawn"], *open_draws) if when is not None]
    newest = max((min(when, now) for when in known if when <= now + CLOCKS_DIFFER), default=None)
    of_late = [*await _draws_of_late(work, person), *open_draws]
    return LIMITS.no_draw_until(draws, newest, sorted(of_late))


async def _draws_of_late(work: Work, person: StoredPerson) -> list[datetime]:
    """When the draws were that ended without a pass, within their window."""
    query = select(attempts.c.begun).where(
        attempts.c.person == person.code,
        attempts.c.level == _DRAWN_BY_LOT,
        attempts.c.outcome != "passed",
        work.lately(attempts.c.begun, LIMITS.draw_window),
        attempts.c.id > person.row["cleared_through"],
    )
    return list((await work.connection.execute(query)).scalars().all())


async def begin(
    work: Work, flow: Flow, level: Level, nonce: bytes, *, subject: int | None = None
) -> Attempt | Barred:
    """Spend a challenge and commit an attempt, which counts as failed until it is finished.

    The flow ends. Where the answer is a `Barred`, nothing is changed.

    Args:
        work: a transaction.
        flow: as it was read.
        level: of the challenge.
        nonce: of the challenge.
        subject: whose face it is to be; None is whose flow it is.
    """
    telegram_id = flow.telegram_id if subject is None else subject
    person = await people.find(work, telegram_id)
    talking = person
    if telegram_id != flow.telegram_id:
        talking = await people.find(work, flow.telegram_id)
    if person is None or talking is None:
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
    if not in_time or not await flows.is_current(work, talking, flow):
        return Barred("expired")
    bar = await _locked_or_delayed(work, person)
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
    await _charge(work, person, attempt_id, level, now)
    return Attempt(attempt_id, telegram_id, level, challenge.steps, now)


async def finish(
    work: Work, attempt: Attempt, *, passed: bool, reason: str, version: str, bucket: int
) -> Finished:
    """Write down how an attempt ended; nobody is to be told that they passed before it.

    One by video that succeeded ends the wait after which the face might be replaced.

    Args:
        work: a transaction.
        attempt: begun, and neither finished nor voided.
        passed: whether it succeeded.
        reason: a code, such as "match".
        version: of the calibration that decided.
        bucket: coarse, 0 to 9; never the score.

    Raises:
        StoreError: the attempt is not open any more, or its person was erased or enrolled anew
            in the meantime: it did not succeed then.
    """
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
        by_video = attempt.level == _DRAWN_BY_LOT
        await people.change(work, person, **(NOTHING_COUNTED if by_video else {"failed_photo": 0}))
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
    query = select(people_table.c.alarm).where(people_table.c.person == person.code)
    alarm = (await work.connection.execute(query)).scalar_one()
    return Finished(reset_ended, alarm is not None)


async def void(work: Work, attempt: Attempt, reason: str) -> None:
    """Something of ours broke: the attempt is no failure. Its challenge stays spent, a draw.

    Args:
        work: a transaction.
        attempt: begun; where it is not open any more nothing happens.
        reason: a code.
    """
    person = await people.find(work, attempt.telegram_id)
    if person is None or not await _end(work, _open(person, attempt.id), "void", reason):
        return
    await _take_back(work, person, attempt)
    await _leave_lock(work, person, attempt.id, charged=False)
    await audit.append(work, "void", person, attempt=attempt.id, reason=reason)


async def recovery_barred(work: Work, telegram_id: int) -> Barred | None:
    """Why a person may not try a recovery code now ("delay"); None when they may."""
    person = await people.find(work, telegram_id)
    return None if person is None else await _recovery_barred(work, person)


async def begin_recovery(work: Work, telegram_id: int) -> tuple[int, bytes] | None:
    """Commit a try of the recovery code as a failure; its number, and the hash to compare with.

    None where the person has no code or may not try now.
    """
    person = await people.find(work, telegram_id)
    digest = None if person is None else person.recovery
    attempt_id = None if person is None or digest is None else await begin_code(work, person)
    return None if attempt_id is None or digest is None else (attempt_id, digest)


async def begin_code(work: Work, person: StoredPerson) -> int | None:
    """Commit a person's try of a recovery code as a failure; None where they may not try now."""
    if await _recovery_barred(work, person) is not None:
        return None
    return await _insert(work, person, _RECOVERY, work.clock())


async def end_code(work: Work, person: StoredPerson, attempt_id: int, right: bool) -> bool:
    """Write down how a try of a recovery code ended; whether it was still open."""
    return await _end(work, _open(person, attempt_id), "passed" if right else "failed", _RECOVERY)


async def finish_recovery(
    work: Work, telegram_id: int, attempt_id: int, digest: bytes, right: bool, code: str
) -> bool:
    """Write down how a try of the recovery code ended; whether it is accepted.

    It is not used up, and a lock stays, until a face is stored by it: see `faces.enroll`.

    Args:
        work: a transaction that writes.
        telegram_id: whose it is.
        attempt_id: as `begin_recovery` gave it.
        digest: as `begin_recovery` gave it.
        right: whether the code fits the hash.
        code: as it was typed.
    """
    person = await people.find(work, telegram_id)
    if person is None or person.recovery != digest:
        return False  # erased, or the code was replaced in the meantime
    if not await end_code(work, person, attempt_id, right):
        return False
    if right:  # one of before there were marks gets its mark
        await people.mark_recovery(work, person, code)
    await audit.append(work, "recovered" if right else "recovery_refused", person)
    return right


async def unlock(work: Work, telegram_id: int) -> bool:
    """Lift a person's lock, delays and hold, on an operator's word; whether there were any."""
    person = await people.find(work, telegram_id)
    if await holds.lift(work, telegram_id):
        await audit.append(work, "hold_lifted")
        return True
    if person is None:
        return False
    bars = await _barred(work, person, drawing=True), await _recovery_barred(work, person)
    if bars == (None, None):
        return False
    await people.forgive(work, person)
    await audit.append(work, "unlocked", person)
    return True


async def claim_alarm(work: Work, telegram_id: int, *, lease_s: float) -> Alarm | None:
    """Take it on to tell a person of attempts that they may not have made, before others do.

    Args:
        work: a transaction.
        telegram_id: who is to be told.
        lease_s: seconds after which others may take it on, unless `mark_alarmed` came.

    Returns:
        What is to be told; None where there is nothing, or somebody else has taken it on.
    """
    person = await people.find(work, telegram_id)
    row = None if person is None else await faces.row_of(work, person)
    if person is None or row is None or person.row["alarm"] is None:
        return None
    now, lease = work.clock(), timedelta(seconds=lease_s)
    if row["claimed"] is not None and now < row["claimed"] <= now + lease + CLOCKS_DIFFER:
        return None
    await _claim(work, person, now + lease)
    failures = person.row["failed_photo"] + person.row["failed_video"]
    return Alarm(person.row["alarm"], failures, LIMITS.failures_until_stop)


async def mark_alarmed(work: Work, telegram_id: int, alarm: Alarm) -> None:
    """Note that a person was told, or cannot be told, of an alarm."""
    person = await people.find(work, telegram_id)
    if person is None:
        return
    await _claim(work, person, None)
    if person.row["alarm"] == alarm.kind:
        await people.change(work, person, alarm=None)
        await audit.append(work, "alarmed", person, kind=alarm.kind)


async def _claim(work: Work, person: StoredPerson, until: datetime | None) -> None:
    theirs = update(enrolments).where(enrolments.c.person == person.code)
    await work.connection.execute(theirs.values(claimed=until))


async def alarms(work: Work) -> list[int]:
    """Telegram ids of those for whom there is an alarm."""
    query = select(people_table.c.person).where(people_table.c.alarm.is_not(None))
    found = []
    for code in (await work.connection.execute(query)).scalars().all():
        person = await people.find_by_code(work, code)
        if person is not None:
            found.append(person.telegram_id)
    return found


async def with_lapsed(work: Work) -> Sequence[bytes]:
    """Codes of people with challenges by video that were let lapse, and are not counted yet."""
    query = select(challenges.c.person).where(_lapsed(work)).distinct()
    return (await work.connection.execute(query)).scalars().all()


async def spend_lapsed(work: Work, code: bytes) -> None:
    """Count a person's challenges that were let lapse, before they are forgotten for their age."""
    await _spend(work, code, _lapsed(work))


async def _delayed_until(
    work: Work, person: StoredPerson, forgiven_by: Mapping[str, Sequence[str]]
) -> datetime | None:
    """When the delay after a person's newest failures in a row is over.

    Args:
        work: a transaction.
        person: whose.
        forgiven_by: which levels count, and by passes of which levels they count no more.
    """
    theirs = attempts.c.person == person.code
    passed = select(func.coalesce(func.max(attempts.c.id), 0))
    passed = passed.where(theirs, attempts.c.outcome == "passed")
    in_a_row = [
        (attempts.c.level == level)
        & (attempts.c.id > passed.where(attempts.c.level.in_(levels)).scalar_subquery())
        for level, levels in forgiven_by.items()
    ]
    now = work.clock()
    when = func.coalesce(attempts.c.ended, attempts.c.begun)
    # A failure of which nobody knows when it was counts, and delays no more.
    known = func.max(when).filter(when <= now + CLOCKS_DIFFER)
    query = select(func.count(), known).where(
        theirs,
        attempts.c.outcome.in_(_CHARGED),
        or_(*in_a_row),
        attempts.c.id > person.row["cleared_through"],
    )
    failures, newest = (await work.connection.execute(query)).one()
    wait_s = LIMITS.delay_s(failures)
    if not wait_s or newest is None:
        return None
    known_by_now: datetime = min(newest, now)
    return known_by_now + timedelta(seconds=wait_s)


async def failures_count_until(work: Work, person: StoredPerson) -> datetime | None:
    """When the last of a person's failures leaves the window in which they bring a lock."""
    query = select(func.max(attempts.c.begun)).where(_of_late(work, person))
    newest: datetime | None = (await work.connection.execute(query)).scalar_one()
    return None if newest is None else newest + LOCK_WINDOW


async def _failures_of_late(work: Work, person: StoredPerson) -> int:
    query = select(func.count()).where(_of_late(work, person))
    return (await work.connection.execute(query)).scalar_one()


def _of_late(work: Work, person: StoredPerson) -> ColumnElement[bool]:
    return and_(
        attempts.c.person == person.code,
        _CHARGED_VERIFICATION,
        work.lately(attempts.c.begun, LOCK_WINDOW),
        attempts.c.id > person.row["cleared_through"],
    )


async def _recovery_barred(work: Work, person: StoredPerson) -> Barred | None:
    until = await _delayed_until(work, person, {_RECOVERY: (_RECOVERY,)})
    return delay(work, until)


async def _insert(work: Work, person: StoredPerson, level: str, now: datetime) -> int:
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


def _lapsed(work: Work) -> ColumnElement[bool]:
    late = challenges.c.deadline <= work.clock()
    return late & challenges.c.spent.is_(None) & (challenges.c.level == _DRAWN_BY_LOT)


async def _spend(work: Work, code: bytes, which: ColumnElement[bool]) -> None:
    """Spend challenges of a person that nobody met, and count those that were drawn by lot."""
    theirs = (challenges.c.person == code) & which
    person = await people.find_by_code(work, code)
    if person is None:
        return  # erased meanwhile, or their rows were changed by somebody without the key
    query = select(challenges.c.drawn, challenges.c.excused).order_by(challenges.c.drawn)
    query = query.where(theirs, challenges.c.level == _DRAWN_BY_LOT)
    draws = (await work.connection.execute(query)).all()
    await work.connection.execute(update(challenges).where(theirs).values(spent=work.clock()))
    for drawn, excused in draws:
        await _count_unmet(work, person, drawn, excused)
        person = await people.find_by_code(work, code)
        assert person is not None, "they are locked"


async def _count_unmet(work: Work, person: StoredPerson, drawn: datetime, excused: bool) -> None:
    """Count a challenge that was let lapse: see `limits`."""
    attempt_id = await _insert(work, person, _DRAWN_BY_LOT, drawn)
    if excused:
        await _end(work, _open(person, attempt_id), "void", "fault")
        await people.change(work, person, voided=person.row["voided"] + 1, drawn=drawn)
        await audit.append(work, "void", person, attempt=attempt_id, reason="fault")
        return
    await _end(work, _open(person, attempt_id), "failed", "unanswered")
    await audit.append(work, "unanswered", person, attempt=attempt_id)
    await _charge(work, person, attempt_id, _DRAWN_BY_LOT, drawn)
    draws = person.row["failed_video"] + person.row["voided"] + 1
    of_late = len(await _draws_of_late(work, person))
    if draws == _TOLD_AT_DRAWS or of_late == _TOLD_AT_DRAWS_OF_LATE:
        alarmed = (people_table.c.person == person.code) & people_table.c.alarm.is_(None)
        await work.connection.execute(
            update(people_table).where(alarmed).values(alarm="unanswered")
        )


async def _charge(
    work: Work, person: StoredPerson, attempt_id: int, level: str, drawn: datetime
) -> None:
    """Count a failure, and lock where it is one too many."""
    column = f"failed_{level}"
    values: dict[str, object] = {column: person.row[column] + 1}
    if level == _DRAWN_BY_LOT:
        values["drawn"] = drawn
    failures = person.row["failed_photo"] + person.row["failed_video"] + 1
    if failures in _TOLD_AT_FAILURES:
        values["alarm"] = "failures"
    stop = failures >= LIMITS.failures_until_stop
    if person.row["locked"] is None and (
        stop or await _failures_of_late(work, person) >= LIMITS.failures_until_lock
    ):
        values |= {"locked": work.clock(), "locked_by": attempt_id, "alarm": "locked"}
        await audit.append(work, "locked", person, attempt=attempt_id)
    await people.change(work, person, **values)


async def _take_back(work: Work, person: StoredPerson, attempt: Attempt) -> None:
    """Count an attempt as no failure any more; a draw it stays."""
    column = f"failed_{attempt.level}"
    since = select(attempts.c.id).where(
        attempts.c.person == person.code,
        attempts.c.outcome == "passed",
        attempts.c.level.in_(_FORGIVEN_BY[attempt.level]),
        attempts.c.id > attempt.id,
    )
    forgiven = (await work.connection.execute(since.limit(1))).one_or_none() is not None
    if forgiven or attempt.id <= person.row["cleared_through"]:
        return  # it was not counted any more
    values = {column: max(0, person.row[column] - 1)}
    if attempt.level == _DRAWN_BY_LOT:
        values["voided"] = person.row["voided"] + 1
    await people.change(work, person, **values)


def _open(person: StoredPerson | None, attempt_id: int) -> ColumnElement[bool]:
    code = b"" if person is None else person.code
    return and_(
        attempts.c.id == attempt_id, attempts.c.person == code, attempts.c.outcome == "open"
    )


async def _end(work: Work, which: ColumnElement[bool], outcome: str, reason: str) -> bool:
    values = {"outcome": outcome, "reason": reason, "ended": work.clock()}
    result = await work.connection.execute(update(attempts).where(which).values(values))
    return result.rowcount == 1


async def _leave_lock(work: Work, person: StoredPerson, attempt_id: int, *, charged: bool) -> None:
    """The attempt that locked has ended: without it there is no lock, if it is not charged."""
    if person.row["locked_by"] == attempt_id:
        locked = {} if charged else {"locked": None, "alarm": None}
        await people.change(work, person, locked_by=None, **locked)
        if not charged:
            await audit.append(work, "lock_lifted", person, attempt=attempt_id)


def _hash(nonce: bytes) -> bytes:
    return hashlib.sha256(nonce).digest()
