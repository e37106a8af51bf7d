"""Every setting of the engine in one table: name, type, default, help.

Knows nothing about what the settings are used for, or how they are read (`engine.environment`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from engine.environment import SettingsTable

AUTO = "auto"
"""As a bundle's name: the best of those that come with face-matcher; `engine.default_bundle`."""

_KEY = re.compile(r"[!-~]{1,1024}")


def require_header_text(key: SecretStr | None) -> SecretStr | None:
    """A key as it was given, on either side of the service; ValueError where no header takes it."""
    if key is not None and not _KEY.fullmatch(key.get_secret_value()):
        raise ValueError("must be 1 to 1024 visible ASCII characters, without spaces")
    return key


class Settings(SettingsTable):
    """What an operator can choose."""

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
    engine_max_timeout_s: float = Field(
        120,
        gt=0,
        le=3600,
        description="The most seconds from a request's headers to its answer, whatever it says.",
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
    """Read the settings: see `engine.environment.SettingsTable.read`."""
    return Settings.read(environ)
