"""One id for one request: from an update through the bot and the engine to the decoder, and back.

`asgi_correlation_id` keeps it, in a context variable that follows tasks; whoever hands work to a
thread takes the context along. Log lines carry it as `request=`, HTTP as `X-Request-Id`.
"""

import logging
import re
import uuid

from asgi_correlation_id import CorrelationIdFilter, CorrelationIdMiddleware, correlation_id
from starlette.types import ASGIApp

HEADER = "X-Request-Id"
LOG_FORMAT = (
    "%(asctime)s level=%(levelname)s logger=%(name)s request=%(correlation_id)s %(message)s"
)
"""For handlers that have `log_filter`."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def begin() -> str:
    """Give the running task's request an id, and return it: 32 hexadecimal digits."""
    made = uuid.uuid4().hex
    correlation_id.set(made)
    return made


def short() -> str:
    """The first eight characters of the running task's id, for people to name it by.

    Raises:
        LookupError: it has none.
    """
    known = correlation_id.get()
    if known is None:
        raise LookupError("There is no request.")
    return known[:8]


def headers() -> dict[str, str]:
    """What tells a service the id of the running task's request; nothing where it has none."""
    known = correlation_id.get()
    return {} if known is None else {HEADER: known}


def log_filter() -> logging.Filter:
    """Adds the id to log records, for `LOG_FORMAT`; `-` where there is none."""
    return CorrelationIdFilter(default_value="-")


def middleware(app: ASGIApp) -> ASGIApp:
    """Have an application's requests carry the id that callers send, or a new one, and answer it.

    An id is 1 to 64 letters, digits, points, hyphens and underscores; any other is replaced.
    """
    return CorrelationIdMiddleware(app, HEADER, validator=None, transformer=_valid)


def _valid(given: str) -> str:
    return given if _VALID.fullmatch(given) else uuid.uuid4().hex
