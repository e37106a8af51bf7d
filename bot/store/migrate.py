"""Brings a database's tables to what this version of the bot expects, at every start.

Alembic does it, with the steps in `migrations/versions`. Two replicas that start together do it one
after the other. Knows nothing about what is in the tables.
"""

from pathlib import Path

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
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    return await connection.run_sync(_migrate)


def newest() -> str:
    """The revision that this version of the bot expects."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def require_not_newer(revision: str | None) -> None:
    """Nothing, or StoreError for the revision of a newer version's database."""
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreError(
            f"The database was made by a newer version of the bot (its tables are of revision "
            f"{revision}, the newest known here is {newest()}): install that version again, or "
            "restore a backup from before it."
        )


def _migrate(connection: Connection) -> tuple[str | None, str]:
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    before = MigrationContext.configure(connection).get_current_revision()
    require_not_newer(before)
    head = newest()
    if before != head:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, head


def _config():
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
