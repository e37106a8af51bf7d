"""What every engine promises, however far away it is: one suite for all of them."""

import asyncio
import io
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from engine.client import Engine, build_analyzer
from engine.errors import (
    BrokenImage,
    BrokenVideo,
    Busy,
    ClipError,
    ClipTooLarge,
    DeadlineExceeded,
    EmptyImage,
    EngineError,
    FileTooLarge,
    ImageError,
    InternalError,
    NotAnImage,
    NotAVideo,
    TooManyFrames,
    TooManyPixels,
    TooManyVideoPixels,
    Unauthorized,
    Unavailable,
    UnsupportedFormat,
    UnsupportedVideo,
    VideoTooLong,
)
from engine.media.clip import LIMITS as CLIP_LIMITS
from engine.media.clip import ClipDecoders
from engine.media.image import LIMITS, open_photo
from engine.pipeline import Pipeline
from engine.remote.client import RemoteEngine
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, Verdict
from engine.vision.parallax import Parallax
from tests.engine import clips, seers
from tests.engine.doors import DOORS, BuildHeld, Door, Gate, Held, service
from tests.engine.seers import after, photo, request_of

SETTINGS = Settings(
    engine_device="cpu", engine_queue=1, engine_max_batch=1, engine_bundle="celebrities"
)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    """Ray's is in tests/engine/cluster/test_deployment.py, where a Ray runs."""
    return DOORS[request.param]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate")).make()


@pytest.fixture
async def engine(door: Door, gate: Gate, tmp_path: Path) -> AsyncIterator[Engine]:
    """One that sees a face on every photo, and is held up by some."""
    async with door(SETTINGS, BuildHeld(gate), tmp_path) as engine:
        yield engine


# --- Answers ---


async def test_all_of_an_answer_comes(engine: Engine) -> None:
    analysis = await engine.analyze(photo(120, 80), top_k=2, embed=True)
    ((expected,),) = [seers.seer().analyze([request(photo(120, 80), top_k=2, embed=True)])]
    assert analysis.faces == expected.faces
    assert (analysis.width_px, analysis.height_px) == (120, 80)
    assert analysis.bundle == expected.bundle
    assert analysis.compute_s > 0
    assert analysis.queue_s >= 0
    (face,) = analysis.faces
    assert [match.thumbnail for match in face.matches] == [seers.THUMBNAIL, None]
    assert isinstance(face.matches[0].verdict, Verdict)
    assert face.embedding is not None
    assert face.embedding.dtype == np.float32
    assert face.embedding.tolist() == expected.faces[0].embedding.tolist()


async def test_what_is_asked_for_is_what_is_done(engine: Engine) -> None:
    plain = (await engine.analyze(photo(), top_k=1)).faces[0]
    assert len(plain.matches) == 1
    assert plain.embedding is None
    assert plain.pose.yaw == 0
    aligned = (await engine.analyze(photo(), aligned=True)).faces[0]
    assert np.isnan(aligned.pose.yaw)  # what the seer says of faces that are cut already


async def test_it_tells_what_it_is_made_of(engine: Engine) -> None:
    assert await engine.info() == seers.INFO


async def test_it_tells_whom_it_knows(engine: Engine) -> None:
    assert await engine.people() == seers.PEOPLE
    assert len(seers.PEOPLE) == seers.INFO.people


@pytest.mark.parametrize("top_k", [0, 1001])
async def test_a_mistake_of_the_caller_is_theirs(engine: Engine, top_k: int) -> None:
    with pytest.raises(ValueError, match="top_k"):
        await engine.analyze(photo(), top_k=top_k)


@cache
def clip() -> bytes:
    return clips.encode(clips.pictures(40))


async def test_all_of_a_track_comes(engine: Engine) -> None:
    track = await engine.track(clip())
    assert (track.width_px, track.height_px) == (96, 64)
    assert track.duration_s == pytest.approx(4 / 3)
    assert track.bundle == seers.INFO.bundle
    assert track.compute_s > 0
    assert track.queue_s >= 0
    assert [frame.time_s for frame in track.frames] == pytest.approx(np.arange(14) / 10)
    async with ClipDecoders(1).open(clip()) as reel:
        stills = await reel.take(20)
    parallax = Parallax()
    for k, (frame, still) in enumerate(zip(track.frames, stills, strict=True)):
        asked = PhotoRequest(still.image, top_k=0, embed=True, original_px=(96, 64))
        (expected,) = seers.seer().analyze([asked])
        assert frame.face == expected.faces[0]
        assert frame.face is not None
        assert frame.others == 0
        assert frame.turned_deg == parallax.see(still.image, (96, 64), frame.face)
        if k % 2:
            assert (frame.face.embedding, frame.face.pattern) == (None, None)
        else:
            assert frame.face.embedding is not None
            assert frame.face.pattern == seers.PATTERN
            assert frame.face.embedding.dtype == np.float32
            assert frame.face.embedding.tolist() == expected.faces[0].embedding.tolist()


async def test_a_pattern_comes_with_each_embedding(engine: Engine) -> None:
    assert (await engine.analyze(photo(), embed=True)).faces[0].pattern == seers.PATTERN
    assert (await engine.analyze(photo())).faces[0].pattern is None


# --- Faults ---


def bomb() -> bytes:
    """A few bytes that claim to be 10,000 x 10,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


BAD_FILES = {
    EmptyImage: lambda: b"",
    NotAnImage: lambda: b"hello",
    UnsupportedFormat: lambda: b"%PDF-1.7",
    BrokenImage: lambda: photo()[:-200],
    FileTooLarge: lambda: photo() + bytes(LIMITS.file_bytes),
    TooManyPixels: bomb,
}


@pytest.mark.parametrize("kind", BAD_FILES, ids=lambda kind: kind.code)
async def test_a_bad_file_is_told_in_the_same_words(engine: Engine, kind: type[ImageError]) -> None:
    data = BAD_FILES[kind]()
    with pytest.raises(ImageError) as expected:
        open_photo(data)
    with pytest.raises(ImageError) as caught:
        await engine.analyze(data)
    assert type(caught.value) is type(expected.value) is kind
    assert caught.value.code == expected.value.code
    assert caught.value.message == expected.value.message
    assert (await engine.analyze(photo())).faces  # nobody else suffers


BAD_CLIPS = {
    NotAVideo: lambda: photo(),
    UnsupportedVideo: lambda: clips.encode(clips.pictures(5), container="avi"),
    BrokenVideo: lambda: clip()[:32],
    ClipTooLarge: lambda: clip() + bytes(CLIP_LIMITS.clip_bytes),
    VideoTooLong: lambda: clips.encode(clips.pictures(80), rate=5),
    TooManyFrames: lambda: clips.encode(clips.pictures(1001, (16, 16)), rate=1000),
    TooManyVideoPixels: lambda: clips.encode(clips.pictures(1, (2560, 1600))),
}


@pytest.mark.parametrize("kind", BAD_CLIPS, ids=lambda kind: kind.code)
async def test_a_bad_clip_is_told_in_the_same_words(engine: Engine, kind: type[ClipError]) -> None:
    data = BAD_CLIPS[kind]()
    with pytest.raises(ClipError) as expected:
        async with ClipDecoders(1).open(data) as reel:
            await reel.take(1000)
    with pytest.raises(ClipError) as caught:
        await engine.track(data)
    assert type(caught.value) is type(expected.value) is kind
    assert caught.value.code == expected.value.code
    assert caught.value.message == expected.value.message
    assert clips.children() == []
    assert (await engine.track(clip())).frames  # nobody else suffers


async def test_a_bug_is_told_without_its_traceback(engine: Engine) -> None:
    with pytest.raises(InternalError) as caught:
        await engine.analyze(photo(Held.BUG_PX))
    assert "KeyError" not in caught.value.message
    assert "log" in caught.value.message
    assert (await engine.analyze(photo())).faces


@pytest.mark.parametrize("extra_bytes", [0, 4 * 2**20], ids=["small", "large"])
async def test_who_finds_it_full_is_told_when_to_come_back(
    engine: Engine, gate: Gate, extra_bytes: int
) -> None:
    held = asyncio.create_task(engine.analyze(photo(Held.GATE_PX)))
    await gate.begun()
    crowd = await too_many(engine, photo() + bytes(extra_bytes))
    await gate.go_on()
    outcomes = await asyncio.gather(held, *crowd, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in refused:
        assert type(error) is Busy
        assert error.code == "busy"
        assert error.retry_after_s > 0
        assert error.message.endswith("come back later.")
    answered = [outcome for outcome in outcomes if isinstance(outcome, Analysis)]
    assert len(answered) >= 2
    assert all(analysis.faces for analysis in answered)


async def too_many(engine: Engine, data: bytes) -> "set[asyncio.Task[Analysis]]":
    """Ask again and again, until one is refused.

    Not all at once: Ray's proxy compares the length of its queue before it adds to it, so that
    requests of one moment may all find room.
    """
    tasks: set[asyncio.Task[Analysis]] = set()
    async with asyncio.timeout(seers.PATIENCE_S):
        while not any(task.done() for task in tasks):
            tasks.add(asyncio.create_task(engine.analyze(data)))
            await asyncio.sleep(0.02)
    return tasks


async def test_whoever_leaves_makes_room(engine: Engine, gate: Gate) -> None:
    held = asyncio.create_task(engine.analyze(photo(Held.GATE_PX)))
    await gate.begun()
    leaving = await too_many(engine, photo())
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    told: type[EngineError] = Busy
    async with asyncio.timeout(seers.PATIENCE_S):
        while told is Busy:  # the engine has to hear of it first
            with pytest.raises(EngineError) as caught:
                await engine.analyze(photo(), deadline_s=after(0.05))
            told = type(caught.value)
    assert told is DeadlineExceeded
    await gate.go_on()
    await held


async def test_a_late_answer_is_none(engine: Engine, gate: Gate) -> None:
    held = asyncio.create_task(engine.analyze(photo(Held.GATE_PX)))
    await gate.begun()
    with pytest.raises(DeadlineExceeded) as caught:
        await engine.analyze(photo(), deadline_s=after(0.2))
    assert caught.value.message == (
        "The answer would have come too late: ask again, or allow more time."
    )
    with pytest.raises(DeadlineExceeded):
        await engine.analyze(photo(), deadline_s=after(0))
    await gate.go_on()
    await held


async def test_a_late_track_is_none_and_nothing_goes_on(engine: Engine, gate: Gate) -> None:
    held = asyncio.create_task(engine.analyze(photo(Held.GATE_PX)))
    await gate.begun()
    with pytest.raises(DeadlineExceeded) as caught:
        await engine.track(clip(), deadline_s=after(1))
    assert caught.value.message == (
        "The answer would have come too late: ask again, or allow more time."
    )
    await gate.go_on()
    await held
    assert (await engine.track(clip())).frames


async def test_whoever_leaves_a_clip_leaves_no_decoder(engine: Engine) -> None:
    leaving = asyncio.create_task(engine.track(clips.endless()))
    await until(lambda: len(clips.children()) == 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    await until(lambda: clips.children() == [])
    assert (await engine.track(clip())).frames


async def until(condition: Callable[[], bool]) -> None:
    """Look until it is so: a process elsewhere tells nobody."""
    async with asyncio.timeout(seers.PATIENCE_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_closed_engine_is_unavailable(door: Door, gate: Gate, tmp_path: Path) -> None:
    async with door(SETTINGS, BuildHeld(gate), tmp_path) as engine:
        await engine.analyze(photo())
    with pytest.raises(Unavailable) as caught:
        await engine.analyze(photo())
    assert caught.value.message == "The engine is shut down: ask again when it is back."
    with pytest.raises(Unavailable):
        await engine.analyze(b"")
    with pytest.raises(Unavailable):
        await engine.track(clip())


@pytest.mark.parametrize("size", [10, 15 * 2**20])
async def test_a_wrong_key_is_told_however_much_is_being_sent(size: int) -> None:
    settings = Settings(engine_api_key="right")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            service(settings, lambda _settings: seers.seer(), listener),
            RemoteEngine(url, key="wrong") as stranger,
            RemoteEngine(url, key="right") as friend,
        ):
            with pytest.raises(Unauthorized, match="ENGINE_API_KEY"):
                await stranger.analyze(bytes(size))
            with pytest.raises(Unauthorized, match="ENGINE_API_KEY"):
                await stranger.track(bytes(size))
            assert (await friend.analyze(photo())).faces
            assert (await friend.track(clip())).frames


# --- The real networks ---


@cache
def pipeline() -> Pipeline:
    analyzer = build_analyzer(Settings(engine_device="cpu", engine_bundle="celebrities"))
    assert isinstance(analyzer, Pipeline)
    return analyzer


def see_really(_settings: Settings) -> Pipeline:
    return pipeline()


def request(data: bytes, *, top_k: int = 5, embed: bool = False, aligned: bool = False):
    return request_of(open_photo(data), top_k, embed=embed, aligned=aligned)


def astronaut(*, aligned: bool) -> bytes:
    image = Image.fromarray(skimage.data.astronaut())
    file = io.BytesIO()
    image = image.crop((160, 60, 300, 200)).resize((112, 112)) if aligned else image
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("aligned", [False, True], ids=["photo", "aligned"])
async def test_the_same_face_and_matches_are_seen(
    door: Door, aligned: bool, tmp_path: Path
) -> None:
    data = astronaut(aligned=aligned)
    (expected,) = pipeline().analyze([request(data, top_k=3, embed=True, aligned=aligned)])
    settings = Settings(engine_device="cpu", engine_bundle="celebrities")
    async with door(settings, see_really, tmp_path) as engine:
        analysis = await engine.analyze(data, top_k=3, embed=True, aligned=aligned)
        assert await engine.info() == pipeline().info()
        assert await engine.people() == pipeline().people()
        assert len(await engine.people()) == (await engine.info()).people
    assert (analysis.width_px, analysis.height_px) == (expected.width_px, expected.height_px)
    assert analysis.bundle == expected.bundle == pipeline().info().bundle
    (face,), (known,) = analysis.faces, expected.faces
    assert np.allclose(face.box, known.box, atol=0.01)  # hundredths of a pixel cross HTTP
    assert np.allclose(face.landmarks, known.landmarks, atol=0.01)
    assert face.probability == pytest.approx(known.probability, abs=1e-5)
    assert face.quality.blur == pytest.approx(known.quality.blur, abs=1e-5)
    assert face.pose.yaw == pytest.approx(known.pose.yaw, abs=1e-5)
    assert [match.name for match in face.matches] == [match.name for match in known.matches]
    assert len(face.matches) == 3
    for match, same in zip(face.matches, known.matches, strict=True):
        assert match.similarity == pytest.approx(same.similarity, abs=1e-5)
        assert match.percentile == pytest.approx(same.percentile, abs=1e-2)
        assert match.verdict is same.verdict
    assert face.embedding is not None
    assert known.embedding is not None
    assert float(face.embedding @ known.embedding) == pytest.approx(1, abs=1e-5)


async def test_the_same_face_is_followed(door: Door, tmp_path: Path) -> None:
    moving = clips.astronaut(30, step_px=3)
    (known,) = pipeline().analyze([PhotoRequest(moving[0], top_k=0, embed=True)])
    async with door(
        Settings(engine_device="cpu", engine_bundle="celebrities"), see_really, tmp_path
    ) as engine:
        track = await engine.track(clips.encode(moving, options={"crf": "18"}))
    assert (track.width_px, track.height_px) == (384, 384)
    assert track.bundle == pipeline().info().bundle
    faces = [frame.face for frame in track.frames]
    assert len(faces) == 10
    for k, face in enumerate(faces):
        assert face is not None
        assert face.matches == ()
        assert np.allclose(face.box, np.add(known.faces[0].box, (9 * k, 0, 9 * k, 0)), atol=6)
        assert abs(face.pose.yaw - known.faces[0].pose.yaw) < 0.1
        assert (face.embedding is None) == bool(k % 2)
        if face.embedding is not None:
            assert known.faces[0].embedding is not None
            assert float(face.embedding @ known.faces[0].embedding) > 0.95
    assert {frame.others for frame in track.frames} == {0}
