"""Marks of those who were erased: for a while they may not enroll again.

Otherwise whoever has somebody's account would put another face there at once, or be rid of failed
attempts, by having the old face erased. A mark is a keyed hash of the Telegram id, other than the
one that stands for people in the other tables, and says nothing but until when. Knows nothing about
faces.
"""

from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from bot.store.database import insert_of
from bot.store.schema import holds
from bot.store.work import Work


async def until(work: Work, telegram_id: int) -> datetime | None:
    """From when on somebody who was erased may enroll again; None where they may now."""
    query = select(holds.c.until).where(holds.c.mark == _mark(work, telegram_id))
    found: datetime | None = (await work.connection.execute(query)).scalar_one_or_none()
    return None if found is None or found <= work.clock() else found


async def leave(work: Work, telegram_id: int, until: datetime) -> None:
    """Leave a mark; one that is there already is replaced."""
    mark = _mark(work, telegram_id)
    statement = insert_of(work.connection, holds).values(mark=mark, until=until)
    statement = statement.on_conflict_do_update(index_elements=["mark"], set_={"until": until})
    await work.connection.execute(statement)


async def lift(work: Work, telegram_id: int) -> bool:
    """Take a person's mark away; whether it kept them from enrolling."""
    held = await until(work, telegram_id) is not None
    await work.connection.execute(delete(holds).where(holds.c.mark == _mark(work, telegram_id)))
    return held


async def drop_old(work: Work) -> int:
    """Delete the marks whose time is over; returns how many."""
    over = delete(holds).where(holds.c.until <= work.clock())
    return (await work.connection.execute(over)).rowcount


async def shorten(work: Work, longest: timedelta) -> None:
    """Give marks that a clock left which was ahead the longest time that there is."""
    latest = work.clock() + longest
    await work.connection.execute(update(holds).where(holds.c.until > latest).values(until=latest))


def _mark(work: Work, telegram_id: int) -> bytes:
    return work.vault.mark("hold", str(telegram_id).encode())
