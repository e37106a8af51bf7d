"""What version 0.1 (commit a61391c) wrote is of use after the upgrade, as CHANGELOG.md says.

`database.sql` and the `people` bundle were written by its code: its bot enrolled two made-up
people, one of whom verified once with success and once without, while the other was at it.
"""

import asyncio
import re
import sqlite3
import tomllib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import typer
from starlette.routing import Route
from typer.testing import CliRunner

from bot import settings as bot_settings
from bot.__main__ import main
from bot.texts import say
from engine import bundle
from engine import settings as engine_settings
from engine.__main__ import app as engine_commands
from engine.people import recogniser
from engine.people.gallery import Gallery
from engine.service.app import application
from engine.types import Verdict
from tests.bot.logins import LoginEngine, Shots, english, login_bot, verify
from training.__main__ import app as training_commands

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IDS_KEY = bytes.fromhex("9e5acb05a90ddc72218fc105a792083232dd757798772eff6c201867160221de")
TEMPLATE_KEYS = "07032230 vh8F4Lqt04FxBzYp7L00YLGOL7ts1p+FUP4Uc+uY4/4=\n"
CODE = "P3CRJ-9BQBF-5WREQ-RRFJ6"
"""Ana's recovery code, as 0.1 told her."""
NAMES = tomllib.loads((HERE / "names.toml").read_text())
KEPT: dict[str, Any] = {"idle_days": 36_500, "audit_days": 36_500}
"""Nothing goes by age: the files do not get younger."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a 0.1 bot: its database and its keys."""
    (tmp_path / "secrets").mkdir()
    for name, content in (("ids.key", IDS_KEY), ("template.keys", TEMPLATE_KEYS.encode())):
        (tmp_path / "secrets" / name).write_bytes(content)
        (tmp_path / "secrets" / name).chmod(0o600)
    with closing(sqlite3.connect(tmp_path / "bot.db")) as connection:
        connection.executescript((HERE / "database.sql").read_text())
    (tmp_path / "bot.db").chmod(0o600)
    return tmp_path


def fresh() -> Shots:
    shots = Shots()
    shots._taken = 1_000
    return shots


def rows(folder: Path, query: str) -> Sequence[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "bot.db")) as connection:
        return connection.execute(query).fetchall()


async def test_whoever_enrolled_verifies(folder: Path) -> None:
    engine, shots = LoginEngine(), fresh()
    async with login_bot(folder, engine, **KEPT) as sandbox:
        ana, ben = await english(sandbox), await english(sandbox, "ben")
        assert (await verify(ana, shots)).text == say("en", "verify.passed_photo")
        assert (await verify(ben, shots)).text == say("en", "verify.failed_photo")
        engine.person = 1
        assert (await verify(ana, shots)).text == say("en", "verify.failed_photo")
        assert (await verify(ben, shots)).text == say("en", "verify.passed_photo")


async def test_the_recovery_code_is_still_good(folder: Path) -> None:
    async with login_bot(folder, LoginEngine(), **KEPT) as sandbox:
        ana = await english(sandbox)
        await ana.send_text("/recover AAAAA-AAAAA-AAAAA-AAAAA")
        assert (await ana.reply()).text == say("en", "recover.wrong")
        await ana.send_text(f"/recover {CODE}")
        assert (await ana.reply()).text == say("en", "recover.done")


async def test_nothing_is_taken_for_tampered_and_old_attempts_count(folder: Path) -> None:
    async with login_bot(folder, LoginEngine(), **KEPT):
        pass
    environ = {
        "DATABASE": str(folder / "bot.db"),
        "IDS_KEY": str(folder / "secrets" / "ids.key"),
        "TEMPLATE_KEYS_FILE": str(folder / "secrets" / "template.keys"),
    }
    checked = await asyncio.to_thread(CliRunner(env=environ).invoke, main, ["db", "check"])
    assert checked.exit_code == 0, checked.output
    outcomes = rows(folder, "SELECT outcome, count(*) FROM attempts GROUP BY outcome")
    assert outcomes == [("failed", 1), ("passed", 1)]
    # What was under way is over: 0.2 words it in another way.
    assert rows(folder, "SELECT count(*) FROM flows") == [(0,)]


def test_a_bundle_names_its_people() -> None:
    found = bundle.load(HERE / "people")
    assert found.manifest.login is not None
    known = recogniser.load(found, torch.device("cpu"))
    assert isinstance(known, Gallery)
    matches = known.search(found.tensors["prototypes"], top_k=1)
    assert [match.name for (match,) in matches] == ["Ana", "Ben", "Carla"]
    assert {match.verdict for (match,) in matches} == {Verdict.IS}


def told_of() -> str:
    """What CHANGELOG.md says of upgrading."""
    return (ROOT / "CHANGELOG.md").read_text().split("### Upgrading from 0.1")[1].split("\n### ")[0]


def test_every_setting_is_there_or_told_of() -> None:
    known = {row.name for row in bot_settings.table()}
    known |= {name.upper() for name in engine_settings.Settings.model_fields}
    gone = set(NAMES["settings"].split()) - known
    assert not {name for name in gone if f"`{name}`" not in told_of()}
    # And nothing is called gone that is there.
    (fixed,) = re.findall(r"^\| (.*) \| gone: what stood there", told_of(), re.MULTILINE)
    assert not set(re.findall(r"`(\w+)`", fixed)) & known


def test_every_endpoint_is_there_or_told_of() -> None:
    def nobody() -> NoReturn:
        raise AssertionError("no request comes")

    routes = application(nobody, engine_settings.Settings()).routes
    there = {route.path for route in routes if isinstance(route, Route)}
    assert "/v1/analyze" in there
    assert not {path for path in set(NAMES["endpoints"].split()) - there if path not in told_of()}


@pytest.mark.parametrize("package", NAMES["commands"])
def test_every_command_is_there_or_told_of(package: str) -> None:
    commands = {"bot": main, "engine": engine_commands, "training": training_commands}
    there: Any = typer.main.get_command(commands[package])
    gone = set(NAMES["commands"][package].split()) - set(there.commands)
    assert not {name for name in gone if f"python -m {package} {name}" not in told_of()}
