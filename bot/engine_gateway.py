"""Has the engine look at what people sent, within the time that there is.

The engine's faults come back as refusals, in the words of `bot.telegram.incoming`. Knows nothing
about what the faces are wanted for.
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
from engine.types import Analysis, Track

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


class _Seen(Protocol):
    @property
    def queue_s(self) -> float: ...


_Answer = TypeVar("_Answer", bound=_Seen)


class EngineGateway:
    """Looks at photos and clips.

    Args:
        engine: sees.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def look(
        self,
        request: Request,
        photo: bytes,
        within_s: float,
        *,
        top_k: int = 1,
        embed: bool = False,
        picture: bool = False,
    ) -> Analysis | Refusal:
        """What is in a photo.

        Args:
            request: whom it is for; the time that it takes is noted there.
            photo: a picture file's bytes.
            within_s: seconds that there are.
            top_k: see `Engine.analyze`.
            embed: see `Engine.analyze`.
            picture: see `Engine.analyze`.
        """
        asked = self._engine.analyze(
            photo, top_k=top_k, embed=embed, picture=picture, timeout_s=within_s
        )
        return await _ask(request, asked, within_s)

    async def watch(self, request: Request, clip: bytes, within_s: float) -> Track | Refusal:
        """What is in a clip: arguments as in `look`."""
        return await _ask(request, self._engine.track(clip, timeout_s=within_s), within_s)

    async def calibration(
        self, within_s: float, *, bundle: str | None = None
    ) -> LoginCalibration | Refusal:
        """What a likeness of two faces is worth to the engine; refused where it does not know.

        Args:
            within_s: seconds that there are.
            bundle: which one saw the faces; where another one answers now, it cannot say.
        """
        try:
            async with asyncio.timeout(within_s):
                info = await self._engine.info()
        except TimeoutError:
            return Refusal(Reason.ENGINE_DOWN)
        except errors.EngineError as error:
            return _refusal_for(error)
        if bundle is not None and info.bundle != bundle:
            return Refusal(Reason.MODEL_CHANGED)
        return Refusal(Reason.NO_LOGIN) if info.login is None else info.login


async def _ask(request: Request, asked: Awaitable[_Answer], within_s: float) -> _Answer | Refusal:
    start = time.perf_counter()
    queue_s = 0.0
    try:
        async with asyncio.timeout(within_s):
            answer = await asked
        queue_s = answer.queue_s
    except TimeoutError:
        logger.warning("the engine did not answer within %.1f s", within_s)
        return Refusal(Reason.DEADLINE)
    except errors.Busy as busy:
        return Refusal(Reason.BUSY, {"count": max(1, math.ceil(busy.retry_after_s))})
    except errors.EngineError as error:
        return _refusal_for(error)
    finally:
        request.add_ms("queue", queue_s)
        request.add_ms("engine", max(0.0, time.perf_counter() - start - queue_s))
    return answer


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
