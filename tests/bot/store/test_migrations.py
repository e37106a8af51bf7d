"""Databases of every age become what the code expects, whole, or are refused with a sentence."""

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from bot.store import StoreError
from bot.store.database import Database
from bot.store.migrate import revisions
from bot.store.schema import metadata
from tests.bot.store.places import ANA, BEN, Place, enroll

NEWEST = revisions()[0]
# As the versions before the face login made them, with MetaData.create_all.
OLD = """
    CREATE TABLE preferences (person BLOB NOT NULL, language VARCHAR(8) NOT NULL,
        PRIMARY KEY (person));
    CREATE TABLE updates (place INTEGER NOT NULL, update_id BIGINT NOT NULL,
        PRIMARY KEY (place), UNIQUE (update_id));
"""

NEW_OF_PEOPLE = ("failed_photo", "failed_video", "voided", "drawn", "alarm", "heads", "seal")


def old_database(place: Place) -> None:
    with closing(sqlite3.connect(place.path)) as connection, connection:
        connection.executescript(OLD)
        for person, language in ((ANA, "es"), (BEN, "en")):
            row = (place.vault.code(person), language)
            connection.execute("INSERT INTO preferences VALUES (?, ?)", row)
        connection.executemany("INSERT INTO updates VALUES (?, ?)", [(1, 900), (2, 850), (3, 901)])


async def differences(place: Place) -> list[object]:
    """Between the tables that are there and those that the code thinks of."""

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, metadata)
        assert isinstance(found, list)
        return found

    address = str(place.address)
    scheme = "sqlite+aiosqlite:///" if place.is_sqlite else ""
    engine = create_async_engine(scheme + address.replace("postgresql:", "postgresql+asyncpg:"))
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(compare)
    finally:
        await engine.dispose()


async def test_migrations_make_the_tables_that_the_code_thinks_of(bare: Place) -> None:
    async with bare.store():
        pass
    assert await bare.sql("SELECT version_num FROM alembic_version") == [(NEWEST,)]
    assert await differences(bare) == []


async def test_a_database_of_before_the_face_login_keeps_everything(bare_sqlite: Place) -> None:
    old_database(bare_sqlite)
    async with bare_sqlite.store() as store:
        assert await store.language(ANA) == "es"
        assert await store.language(BEN) == "en"
        assert await store.served_updates(1) == (900, 850, 901)
        await enroll(store)
        await store.choose_language(ANA, "en")
    assert await differences(bare_sqlite) == []
    async with bare_sqlite.store() as store:
        assert await store.membership(ANA) is not None


async def test_a_database_of_before_takeovers_keeps_its_people(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
    for statement in (
        "DROP TABLE contacts",
        "DROP TABLE invitations",
        "DROP TABLE recovery_marks",
        "DROP TABLE holds",
        "DROP TABLE lease",
        "DROP TABLE takeover",
        "DELETE FROM tombstones",
        *(f"ALTER TABLE people DROP COLUMN {name}" for name in NEW_OF_PEOPLE),
        "ALTER TABLE challenges DROP COLUMN excused",
        "ALTER TABLE audit_ends DROP COLUMN seal",
        "ALTER TABLE key_marks DROP COLUMN closed",
        "ALTER TABLE enrolments DROP COLUMN claimed",
        "ALTER TABLE enrolments DROP COLUMN announced",
        "UPDATE alembic_version SET version_num = '0002'",
    ):
        await place.sql(statement)
    place.tombstones.unlink()
    async with place.store() as store:
        assert await store.templates(ANA) is not None
        assert (await store.tidy()).announcements == ()
    assert await differences(place) == []


async def test_the_erased_stay_erased_in_a_database_of_before(bare_sqlite: Place) -> None:
    old_database(bare_sqlite)
    old = bare_sqlite.path.read_bytes()
    async with bare_sqlite.store() as store:
        await store.forget(ANA)
    for file in bare_sqlite.folder.glob("bot.db-*"):
        file.unlink()
    bare_sqlite.path.write_bytes(old)
    async with bare_sqlite.store(restored=True) as store:
        assert await store.language(ANA) is None
        assert await store.language(BEN) == "en"


async def test_a_newer_database_is_refused_and_left_alone(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
    await place.sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"newer version of the bot .*9999") as caught:
        async with place.store():
            pass
    assert NEWEST in str(caught.value)
    await place.sql(f"UPDATE alembic_version SET version_num = '{NEWEST}'")
    async with place.store() as store:
        assert await store.membership(ANA) is not None


async def test_a_migration_that_fails_half_way_leaves_the_old_database(bare_sqlite: Place) -> None:
    old_database(bare_sqlite)
    await bare_sqlite.sql("CREATE TABLE tombstones (x)")  # in the way of the last step
    with pytest.raises(StoreError, match=r"bot\.db cannot be used"):
        async with bare_sqlite.store():
            pass
    tables = {name for (name,) in await bare_sqlite.sql("SELECT name FROM sqlite_master")}
    assert "people" not in tables
    assert "alembic_version" not in tables
    await bare_sqlite.sql("DROP TABLE tombstones")
    async with bare_sqlite.store() as store:
        assert await store.language(ANA) == "es"


async def _open_once(place: Place) -> None:
    async with place.store() as store:
        await store.choose_language(ANA, "es")


async def test_a_new_file_may_be_met_by_many_at_once(tmp_path: Path) -> None:
    async def meet(path: Path) -> None:
        database = Database(path, busy_timeout_s=10)
        await database.prepare()
        await database.close()

    for number in range(20):
        await asyncio.gather(*(meet(tmp_path / f"{number}.db") for _ in range(8)))


async def test_replicas_that_start_together_are_fine(bare: Place) -> None:
    await asyncio.gather(*(_open_once(bare) for _ in range(4)))
    assert await differences(bare) == []
    async with bare.store() as store:
        assert await store.language(ANA) == "es"
        assert await store.check_audit() is None


def test_every_migration_says_what_it_does_and_is_used() -> None:
    import bot.store.migrate

    folder = Path(bot.store.migrate.__file__).with_name("migrations") / "versions"
    revisions = []
    for path in sorted(folder.glob("*.py")):
        text = path.read_text()
        assert text.startswith('"""'), path
        revisions += re.findall(r'^revision = "(\d+)"', text, re.MULTILINE)
    assert revisions == [f"{number:04}" for number in range(1, len(revisions) + 1)]
    assert revisions[-1] == NEWEST
