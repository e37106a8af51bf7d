from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from engine.errors import ConfigurationError
from engine.settings import Settings, load


def test_defaults() -> None:
    settings = load({"PATH": "/bin", "engine_queue": "no variable is called this"})
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
        "ENGINE_TIMEOUT_S": "1.5",
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
        "engine_timeout_s": 1.5,
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
        ({"ENGINE_API_KEY": "s3cret with spaces"}, "ENGINE_API_KEY: "),
        ({"ENGINE_API_KEY_FILE": str(tmp_path / "none")}, "could not be read"),
        ({"ENGINE_API_KEY_FILE": str(tmp_path / "empty")}, "is empty"),
        ({"ENGINE_API_KEY_FILE": str(tmp_path / "none"), "ENGINE_API_KEY": "s3cret"}, "not both"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(environ | {"ENGINE_PORT": "-1"})
        assert words in caught.value.message
        assert "ENGINE_PORT is '-1'" in caught.value.message
        assert "s3cret" not in caught.value.message


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert load({"ENGINE_QUEUE": "", "ENGINE_BUNDLE": ""}) == Settings()


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"ENGINE_DEVICE": "gpu", "ENGINE_THREADS": "-1", "ENGINE_QUEUE": "many"})
    assert caught.value.code == "settings_invalid"
    device, threads, queue = caught.value.message.splitlines()
    assert device.startswith("ENGINE_DEVICE is 'gpu': ")
    assert "'cuda'" in device
    assert threads.startswith("ENGINE_THREADS is '-1': ")
    assert queue.startswith("ENGINE_QUEUE is 'many': ")


def test_every_setting_has_a_help_text_and_a_default() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().engine_queue = 1  # type: ignore[misc]
