from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from engine.__main__ import app
from engine.errors import ConfigurationError
from engine.settings import Settings, load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from a file of the developer's."""
    monkeypatch.chdir(tmp_path)


def test_a_file_fills_in_what_the_environment_does_not_say(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ENGINE_QUEUE=5\nENGINE_PORT=81\nOTHER=1\n")
    settings = load({"ENGINE_PORT": "80", "ENGINE_QUEUE": ""})
    assert (settings.engine_queue, settings.engine_port) == (5, 80)


def test_the_service_reads_the_file_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ENGINE_PORT=many\n")
    result = CliRunner(env={"ENGINE_PORT": ""}).invoke(app, ["serve"])
    assert result.exit_code == 2
    assert "ENGINE_PORT must be a whole number (now 'many')." in result.stderr


def test_defaults() -> None:
    settings = load({"PATH": "/bin", "QUEUE": "no variable is called this"})
    assert settings == Settings()
    assert settings.engine_bundle == "auto"
    assert settings.engine_device == "auto"
    assert settings.face_weights_dir == Path("run/weights")


def test_every_setting_comes_from_the_environment() -> None:
    environ = {
        "ENGINE_BUNDLE": "family",
        "ENGINE_DEVICE": "cpu",
        "ENGINE_THREADS": "3",
        "ENGINE_QUEUE": "5",
        "ENGINE_MAX_BATCH": "2",
        "ENGINE_DECODE_THREADS": "4",
        "FACE_WEIGHTS_DIR": "/weights",
        "ENGINE_HOST": "0.0.0.0",
        "ENGINE_PORT": "80",
        "ENGINE_SOCKET": "/socket",
        "ENGINE_API_KEY": "key",
        "ENGINE_MAX_TIMEOUT_S": "2.5",
        "ENGINE_STOP_TIMEOUT_S": "3.5",
        "ENGINE_WATCH_S": "0",
    }
    settings = load(environ)
    assert settings.model_dump() == {
        "engine_bundle": "family",
        "engine_device": "cpu",
        "engine_threads": 3,
        "engine_queue": 5,
        "engine_max_batch": 2,
        "engine_decode_threads": 4,
        "face_weights_dir": Path("/weights"),
        "engine_host": "0.0.0.0",
        "engine_port": 80,
        "engine_socket": Path("/socket"),
        "engine_api_key": SecretStr("key"),
        "engine_api_key_file": None,
        "engine_max_timeout_s": 2.5,
        "engine_stop_timeout_s": 3.5,
        "engine_watch_s": 0,
    }
    assert {name.upper() for name in Settings.model_fields} == {*environ, "ENGINE_API_KEY_FILE"}


def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("the-key\n")
    settings = load({"ENGINE_API_KEY_FILE": str(file)})
    assert settings.api_key == "the-key"
    assert "the-key" not in repr(settings)
    assert Settings().api_key is None


def test_a_key_that_cannot_be_used_is_told_with_the_rest_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for environ, words in (
        ({"ENGINE_API_KEY": "s3cret with spaces"}, "ENGINE_API_KEY must be 1 to 1024"),
        ({"ENGINE_API_KEY_FILE": str(tmp_path / "none")}, "could not be read"),
        ({"ENGINE_API_KEY_FILE": str(tmp_path / "empty")}, "is empty"),
        (
            {"ENGINE_API_KEY_FILE": str(tmp_path / "none"), "ENGINE_API_KEY": "s3cret"},
            "is given twice",
        ),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(environ | {"ENGINE_PORT": "-1"})
        assert words in caught.value.message
        assert "ENGINE_PORT must be at least 0 (now '-1')." in caught.value.message
        assert "s3cret" not in caught.value.message


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert load({"ENGINE_QUEUE": "", "ENGINE_BUNDLE": ""}) == Settings()


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"ENGINE_DEVICE": "gpu", "ENGINE_THREADS": "-1", "ENGINE_QUEUE": "many"})
    assert caught.value.code == "settings_invalid"
    device, threads, queue = caught.value.message.splitlines()
    assert device.startswith("ENGINE_DEVICE must be one of ")
    assert "'cuda'" in device
    assert threads == "ENGINE_THREADS must be at least 0 (now '-1')."
    assert queue == "ENGINE_QUEUE must be a whole number (now 'many')."


def test_every_setting_has_a_help_text_and_a_default() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().engine_queue = 1  # type: ignore[misc]
