"""Keys, database and people from the command line; on real files."""

import asyncio
import json
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot import storing
from bot.__main__ import main
from bot.settings import StoreChoice
from bot.store import Enrolment, FlowKind, Right, Store, Vault
from tests.bot.logins import vector

RUNNER = CliRunner()
ANA = 4711


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "TEMPLATE_KEYS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DATABASE", "IDS_KEY", "TEMPLATE_KEYS_FILE"):
        monkeypatch.setenv(name, str(StoreChoice.model_fields[name.lower()].default))
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    result = RUNNER.invoke(main, list(words))
    assert result.exit_code == code, result.output
    return result.output


async def enroll() -> None:
    async with storing.store(StoreChoice.read()) as store:
        flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        vectors = vector(0)[None]
        assert await store.enroll(flow, Enrolment("fake", vectors, "1", None, "en"))


async def enrolled() -> bool:
    async with storing.store(StoreChoice.read()) as store:
        found = await store.templates(ANA)
        return found is not None and bool(abs(found.vectors - vector(0)).max() < 1e-5)


async def forget() -> None:
    async with storing.store(StoreChoice.read()) as store:
        await store.forget(ANA)


def test_without_a_key_it_says_how_to_make_one() -> None:
    assert "python -m bot keys new" in run("db", "check", code=1)


def test_keys_are_made_listed_rotated_and_retired() -> None:
    run("keys", "new")
    asyncio.run(enroll())
    (first,) = (line for line in run("keys", "list").splitlines() if "newest" in line)
    assert "1 people" in first
    old = first.split()[0]
    run("keys", "new")
    assert "still protects 1 people" in run("keys", "retire", old, code=1)
    assert "1 people were moved" in run("keys", "rotate")
    run("keys", "retire", old)
    assert old not in run("keys", "list")
    assert asyncio.run(enrolled())


def test_a_backup_comes_back_without_the_erased() -> None:
    run("keys", "new")
    asyncio.run(enroll())
    run("db", "backup", "copy.db")
    run("db", "restore", "copy.db")
    assert asyncio.run(enrolled())
    asyncio.run(forget())
    run("db", "restore", "copy.db")
    assert not asyncio.run(enrolled())
    run("db", "check")
    run("db", "migrate")


def test_a_clock_is_confirmed() -> None:
    run("keys", "new")
    asyncio.run(doubt())
    assert asyncio.run(doubted())
    assert "By this machine's clock it is" in run("db", "clock")
    assert not asyncio.run(doubted())
    run("db", "check")


async def doubt() -> None:
    """As though the bot had been away for a month."""
    choice = StoreChoice.read()
    vault = Vault.open(choice.ids_key, storing.keyring(choice))

    def clock() -> datetime:
        return datetime.now(UTC) - timedelta(days=30)

    async with Store(choice.database, vault, updates_kept=1, clock=clock) as store:
        assert await store.erasing_waits() is None


async def doubted() -> bool:
    async with storing.store(StoreChoice.read()) as store:
        return await store.erasing_waits() is not None


def test_unlocking_says_what_it_did() -> None:
    run("keys", "new")
    asyncio.run(enroll())
    assert "Nothing keeps them" in run("unlock", str(ANA))


def test_keys_from_the_environment_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    run("keys", "new")
    text = Path("run/secrets/template.keys").read_text()
    monkeypatch.setenv("TEMPLATE_KEYS", text)
    assert "TEMPLATE_KEYS_FILE" in run("keys", "new", code=1)
    assert "people" in run("keys", "list")


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://here")
    assert "DATABASE_URL" in run("db", "check", code=2)


def test_forged_rows_are_named_and_a_restore_says_what_it_ended() -> None:
    run("keys", "new")
    asyncio.run(enroll())
    assert "as the bot left them" in run("db", "check")
    run("db", "backup", "copy.db")
    asyncio.run(replaced())
    assert "1 faces that were replaced" in run("db", "restore", "copy.db")
    with closing(sqlite3.connect("run/face-matcher.db")) as connection, connection:
        connection.execute("UPDATE people SET reset_due = 1")
    told = run("db", "check", code=1)
    assert "people: of person" in told
    assert str(ANA) not in told


async def replaced() -> None:
    async with storing.store(StoreChoice.read()) as store:
        await store.schedule_reset(ANA, delay_s=0)
        flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        given = Enrolment("fake", vector(1)[None], "1", None, "en", Right.WAIT)
        assert await store.enroll(flow, given)


def test_a_person_s_data_is_written_for_them_alone() -> None:
    run("keys", "new")
    asyncio.run(enroll())
    run("export", str(ANA), "ana.json")
    assert stat.S_IMODE(Path("ana.json").stat().st_mode) == 0o600
    assert len(json.loads(Path("ana.json").read_text())["templates"]["vectors"]) == 1
    assert "File exists" in run("export", str(ANA), "ana.json", code=1)
