"""Numbers of the updates that were served, so that none is served twice."""

import logging

from sqlalchemy import delete, func, select

from bot.store import keymarks
from bot.store.database import insert_of
from bot.store.schema import updates
from bot.store.work import Work

logger = logging.getLogger(__name__)


async def read(work: Work) -> tuple[int, ...]:
    """See `Store.served_updates`."""
    query = select(updates.c.update_id).order_by(updates.c.place)
    return tuple((await work.connection.execute(query)).scalars().all())


async def of_bot(work: Work, bot_id: int) -> tuple[int, ...]:
    """The update numbers served last, oldest first; those of another bot are forgotten.

    Args:
        work: a transaction.
        bot_id: Telegram's number of this bot.
    """
    if not await keymarks.is_bot(work, bot_id):
        logger.warning(
            "this database was another bot's: that one's update numbers are forgotten, and its "
            "people stay. Two bots that run at one time take a database each"
        )
        await work.connection.execute(delete(updates))
    return await read(work)


async def mark(work: Work, update_id: int, kept: int | None) -> None:
    """Remember a number, and, where `kept` is given, only so many of the newest."""
    statement = insert_of(work.connection, updates).values(update_id=update_id)
    await work.connection.execute(statement.on_conflict_do_nothing())
    if kept is not None:
        newest = select(func.max(updates.c.place)).scalar_subquery()
        await work.connection.execute(delete(updates).where(updates.c.place <= newest - kept))
