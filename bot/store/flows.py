"""Conversations of several messages: one for each person, encrypted, with a deadline.

Knows nothing about what is talked about.
"""

import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update

from bot.store import people
from bot.store.errors import Tampered
from bot.store.people import StoredPerson, flow_row
from bot.store.schema import flows
from bot.store.types import Flow, FlowKind
from bot.store.work import Work

LONGEST = timedelta(days=2)
"""No deadline is further away than this, but for those of a clock that was wrong."""


async def begin(
    work: Work, telegram_id: int, kind: FlowKind, state: Mapping[str, Any], *, lifetime_s: float
) -> Flow:
    """Begin a flow, in the place of any other one of the person."""
    # Who is to be forgotten is forgotten even when somebody has changed their rows.
    forgets = kind is FlowKind.FORGET
    known = await people.lock(work, work.vault.code(telegram_id)) if forgets else None
    person = known or await people.find_or_add(work, telegram_id)
    flow = Flow(
        id=secrets.randbits(63),
        kind=kind,
        state=dict(state),
        revision=0,
        deadline=work.clock() + timedelta(seconds=lifetime_s),
        telegram_id=telegram_id,
    )
    await work.connection.execute(delete(flows).where(flows.c.person == person.code))
    await work.connection.execute(
        flows.insert().values(
            id=flow.id,
            person=person.code,
            kind=kind.value,
            state=_seal(person, flow),
            revision=flow.revision,
            deadline=flow.deadline,
        )
    )
    return flow


async def read(work: Work, telegram_id: int) -> Flow | None:
    """The person's flow, be its deadline past or not."""
    person = await people.lock(work, work.vault.code(telegram_id))
    if person is None:
        return None
    query = select(flows).where(flows.c.person == person.code)
    row = (await work.connection.execute(query)).one_or_none()
    if person.broken and (row is None or row.kind != FlowKind.FORGET):
        raise Tampered(person.code, person.broken)
    if row is None or row.deadline > work.clock() + LONGEST:
        return None
    state = person.key.open(row.state, "flows", flow_row(row.id, row.kind))
    return Flow(
        id=row.id,
        kind=FlowKind(row.kind),
        state=json.loads(state),
        revision=row.revision,
        deadline=row.deadline,
        telegram_id=telegram_id,
    )


async def advance(
    work: Work, flow: Flow, state: Mapping[str, Any], *, lifetime_s: float | None = None
) -> Flow | None:
    """Give a flow its next state.

    Args:
        work: a transaction.
        flow: as it was read.
        state: JSON-able.
        lifetime_s: seconds from now to the new deadline; None keeps the old one.

    Returns:
        The flow as it is now, or None where somebody was faster, or it has ended: nothing is
        changed then.
    """
    person = await people.find(work, flow.telegram_id)
    if person is None or not await is_current(work, person, flow):
        return None
    deadline = flow.deadline
    if lifetime_s is not None:
        deadline = work.clock() + timedelta(seconds=lifetime_s)
    new = Flow(flow.id, flow.kind, dict(state), flow.revision + 1, deadline, flow.telegram_id)
    result = await work.connection.execute(
        update(flows)
        .where(flows.c.id == flow.id, flows.c.revision == flow.revision)
        .values(state=_seal(person, new), revision=new.revision, deadline=deadline)
    )
    return new if result.rowcount == 1 else None


async def is_current(work: Work, person: StoredPerson, flow: Flow) -> bool:
    """Whether a flow is still as it was read, and its deadline to come."""
    query = select(flows.c.revision, flows.c.deadline).where(
        flows.c.id == flow.id, flows.c.person == person.code
    )
    row = (await work.connection.execute(query)).one_or_none()
    now = work.clock()
    if row is None or row.revision != flow.revision:
        return False
    return bool(now < row.deadline <= now + LONGEST)


async def end(work: Work, flow: Flow) -> bool:
    """End a flow, whatever its revision; whether it was still there."""
    person = await people.find(work, flow.telegram_id)
    if person is None:
        return False
    result = await work.connection.execute(
        delete(flows).where(flows.c.id == flow.id, flows.c.person == person.code)
    )
    await people.drop_if_unused(work, person.code)
    return result.rowcount == 1


async def end_expired(work: Work, telegram_id: int) -> None:
    """Delete a person's flow if its deadline is past."""
    person = await people.find(work, telegram_id)
    if person is not None:
        await work.connection.execute(
            delete(flows).where(flows.c.person == person.code, flows.c.deadline <= work.clock())
        )
        await people.drop_if_unused(work, person.code)


def _seal(person: StoredPerson, flow: Flow) -> bytes:
    state = json.dumps(flow.state, separators=(",", ":"), allow_nan=False).encode()
    return person.key.seal(state, "flows", flow_row(flow.id, flow.kind.value))
