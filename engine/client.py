"""The engine as its users see it: one protocol, however far away the engine is.

Importing this module loads no torch; opening an `EmbeddedEngine` does.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from engine.batching import Batcher
from engine.image import LIMITS, Limits, open_photo
from engine.request import Analyzer, PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, EngineInfo


class Engine(Protocol):
    """An engine, in this process or elsewhere. Use it as an async context manager."""

    async def analyze(
        self, photo: bytes, *, top_k: int = 5, embed: bool = False, timeout_s: float | None = None
    ) -> Analysis:
        """Find the faces of a photo and whom each resembles.

        Args:
            photo: a picture file's bytes; see `engine.image` for what is accepted.
            top_k: how many people to name for each face, at least 1.
            embed: whether each face carries its embedding.
            timeout_s: after how long an answer is of no use any more; None waits for ever.

        Raises:
            ImageError: the bytes cannot become a picture (one subclass per reason).
            Busy: the queue is full.
            DeadlineExceeded: `timeout_s` passed.
            Unavailable: the engine is closed or out of reach.
            InternalError: a bug.
        """
        ...

    async def info(self) -> EngineInfo:
        """Tell what the engine is made of."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _Submission:
    data: bytes
    top_k: int
    embed: bool


class EmbeddedEngine:
    """An engine in this process: photos are decoded in threads and computed in one thread.

    `async with await EmbeddedEngine.open(settings) as engine:` builds everything; leaving it
    finishes what was accepted.

    Args:
        analyzer: what sees faces; it is only ever called in the device's thread.
        queue_size: how many photos may wait; beyond that, `Busy`.
        max_batch: how many are computed together at most.
        decode_threads: how many are decoded at a time.
        limits: how large a photo may be.
        drain_s: how long closing waits for what was accepted.
        thread: the device's thread, where the analyzer was built; None starts one.
        clock: tells seconds.
    """

    def __init__(
        self,
        analyzer: Analyzer,
        *,
        queue_size: int = 64,
        max_batch: int = 8,
        decode_threads: int = 2,
        limits: Limits = LIMITS,
        drain_s: float = 10.0,
        thread: ThreadPoolExecutor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._analyzer = analyzer
        self._limits = limits
        self._drain_s = drain_s
        self._batcher: Batcher[_Submission, PhotoRequest, Analysis] = Batcher(
            self._decode,
            analyzer.analyze,
            queue_size=queue_size,
            max_batch=max_batch,
            prepare_threads=decode_threads,
            thread=thread,
            clock=clock,
        )

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Build an engine as the settings say, without holding up the event loop.

        Raises:
            ConfigurationError: the device, the bundle or the weights are not as they should be.
        """
        thread = ThreadPoolExecutor(1, "engine-device")
        try:
            analyzer = await asyncio.get_running_loop().run_in_executor(thread, _build, settings)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(
            analyzer,
            queue_size=settings.engine_queue,
            max_batch=settings.engine_max_batch,
            decode_threads=settings.engine_decode_threads,
            thread=thread,
        )

    async def analyze(
        self, photo: bytes, *, top_k: int = 5, embed: bool = False, timeout_s: float | None = None
    ) -> Analysis:
        """See `Engine.analyze`."""
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; at least one person is named for each face")
        submission = _Submission(photo, top_k, embed)
        answer = await self._batcher.submit(submission, timeout_s=timeout_s)
        return replace(answer.result, queue_s=answer.queue_s, compute_s=answer.compute_s)

    async def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._analyzer.info()

    async def close(self) -> None:
        """Take no more photos and finish those that were accepted, within `drain_s`."""
        await self._batcher.close(limit_s=self._drain_s)

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _decode(self, submission: _Submission) -> PhotoRequest:
        photo = open_photo(submission.data, limits=self._limits)
        return PhotoRequest.of(photo, submission.top_k, embed=submission.embed)


def _build(settings: Settings) -> Analyzer:
    from engine import threads

    threads.configure(settings.engine_threads)  # before anything loads torch
    from engine.pipeline import Pipeline

    return Pipeline.from_settings(settings)
