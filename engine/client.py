"""The engine as its users see it: one protocol, however far away the engine is.

Importing this module loads no torch; opening an `EmbeddedEngine` does.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from engine.media import clip
from engine.media.clip_decoder import ClipLimits
from engine.media.decoder_pool import SLOW_FILES, PhotoDecoders
from engine.media.image import LIMITS, ImageLimits
from engine.request import Analyzer, PhotoFile, PhotoRequest, decode
from engine.runtime import tracking
from engine.runtime.batching import Batch, Batcher
from engine.settings import Settings
from engine.types import MAX_TOP_K, Analysis, EngineInfo, Person, Track

if TYPE_CHECKING:  # it loads torch, whose threads are set up first
    from engine.pipeline import Pipeline

_THREADS = 4
"""More batches at a time than any analyzer asks for; threads start when they are needed."""


class Engine(Protocol):
    """An engine, in this process or elsewhere. Use it as an async context manager."""

    async def analyze(
        self,
        photo: bytes,
        *,
        top_k: int = 5,
        embed: bool = False,
        aligned: bool = False,
        picture: bool = False,
        deadline_s: float | None = None,
    ) -> Analysis:
        """Find the faces of a photo and whom each resembles.

        Args:
            photo: a picture file's bytes; see `engine.media.image` for what is accepted.
            top_k: how many people to name for each face, 1 to `MAX_TOP_K`.
            embed: whether each face carries its embedding.
            aligned: whether the picture is a face already, cut on the ArcFace template.
            picture: whether the answer carries the photo as a small upright JPEG.
            deadline_s: the event loop's time from which on an answer is of no use; None waits for
                ever.

        Raises:
            ImageError: the bytes cannot become a picture (one subclass per reason).
            Busy: the queue is full.
            DeadlineExceeded: the deadline passed.
            Unavailable: the engine is closed or out of reach.
            InternalError: a bug.
        """
        ...

    async def track(self, clip: bytes, *, deadline_s: float | None = None) -> Track:
        """Follow one face through a clip: the largest at first, then the nearest.

        About ten frames a second are looked at, 384 pixels on their longer side. The face's
        embedding is there in every second of them, from the first on, in which it is seen.

        Args:
            clip: a video file's bytes; see `engine.media.clip` for what is accepted.
            deadline_s: the event loop's time from which on an answer is of no use; None waits for
                ever.

        Raises:
            ClipError: the bytes cannot become a track (one subclass per reason).
            Busy: too many photos or clips wait.
            DeadlineExceeded: the deadline passed.
            Unavailable: the engine is closed, out of reach, or was given another bundle meanwhile.
            InternalError: a bug.
        """
        ...

    async def info(self) -> EngineInfo:
        """Tell what the engine is made of."""
        ...

    async def people(self) -> tuple[Person, ...]:
        """Tell whom the bundle knows, in the order of its class indices.

        They are those of the bundle that `info` names, unless it is changed in between.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class EmbeddedEngine:
    """An engine in this process, which decodes photos and clips in processes of their own.

    Frames of clips are computed with everybody's photos.

    `async with await EmbeddedEngine.open(settings) as engine:` builds everything; leaving it
    finishes what was accepted.

    Args:
        analyzer: what sees faces; it is called in the device's threads, as often at a time as it
            wants to be.
        queue_size: how many photos may wait; beyond that, `Busy`.
        max_batch: how many are computed together at most.
        decode_threads: how many photos, and how many clips, are decoded at a time.
        limits: how large a photo may be.
        clip_limits: how much a clip may ask for.
        drain_s: how long closing waits for what was accepted.
        thread: the device's threads, where the analyzer was built; None starts them.
        clock: tells seconds.
    """

    def __init__(
        self,
        analyzer: Analyzer,
        *,
        queue_size: int = 64,
        max_batch: int = 8,
        decode_threads: int = 2,
        limits: ImageLimits = LIMITS,
        clip_limits: ClipLimits = clip.LIMITS,
        drain_s: float = 10.0,
        thread: ThreadPoolExecutor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._analyzer = analyzer
        self._photos = PhotoDecoders(decode_threads, limits=limits)
        self._drain_s = drain_s
        self._max_batch = max_batch
        self._decoders = clip.ClipDecoders(decode_threads, limits=clip_limits, clock=clock)
        self._batcher: Batcher[PhotoFile | PhotoRequest, PhotoRequest, Analysis] = Batcher(
            partial(decode, self._photos),
            analyzer.analyze,
            queue_size=queue_size,
            max_batch=max_batch,
            lanes=analyzer.at_once,
            prepare_threads=decode_threads + SLOW_FILES,
            thread=thread,
            clock=clock,
        )

    @classmethod
    async def open(
        cls, settings: Settings, build: Callable[[Settings], Analyzer] | None = None
    ) -> Self:
        """Build an engine as the settings say, without holding up the event loop.

        Args:
            settings: what is chosen.
            build: makes what sees faces, in one of the device's threads; None is
                `build_analyzer`.

        Raises:
            ConfigurationError: the device, the bundle or the weights are not as they should be.
        """
        thread = ThreadPoolExecutor(_THREADS, "engine-device")
        try:
            analyzer = await asyncio.get_running_loop().run_in_executor(
                thread, build or build_analyzer, settings
            )
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
        self,
        photo: bytes,
        *,
        top_k: int = 5,
        embed: bool = False,
        aligned: bool = False,
        picture: bool = False,
        deadline_s: float | None = None,
    ) -> Analysis:
        """See `Engine.analyze`."""
        require_top_k(top_k)
        file = PhotoFile(photo, top_k, embed, aligned, picture)
        answer = await self._batcher.submit(file, deadline_s=deadline_s)
        return replace(answer.result, queue_s=answer.queue_s, compute_s=answer.compute_s)

    async def track(self, clip: bytes, *, deadline_s: float | None = None) -> Track:
        """See `Engine.track`."""
        async with (
            self._batcher.errand(deadline_s=deadline_s) as errand,
            self._decoders.open(clip) as reel,
        ):
            return await tracking.track(
                reel, errand, at_a_time=self._max_batch, made_of=lambda: self.made_of
            )

    async def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self.made_of

    async def people(self) -> tuple[Person, ...]:
        """See `Engine.people`."""
        return self._analyzer.people()

    @property
    def made_of(self) -> EngineInfo:
        """What `info` tells, without waiting."""
        return self._analyzer.info()

    def swap(self, analyzer: Analyzer) -> None:
        """Let another one see faces from the next batch on; the present batch is not disturbed."""
        self._analyzer = analyzer
        self._batcher.compute = analyzer.analyze

    def admit(self) -> None:
        """Raise what `analyze` would raise at once, whatever the photo: Busy or Unavailable."""
        self._batcher.admit()

    def admit_clip(self) -> None:
        """Raise what `track` would raise at once, whatever the clip: Busy or Unavailable."""
        self._batcher.admit()
        self._decoders.admit()

    @property
    def waiting(self) -> int:
        """How many photos and frames of clips wait, decoded or not."""
        return self._batcher.waiting

    @property
    def clips_waiting(self) -> int:
        """How many clips wait for a decoder."""
        return self._decoders.waiting

    @property
    def stalled_s(self) -> float:
        """See `Batcher.stalled_s`."""
        return self._batcher.stalled_s

    @property
    def decoding_s(self) -> float:
        """See `PhotoDecoders.stalled_s`."""
        return self._photos.stalled_s

    async def start_decoders(self) -> None:
        """Start all processes that decode photos, which otherwise start when they are needed.

        Raises:
            Unavailable: one could not be started.
        """
        await asyncio.to_thread(lambda: self._photos.start(every=True))

    def observe(self, observer: Callable[[Batch], None]) -> None:
        """See `Batcher.observe`."""
        self._batcher.observe(observer)

    async def close(self, *, limit_s: float | None = None) -> None:
        """Take no more photos and clips, and finish those that were accepted.

        Args:
            limit_s: after how long the unfinished is given up; None is `drain_s`.
        """
        try:
            await self._batcher.close(limit_s=self._drain_s if limit_s is None else limit_s)
        finally:
            # Threads that still wait for one would keep the process from ending.
            self._photos.close()

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        await asyncio.to_thread(self._photos.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def require_top_k(top_k: int) -> None:
    """Raise ValueError where an engine is asked for no people, or for too many."""
    if not 1 <= top_k <= MAX_TOP_K:
        raise ValueError(f"top_k is {top_k}; 1 to {MAX_TOP_K} people are named for each face")


def build_analyzer(settings: Settings) -> "Pipeline":
    """A pipeline as the settings say; loads torch.

    Raises:
        ConfigurationError: the device, the bundle or the weights are not as they should be.
    """
    from engine import threads

    threads.configure(settings.engine_threads)  # before anything loads torch
    from engine.pipeline import Pipeline

    return Pipeline.from_settings(settings)
