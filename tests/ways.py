"""The way of a photo or a clip through the project, as `sys.setprofile` sees it.

What is counted: calls of the project's functions, when they start (a coroutine that goes on is not
called again), in the task that serves the update and in whatever it starts, from the update
processor to the reply. A call is on the way where it is handed what was sent, in the form that it
has by then (`FORMS`, also in lists, tuples and partials; what a method is called on does not
count). What goes on inside `ENDS` is theirs: only the call that enters one is on the way. A stop is
a call on the way whose file is not that of the one before.
"""

import functools
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image
from telegram import Message, Update

from bot.lookalike.shown_cards import ShownCard
from bot.telegram.incoming import Capture, LoginCapture
from engine.media.clip import Still
from engine.media.image import Photo
from engine.request import PhotoFile, PhotoRequest
from engine.runtime.batching import _Entry
from engine.types import Analysis, Face, Frame, Track
from engine.vision.faces import CutFace

ROOT = Path(__file__).parents[1]

FORMS = (
    *(Update, Message, Capture, LoginCapture, PhotoFile, Photo, Image.Image, Still),
    *(PhotoRequest, _Entry, CutFace, Analysis, Face, Frame, Track, ShownCard),
)
FILE_BYTES = 1000
"""Bytes from this length on are a file: a photo, a clip or a card."""
ENDS = ("bot/drawing/", "bot/store/", "engine/media/", "engine/people/", "engine/vision/")
TELEGRAM = (
    "bot/telegram/rate_limits.py",
    "bot/telegram/bounded_bodies.py",
    "bot/telegram/client.py",
)
"""What python-telegram-bot calls, not we."""

TRANSACTIONS = {
    ("bot/store/database.py", "Database.read"),
    ("bot/store/database.py", "Database.write"),
}

Call = tuple[str, str]
"""File and function."""

_on_the_way: ContextVar[bool] = ContextVar("on_the_way", default=False)


class Trace:
    """Calls on the way, in order, and how often the values that travel were made.

    Attributes:
        calls: those that are handed what was sent.
        made: how often each of our dataclasses was made, by its name.
        transactions: how many there were.
    """

    def __init__(self) -> None:
        self.on = False
        self.calls: list[Call] = []
        self.made = Counter[str]()
        self.transactions = 0

    @property
    def stops(self) -> list[list[Call]]:
        """The calls of each stop."""
        return [list(calls) for _, calls in groupby(self.calls, itemgetter(0))]

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if not self.on or event != "call":
            return
        code = frame.f_code
        starts = code.co_code[frame.f_lasti + 1] == 0  # RESUME's argument: 0 is a start
        if not starts:
            return
        if code.co_name == "__init__" and code.co_filename == "<string>":
            made = type(frame.f_locals[code.co_varnames[0]])
            if made.__module__.startswith(("bot.", "engine.")) and _on_its_way():
                self.made[made.__name__] += 1
            return
        file = _file(code.co_filename)
        if file is None:
            return
        if code.co_name == "do_process_update":
            _on_the_way.set(True)
        if not _on_its_way() or file in TELEGRAM:
            return
        self.transactions += (file, code.co_qualname) in TRANSACTIONS
        if _inside(frame.f_back, file) or not _is_handed(frame):
            return
        self.calls.append((file, code.co_qualname))


@contextmanager
def traced() -> Iterator[Trace]:
    """Trace all threads that are started in the block; `on` says from when on."""
    trace = Trace()
    sys.setprofile(trace)
    threading.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def _on_its_way() -> bool:
    device = threading.current_thread().name.startswith(("engine-device", "engine-worker"))
    return device or _on_the_way.get()


def _file(name: str) -> str | None:
    """A file of the project, from its root; None for others, and the sandbox, which is Telegram."""
    file = os.path.relpath(name, ROOT) if name.startswith(str(ROOT)) else ""
    ours = file.startswith(("bot/", "engine/")) and not file.startswith("bot/sandbox/")
    return file if ours else None


def _end(file: str | None) -> str | None:
    return next((end for end in ENDS if file and file.startswith(end)), None)


def _inside(caller: FrameType | None, file: str) -> bool:
    """Whether a call is made by one of `ENDS`."""
    while caller is not None:
        found = _file(caller.f_code.co_filename)
        if found is not None:
            return _end(found) is not None
        caller = caller.f_back
    return False


def _is_handed(frame: FrameType) -> bool:
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return any(_is_form(frame.f_locals.get(name)) for name in names if name not in ("self", "cls"))


def _is_form(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_form, value))
    if isinstance(value, functools.partial):
        return _is_form(value.args) or _is_form(tuple(value.keywords.values()))
    if isinstance(value, bytes | bytearray):
        return len(value) >= FILE_BYTES
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and value.ndim >= 3
    return isinstance(value, FORMS)
