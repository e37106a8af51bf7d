"""What the engine answers, with its faults as refusals, in the words of `bot.telegram.incoming`.

Knows nothing about what the faces are wanted for.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from bot.telegram.incoming import TOO_LARGE, Reason, Refusal
from bot.telegram.request import Request
from engine import errors
from engine.client import Engine
from engine.decision import LoginCalibration
from engine.types import Track

logger = logging.getLogger(__name__)

_REFUSALS: tuple[tuple[type[errors.EngineError], Reason], ...] = (
    (errors.EmptyImage, Reason.BROKEN_FILE),
    (errors.NotAnImage, Reason.NOT_AN_IMAGE),
    (errors.UnsupportedFormat, Reason.UNSUPPORTED_FORMAT),
    (errors.BrokenImage, Reason.BROKEN_FILE),
    (errors.FileTooLarge, Reason.TOO_LARGE),
    (errors.TooManyPixels, Reason.TOO_MANY_PIXELS),
    (errors.ImageTooDemanding, Reason.TOO_DEMANDING),
    (errors.ImageError, Reason.BROKEN_FILE),
    (errors.ClipError, Reason.BROKEN_CLIP),
    (errors.DeadlineExceeded, Reason.DEADLINE),
    (errors.Unavailable, Reason.ENGINE_DOWN),
    (errors.Unauthorized, Reason.MISCONFIGURED),
    (errors.RequestError, Reason.ENGINE_DOWN),  # a wrong key or address: the operator's to mend
)
"""What an engine's fault is to a person; others are bugs, and reported as such."""


class _Timed(Protocol):
    @property
    def queue_s(self) -> float: ...


_Answer = TypeVar("_Answer", bound=_Timed)


async def answered(request: Request, asked: Awaitable[_Answer]) -> _Answer | Refusal:
    """What the engine sees in a photo or a clip, or why there is no answer.

    Args:
        request: whom it is for; the time that it takes is noted there.
        asked: what was asked of the engine, with a deadline.
    """
    start = time.perf_counter()
    queue_s = 0.0
    try:
        answer = await asked
        queue_s = answer.queue_s
    except errors.Busy as busy:
        return Refusal(Reason.BUSY, {"count": max(1, math.ceil(busy.retry_after_s))})
    except errors.EngineError as error:
        return _refusal_for(error)
    finally:
        request.add_ms("queue", queue_s)
        request.add_ms("engine", max(0.0, time.perf_counter() - start - queue_s))
    return answer


class Calibrations:
    """What a likeness of two faces is worth to the engine; the one told last is kept.

    Args:
        engine: knows it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: LoginCalibration | None = None

    async def present(
        self, until_s: float, *, bundle: str | None = None
    ) -> LoginCalibration | Refusal:
        """The calibration of the bundle that answers now; refused where it has none.

        Args:
            until_s: the event loop's time until which to wait.
            bundle: which one saw the faces; where another one answers now, it cannot say.
        """
        try:
            async with asyncio.timeout_at(until_s):
                info = await self._engine.info()
        except TimeoutError:
            return Refusal(Reason.ENGINE_DOWN)
        except errors.EngineError as error:
            return _refusal_for(error)
        if bundle is not None and info.bundle != bundle:
            return Refusal(Reason.MODEL_CHANGED)
        self._known = info.login
        return Refusal(Reason.NO_LOGIN) if info.login is None else info.login

    async def of(self, track: Track, until_s: float) -> LoginCalibration | Refusal:
        """The calibration of the bundle that saw a clip; asked for only where it is a new one."""
        known = self._known
        if known is not None and known.version == track.calibration:
            return known
        return await self.present(until_s, bundle=track.bundle)


def _refusal_for(error: errors.EngineError) -> Refusal:
    """What a fault is to a person.

    Raises:
        EngineError: the fault itself, where it is a bug or the operator's to mend.
    """
    for kind, reason in _REFUSALS:
        if isinstance(error, kind):
            if reason is Reason.MISCONFIGURED:
                logger.error(
                    "the engine refused ENGINE_API_KEY (%s): give the bot and the engine the same "
                    "key, and start the bot again",
                    error,
                )
            if reason is Reason.ENGINE_DOWN:
                logger.error("the engine is down: %s", error)
            return TOO_LARGE if reason is Reason.TOO_LARGE else Refusal(reason)
    raise error
