"""The decoder on honest clips, on broken ones, and on such as mean ill; and what is left of it."""

import asyncio
import io
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import (
    BrokenVideo,
    Busy,
    ClipError,
    ClipTooLarge,
    InternalError,
    NotAVideo,
    TooManyFrames,
    TooManyVideoPixels,
    Unavailable,
    UnsupportedVideo,
    VideoTooDemanding,
    VideoTooLong,
)
from engine.media import clip as clip_module
from engine.media import clip_decoder
from engine.media.clip import LIMITS, ClipDecoders, ClipFrames, Still
from engine.media.clip_decoder import Ending, turn
from tests.engine.clips import (
    astronaut,
    children,
    claiming,
    encode,
    encode_elsewhere,
    endless,
    packets,
    pictures,
    remuxed,
    shade_of,
    sound_only,
    turned,
)
from tests.engine.seers import PATIENCE_S, photo

NEVER = 10_000
"""Frames: more than any clip has."""


@asynccontextmanager
async def opened(
    clip: bytes, limits: clip_decoder.ClipLimits = LIMITS
) -> AsyncIterator[ClipFrames]:
    """A clip being decoded, and nothing left of that afterwards."""
    try:
        async with ClipDecoders(1, limits=limits).open(clip) as reel:
            yield reel
    finally:
        assert children() == []


async def decode(
    clip: bytes, limits: clip_decoder.ClipLimits = LIMITS
) -> tuple[list[Still], tuple[int, int, float]]:
    """All frames of a clip, and its width, height and duration."""
    async with opened(clip, limits) as reel, asyncio.timeout(PATIENCE_S):
        stills = await reel.take(NEVER)
        assert await reel.take(NEVER) == []
    return stills, (reel.width_px, reel.height_px, reel.duration_s)


async def refusal(clip: bytes, limits: clip_decoder.ClipLimits = LIMITS) -> ClipError:
    with pytest.raises(ClipError) as caught:
        await decode(clip, limits)
    return caught.value


@cache
def plain() -> bytes:
    return encode(pictures(45))


# --- Honest clips ---


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("mp4", "mpeg4"),
        ("mp4", "libx265"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("matroska", "libx264"),
        ("mp4", "libsvtav1"),
    ],
)
async def test_ten_frames_a_second_come_out(container: str, codec: str) -> None:
    write = encode_elsewhere if codec == "libsvtav1" else encode
    clip = write(pictures(45), container=container, codec=codec)
    stills, (width, height, duration_s) = await decode(clip)
    assert (width, height) == (96, 64)
    assert duration_s == pytest.approx(1.5, abs=0.03)
    assert [still.time_s for still in stills] == pytest.approx(np.arange(15) / 10, abs=0.004)
    for k, still in enumerate(stills):
        assert still.image.mode == "RGB"
        assert still.image.size == (96, 64)
        assert shade_of(still.image) == pytest.approx(3 * k, abs=1.0)


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((384, 384), (384, 384)),
        ((1280, 720), (384, 216)),
        ((720, 1280), (216, 384)),
        ((16, 16), (16, 16)),
        ((1920, 16), (384, 3)),
    ],
)
async def test_frames_are_made_smaller_and_never_larger(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    (still,), (width, height, _) = await decode(encode(pictures(1, size)))
    assert (width, height) == size
    assert still.image.size == small


async def test_colours_stay() -> None:
    picture = Image.new("RGB", (64, 64), (200, 40, 40))
    picture.paste((40, 40, 200), (32, 0, 64, 64))
    (still,), _ = await decode(encode([picture]))
    left, right = (still.image.getpixel((x, 32)) for x in (12, 52))
    assert left == pytest.approx((200, 40, 40), abs=12)
    assert right == pytest.approx((40, 40, 200), abs=12)


CORNERED = Image.new("RGB", (96, 64), "black")
CORNERED.paste("white", (0, 0, 48, 16))
"""Bright where it is high and left, and wider than high there: no turn leaves it as it is."""

TURNS = {
    1: ((1, 0, 0, 1), None),
    2: ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
    3: ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
    4: ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
    5: ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
    6: ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
    7: ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
    8: ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("orientation", TURNS)
async def test_a_clip_comes_upright(orientation: int) -> None:
    matrix, transposition = TURNS[orientation]
    assert turn(matrix) == orientation
    (still,), (width, height, _) = await decode(turned(encode([CORNERED]), matrix))
    expected = CORNERED if transposition is None else CORNERED.transpose(transposition)
    assert still.image.size == (width, height) == expected.size
    difference = np.asarray(still.image, float) - np.asarray(expected, float)
    assert np.abs(difference).mean() < 12


@pytest.mark.parametrize("container", ["mp4", "webm"])
async def test_frames_are_chosen_by_their_times(container: str) -> None:
    """As a telephone does that drops frames in the dark."""
    times_s = [0, 0.03, 0.11, 0.14, 0.19, 0.45, 0.46, 0.9]
    codec = "libx264" if container == "mp4" else "libvpx"
    options = {"bf": "0"}
    clip = encode(pictures(8), container=container, codec=codec, times_s=times_s, options=options)
    stills, _ = await decode(clip)
    assert [still.time_s for still in stills] == pytest.approx([0, 0.11, 0.45, 0.9], abs=0.002)
    assert [round(shade_of(still.image)) for still in stills] == [0, 2, 5, 7]


@pytest.mark.parametrize("rate", [8, 24, 25, 60])
async def test_every_rate_becomes_ten_a_second_or_its_own(rate: int) -> None:
    stills, (_, _, duration_s) = await decode(encode(pictures(2 * rate), rate=rate))
    assert len(stills) == min(20, 2 * rate)
    assert duration_s == pytest.approx(2, abs=0.01)
    gaps = np.diff([still.time_s for still in stills])
    assert gaps.min() > 0.05
    assert gaps.max() < 0.15


async def test_it_begins_when_its_pictures_do() -> None:
    times_s = [5 + k / 10 for k in range(5)]
    clip = encode(pictures(5), container="webm", codec="libvpx", times_s=times_s)
    stills, (_, _, duration_s) = await decode(clip)
    assert [still.time_s for still in stills] == pytest.approx(np.arange(5) / 10, abs=0.002)
    assert 0.4 < duration_s <= 0.5


async def test_sound_beside_the_pictures_is_no_matter() -> None:
    stills, _ = await decode(encode(pictures(30), audio=True))
    assert len(stills) == 10


async def test_frames_come_while_the_clip_is_still_being_decoded() -> None:
    async with opened(endless()) as reel, asyncio.timeout(PATIENCE_S):
        (still,) = await reel.take(1)
        assert still.image.size == (384, 384)
        assert len(children()) == 1


async def test_times_that_stand_still_or_go_back_go_on_all_the_same() -> None:
    """As from whoever would have a second of video look at for ever."""
    (first, *rest) = packets(encode(pictures(60), container="webm", codec="libvpx"))
    for pts in (lambda _k: 0, lambda k: max(0, 500 - 10 * k)):
        stills, (_, _, duration_s) = await decode(remuxed([first, *rest], pts))
        times_s = [still.time_s for still in stills]
        assert times_s == sorted(set(times_s))
        assert 15 <= len(stills) <= 30
        assert duration_s <= 3


# --- What is no clip, and what is too much of one ---


def playlists(secret: Path) -> dict[str, bytes]:
    """Files that make ffmpeg open others, where it is let."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n".encode(),
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    }


NO_VIDEOS = {
    "nothing": lambda: b"",
    "words": lambda: b"hello",
    "picture": photo,
    "animation": lambda: b"GIF89a" + bytes(100),
    "heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "sound": sound_only,
    "playlist": lambda: playlists(Path("/etc/passwd"))["hls"],
    "noise": lambda: np.random.default_rng(0).bytes(20 * 2**20),
}


@pytest.mark.parametrize("name", NO_VIDEOS)
async def test_what_is_no_video(name: str) -> None:
    error = await refusal(NO_VIDEOS[name]())
    assert type(error) is NotAVideo
    assert error.code == "not_a_video"


def of_another_kind() -> bytes:
    """MJPEG in MP4: ffmpeg could decode it, and it is on nobody's list."""
    file = io.BytesIO()
    import av

    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        out.mux(stream.encode(av.VideoFrame.from_image(pictures(1)[0])))
        out.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize("container", ["avi", "flv", "mpegts", "mjpeg in mp4"])
async def test_what_is_a_video_of_another_kind(container: str) -> None:
    if container == "mjpeg in mp4":
        clip = of_another_kind()
    else:
        clip = encode(pictures(30), container=container)
    assert type(await refusal(clip)) is UnsupportedVideo


def cut(clip: bytes, share: float) -> bytes:
    return clip[: int(share * len(clip))]


def faststart() -> bytes:
    """An MP4 with its index in front, so that a part of it can be decoded."""
    return encode(astronaut(20, side_px=128), options={"movflags": "faststart"})


def damaged(clip: bytes) -> bytes:
    at = clip.index(b"mdat") + len(clip) // 4
    return clip[:at] + bytes(len(clip) // 4) + clip[at + len(clip) // 4 :]


BROKEN = {
    "index behind": lambda: cut(plain(), 0.7),
    "index in front": lambda: _index_first(),
    "damaged": lambda: damaged(encode(astronaut(20, side_px=128))),
    "header alone": lambda: plain()[:32],
    "noise behind a header": lambda: plain()[:32] + np.random.default_rng(1).bytes(100_000),
    "webm header alone": lambda: encode(pictures(3), container="webm", codec="libvpx")[:64],
}


def _index_first() -> bytes:
    import av

    file = io.BytesIO()
    frames = astronaut(20, side_px=128)
    with av.open(file, "w", format="mp4", options={"movflags": "+frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream("libx264", rate=10, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for image in frames:
            out.mux(stream.encode(av.VideoFrame.from_image(image)))
        out.mux(stream.encode())
    return cut(file.getvalue(), 0.6)


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_damaged(name: str) -> None:
    error = await refusal(BROKEN[name]())
    assert type(error) is BrokenVideo
    assert error.code == "broken_video"


async def test_what_is_too_long_by_its_header_and_by_decoding() -> None:
    limits = replace(LIMITS, duration_s=1.0)
    by_header = await refusal(encode(pictures(45)), limits)
    # A browser's recording says nothing of its length.
    times_s = [k / 10 for k in range(15)]
    recorded = encode(pictures(15), container="webm", codec="libvpx", times_s=times_s)
    by_decoding = await refusal(unsaid(recorded), limits)
    assert type(by_header) is type(by_decoding) is VideoTooLong
    assert "1 s" in by_header.message
    stills, _ = await decode(encode(pictures(30)), limits)
    assert len(stills) == 10


def unsaid(webm: bytes) -> bytes:
    """A WebM whose header's duration has become padding."""
    at = webm.index(b"\x44\x89\x88")
    return webm[:at] + b"\xec\x89" + bytes(9) + webm[at + 11 :]


async def test_time_stamps_far_apart_are_too_long() -> None:
    clip = encode(pictures(3), container="webm", codec="libvpx", times_s=[0, 0.1, 60])
    assert type(await refusal(clip)) is VideoTooLong


async def test_a_thousand_frames_a_second_are_too_many() -> None:
    clip = encode(pictures(1200, (16, 16)), rate=1000, options={"preset": "ultrafast"})
    error = await refusal(clip)
    assert type(error) is TooManyFrames
    assert "1000 frames" in error.message


async def test_as_many_as_are_allowed_cost_no_more_than_their_samples() -> None:
    clip = encode(pictures(900, (16, 16)), rate=1000, options={"preset": "ultrafast"})
    stills, (_, _, duration_s) = await decode(clip)
    assert len(stills) in (9, 10)
    assert duration_s == pytest.approx(0.9, abs=0.01)


async def test_too_many_pixels_by_the_header_and_by_decoding() -> None:
    huge = encode(pictures(2, (3840, 2160)), options={"preset": "ultrafast"})
    assert type(await refusal(huge)) is TooManyVideoPixels
    lying = claiming(huge, 64, 64)
    assert lying != huge
    assert type(await refusal(lying)) is TooManyVideoPixels
    limits = replace(LIMITS, pixels=96 * 64 - 1)
    error = await refusal(plain(), limits)
    assert type(error) is TooManyVideoPixels
    assert "0.006143 million" in error.message


async def test_a_header_that_boasts_costs_nothing() -> None:
    boasting = claiming(plain(), 65535, 65535)
    assert boasting != plain()
    stills, (width, height, _) = await decode(boasting)
    assert (len(stills), width, height) == (15, 96, 64)


async def test_a_clip_that_changes_its_size_is_none() -> None:
    small, large = (
        packets(encode(pictures(3, size), container="webm", codec="libvpx"))
        for size in ((96, 64), (192, 128))
    )
    assert type(await refusal(remuxed(small + large, lambda k: 100 * k))) is BrokenVideo


async def test_more_bytes_than_are_accepted() -> None:
    error = await refusal(plain() + bytes(LIMITS.clip_bytes))
    assert type(error) is ClipTooLarge
    assert "20 MB" in error.message


# --- What a decoder may do ---


async def test_one_that_decodes_for_ever_is_stopped_by_the_processor_time_that_it_has() -> None:
    error = await refusal(endless(), replace(LIMITS, cpu_s=1))
    assert type(error) is VideoTooDemanding


async def test_one_that_says_nothing_for_too_long_is_ended() -> None:
    error = await refusal(endless(), replace(LIMITS, wait_s=0.5))
    assert type(error) is VideoTooDemanding


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
async def test_the_largest_frames_fit_into_the_memory_that_there_is(codec: str) -> None:
    stills, (width, height, _) = await decode(largest(codec))
    assert (width, height) == (2000, 2000)
    assert len(stills) == 6


async def test_one_that_wants_more_memory_does_not_get_it() -> None:
    error = await refusal(largest("libx265"), replace(LIMITS, memory_bytes=224 * 2**20))
    assert type(error) is VideoTooDemanding


@cache
def largest(codec: str) -> bytes:
    """Frames of as many pixels as are accepted, each made of as many others as there may be."""
    options = {"preset": "ultrafast", "bf": "0", "refs": "16"}
    if codec == "libx265":
        options = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0"}
    return encode(pictures(18, (2000, 2000)), codec=codec, options=options)


async def test_it_has_no_secrets_and_no_way_to_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_TOKEN", "123456:a-canary")
    async with opened(endless()) as reel, asyncio.timeout(PATIENCE_S):
        await reel.take(1)
        (process,) = children()
        about = Path(f"/proc/{process.pid}")
        assert (about / "environ").read_bytes() == b""
        assert (about / "cwd").readlink() == Path("/")
        assert sorted(open_file.name for open_file in (about / "fd").iterdir()) == ["0", "1", "2"]
        assert process.num_threads() == 1
        limits = {
            line[:25].strip(): line[25:].split()[:2]
            for line in (about / "limits").read_text().splitlines()[1:]
        }
    assert limits["Max open files"] == ["3", "3"]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max address space"] == [str(LIMITS.memory_bytes)] * 2
    assert limits["Max cpu time"] == [str(LIMITS.cpu_s)] * 2


@pytest.mark.parametrize("demuxer", ["hls", "concat", "sdp", "dash", "lavfi", "image2"])
def test_a_playlist_opens_nothing_even_where_it_gets_as_far(demuxer: str, tmp_path: Path) -> None:
    """By its magic number it gets nowhere: this is what would happen if it did."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(plain())
    before = secret.stat().st_atime_ns
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-B",
            clip_decoder.__file__,
            *clip_decoder.arguments(demuxer, LIMITS),
        ],
        input=playlists(secret).get(demuxer, str(secret).encode()),
        capture_output=True,
        env={},
        timeout=PATIENCE_S,
    )
    assert done.returncode in {Ending.BROKEN, Ending.UNSUPPORTED, 1}
    assert done.stdout == b""
    assert secret.stat().st_atime_ns == before


# --- Its end, and what is left of it ---


async def test_whoever_leaves_ends_their_decoder() -> None:
    decoders, begun = ClipDecoders(1), asyncio.Event()
    leaving = asyncio.create_task(watch(decoders, begun))
    await begun.wait()
    assert len(children()) == 1
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert children() == []


async def test_whoever_leaves_twice_does_not_wait_and_it_ends_all_the_same() -> None:
    decoders, begun = ClipDecoders(1), asyncio.Event()
    leaving = asyncio.create_task(watch(decoders, begun))
    await begun.wait()
    leaving.cancel()
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    # There is one place, and it is free only when the decoder before is gone.
    async with asyncio.timeout(PATIENCE_S), decoders.open(plain()) as reel:
        assert len(children()) == 1
        assert len(await reel.take(NEVER)) == 15


async def watch(decoders: ClipDecoders, begun: asyncio.Event) -> None:
    """Watch a clip that has no end."""
    async with decoders.open(endless()) as reel:
        await reel.take(1)
        begun.set()
        await reel.take(NEVER)


async def test_a_few_at_a_time_and_the_surplus_is_told_when_to_come_back() -> None:
    decoders, begun = ClipDecoders(1, max_waiting=1), asyncio.Event()
    first = asyncio.create_task(watch(decoders, begun))
    await begun.wait()
    second = asyncio.create_task(frames_of(decoders, plain()))
    await asyncio.sleep(0)
    assert decoders.waiting == 1
    with pytest.raises(Busy) as caught:
        decoders.admit()
    assert caught.value.retry_after_s > 0
    with pytest.raises(Busy):
        await frames_of(decoders, plain())
    with pytest.raises(NotAVideo):  # what can be told at once waits for nobody
        await frames_of(decoders, b"hello")
    assert len(children()) == 1
    first.cancel()
    assert len(await second) == 15
    assert decoders.waiting == 0
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_whoever_leaves_while_they_wait_takes_no_place() -> None:
    decoders, begun = ClipDecoders(1), asyncio.Event()
    first = asyncio.create_task(watch(decoders, begun))
    await begun.wait()
    second = asyncio.create_task(frames_of(decoders, plain()))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert decoders.waiting == 0
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(await frames_of(decoders, plain())) == 15


async def frames_of(decoders: ClipDecoders, clip: bytes) -> list[Still]:
    async with asyncio.timeout(PATIENCE_S), decoders.open(clip) as reel:
        return await reel.take(NEVER)


async def test_a_bad_clip_leaves_the_place_to_the_next() -> None:
    decoders = ClipDecoders(1)
    for _ in range(2):
        with pytest.raises(BrokenVideo):
            await frames_of(decoders, plain()[:32])
    assert len(await frames_of(decoders, plain())) == 15


# --- Decoders that a clip has taken over, or that are broken ---


def saying(program: str, limits: clip_decoder.ClipLimits = LIMITS) -> ClipDecoders:
    """Decoders that are this program instead; it has `say`, `HEADER` and `RECORD`."""
    start = f"""
import os, signal, struct, sys, time
HEADER = struct.Struct({clip_decoder.HEADER.format!r})
RECORD = struct.Struct({clip_decoder.RECORD.format!r})
def say(*parts):
    sys.stdout.buffer.write(b"".join(parts)); sys.stdout.buffer.flush()
"""
    return ClipDecoders(1, limits=limits, program=(sys.executable, "-I", "-c", start + program))


SANE = "say(HEADER.pack(96, 64, 4, 4, 1))\n"
FRAME = "say(RECORD.pack(b'F', {}), bytes(48))\n"

NONSENSE = {
    "frames too large": "say(HEADER.pack(96, 64, 385, 4, 1))",
    "frames without pixels": "say(HEADER.pack(96, 64, 0, 4, 1))",
    "a clip too large": "say(HEADER.pack(2**32 - 1, 2**32 - 1, 4, 4, 1))",
    "a clip without pixels": "say(HEADER.pack(0, 64, 4, 4, 1))",
    "time that goes back": SANE + FRAME.format(1.0) + FRAME.format(0.5),
    "time that stands": SANE + FRAME.format(1.0) + FRAME.format(1.0),
    "no time": SANE + FRAME.format("float('nan')"),
    "time without end": SANE + FRAME.format("float('inf')"),
    "an end before the last frame": SANE + FRAME.format(1.0) + "say(RECORD.pack(b'E', 0.5))",
    "an end without a frame": SANE + "say(RECORD.pack(b'E', 0.5))",
    "an end too late": SANE + FRAME.format(1.0) + "say(RECORD.pack(b'E', 16.0))",
    "another word": SANE + "say(RECORD.pack(b'X', 0.0), bytes(48))",
    "frames without end": SANE + "for k in range(1000): say(RECORD.pack(b'F', k / 100), bytes(48))",
    "nothing, and that it went well": "",
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_a_decoder_is_not_believed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokenVideo):
        await frames_of(saying(NONSENSE[name]), plain())
    assert "broke the frame protocol" in caplog.text
    assert children() == []


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
async def test_a_clip_that_makes_the_decoder_crash_is_broken(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    dying = saying(f"os.kill(os.getpid(), {int(number)})")
    with pytest.raises(BrokenVideo):
        await frames_of(dying, plain())
    assert number.name in caplog.text


async def test_a_decoder_that_the_system_ended_for_want_of_memory() -> None:
    with pytest.raises(VideoTooDemanding):
        await frames_of(saying("os.kill(os.getpid(), signal.SIGKILL)"), plain())


async def test_a_decoder_with_a_bug_is_not_the_clips_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(InternalError) as caught:
        await frames_of(saying("sys.exit('In line 7.\\n\\xff')"), plain())
    assert "log" in caught.value.message
    assert "status 1" in caplog.text
    assert "In line 7." in caplog.text
    assert len(caplog.text.splitlines()) == 1


async def test_one_that_never_stops_complaining_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    complaining = saying("while True: sys.stderr.write('x' * 4096)", replace(LIMITS, wait_s=0.5))
    with pytest.raises(VideoTooDemanding):
        await frames_of(complaining, plain())
    assert caplog.text == ""


async def test_where_no_decoder_can_be_started_the_engine_is_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    decoders = ClipDecoders(1, program=("/no/such/python",))
    for _ in range(2):  # and its place is free again
        with pytest.raises(Unavailable, match="No such file"):
            await frames_of(decoders, plain())
    assert "No decoder could be started" in caplog.text


async def test_a_decoder_that_takes_no_byte_of_a_large_clip_and_says_why() -> None:
    clip = plain() + bytes(10 * 2**20)
    with pytest.raises(VideoTooLong):
        await frames_of(saying(f"os._exit({int(Ending.TOO_LONG)})"), clip)


async def test_a_decoder_that_closes_its_mouth_and_stays_is_ended() -> None:
    mute = saying("os.close(1); time.sleep(3600)", replace(LIMITS, wait_s=0.5))
    with pytest.raises(VideoTooDemanding):
        await frames_of(mute, plain())


def test_a_bug_in_the_decoder_is_told_without_the_clips_words() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-B",
            clip_decoder.__file__,
            *clip_decoder.arguments("no-such", LIMITS),
        ],
        input=b"words of the clip",
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert b"decoder.py" in done.stderr
    assert b"ValueError" in done.stderr
    assert b"words" not in done.stderr
    assert b"no-such" not in done.stderr


def test_what_keeps_clips_from_being_decoded_here_is_told() -> None:
    assert clip_module.hindrance() == ""
    assert "No such file" in clip_module.hindrance(["/no/such/python"])
    complaint = clip_module.hindrance([sys.executable, "-c", "import no_such_module"])
    assert "no_such_module" in complaint


def test_every_ending_is_a_fault_of_its_own() -> None:
    refused = {type(clip_module._refusal(ending, LIMITS)) for ending in Ending if ending}
    assert len(refused) == len(Ending) - 1
