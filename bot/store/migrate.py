"""Brings a database's tables to what this version of the bot expects, at every start.

Alembic does it, with the steps in `migrations/versions`. Two replicas that start together do it one
after the other. Knows nothing about what is in the tables.
"""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.errors import StoreError

_FOLDER = Path(__file__).with_name("migrations")
# Any number that no other program takes for its own locks: "face" in ASCII.
_LOCK = 0x66616365


async def migrate(connection: AsyncConnection) -> tuple[str | None, str]:
    """Bring the tables up to date, in the transaction that the connection is in.

    Args:
        connection: of a transaction that writes.

    Returns:
        The revision before, None for a database of before there were revisions, and the one now.

    Raises:
        StoreError: the database was made by a newer version.
    """
    if connection.dialect.name == "postgresql":
        # Somebody else's migration may take longer than a verb may wait.
        await connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    return await connection.run_sync(_migrate)


@cache
def revisions() -> tuple[str, ...]:
    """The revisions that this version of the bot knows, the one that it expects first."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return tuple(script.revision for script in scripts)


def require_not_newer(revision: str | None) -> None:
    """Nothing, or StoreError for the revision of a newer version's database."""
    if revision is not None and revision not in revisions():
        raise StoreError(
            "The database was made by a newer version of the bot (its tables are of revision "
            f"{revision}, the newest known here is {revisions()[0]}): install that version again, "
            "or restore a backup from before it."
        )


def _migrate(connection: Connection) -> tuple[str | None, str]:
    before = MigrationContext.configure(connection).get_current_revision()
    require_not_newer(before)
    head = revisions()[0]
    if before != head:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
