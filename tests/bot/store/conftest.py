"""Databases to test on: SQLite always, PostgreSQL where TEST_POSTGRES_URL names a server.

Tables are made once; every test has a copy of its own. Tests of rules (`pytest.mark.rules`), which
count and look at the clock with statements that others try on both kinds, do with SQLite; with
`--whole` they are tried on PostgreSQL, too.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.store import Store
from tests.bot.store.places import Place, on_postgresql, postgresql_sql

_POSTGRESQL = os.environ.get("TEST_POSTGRES_URL", "")
_NO_SERVER = "TEST_POSTGRES_URL names no PostgreSQL server (python -m tests.postgres pytest ...)"
_TEMPLATE, _COPY = (f"face_matcher_{kind}_{os.getpid()}" for kind in ("made", "test"))
_BACKENDS = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.skipif(not _POSTGRESQL, reason=_NO_SERVER)),
]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rules: needs no PostgreSQL, except with --whole")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the rules on PostgreSQL."""
    if config.getoption("whole"):
        return
    left_out = {item for item in items if item.get_closest_marker("rules") and _on_postgresql(item)}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def _on_postgresql(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    return call is not None and "postgresql" in map(call.params.get, ("place", "bare"))


async def _make(place: Place) -> Place:
    async with place.store():
        pass
    return place


async def _create(name: str, template: str = "template1") -> str:
    await postgresql_sql(_POSTGRESQL, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await postgresql_sql(_POSTGRESQL, f"CREATE DATABASE {name} TEMPLATE {template}")
    return on_postgresql(_POSTGRESQL, name)


@pytest.fixture(scope="session")
def made_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of SQLite's with all tables."""
    folder = tmp_path_factory.mktemp("made")
    return asyncio.run(_make(Place(folder, folder / "bot.db"))).path


@pytest.fixture(scope="session")
def made_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database of PostgreSQL's with all tables; empty where there is no server."""
    if not _POSTGRESQL:
        yield ""
        return
    folder = tmp_path_factory.mktemp("made")
    asyncio.run(_make(Place(folder, asyncio.run(_create(_TEMPLATE)))))
    yield _TEMPLATE
    asyncio.run(postgresql_sql(_POSTGRESQL, f"DROP DATABASE {_TEMPLATE} WITH (FORCE)"))


@asynccontextmanager
async def _postgresql(folder: Path, template: str) -> AsyncIterator[Place]:
    try:
        yield Place(folder, await _create(_COPY, template))
    finally:
        await postgresql_sql(_POSTGRESQL, f"DROP DATABASE IF EXISTS {_COPY} WITH (FORCE)")


@pytest.fixture(params=_BACKENDS)
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, made_sqlite: Path, made_postgresql: str
) -> AsyncIterator[Place]:
    """A database with nobody in it, and the keys to it."""
    if request.param == "sqlite":
        shutil.copy(made_sqlite, tmp_path / "bot.db")
        yield Place(tmp_path, tmp_path / "bot.db")
    else:
        async with _postgresql(tmp_path, made_postgresql) as found:
            yield found


@pytest.fixture(params=_BACKENDS)
async def bare(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A database without tables."""
    if request.param == "sqlite":
        yield Place(tmp_path, tmp_path / "bot.db")
    else:
        async with _postgresql(tmp_path, "template1") as found:
            yield found


@pytest.fixture
def sqlite(tmp_path: Path, made_sqlite: Path) -> Place:
    """As `place`, on SQLite only."""
    shutil.copy(made_sqlite, tmp_path / "bot.db")
    return Place(tmp_path, tmp_path / "bot.db")


@pytest.fixture
def bare_sqlite(tmp_path: Path) -> Place:
    """As `bare`, on SQLite only."""
    return Place(tmp_path, tmp_path / "bot.db")


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    """An open store."""
    async with place.store() as opened:
        yield opened
