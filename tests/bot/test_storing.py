"""The store as the settings say: how logs name it, and what is no new one."""

import asyncio
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot import storing
from bot.settings import StoreChoice
from bot.store import StoreError, Vault
from bot.store.database import make_private_file


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (None, "/srv/faces.db"),
        (
            "postgresql://ana:p%40ss@db.example:5432/faces?password=x",
            "postgresql://db.example:5432/faces",
        ),
        ("postgres:///faces?host=/run/pg", "postgres:///faces"),
    ],
)
def test_a_database_is_named_without_secrets(url: str | None, named: str) -> None:
    settings = StoreChoice(
        database=Path("/srv/faces.db"), database_url=None if url is None else SecretStr(url)
    )
    assert storing.named(settings) == named


def choice(folder: Path) -> StoreChoice:
    return StoreChoice(
        database=folder / "bot.db",
        ids_key=folder / "ids.key",
        face_login=False,
    )


async def test_an_empty_file_is_no_new_database_where_its_key_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = choice(tmp_path)
    settings.database.touch()  # as a container's mount wants it
    async with storing.store(settings):
        pass
    settings.database.write_bytes(b"")
    with pytest.raises(StoreError, match=r"bot\.db is an empty file.*python -m bot db restore"):
        storing.store(settings)
    assert settings.database.read_bytes() == b""
    settings.database.unlink()
    async with storing.store(settings):
        pass
    assert "bot.db is made anew, though the key" in caplog.text


async def test_of_many_who_meet_a_new_database_nobody_takes_it_for_an_empty_one(
    tmp_path: Path,
) -> None:
    settings = choice(tmp_path)
    Vault.open(settings.ids_key)

    async def meet() -> None:
        async with storing.store(settings):
            pass

    await asyncio.gather(*(meet() for _ in range(6)))


def test_a_new_database_is_never_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "bot.db"
    make_private_file(path)
    found = path.stat()
    assert found.st_size > 0
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_places_are_told_and_memory_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = choice(tmp_path)
    assert storing.places(settings) == f"database={tmp_path}/bot.db ids_key={tmp_path}/ids.key"
    assert caplog.text == ""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("no file system in memory is here")
    storing.places(choice(shm / "face-matcher"))
    assert "/dev/shm/face-matcher/bot.db is in memory" in caplog.text
    assert "in IDS_KEY" in caplog.text
