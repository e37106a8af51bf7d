"""What the bot logs: one `key=value` line an update, and never a secret.

Lines carry update numbers, kinds, outcomes and milliseconds; no ids of people, no content. Knows
nothing about handlers.
"""

import logging
import re
import traceback
from collections.abc import Iterable
from typing import TextIO

from telegram import TelegramObject

from bot.telegram.request import Request
from engine import request_id

logger = logging.getLogger("bot")

# These write whole addresses (with the token), whole updates or unparsable payloads.
_QUIETER = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "telegram": logging.WARNING,
    "telegram.request.BaseRequest": logging.CRITICAL + 1,
    "aiosqlite": logging.WARNING,
    "alembic": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "PIL": logging.WARNING,
    "uvicorn": logging.WARNING,
}


class Redact(logging.Filter):
    """Takes secrets and Telegram's objects out of a record: message, arguments and traceback."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        spellings = {form for secret in secrets for form in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; it is always kept."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_content, record.args))
        record.msg = self.clean(record.getMessage())
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        if record.exc_text:
            record.exc_text = self.clean(record.exc_text)
        # Formatters print exc_text where there is one; without exc_info nobody can undo this.
        record.exc_info = None
        if record.stack_info:
            record.stack_info = self.clean(record.stack_info)
        return True

    def clean(self, text: str) -> str:
        """The text with every secret replaced."""
        return self._pattern.sub("[secret]", text)


def configure(secrets: Iterable[str], level: str, stream: TextIO) -> logging.Handler:
    """Log to a stream, with secrets redacted on every handler of the root logger.

    Args:
        secrets: what must never be written.
        level: "debug", "info", "warning" or "error"; other libraries stay at "warning".
        stream: where lines go.

    Returns:
        The handler that was added, for whoever wants to remove it again.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(request_id.LOG_FORMAT))
    handler.addFilter(request_id.log_filter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    redact = Redact(secrets)
    for each in root.handlers:
        each.addFilter(redact)
    for name, quieter in _QUIETER.items():
        logging.getLogger(name).setLevel(quieter)
    for name in ("bot", "engine"):
        logging.getLogger(name).setLevel(level.upper())
    return handler


def line(request: Request, total_ms: float, **counts: int) -> None:
    """Write an update's one line.

    Args:
        request: what was served.
        total_ms: milliseconds from its arrival to now.
        counts: how many requests wait and run.
    """
    stages = {f"{stage}_ms": round(ms, 1) for stage, ms in request.stages_ms.items()}
    fields = {
        "update": request.update.update_id,
        "kind": request.kind,
        "outcome": request.outcome,
        "total_ms": round(total_ms, 1),
        **stages,
        **counts,
    }
    logger.info(" ".join(f"{key}={value}" for key, value in fields.items()))


def _spellings(secret: str) -> Iterable[str]:
    """A secret as it may appear in messages and addresses; a token's second half gives it away."""
    yield from (secret, secret.replace(":", "%3A"), secret.replace(":", "%3a"))
    number, colon, rest = secret.partition(":")
    if colon and number and len(rest) >= 8:
        yield rest


def _without_content(argument: object) -> object:
    return type(argument).__name__ if isinstance(argument, TelegramObject) else argument
