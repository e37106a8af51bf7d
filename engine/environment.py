"""Reads tables of settings from the environment and the file `.env` in the working directory.

Of every program here: the bot's, the engine's and the workshop's. Each field of a table is the
environment variable of the same name in capitals. Knows nothing about which settings there are.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, get_args

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from engine.errors import ConfigurationError

_FILE = ".env"
_ALIKE = 0.85
_CREDENTIALS = re.compile(r"@|/bot[^/]*/*$")
"""An address with a password or a token in it is refused, and not repeated."""


class SettingsError(ConfigurationError):
    """Settings that cannot be used; `problems` has one plain sentence for each mistake."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems), code="settings_invalid")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as help and documents show it."""

    name: str
    default: str
    help: str


class SettingsTable(BaseModel):
    """A table of settings.

    A field that has another one of its name with `_file` behind it, without a default, may be in
    the file that this one names: secrets are.
    """

    # Hidden: secrets are among the inputs.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ, **chosen: Any) -> Self:
        """Read the settings; what is nowhere, or empty, has its default.

        Args:
            environ: comes before the file `.env`.
            chosen: settings by field name that come before the environment.

        Raises:
            SettingsError: with every mistake at once; no secret is in it.
        """
        told = {name: value for name, value in environ.items() if value}
        said = {name.upper(): value for name, value in {**read_file(), **told}.items()}
        given: dict[str, Any] = {
            field: said[field.upper()] for field in cls.model_fields if field.upper() in said
        }
        given |= chosen
        problems: dict[str, str] = {}
        for secret in cls.model_fields:
            file = given.get(f"{secret}_file")
            if file and cls.model_fields[f"{secret}_file"].default is None:
                try:
                    given[secret] = _read_secret(secret, file, given)
                except ValueError as reason:
                    problems[secret] = f"{secret.upper()} {reason}."
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            for detail in error.errors():
                problems.setdefault(str(detail["loc"][0]), cls._sentence(detail))
        if problems:
            # Without a cause: pydantic's own message repeats the values, secrets among them.
            raise SettingsError(*problems.values()) from None
        return settings

    @classmethod
    def rows(cls) -> Iterator[Row]:
        """All settings, in the order of the table."""
        for name, field in cls.model_fields.items():
            if field.is_required():
                default = "required"
            elif field.default_factory is not None:
                default = "random"
            else:
                default = "" if field.default is None else str(field.default)
            yield Row(name.upper(), default, field.description or "")

    @classmethod
    def _sentence(cls, detail: ErrorDetails) -> str:
        name, value = str(detail["loc"][0]), detail["input"]
        field = cls.model_fields[name]
        if detail["type"] == "missing":
            return f"{name.upper()} is not set. {field.description}"
        secret = field.annotation is SecretStr or SecretStr in get_args(field.annotation)
        hidden = secret or _CREDENTIALS.search(str(value))
        shown = "" if hidden else f" (now {value!r})"
        return f"{name.upper()} {_reason(detail)}{shown}."


def read_file() -> dict[str, str]:
    """What `.env` in the working directory says, without what is empty.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        content = Path(_FILE).read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingsError(_no_text(f"line {line}")) from None
    except OSError as error:
        raise SettingsError(
            f"{_FILE} cannot be read ({error.strerror}): mend its permissions, or remove it."
        ) from None
    if "\0" in text:
        raise SettingsError(_no_text("it has zero bytes, as UTF-16 has"))
    given = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in given.items() if value}


def mistyped(names: Iterable[str], *tables: type[SettingsTable]) -> Iterator[str]:
    """A sentence for each name that is nearly a setting's, among these and those in `.env`.

    Raises:
        SettingsError: see `read_file`.
    """
    known = {field.upper() for table in tables for field in table.model_fields}
    given = {name.upper() for name in (*names, *read_file())}
    for name in sorted(given - known):
        near = get_close_matches(name, known, 1, _ALIKE)
        if near and near[0] not in given:
            yield f"{name} is no setting, and ignored: is {near[0]} meant?"


def _no_text(where: str) -> str:
    return f"{_FILE} is no UTF-8 text ({where}): save it as UTF-8 in your editor."


def _read_secret(secret: str, file: str | Path, given: Mapping[str, Any]) -> str:
    """The text of a file that has a secret, without the space around it, or ValueError."""
    setting = f"{secret.upper()}_FILE"
    if given.get(secret):
        raise ValueError(f"is given twice: keep it or {setting}")
    try:
        text = Path(file).read_text("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"could not be read from {setting}, {str(file)!r}: {reason}") from None
    if not text:
        raise ValueError(f"is not in {setting}: {str(file)!r} is empty")
    return text


def _reason(detail: ErrorDetails) -> str:
    context: Mapping[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "must be a number"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "greater_than":
            return f"must be more than {context['gt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case _:
            message = detail["msg"]
            return message[0].lower() + message[1:]
