"""The log as `python -m bot run` configures it, and everything as it was afterwards.

Knows nothing about what a log must not hold.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from bot.telegram import logs


@contextmanager
def logged(*secrets: str) -> Iterator[io.StringIO]:
    """All that is logged as long as the block lasts, at its most talkative.

    Args:
        secrets: what is redacted.
    """
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *logs._QUIETER, "bot", "engine")}
    filters = {each: list(each.filters) for each in root.handlers}
    stream = io.StringIO()
    handler = logs.configure(secrets, "debug", stream)
    yield stream
    root.removeHandler(handler)
    for each, before in filters.items():
        each.filters[:] = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
