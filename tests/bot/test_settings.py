"""Settings: one table, every mistake at once, no secret shown; and the command that reads them."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bot.sandbox import Sandbox
from bot.settings import EngineChoice, Settings, StoreChoice, home, mistyped, table
from engine.environment import SettingsError
from tests.bot.fakes import picture

FIRST_STEP = f"BOT_TOKEN is not set. {Settings.model_fields['bot_token'].description}"
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
        Settings.read()
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
    settings = Settings.read()
    assert (settings.concurrency, settings.matches) == (6, 7)


def test_files_are_in_the_project_wherever_the_bot_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = StoreChoice.read()
    assert choice.database == ROOT / "run" / "face-matcher.db"
    assert choice.ids_key == ROOT / "run" / "secrets" / "ids.key"
    assert choice.template_keys_file == ROOT / "run" / "secrets" / "template.keys"
    monkeypatch.setenv("DATABASE", "mine.db")
    assert StoreChoice.read().database == tmp_path / "mine.db"
    # In a container the packages are copied without the project's other files.
    assert home(Path("/app/bot/settings.py"), {}) == Path("/app")
    installed = Path("/usr/lib/python3/site-packages/bot/settings.py")
    assert home(installed, {"XDG_DATA_HOME": "/data"}) == Path("/data/face-matcher")
    assert home(installed, {}) == Path("~/.local/share/face-matcher").expanduser()


def test_a_bom_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(TOKEN, "utf-8-sig")
    (tmp_path / ".env").write_text("BOT_TOKEN_FILE=token\n", "utf-8-sig")
    assert Settings.read().bot_token.get_secret_value() == TOKEN


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16", "BOT_TOKEN=x\n"),
        ("utf-16-le", "BOT_TOKEN=x\n"),
        ("latin-1", "BOT_TOKEN=x\n# contraseña\n"),
    ],
)
def test_a_file_of_settings_that_is_no_utf_8_is_told(
    tmp_path: Path, encoding: str, text: str
) -> None:
    (tmp_path / ".env").write_text(text, encoding)
    with pytest.raises(SettingsError, match=r"\.env is no UTF-8 text.*save it as UTF-8"):
        Settings.read()
    done = run("run")
    assert done.returncode == 2
    assert ".env is no UTF-8 text" in done.stderr
    assert "Traceback" not in done.stderr


def test_mistyped_settings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("LOG_LEVLE=debug\nOTHER=1\n")
    environment = {"BOT_TOKN": TOKEN, "ENGINE_DEVISE": "cpu", "DATABASE_URI": "x", "HOME": "/"}
    told = list(mistyped(environment))
    assert told == [
        "BOT_TOKN is no setting, and ignored: is BOT_TOKEN meant?",
        "DATABASE_URI is no setting, and ignored: is DATABASE_URL meant?",
        "ENGINE_DEVISE is no setting, and ignored: is ENGINE_DEVICE meant?",
        "LOG_LEVLE is no setting, and ignored: is LOG_LEVEL meant?",
    ]
    assert list(mistyped({"DATABASE_URI": "x", "DATABASE_URL": "y", "LOG_LEVEL": "info"})) == []
    assert "is BOT_TOKEN meant?" in run("run", BOT_TOKN=TOKEN).stderr


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    settings = Settings.read()
    shown = f"{settings} {settings!r} {settings.model_dump()}"
    assert not any(secret in shown for secret in settings.secrets)
    assert Settings.read().webhook_secret != settings.webhook_secret


def test_local_files_need_a_server_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = problems(monkeypatch, BOT_TOKEN=TOKEN, TELEGRAM_LOCAL_DIR=str(tmp_path))
    assert "set TELEGRAM_API_URL too" in told
    monkeypatch.setenv("TELEGRAM_API_URL", "http://127.0.0.1:8081/")
    assert Settings.read().telegram_api_url == "http://127.0.0.1:8081"


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
        env={
            **clean,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "DATABASE": "bot.db",
            "IDS_KEY": "ids.key",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "proxy",
    [
        {"ALL_PROXY": "socks5://ana:hunter2@127.0.0.1:1"},
        {"https_proxy": "ftp://ana:hunter2@127.0.0.1"},
        {"HTTP_PROXY": "127.0.0.1:hunter2"},
        {"NO_PROXY": "[::1],10.0.0.0/8"},
    ],
    ids=lambda proxy: next(iter(proxy)),
)
def test_proxies_that_cannot_be_used_are_named(proxy: dict[str, str]) -> None:
    done = run("run", BOT_TOKEN=TOKEN, ENGINE_URL="http://127.0.0.1:1", FACE_LOGIN="false", **proxy)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert next(iter(proxy)) in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr


def test_an_output_that_takes_ascii_only_ends_nothing(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture())
    for words in (["run", "--help"], ["demo", "--once", str(photo)], ["--help"]):
        done = run(*words, ENGINE_URL="http://127.0.0.1:1", PYTHONIOENCODING="ascii")
        assert "Traceback" not in done.stderr
        assert done.stdout, words


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
    assert (first, second) == (
        f"error: {FIRST_STEP}",
        "error: MATCHES must be a whole number (now 'none').",
    )
    assert third.startswith("error: ENGINE_DEVICE must be one of ")


def test_the_token_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("BOT_TOKEN_FILE", str(file))
    settings = Settings.read()
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
    assert EngineChoice.read().engine_url is None
    (tmp_path / ".env").write_text(f"ENGINE_URL={url}\n")
    monkeypatch.setenv("ENGINE_API_KEY", KEY)
    choice = EngineChoice.read()
    assert (choice.engine_url, choice.engine_key) == (url, KEY)
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    settings = Settings.read()
    assert (settings.engine_url, settings.engine_key) == (url, KEY)
    assert KEY in settings.secrets
    assert TOKEN in settings.secrets
    assert KEY not in f"{settings!r} {choice!r}"


def test_the_key_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    monkeypatch.setenv("ENGINE_API_KEY_FILE", str(file))
    assert EngineChoice.read().engine_key == KEY
    monkeypatch.setenv("ENGINE_API_KEY", KEY)
    with pytest.raises(SettingsError, match="ENGINE_API_KEY is given twice"):
        EngineChoice.read()


def test_a_wrong_address_or_key_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    told = problems(
        monkeypatch, BOT_TOKEN=TOKEN, ENGINE_URL="engine:8008", ENGINE_API_KEY="hunter2 é"
    )
    assert sorted(told) == [
        "ENGINE_API_KEY must be 1 to 1024 visible ASCII characters, without spaces.",
        "ENGINE_URL must be http://host:port, https://host or unix:/path/of/a/socket "
        "(now 'engine:8008').",
    ]
    (problem,) = problems(monkeypatch, ENGINE_URL="http://ana:hunter2@engine", ENGINE_API_KEY="")
    assert "ENGINE_API_KEY" in problem
    assert "hunter2" not in problem


def test_the_settings_of_an_engine_elsewhere_are_not_read() -> None:
    done = run("run", BOT_TOKEN="none", ENGINE_URL="http://127.0.0.1:1", ENGINE_DEVICE="tpu")
    assert done.returncode == 2
    assert "ENGINE_DEVICE" not in done.stderr


@pytest.mark.parametrize(
    ("level", "allowed", "expected"),
    [("video", "", False), ("video", "true", True), ("photo", "", True), ("photo", "true", True)],
)
def test_photos_verify_where_they_are_asked_for_or_allowed(
    monkeypatch: pytest.MonkeyPatch, level: str, allowed: str, expected: bool
) -> None:
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    monkeypatch.setenv("VERIFY_LEVEL", level)
    monkeypatch.setenv("ALLOW_PHOTO_VERIFY", allowed)
    assert Settings.read().photo_verify_allowed is expected


def test_photos_that_are_asked_for_and_forbidden_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = problems(monkeypatch, BOT_TOKEN=TOKEN, VERIFY_LEVEL="photo", ALLOW_PHOTO_VERIFY="false")
    assert told == (
        "ALLOW_PHOTO_VERIFY forbids what VERIFY_LEVEL=photo asks for: change one of the two "
        "(now 'false').",
    )
