"""Every setting of the engine in one table: name, type, default, help.

Each field is the environment variable of the same name in capitals. Knows nothing about what the
settings are used for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import ConfigurationError


class Settings(BaseModel):
    """What an operator can choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine_bundle: str = Field(
        "celebrities", min_length=1, description="The bundle: a name in run/models, or a path."
    )
    engine_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run; auto takes a GPU where there is one."
    )
    engine_threads: int = Field(
        0, ge=0, le=1024, description="Cores that the networks use; 0 is all there are."
    )
    engine_queue: int = Field(
        64, ge=1, le=100_000, description="Photos that may wait; more are told to come back later."
    )
    engine_max_batch: int = Field(
        8, ge=1, le=256, description="Photos that are computed together at most."
    )
    engine_decode_threads: int = Field(
        2, ge=1, le=64, description="Photos that are decoded at the same time at most."
    )
    face_weights_dir: Path = Field(
        Path("run/weights"), description="Folder where downloaded model weights are kept."
    )


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings from an environment; what is not there, or empty, has its default.

    Raises:
        ConfigurationError: one or more are wrong; the message has a line for each, and the code
            is "settings_invalid".
    """
    names = {field.upper(): field for field in Settings.model_fields}
    given = {names[name]: value for name, value in environ.items() if name in names and value}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        problems = [
            f"{str(problem['loc'][0]).upper()} is {problem['input']!r}: {problem['msg']}."
            for problem in error.errors()
        ]
        raise ConfigurationError("\n".join(problems), code="settings_invalid") from None
