"""Every setting of the bot in one table: name, type, default, help.

Files whose place is not said are in the project, wherever the bot was started. Knows nothing about
what the settings are used for, or how they are read (`engine.environment`).
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from engine import environment
from engine.environment import Row, SettingsTable
from engine.remote.address import Address
from engine.settings import Settings as EngineSettings
from engine.settings import require_header_text

PUBLIC_API = "https://api.telegram.org"
_TOKEN = re.compile(r"\d+:[A-Za-z0-9_-]+")
_BOT_PATH = re.compile(r"/bot[^/]*/*$")
_OWN_FILES = ("database", "ids_key", "template_keys_file")
"""Files that the bot makes or an operator makes for it."""
_WEBHOOK_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")
_FIRST_STEP = (
    "In Telegram, write /newbot to @BotFather; it answers with a token to put here: "
    "BOT_TOKEN=123456:ABC... To try everything without one: python -m bot demo."
)


class EngineChoice(SettingsTable):
    """Where the engine is; what is read by whoever needs an engine and no Telegram."""

    engine_url: str | None = Field(
        None,
        description="The engine's service: http://host:port or unix:/path. Without it the bot has "
        "an engine of its own.",
    )
    engine_api_key: SecretStr | None = Field(
        None, description="Key that the engine's service wants to be shown."
    )
    engine_api_key_file: Path | None = Field(
        None, description="File that has the key, instead of ENGINE_API_KEY."
    )

    @field_validator("engine_url")
    @classmethod
    def _url_is_address(cls, url: str | None) -> str | None:
        return url if url is None else Address.parse(url).name

    _key_fits_a_header = field_validator("engine_api_key")(require_header_text)

    @property
    def engine_key(self) -> str | None:
        """The key to show, where there is one."""
        return None if self.engine_api_key is None else self.engine_api_key.get_secret_value()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be printed or logged."""
        return () if self.engine_key is None else (self.engine_key,)


class StoreChoice(SettingsTable):
    """Where things are kept and how long; what is read by whoever needs the store alone."""

    updates_kept: ClassVar[int] = 10_000
    """Update numbers remembered, to ignore repetitions."""

    face_login: bool = Field(
        True, description="Whether there are /enroll and /verify. Without it no face is kept."
    )
    database: Path = Field(
        Path("run/face-matcher.db"),
        description="SQLite file: languages, seen update numbers, and the face login's people.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL instead, which several machines can reach: "
        "postgresql://user:password@host/name.",
    )
    ids_key: Path = Field(
        Path("run/secrets/ids.key"),
        description="Key under which people's ids are coded in the database; made at first start.",
    )
    capture_days: float = Field(
        30,
        gt=0,
        description="How long it is remembered which photos and videos came of who has no face "
        "set up; of others, as long as they have one.",
    )
    audit_days: float = Field(180, gt=0, description="How long the audit trail is kept.")
    idle_days: float = Field(
        365, gt=0, description="After how long without use templates are deleted."
    )
    notice_days: float = Field(30, ge=0, description="How long before that people are told.")
    reset_hours: float = Field(
        24,
        ge=1,
        le=720,
        description="Delay before a face may be replaced without a video or the recovery code, and "
        "before somebody may enroll again whose face was erased with /forget.",
    )
    template_keys_file: Path = Field(
        Path("run/secrets/template.keys"),
        description="Keys of the faces kept; python -m bot keys new makes it. Back it up, but not "
        "with the database.",
    )
    template_keys: SecretStr | None = Field(
        None, description="The same keys themselves, one a line, instead of the file."
    )

    @model_validator(mode="before")
    @classmethod
    def _find_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Make places absolute: given ones from the working directory on, others from `home`."""
        found = {name: home() / cls.model_fields[name].default for name in _OWN_FILES}
        found |= {name: Path(given[name]).absolute() for name in _OWN_FILES if given.get(name)}
        return given | found

    @field_validator("database_url")
    @classmethod
    def _database_is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        schemes = ("postgresql://", "postgres://", "postgresql+asyncpg://")
        if url is not None and not url.get_secret_value().startswith(schemes):
            raise ValueError("must begin with postgresql://; for SQLite name the file in DATABASE")
        return url

    @property
    def store_secrets(self) -> tuple[str, ...]:
        """What must never be printed or logged."""
        own: list[str] = []
        if self.database_url is not None:
            url = self.database_url.get_secret_value()
            own += [url, urlsplit(url).password or url]
        if self.template_keys is not None:
            own += self.template_keys.get_secret_value().split()
        return tuple(own)


class Settings(EngineChoice, StoreChoice):
    """What an operator can choose, and beside it what none has to."""

    download_timeout_s: ClassVar[float] = 15
    """Seconds that fetching one file from Telegram may take."""
    buttons_minutes: ClassVar[float] = 60
    """How long the buttons below an answer work."""
    answers_kept: ClassVar[int] = 500
    """Answers whose buttons work at one time; fewer where they take more than 32 MiB together."""
    photo_challenge_s: ClassVar[float] = 60
    """Seconds in which each selfie must come when verifying."""
    video_challenge_s: ClassVar[float] = 90
    """Seconds in which the round video must come."""
    conversation_minutes: ClassVar[float] = 15
    """How long an unfinished enrolment or question waits."""

    # Telegram
    bot_token: SecretStr = Field(description=_FIRST_STEP)
    bot_token_file: Path | None = Field(
        None, description="File that has the token, instead of BOT_TOKEN."
    )
    telegram_api_url: str = Field(
        PUBLIC_API, description="The Bot API server; your own one, for example."
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
    webhook_check_s: float = Field(
        60,
        ge=1,
        le=86_400,
        description="Seconds, about, after which Telegram is asked again whether updates come "
        "to WEBHOOK_URL.",
    )
    send_rate: float = Field(
        30,
        ge=1,
        le=1000,
        description="Messages a second that the bot sends at most, 30 being Telegram's limit; one "
        "chat gets a thirtieth of them, at least 1.",
    )

    # Answering
    answer_timeout_s: float = Field(
        30,
        ge=1,
        le=300,
        description="Seconds after which a person has an answer, whatever happens.",
    )
    concurrency: int = Field(
        16, ge=1, le=256, description="How many people are being answered at one time."
    )
    person_queue: int = Field(
        3, ge=1, le=100, description="Updates of one person that may wait; the surplus is refused."
    )
    waiting_total: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Updates of all people that may wait; an album that comes in counts as 10.",
    )
    album_wait_s: float = Field(
        1.5, ge=0.01, le=10, description="Silence after which an album counts as complete."
    )
    faces_max: int = Field(
        12, ge=1, le=32, description="Faces of a photo that are shown, the largest ones."
    )
    matches: int = Field(8, ge=1, le=50, description="Look-alikes named for each face, at most.")
    stop_timeout_s: float = Field(
        9, ge=1, le=60, description="Seconds for running answers to finish when the bot stops."
    )

    lease_s: float = Field(
        20,
        ge=3,
        le=300,
        description="With DATABASE_URL: seconds after which a bot that stands by takes over from "
        "one that was killed or cut off from the database; one that was stopped is followed at "
        "once.",
    )

    # The face login
    verify_level: Literal["video", "photo"] = Field(
        "video",
        description="What /verify asks for by default: a round video with movements drawn by lot, "
        "or selfies, which prove less.",
    )
    allow_photo_verify: bool | None = Field(
        None,
        description="Whether /verify photo is there, too; by default where VERIFY_LEVEL is photo. "
        "A picture of somebody does not prove that they are there.",
    )
    enroll_selfies: int = Field(4, ge=3, le=5, description="Selfies that enrolling takes.")
    verify_photos: int = Field(
        2, ge=2, le=3, description="Selfies that verifying by photo takes, all different."
    )
    embedder_notice_days: float = Field(
        14,
        ge=0,
        le=365,
        description="With ENGINE_BUNDLE=auto: how long the bot keeps to the embedder that people "
        "are enrolled with, and tells them, before the more accurate one takes over; 0 is at once.",
    )
    # This machine
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
        if _BOT_PATH.search(url):
            raise ValueError("must end before /bot, which the bot adds, with its token behind it")
        return url.rstrip("/")

    @field_validator("telegram_local_dir")
    @classmethod
    def _local_dir_exists(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if folder and not folder.is_dir():
            raise ValueError("is no folder: mount the Bot API server's --dir here")
        if folder and info.data.get("telegram_api_url") == PUBLIC_API:
            raise ValueError("is for your own Bot API server: set TELEGRAM_API_URL too")
        return folder

    @field_validator("webhook_url")
    @classmethod
    def _webhook_is_https(cls, url: str | None, info: ValidationInfo) -> str | None:
        # Telegram's own servers insist on HTTPS; a Bot API server next door does not.
        own = info.data.get("telegram_api_url") != PUBLIC_API
        if url and not url.startswith(("https://", "http://") if own else "https://"):
            raise ValueError("must begin with https://")
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _secret_fits(cls, secret: SecretStr) -> SecretStr:
        if not _WEBHOOK_SECRET.fullmatch(secret.get_secret_value()):
            raise ValueError("must be 1 to 256 letters, digits, _ or -")
        return secret

    @field_validator("allow_photo_verify")
    @classmethod
    def _photos_are_asked_for(cls, allowed: bool | None, info: ValidationInfo) -> bool | None:
        if allowed is False and info.data.get("verify_level") == "photo":
            raise ValueError("forbids what VERIFY_LEVEL=photo asks for: change one of the two")
        return allowed

    @property
    def photo_verify_allowed(self) -> bool:
        """Whether selfies will do for /verify."""
        if self.allow_photo_verify is None:
            return self.verify_level == "photo"
        return self.allow_photo_verify

    @property
    def bot_id(self) -> int:
        """Telegram's number of the bot, which its token begins with."""
        return int(self.bot_token.get_secret_value().partition(":")[0])

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be printed or logged."""
        own = (self.bot_token.get_secret_value(), self.webhook_secret.get_secret_value())
        return own + self.store_secrets + super().secrets


def home(module: Path = Path(__file__), environ: Mapping[str, str] = os.environ) -> Path:
    """The folder in which files are whose place is not said.

    The project's, as it was cloned or copied; the user's data folder (XDG Base Directory) where the
    bot is installed as a package.

    Args:
        module: this file.
        environ: the environment.
    """
    above = module.resolve().parents[1]
    if above.name not in ("site-packages", "dist-packages"):
        return above
    data = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "face-matcher"


def table() -> Iterator[Row]:
    """All settings: the bot's own in the order of the class, then the store's and the engine's."""
    rows = {row.name: row for row in Settings.rows()}
    others = (*StoreChoice.model_fields, *EngineChoice.model_fields)
    own = [name for name in Settings.model_fields if name not in others]
    yield from (rows[name.upper()] for name in (*own, *others))


def mistyped(names: Iterable[str]) -> Iterator[str]:
    """See `engine.environment.mistyped`; also of the engine's settings."""
    return environment.mistyped(names, Settings, EngineSettings)
