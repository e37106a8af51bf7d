"""Every setting of the engine in one table: name, type, default, help.

Each field is the environment variable of the same name in capitals. Knows nothing about what the
settings are used for.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails

from engine.errors import ConfigurationError

AUTO = "auto"
"""As a bundle's name: the best of those that come with face-matcher; `engine.default_bundle`."""

_KEY = re.compile(r"[!-~]{1,1024}")


def require_header_text(key: SecretStr | None) -> SecretStr | None:
    """A key as it was given, on either side of the service; ValueError where no header takes it."""
    if key is not None and not _KEY.fullmatch(key.get_secret_value()):
        raise ValueError("must be 1 to 1024 visible ASCII characters, without spaces")
    return key


def read_secret(file: str | Path) -> str:
    """The text of a file that has a secret, without the space around it.

    Raises:
        ValueError: it could not be read; the message is the reason, for the middle of a sentence.
    """
    try:
        return Path(file).read_text("utf-8-sig").strip()
    except OSError as error:
        raise ValueError(error.strerror) from None
    except ValueError:
        raise ValueError("it is no text") from None


class Settings(BaseModel):
    """What an operator can choose."""

    # Hidden: the key is among the inputs.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    engine_bundle: str = Field(
        AUTO,
        min_length=1,
        description="The bundle: a name in run/models, or a path; auto is "
        "celebrities-mobilefacenet where its weights are, else celebrities.",
    )
    engine_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run; auto takes a GPU where there is one."
    )
    engine_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Cores that the networks use; 0 is all that this process may use, or what "
        "OMP_NUM_THREADS says.",
    )
    engine_queue: int = Field(
        64, ge=1, le=100_000, description="Photos that may wait; more are told to come back later."
    )
    engine_max_batch: int = Field(
        8, ge=1, le=256, description="Photos that are computed together at most."
    )
    engine_decode_threads: int = Field(
        2,
        ge=1,
        le=64,
        description="Photos, and clips besides, that are decoded at the same time at most.",
    )
    face_weights_dir: Path = Field(
        Path("run/weights"), description="Folder where downloaded model weights are kept."
    )

    # The service
    engine_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that the service listens on; beyond this machine it wants a key.",
    )
    engine_port: int = Field(
        8008, ge=0, le=65535, description="Port that the service listens on; 0 is any free one."
    )
    engine_socket: Path | None = Field(
        None, description="Unix socket that the service listens on instead of host and port."
    )
    engine_api_key: SecretStr | None = Field(
        None, description="Key that callers show as `Authorization: Bearer KEY`."
    )
    engine_api_key_file: Path | None = Field(
        None, description="File that has the key, instead of ENGINE_API_KEY."
    )
    engine_timeout_s: float = Field(
        30,
        gt=0,
        le=3600,
        description="Seconds from a request's headers to its answer, unless it says X-Timeout-Ms.",
    )
    engine_max_timeout_s: float = Field(
        120, gt=0, le=3600, description="The most of these seconds, whatever a request says."
    )
    engine_stop_timeout_s: float = Field(
        9,
        ge=2,
        le=600,
        description="Seconds until the service has stopped; all but the last are for answering "
        "what was accepted.",
    )
    engine_watch_s: float = Field(
        2,
        ge=0,
        le=3600,
        description="Seconds between looks whether the bundle's files changed; 0 is never.",
    )

    _key_fits_a_header = field_validator("engine_api_key")(require_header_text)

    @property
    def api_key(self) -> str | None:
        """The key that callers have to show, where there is one."""
        return None if self.engine_api_key is None else self.engine_api_key.get_secret_value()


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings from an environment; what is not there, or empty, has its default.

    The key is read from ENGINE_API_KEY_FILE, where that is set.

    Raises:
        ConfigurationError: one or more are wrong; the message has a line for each, and the code
            is "settings_invalid".
    """
    names = {field.upper(): field for field in Settings.model_fields}
    given: dict[str, Any] = {
        names[name]: value for name, value in environ.items() if name in names and value
    }
    problems = []
    try:
        _read_key(given)
    except ConfigurationError as error:
        problems.append(error.message)
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        problems += map(_sentence, error.errors())
    if problems:
        # Without a cause: pydantic's own message repeats the values, secrets among them.
        raise ConfigurationError("\n".join(problems), code="settings_invalid")
    return settings


def _read_key(given: dict[str, Any]) -> None:
    file = given.get("engine_api_key_file")
    if file is None:
        return
    if "engine_api_key" in given:
        raise ConfigurationError("Set ENGINE_API_KEY or ENGINE_API_KEY_FILE, not both.")
    try:
        key = read_secret(file)
    except ValueError as reason:
        raise ConfigurationError(
            f"ENGINE_API_KEY_FILE is {file!r}, which could not be read: {reason}."
        ) from None
    if not key:
        raise ConfigurationError(f"ENGINE_API_KEY_FILE is {file!r}, and that file is empty.")
    given["engine_api_key"] = key


def _sentence(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0])
    shown = "" if name == "engine_api_key" else f" is {problem['input']!r}"
    return f"{name.upper()}{shown}: {problem['msg']}."
