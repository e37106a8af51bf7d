"""Every question that the bot asks its database. Knows nothing about Telegram."""

import os
from pathlib import Path
from typing import Any, Self

from sqlalchemy import delete, event, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bot.store.schema import metadata, preferences, updates
from bot.store.vault import StoreError, Vault

_PRUNE_EVERY = 500


class Store:
    """The database; use it as an async context manager.

    Raises:
        StoreError: on entering, when the database cannot be used.
        sqlalchemy.exc.SQLAlchemyError: from every method, when the database fails.
    """

    def __init__(self, database: Path, vault: Vault, *, updates_kept: int) -> None:
        self._database = database
        self._vault = vault
        self._updates_kept = updates_kept
        self._until_prune = 0
        self._engine: AsyncEngine = create_async_engine(
            f"sqlite+aiosqlite:///{database}",
            hide_parameters=True,  # in faults, which are logged
        )
        event.listen(self._engine.sync_engine, "connect", _prepare)

    async def __aenter__(self) -> Self:
        try:
            self._database.parent.mkdir(parents=True, exist_ok=True)
            # Made before SQLite makes it, so that it is its owner's alone.
            os.close(os.open(self._database, os.O_CREAT | os.O_WRONLY, 0o600))
            async with self._engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
        except (OSError, DatabaseError) as error:
            await self._engine.dispose()
            reason = error.orig if isinstance(error, DatabaseError) else error
            raise StoreError(
                f"The database {self._database} cannot be used ({reason}): mend it or its "
                "permissions, or name another file in DATABASE."
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    async def language(self, telegram_id: int) -> str | None:
        """The language that a person chose, if any."""
        query = select(preferences.c.language).where(
            preferences.c.person == self._vault.code(telegram_id)
        )
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def choose_language(self, telegram_id: int, language: str) -> None:
        """Remember the language that a person chose."""
        values = {"person": self._vault.code(telegram_id), "language": language}
        statement = insert(preferences).values(values)
        statement = statement.on_conflict_do_update(set_={"language": language})
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def served_updates(self) -> tuple[int, ...]:
        """The update numbers served last, oldest first."""
        query = select(updates.c.update_id).order_by(updates.c.place)
        async with self._engine.connect() as connection:
            return tuple((await connection.execute(query)).scalars())

    async def mark_served(self, update_id: int) -> None:
        """Remember that an update was served; the oldest are forgotten now and then."""
        async with self._engine.begin() as connection:
            statement = insert(updates).values(update_id=update_id)
            await connection.execute(statement.on_conflict_do_nothing())
            if self._until_prune == 0:
                newest = select(func.max(updates.c.place)).scalar_subquery()
                old = updates.c.place <= newest - self._updates_kept
                await connection.execute(delete(updates).where(old))
        self._until_prune = (self._until_prune or _PRUNE_EVERY) - 1


def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA busy_timeout = 5000")
    cursor.close()
