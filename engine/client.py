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

from engine.batching import Analyzer, Batcher, PhotoRequest
from engine.image import LIMITS, Limits, Photo, decode_scaled
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Face, Landmarks

ENOUGH_PX = 1920
"""Photos are decoded no smaller than this on their longer side. The detector sees 480 pixels and
finds faces from 30 on, so the smallest face has 120 here: about what an embedder's crop takes."""


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


@dataclass(frozen=True, slots=True)
class _Decoded:
    photo: Photo
    request: PhotoRequest


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
        self._batcher: Batcher[_Submission, _Decoded, Analysis] = Batcher(
            self._decode,
            self._compute,
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

    def _decode(self, submission: _Submission) -> _Decoded:
        photo = decode_scaled(submission.data, at_least_px=ENOUGH_PX, limits=self._limits)
        return _Decoded(photo, PhotoRequest(photo.image, submission.top_k, submission.embed))

    def _compute(self, batch: list[_Decoded]) -> list[Analysis]:
        analyses = self._analyzer.analyze([decoded.request for decoded in batch])
        return [
            _in_original_pixels(analysis, decoded.photo)
            for analysis, decoded in zip(analyses, batch, strict=True)
        ]


def _build(settings: Settings) -> Analyzer:
    from engine import threads

    threads.configure(settings.engine_threads)  # before anything loads torch
    from engine.pipeline import Pipeline

    return Pipeline.from_settings(settings)


def _in_original_pixels(analysis: Analysis, photo: Photo) -> Analysis:
    """What was seen in a shrunk photo, told in pixels of its original."""
    if photo.image.size == (photo.width_px, photo.height_px):
        return analysis
    x = photo.width_px / photo.image.width
    y = photo.height_px / photo.image.height
    return replace(
        analysis,
        faces=tuple(_scaled(face, x, y) for face in analysis.faces),
        width_px=photo.width_px,
        height_px=photo.height_px,
    )


def _scaled(face: Face, x: float, y: float) -> Face:
    x1, y1, x2, y2 = face.box
    left_eye, right_eye, nose, left_mouth, right_mouth = (
        (point_x * x, point_y * y) for point_x, point_y in face.landmarks
    )
    landmarks: Landmarks = (left_eye, right_eye, nose, left_mouth, right_mouth)
    return replace(
        face,
        box=(x1 * x, y1 * y, x2 * x, y2 * y),
        landmarks=landmarks,
        quality=replace(face.quality, size_px=face.quality.size_px * x),
    )
