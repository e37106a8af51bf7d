from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.errors import ConfigurationError
from engine.settings import Settings, load


def test_defaults() -> None:
    settings = load({"PATH": "/bin", "engine_queue": "no variable is called this"})
    assert settings == Settings()
    assert settings.engine_bundle == "celebrities"
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
    }
    assert {name.upper() for name in Settings.model_fields} == set(environ)


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
