"""What is on disk: languages under codes, update numbers, and no one's id."""

import re
import stat
from pathlib import Path

import pytest

from bot.store import Store, StoreError, Vault
from tests.bot.store.places import Place

PERSON = 5_812_345_678


def store(folder: Path, *, updates_kept: int = 10_000) -> Store:
    vault = Vault.open(folder / "secrets" / "ids.key")
    return Store(folder / "deep" / "bot.db", vault, updates_kept=updates_kept)


async def test_a_language_is_remembered_and_changed(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        assert await opened.language(PERSON) is None
        await opened.choose_language(PERSON, "es")
        await opened.choose_language(PERSON, "en")
        await opened.choose_language(PERSON + 1, "es")
    async with store(tmp_path) as opened:
        assert await opened.language(PERSON) == "en"
        assert await opened.language(PERSON + 1) == "es"


async def test_the_newest_updates_are_remembered_in_order(tmp_path: Path) -> None:
    async with store(tmp_path, updates_kept=100) as opened:
        for number in (*range(760, 200, -1), 250, 250):
            await opened.mark_served(number)
        served = await opened.served_updates(1)
    assert served[-3:] == (203, 202, 201)
    assert 100 <= len(served) <= 100 + 500
    async with store(tmp_path, updates_kept=100) as opened:
        await opened.mark_served(5)
        assert await opened.served_updates(1) == (*range(299, 200, -1), 5)


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_no_id_is_on_disk_in_any_spelling(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        await opened.choose_language(PERSON, "es")
        await opened.mark_served(77)
        raw = everything(tmp_path)  # while it is open, so that the write-ahead log is there too
    assert b"preferences" in raw
    spellings = [
        str(PERSON).encode(),
        f"{PERSON:x}".encode(),
        PERSON.to_bytes(8, "big"),
        PERSON.to_bytes(5, "big"),
        PERSON.to_bytes(5, "little"),
    ]
    for spelling in spellings:
        assert not re.search(re.escape(spelling), raw, re.IGNORECASE), spelling


def test_the_code_depends_on_the_key_and_on_the_person(tmp_path: Path) -> None:
    one, other = Vault(bytes(32)), Vault(bytes(31) + b"1")
    codes = {vault.code(person) for vault in (one, other) for person in (1, 2)}
    assert len(codes) == 4
    assert one.code(1) == Vault(bytes(32)).code(1)


async def test_key_and_database_are_their_owners_alone(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        await opened.choose_language(1, "es")
        for path in (tmp_path / "secrets" / "ids.key", tmp_path / "deep" / "bot.db"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_broken_key_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ids.key"
    path.write_bytes(b"short")
    with pytest.raises(StoreError, match="is no key of 32 bytes"):
        Vault.open(path)
    assert path.read_bytes() == b"short"


async def test_a_damaged_database_says_which_file_to_mend(tmp_path: Path) -> None:
    database = tmp_path / "bot.db"
    database.write_bytes(b"this is no database, whatever its name says" * 100)
    vault = Vault.open(tmp_path / "ids.key")
    with pytest.raises(StoreError, match=r"bot\.db cannot be used"):
        async with Store(database, vault, updates_kept=100):
            pass


async def test_numbers_of_another_bot_s_updates_are_forgotten(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.store() as store:
        await store.mark_served(7)
        assert await store.served_updates(1) == (7,), "those of before bots were told apart"
        assert await store.served_updates(1) == (7,)
        assert caplog.text == ""
        assert await store.served_updates(2) == ()
        assert "another bot" in caplog.text
        await store.mark_served(7)
    async with place.store() as store:
        assert await store.served_updates(2) == (7,)
