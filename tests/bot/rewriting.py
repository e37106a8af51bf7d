"""Changes a running bot's database as only the bot itself can: its rows are sealed anew."""

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store import Vault, seals
from bot.store.database import Database
from bot.store.schema import people
from bot.store.work import Work


async def rewrite(folder: Path, statement: str) -> None:
    """Execute a statement of SQL in the bot's database in a folder, with the bot's key."""
    vault = Vault.open(folder / "secrets" / "ids.key")
    database = Database(folder / "bot.db", busy_timeout_s=10)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text(statement))
        all_of_it = Work(connection, vault, lambda: datetime.now(UTC), writes=True)
        for code in (await connection.execute(select(people.c.person))).scalars().all():
            await seals.seal(all_of_it, code)

    try:
        await database.write(work)
    finally:
        await database.close()
