"""Settings: one table, every mistake at once, no secret shown; and the command that reads them."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bot.sandbox import Sandbox
from bot.settings import FIRST_STEP, Settings, SettingsError, load, load_engine_choice, table

TOKEN = "123456:AAbbCCddEEffGGhhIIjjKKllMMnnOOpp"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from outside the test."""
    for row in table():
        monkeypatch.delenv(row.name, raising=False)
    monkeypatch.chdir(tmp_path)


def problems(monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[str, ...]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load()
    return raised.value.problems


def test_without_a_token_it_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch) == (FIRST_STEP,)
    assert "@BotFather" in FIRST_STEP
    assert "python -m bot demo" in FIRST_STEP


def test_all_mistakes_are_told_at_once_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    told = problems(
        monkeypatch,
        BOT_TOKEN="hunter2 is no token",
        WEBHOOK_SECRET="hunter2 with spaces",
        WEBHOOK_URL="http://example.org",
        WEBHOOK_PORT="99999",
        CONCURRENCY="many",
        ANSWER_TIMEOUT_S="0.2",
        LOG_LEVEL="loud",
        TELEGRAM_LOCAL_DIR="/nowhere/at/all",
    )
    assert sorted(sentence.split()[0] for sentence in told) == [
        "ANSWER_TIMEOUT_S",
        "BOT_TOKEN",
        "CONCURRENCY",
        "LOG_LEVEL",
        "TELEGRAM_LOCAL_DIR",
        "WEBHOOK_PORT",
        "WEBHOOK_SECRET",
        "WEBHOOK_URL",
    ]
    everything = "\n".join(told)
    assert "hunter2" not in everything
    assert "CONCURRENCY must be a whole number (now 'many')." in told
    assert "WEBHOOK_PORT must be at most 65535 (now '99999')." in told
    levels = "'debug', 'info', 'warning' or 'error'"
    assert f"LOG_LEVEL must be one of {levels} (now 'loud')." in told


def test_a_file_fills_in_what_the_environment_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"BOT_TOKEN={TOKEN}\nCONCURRENCY=5\nMATCHES=7\nOTHER=1\n")
    monkeypatch.setenv("CONCURRENCY", "6")
    settings = load()
    assert (settings.concurrency, settings.matches) == (6, 7)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    settings = load()
    shown = f"{settings} {settings!r} {settings.model_dump()}"
    assert not any(secret in shown for secret in settings.secrets)
    assert load().webhook_secret != settings.webhook_secret


def test_local_files_need_a_server_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = problems(monkeypatch, BOT_TOKEN=TOKEN, TELEGRAM_LOCAL_DIR=str(tmp_path))
    assert "set TELEGRAM_API_URL too" in told
    monkeypatch.setenv("TELEGRAM_API_URL", "http://127.0.0.1:8081/")
    assert load().telegram_api_url == "http://127.0.0.1:8081"


@pytest.mark.parametrize("end", ["/bot", "/bot/", f"/bot{TOKEN}", "/file/bot"])
def test_the_servers_address_is_given_without_the_bot(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    (told,) = problems(
        monkeypatch, BOT_TOKEN=TOKEN, TELEGRAM_API_URL=f"https://api.telegram.org{end}"
    )
    assert told.startswith("TELEGRAM_API_URL must end before /bot")
    assert TOKEN not in told


async def test_a_404_at_the_start_is_not_blamed_on_the_token_alone() -> None:
    async with Sandbox() as sandbox:
        done = await asyncio.to_thread(
            run,
            "run",
            BOT_TOKEN=sandbox.token,
            TELEGRAM_API_URL=f"{sandbox.url}/elsewhere",
            ENGINE_URL="http://127.0.0.1:1",
            FACE_LOGIN="false",
        )
    assert done.returncode == 2
    assert "TELEGRAM_API_URL" in done.stderr.splitlines()[-1]
    assert f"{sandbox.url}/elsewhere" in done.stderr.splitlines()[-1]


def test_every_setting_has_a_default_and_a_help() -> None:
    rows = list(table())
    assert len(rows) == len(Settings.model_fields)
    assert [row.name for row in rows if row.default == "required"] == ["BOT_TOKEN"]
    for row in rows:
        assert row.help.endswith("."), row.name


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        env={**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_prints_the_table_with_defaults() -> None:
    done = run("run", "--help")
    assert done.returncode == 0, done.stderr
    for row in table():
        assert re.search(rf"{row.name}\W+{re.escape(row.default)}", done.stdout), row.name
    assert re.search(r"ENGINE_BUNDLE\W+auto", done.stdout)


def test_the_command_ends_with_two_and_the_reasons() -> None:
    done = run("run", MATCHES="none", BOT_TOKEN="", ENGINE_DEVICE="tpu")
    assert done.returncode == 2
    first, second, third = done.stderr.splitlines()
    assert (first, second) == (FIRST_STEP, "MATCHES must be a whole number (now 'none').")
    assert third.startswith("ENGINE_DEVICE is 'tpu'")


def test_the_token_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("BOT_TOKEN_FILE", str(file))
    settings = load()
    assert settings.bot_token.get_secret_value() == TOKEN
    assert TOKEN in settings.secrets
    assert TOKEN not in repr(settings)


def test_a_file_without_a_token_is_told_with_all_other_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    assert problems(monkeypatch, BOT_TOKEN_FILE=str(file), FACES_MAX="99") == (
        f"BOT_TOKEN could not be read from BOT_TOKEN_FILE, '{file}': No such file or directory.",
        "FACES_MAX must be at most 32 (now '99').",
    )
    monkeypatch.delenv("FACES_MAX")
    file.write_text(" \n")
    assert problems(monkeypatch) == (f"BOT_TOKEN is not in BOT_TOKEN_FILE: '{file}' is empty.",)
    file.write_bytes(b"\xff\xfe\x00")
    assert "it is no text" in problems(monkeypatch)[0]
    file.write_text("hunter2 is no token")
    (told,) = problems(monkeypatch)
    assert told.startswith("BOT_TOKEN is no token")
    assert "hunter2" not in told


def test_a_token_given_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    (told,) = problems(monkeypatch, BOT_TOKEN=TOKEN, BOT_TOKEN_FILE=str(file))
    assert told == "BOT_TOKEN is given twice: keep it or BOT_TOKEN_FILE."


KEY = "hunter2-the-key"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8008", "unix:/run/engine.sock"])
def test_where_the_engine_is_can_be_read_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert load_engine_choice().engine_url is None
    (tmp_path / ".env").write_text(f"ENGINE_URL={url}\n")
    monkeypatch.setenv("ENGINE_API_KEY", KEY)
    choice = load_engine_choice()
    assert (choice.engine_url, choice.engine_key) == (url, KEY)
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    settings = load()
    assert (settings.engine_url, settings.engine_key) == (url, KEY)
    assert KEY in settings.secrets
    assert TOKEN in settings.secrets
    assert KEY not in f"{settings!r} {choice!r}"


def test_the_key_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    monkeypatch.setenv("ENGINE_API_KEY_FILE", str(file))
    assert load_engine_choice().engine_key == KEY
    monkeypatch.setenv("ENGINE_API_KEY", KEY)
    with pytest.raises(SettingsError, match="ENGINE_API_KEY is given twice"):
        load_engine_choice()


def test_a_wrong_address_or_key_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    told = problems(
        monkeypatch, BOT_TOKEN=TOKEN, ENGINE_URL="engine:8008", ENGINE_API_KEY="hunter2 é"
    )
    assert sorted(told) == [
        "ENGINE_API_KEY must be 1 to 1024 visible ASCII characters, without spaces.",
        "ENGINE_URL must be http://host:port, https://host or unix:/path/of/a/socket "
        "(now 'engine:8008').",
    ]
    (told,) = problems(monkeypatch, ENGINE_URL="http://ana:hunter2@engine", ENGINE_API_KEY="")
    assert "ENGINE_API_KEY" in told
    assert "hunter2" not in told


def test_the_settings_of_an_engine_elsewhere_are_not_read() -> None:
    done = run("run", BOT_TOKEN="none", ENGINE_URL="http://127.0.0.1:1", ENGINE_DEVICE="tpu")
    assert done.returncode == 2
    assert "ENGINE_DEVICE" not in done.stderr
