"""Enrolling anew without being verified: after a delay, so that the person can say no."""

from datetime import datetime, timedelta

from sqlalchemy import delete

from bot.store import audit, people
from bot.store.people import StoredPerson
from bot.store.schema import flows
from bot.store.types import FlowKind
from bot.store.work import Work


async def schedule(work: Work, telegram_id: int, *, delay_s: float) -> datetime:
    """Note that a person may enroll anew after a delay; returns when.

    One that was noted before keeps its time.
    """
    person = await people.find_or_add(work, telegram_id)
    due: datetime | None = person.row["reset_due"]
    latest = work.clock() + timedelta(seconds=delay_s)
    if due is None or due > latest:  # noted by a clock that was ahead
        due = latest
        await people.change(work, person, reset_due=due)
        await audit.append(work, "reset_scheduled", person, due=due.isoformat())
    return due


async def due(work: Work, telegram_id: int) -> datetime | None:
    """When a person may enroll anew, if that was noted; enrolling or cancelling ends it."""
    person = await people.find(work, telegram_id)
    return None if person is None else person.row["reset_due"]


async def cancel(work: Work, telegram_id: int) -> bool:
    """Take `schedule_reset` back, and the enrolment that it opened; whether there was one."""
    person = await people.find(work, telegram_id)
    return person is not None and await end(work, person)


async def end(work: Work, person: StoredPerson) -> bool:
    """End a person's wait, and the enrolment that it has opened; whether there was a wait."""
    if person.row["reset_due"] is None:
        return False
    await people.change(work, person, reset_due=None)
    await work.connection.execute(
        delete(flows).where(flows.c.person == person.code, flows.c.kind == FlowKind.ENROLL.value)
    )
    await audit.append(work, "reset_cancelled", person)
    return True
