"""Every setting of the bot in one table: name, type, default, help. The environment comes first.

Each field is the environment variable of the same name in capitals (`bot_token` is `BOT_TOKEN`);
a file `.env` in the working directory fills in what the environment does not say. Knows nothing
about what the settings are used for.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

_TOKEN = re.compile(r"\d+:[A-Za-z0-9_-]+")
_WEBHOOK_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")
FIRST_STEP = (
    "BOT_TOKEN is not set. In Telegram, write /newbot to @BotFather; it answers with a token to "
    "put here: BOT_TOKEN=123456:ABC... To try everything without one: python -m bot demo"
)


class SettingsError(Exception):
    """Settings that cannot be used; `problems` has one plain sentence for each mistake."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """What an operator can choose."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, validate_default=False
    )

    # Telegram
    bot_token: SecretStr = Field(description="The bot's token, from @BotFather. Required.")
    telegram_api_url: str = Field(
        "https://api.telegram.org", description="The Bot API server; your own one, for example."
    )
    telegram_local_dir: Path | None = Field(
        None,
        description="Folder of your own Bot API server's files, when it runs with --local. Without "
        "it no file of this machine is ever read on a server's word.",
    )
    webhook_url: str | None = Field(
        None,
        description="Public HTTPS address that leads to the webhook's port; updates come to its "
        "/telegram. Without it the bot polls.",
    )
    webhook_secret: SecretStr = Field(
        default_factory=lambda: SecretStr(secrets.token_urlsafe(32)),
        description="What Telegram sends with every update; random at each start by default.",
    )
    webhook_host: str = Field("127.0.0.1", description="Address that the webhook listens on.")
    webhook_port: int = Field(
        8443, ge=1, le=65535, description="Port that the webhook and /healthz listen on."
    )
    send_retries: int = Field(
        3, ge=1, le=10, description="How often a call that Telegram failed or throttled is retried."
    )
    send_rate: float = Field(
        30, ge=1, le=1000, description="Messages a second that the bot sends at most."
    )

    # Answering
    answer_timeout_s: float = Field(
        30,
        ge=1,
        le=300,
        description="Seconds after which a person has an answer, whatever happens.",
    )
    download_timeout_s: float = Field(
        15, ge=0.1, le=300, description="Seconds that fetching one file from Telegram may take."
    )
    concurrency: int = Field(
        16, ge=1, le=256, description="How many people are being answered at one time."
    )
    person_queue: int = Field(
        3, ge=1, le=100, description="Updates of one person that may wait; the surplus is refused."
    )
    waiting_total: int = Field(
        500, ge=1, le=100_000, description="Updates of all people that may wait."
    )
    album_wait_s: float = Field(
        1.5, ge=0.01, le=10, description="Silence after which an album counts as complete."
    )
    faces_max: int = Field(
        12, ge=1, le=32, description="Usable faces in a photo above which it is refused."
    )
    matches: int = Field(8, ge=1, le=50, description="Look-alikes named for each face, at most.")
    buttons_minutes: float = Field(
        60, gt=0, le=2880, description="How long the buttons below an answer work."
    )
    answers_kept: int = Field(
        500, ge=1, le=100_000, description="Answers whose buttons work at one time."
    )
    stop_timeout_s: float = Field(
        9, ge=1, le=60, description="Seconds for running answers to finish when the bot stops."
    )

    # This machine
    database: Path = Field(
        Path("run/face-matcher.db"), description="SQLite file: languages and seen update numbers."
    )
    ids_key: Path = Field(
        Path("run/secrets/ids.key"),
        description="Key under which people's ids are coded in the database; made at first start.",
    )
    updates_kept: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="Update numbers remembered, to ignore repetitions.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much is logged."
    )

    @field_validator("bot_token")
    @classmethod
    def _token_is_one(cls, token: SecretStr) -> SecretStr:
        if not _TOKEN.fullmatch(token.get_secret_value()):
            raise ValueError("is no token: @BotFather's look like 123456:ABC-def, without quotes")
        return token

    @field_validator("telegram_api_url")
    @classmethod
    def _api_is_address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// or http://")
        return url.rstrip("/")

    @field_validator("telegram_local_dir")
    @classmethod
    def _local_dir_exists(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if folder and not folder.is_dir():
            raise ValueError("is no folder: mount the Bot API server's --dir here")
        if folder and info.data.get("telegram_api_url") == "https://api.telegram.org":
            raise ValueError("is for your own Bot API server: set TELEGRAM_API_URL too")
        return folder

    @field_validator("webhook_url")
    @classmethod
    def _webhook_is_https(cls, url: str | None, info: ValidationInfo) -> str | None:
        # Telegram's own servers insist on HTTPS; a Bot API server next door does not.
        own = info.data.get("telegram_api_url") != "https://api.telegram.org"
        if url and not url.startswith(("https://", "http://") if own else "https://"):
            raise ValueError("must begin with https://")
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _secret_fits(cls, secret: SecretStr) -> SecretStr:
        if not _WEBHOOK_SECRET.fullmatch(secret.get_secret_value()):
            raise ValueError("must be 1 to 256 letters, digits, _ or -")
        return secret

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be printed or logged."""
        return (self.bot_token.get_secret_value(), self.webhook_secret.get_secret_value())


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table that `python -m bot run --help` prints."""

    name: str
    default: str
    help: str


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment and `.env`.

    Args:
        overrides: settings by field name that come before the environment.

    Raises:
        SettingsError: with every mistake at once.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = tuple(_sentence(detail) for detail in error.errors())
        # The cause is left out: pydantic's message repeats the values, secrets among them.
        raise SettingsError(problems) from None


def table() -> Iterator[Row]:
    """All settings in the order of the class."""
    for name, field in Settings.model_fields.items():
        if field.is_required():
            default = "required"
        elif field.default_factory is not None:
            default = "random"
        else:
            default = "" if field.default is None else str(field.default)
        yield Row(name.upper(), default, field.description or "")


def _sentence(detail: ErrorDetails) -> str:
    field = str(detail["loc"][0])
    name = field.upper()
    if name == "BOT_TOKEN" and detail["type"] == "missing":
        return FIRST_STEP
    annotation = Settings.model_fields[field].annotation
    shown = "" if annotation is SecretStr else f" (now {detail['input']!r})"
    return f"{name} {_reason(detail)}{shown}."


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
