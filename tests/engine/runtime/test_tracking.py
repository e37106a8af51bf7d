"""Clips through an engine in this process, with somebody in place of the networks."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from engine.client import EmbeddedEngine, Engine
from engine.errors import (
    BrokenVideo,
    Busy,
    DeadlineExceeded,
    InternalError,
    NotAVideo,
    Unavailable,
    VideoTooLong,
)
from engine.media.clip import LIMITS
from engine.request import Analyzer, PhotoRequest
from engine.types import Analysis, Track
from tests.engine import seers
from tests.engine.clips import children, encode, endless, pictures, turned
from tests.engine.seers import INFO, PATIENCE_S, Seer, after, photo, until


@pytest.fixture(name="seer")
def a_seer() -> Seer:
    return seers.seer()


@pytest.fixture(autouse=True)
def nobody_is_held_up(seer: Seer):
    yield
    seer.go_on.set()
    assert children() == []


@cache
def clip() -> bytes:
    """Two seconds: twenty frames."""
    return encode(pictures(60))


def an_engine(seer: Analyzer, **options: Any) -> Engine:
    return EmbeddedEngine(seer, **options)


async def test_a_clip_becomes_a_track(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        track = await engine.track(clip())
    assert (track.width_px, track.height_px, track.bundle) == (96, 64, INFO.bundle)
    assert track.duration_s == pytest.approx(2)
    assert track.compute_s > 0
    assert track.queue_s > 0
    times_s = [frame.time_s for frame in track.frames]
    assert times_s == pytest.approx(np.arange(20) / 10)
    for k, frame in enumerate(track.frames):
        assert frame.others == 0
        assert frame.face is not None
        assert frame.face.box == (38, 22, 58, 42)
        assert frame.face.matches == ()
        assert (frame.face.embedding is not None) == (k % 2 == 0)
        assert (frame.face.pattern is not None) == (k % 2 == 0)
    assert seer.threads.isdisjoint({threading.current_thread().name})


async def test_places_are_told_in_pixels_of_the_upright_clip(seer: Seer) -> None:
    large = turned(encode(pictures(3, (1280, 720))), (0, 1, -1, 0))
    async with an_engine(seer) as engine:
        track = await engine.track(large)
    assert (track.width_px, track.height_px) == (720, 1280)
    (frame,) = track.frames
    assert frame.face is not None
    assert frame.face.box == (350, 630, 370, 650)
    first, _ = seer.seen[0] + seer.seen[1]
    assert first.image.size == (216, 384)


async def test_nobody_is_named_and_only_the_followed_face_is_embedded(seer: Seer) -> None:
    crowd = Crowd(seer)
    async with an_engine(crowd) as engine:
        track = await engine.track(clip())
    searched = [r for batch in seer.seen for r in batch if r.face is None]
    embedded = [r for batch in seer.seen for r in batch if r.face is not None]
    assert {request.top_k for request in searched + embedded} == {0}
    assert not any(request.embed for request in searched)
    assert all(request.embed for request in embedded)
    assert len(searched) == 20
    assert [request.face.box for request in embedded] == [
        replace(frame.face, embedding=None).box for frame in track.frames[::2] if frame.face
    ]
    assert {frame.others for frame in track.frames} == {1}


@dataclass
class Crowd:
    """Somebody larger stands beside whomever a seer sees."""

    seer: Seer

    at_once = 1

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        return [
            analysis if request.face else self._joined(analysis)
            for request, analysis in zip(requests, self.seer.analyze(requests), strict=True)
        ]

    def info(self):
        return self.seer.info()

    def people(self):
        return self.seer.people()

    def _joined(self, analysis: Analysis) -> Analysis:
        (face,) = analysis.faces
        x1, y1, _, y2 = face.box
        return replace(analysis, faces=(replace(face, box=(x1 - 40, y1, x1 - 10, y2)), face))


async def test_frames_without_a_face(seer: Seer) -> None:
    async with an_engine(Nobody(seer)) as engine:
        track = await engine.track(clip())
    assert [(frame.face, frame.others) for frame in track.frames] == [(None, 0)] * 20
    assert not any(request.face for batch in seer.seen for request in batch)


@dataclass
class Nobody:
    seer: Seer

    at_once = 1

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        return [replace(analysis, faces=()) for analysis in self.seer.analyze(requests)]

    def info(self):
        return self.seer.info()

    def people(self):
        return self.seer.people()


# --- Beside others ---


@pytest.mark.parametrize("max_batch", [1, 3, 8, 256])
async def test_frames_come_in_batches_like_photos(seer: Seer, max_batch: int) -> None:
    async with EmbeddedEngine(seer, max_batch=max_batch, queue_size=4) as engine:
        waiting = []
        engine.observe(lambda _batch: waiting.append(engine.waiting))
        track = await engine.track(clip())
    assert len(track.frames) == 20
    assert max(map(len, seer.seen)) <= max_batch
    assert max(waiting) <= max_batch
    assert sum(map(len, seer.seen)) == 30
    assert [frame.face.embedding is not None for frame in track.frames if frame.face] == [
        True,
        False,
    ] * 10


async def test_photos_come_in_between(seer: Seer) -> None:
    seer.go_on.clear()
    async with EmbeddedEngine(seer, max_batch=4) as engine:
        watching = asyncio.create_task(engine.track(clip()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        looking = asyncio.create_task(engine.analyze(photo()))
        queue = engine._batcher._queue
        await asyncio.to_thread(until, lambda: any(entry.item.top_k for entry in [*queue]))
        seer.go_on.set()
        await asyncio.gather(watching, looking)
    places = [k for k, batch in enumerate(seer.seen) for r in batch if r.top_k]
    assert len(places) == 1
    assert places[0] <= 3
    assert len(seer.seen) >= 8


async def test_a_queue_that_is_full_takes_no_clip_and_gives_none_up(seer: Seer) -> None:
    seer.go_on.clear()
    async with EmbeddedEngine(seer, queue_size=1, max_batch=1, decode_threads=1) as engine:
        watching = asyncio.create_task(engine.track(clip()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        first = asyncio.create_task(engine.analyze(photo()))
        await asyncio.sleep(0)
        for ask in (engine.track(clip()), engine.analyze(photo())):
            with pytest.raises(Busy):
                await ask
        with pytest.raises(Busy):
            engine.admit_clip()
        seer.go_on.set()
        assert len((await watching).frames) == 20
        assert (await first).faces


async def test_clips_wait_for_a_decoder(seer: Seer) -> None:
    seer.go_on.clear()
    async with EmbeddedEngine(seer, decode_threads=1) as engine:
        watching = [asyncio.create_task(engine.track(clip())) for _ in range(3)]
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        assert engine.clips_waiting == 2
        assert len(children()) <= 1  # it may have decoded its short clip already
        seer.go_on.set()
        tracks = await asyncio.gather(*watching)
    assert [len(track.frames) for track in tracks] == [20] * 3


# --- Ends ---


async def test_a_bad_clip_never_reaches_the_seer(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        for data, kind in ((b"", NotAVideo), (b"hello", NotAVideo), (clip()[:32], BrokenVideo)):
            with pytest.raises(kind):
                await engine.track(data)
    assert seer.seen == []


async def test_one_that_turns_out_too_long_is_refused_all_the_same(seer: Seer) -> None:
    limits = replace(LIMITS, duration_s=5)
    long = encode(
        pictures(20), container="webm", codec="libvpx", times_s=[k / 2 for k in range(20)]
    )
    async with EmbeddedEngine(seer, clip_limits=limits) as engine:
        with pytest.raises(VideoTooLong):
            await engine.track(long)


async def test_a_late_track_is_none_and_its_decoder_ends(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.track(endless(), deadline_s=after(0.5))
        assert children() == []
        with pytest.raises(DeadlineExceeded):
            await engine.track(clip(), deadline_s=after(0))
        assert len((await engine.track(clip())).frames) == 20


async def test_whoever_leaves_has_nothing_computed(seer: Seer) -> None:
    seer.go_on.clear()
    async with EmbeddedEngine(seer, max_batch=2, decode_threads=1) as engine:
        watching = asyncio.create_task(engine.track(clip()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert children() == []
        seer.go_on.set()
        assert (await engine.analyze(photo())).faces
    assert sum(map(len, seer.seen)) <= 3


async def test_a_bug_in_the_seer_ends_the_clip_alone(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        seer.fault = KeyError("oops")
        with pytest.raises(InternalError):
            await engine.track(clip())
        assert children() == []
        seer.fault = None
        assert (await engine.track(clip())).frames


async def test_closing_finishes_clips(seer: Seer) -> None:
    seer.go_on.clear()
    engine = EmbeddedEngine(seer, max_batch=2)
    async with engine:
        watching = asyncio.create_task(engine.track(clip()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await engine.track(clip())
        seer.go_on.set()
        await closing
        assert watching.done()
        assert len(watching.result().frames) == 20


async def test_closing_gives_up_clips_after_its_limit(seer: Seer) -> None:
    seer.go_on.clear()
    engine = EmbeddedEngine(seer, max_batch=2)
    async with engine:
        held = asyncio.create_task(engine.track(clip()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        decoding = asyncio.create_task(engine.track(endless()))
        await asyncio.sleep(0)
        await engine.close(limit_s=0)
        for task in (held, decoding):
            with pytest.raises(Unavailable):
                await task
        assert children() == []
        seer.go_on.set()


async def test_vectors_of_two_bundles_do_not_meet_in_one_track(seer: Seer) -> None:
    seer.go_on.clear()
    async with EmbeddedEngine(seer, max_batch=2) as engine:
        watching = asyncio.create_task(engine.track(clip()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        engine.swap(seers.seer("tests@1"))
        seer.go_on.set()
        with pytest.raises(Unavailable, match="another bundle"):
            await watching
        track: Track = await engine.track(clip())
        assert track.bundle == "tests@1"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_decoders_are_started_from_any_thread_and_loop(seer: Seer, kind: str) -> None:
    """As in a replica of Ray: not in the main thread, and not always on asyncio's own loop."""
    loops = pytest.importorskip(kind)
    outcomes: list[Track | BaseException] = []

    async def watch() -> None:
        async with EmbeddedEngine(seer) as engine:
            outcomes.append(await engine.track(clip()))
            late = await asyncio.gather(
                engine.track(endless(), deadline_s=after(0.5)), return_exceptions=True
            )
            outcomes.extend(late)

    def run() -> None:
        with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
            runner.run(watch())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE_S)
    first, second = outcomes
    assert isinstance(first, Track)
    assert len(first.frames) == 20
    assert isinstance(second, DeadlineExceeded)
    assert children() == []
