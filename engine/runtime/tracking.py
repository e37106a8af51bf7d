"""A clip to a track: decoded a few frames at a time, seen by whoever sees photos, followed.

Frames are looked at in small batches, in the same queue as everybody's photos; then the followed
face alone is embedded, in every second frame. Knows nothing about how clips are decoded, faces
seen, or what a track is good for.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from engine.errors import Unavailable
from engine.media.clip import ClipFrames, Still
from engine.request import PhotoFile, PhotoRequest
from engine.runtime.batching import BatchResult, Errand
from engine.runtime.face_tracker import FaceTracker, TrackedFace
from engine.types import Analysis, EngineInfo, Face, Frame, Track
from engine.vision.parallax import Parallax

FrameErrand = Errand[PhotoFile | PhotoRequest, Analysis]

EMBEDDED_EVERY = 2
"""Of the sampled frames, the first included, in which the followed face is seen."""


@dataclass(frozen=True, slots=True)
class _ToEmbed:
    """A frame whose followed face still has no embedding."""

    index: int
    image: Image.Image
    face: Face


@dataclass(slots=True)
class _FrameAnswers:
    """Who answered, and where the time went.

    Attributes:
        bundle: of all answers.
        queue_s: seconds that they waited.
        batches_s: seconds of each batch, which counts once, however many answers it has.
    """

    bundle: str = ""
    queue_s: float = 0.0
    batches_s: dict[int, float] = field(default_factory=dict)

    def add(self, answer: BatchResult[Analysis]) -> None:
        bundle = answer.result.bundle
        if self.bundle not in ("", bundle):  # vectors of two embedders must not meet
            raise Unavailable(
                "The engine was given another bundle while it looked at this clip: ask again."
            )
        self.bundle = bundle
        self.queue_s += answer.queue_s
        self.batches_s[answer.batch] = answer.compute_s


async def track(
    reel: ClipFrames, errand: FrameErrand, *, at_a_time: int, made_of: Callable[[], EngineInfo]
) -> Track:
    """Follow one face through a clip.

    Args:
        reel: the clip.
        errand: has frames seen.
        at_a_time: how many of them at most.
        made_of: tells what the engine is made of.

    Raises:
        ClipError: the clip is not accepted, or not to its end.
        Unavailable: the engine was given another bundle meanwhile.
        EngineError: whatever else the errand's items come to.
    """
    follower, parallax, answers = FaceTracker(), Parallax(), _FrameAnswers()
    frames: list[Frame] = []
    waiting: list[_ToEmbed] = []

    async def see(requests: Sequence[PhotoRequest]) -> list[Analysis]:
        came = await _gather(errand, requests)
        for answer in came:
            answers.add(answer)
        return [answer.result for answer in came]

    async def embed(entries: Sequence[_ToEmbed]) -> None:
        analyses = await see(
            [
                PhotoRequest(e.image, top_k=0, embed=True, original_px=original_px, face=e.face)
                for e in entries
            ]
        )
        for entry, analysis in zip(entries, analyses, strict=True):
            seen = analysis.faces[0]
            face = replace(entry.face, embedding=seen.embedding, pattern=seen.pattern)
            frames[entry.index] = replace(frames[entry.index], face=face)

    while stills := await reel.take(at_a_time):
        original_px = reel.width_px, reel.height_px
        analyses = await see(
            [
                PhotoRequest(still.image, top_k=0, original_px=original_px, near=True)
                for still in stills
            ]
        )
        seen = [follower.see(analysis.faces) for analysis in analyses]
        turned = await asyncio.to_thread(_turned, parallax, stills, seen, original_px)
        for still, one, turned_deg in zip(stills, seen, turned, strict=True):
            if one.face is not None and len(frames) % EMBEDDED_EVERY == 0:
                waiting.append(_ToEmbed(len(frames), still.image, one.face))
            frames.append(Frame(still.time_s, one.face, one.others, turned_deg))
        # Full batches: a face alone takes three times as long.
        while len(waiting) >= at_a_time:
            await embed(waiting[:at_a_time])
            del waiting[:at_a_time]
    if waiting:
        await embed(waiting)
    made = made_of()
    known = made.login if made.bundle == answers.bundle else None
    return Track(
        frames=tuple(frames),
        width_px=reel.width_px,
        height_px=reel.height_px,
        duration_s=reel.duration_s,
        bundle=answers.bundle,
        calibration=None if known is None else known.version,
        queue_s=answers.queue_s,
        compute_s=sum(answers.batches_s.values()),
    )


def _turned(
    parallax: Parallax,
    stills: Sequence[Still],
    seen: Sequence[TrackedFace],
    original_px: tuple[int, int],
) -> list[tuple[float, float] | None]:
    """See `Frame.turned_deg`, for each of some frames."""
    return [
        parallax.see(still.image, original_px, one.face)
        for still, one in zip(stills, seen, strict=True)
    ]


async def _gather(
    errand: FrameErrand, requests: Sequence[PhotoRequest]
) -> list[BatchResult[Analysis]]:
    """All answers, in order; where one fails, the others are given up at once."""
    tasks = [asyncio.create_task(errand.submit(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
