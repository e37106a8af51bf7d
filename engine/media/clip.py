"""Hostile video bytes to upright RGB frames, ten a second, each as soon as it is decoded.

What a clip is, by its magic number, is seen here; it is decoded in a process of its own
(`engine.media.clip_decoder`), which is given the bytes, an empty environment and hard limits, and
is believed no further than those. Frames are read from it only as they are taken, so that no more
than a few are ever held; whoever stops taking ends it. Nothing is written to disk.

Knows nothing about faces.
"""

import asyncio
import contextlib
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from struct import Struct
from typing import Any

from PIL import Image

from engine.errors import (
    BrokenVideo,
    Busy,
    ClipTooLarge,
    EngineError,
    InternalError,
    NotAVideo,
    TooManyFrames,
    TooManyVideoPixels,
    Unavailable,
    UnsupportedVideo,
    VideoTooDemanding,
    VideoTooLong,
)
from engine.media import clip_decoder
from engine.media.clip_decoder import END, FRAME, HEADER, RECORD, ClipLimits, Ending
from engine.media.image import is_picture, upright, upright_size

_LOG = logging.getLogger(__name__)

LIMITS = ClipLimits()
MAX_WAITING = 16
"""Clips that may wait for a decoder: each is up to 20 MB, and takes about a second."""

ACCEPTED = "MP4, MOV or WebM"

PROGRAM = (sys.executable, "-I", "-B", clip_decoder.__file__)
"""Isolated: neither the environment nor the present folder decides what is imported."""

_SLICE_BYTES = 2**20
_FRAMES_AHEAD = 8
"""That are read before they are taken, so that decoding and computing go on side by side."""

_WORDS_BYTES = 2000
"""Of a failed decoder's last words: where in its code it failed."""

_FIRST_CLIP_S = 1.0
_SMOOTHING = 0.3


@dataclass(frozen=True, slots=True)
class Still:
    """One sampled frame of a clip.

    Attributes:
        time_s: since the clip's first frame.
        image: upright, mode "RGB", at most `ClipLimits.side_px` on its longer side.
    """

    time_s: float
    image: Image.Image


def check_length(clip: bytes, limits: ClipLimits = LIMITS) -> None:
    """Raise NotAVideo or ClipTooLarge where a clip is refused for its length alone."""
    if not clip:
        raise NotAVideo("The file is empty: send one that has a video in it.")
    if len(clip) > limits.clip_bytes:
        raise too_large(limits)


class ClipDecoders:
    """A few decoders at a time; whoever comes then waits.

    Args:
        at_a_time: how many.
        limits: what each clip may ask for.
        max_waiting: how many clips may wait; beyond that, `Busy`.
        program: what decodes, as `engine.media.clip_decoder` does.
        clock: tells seconds.
    """

    def __init__(
        self,
        at_a_time: int,
        *,
        limits: ClipLimits = LIMITS,
        max_waiting: int = MAX_WAITING,
        program: Sequence[str] = PROGRAM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_a_time = at_a_time
        self._limits = limits
        self._max_waiting = max_waiting
        self._program = program
        self._clock = clock
        self._places = asyncio.Semaphore(at_a_time)
        self._clip_s = _FIRST_CLIP_S
        # The event loop alone would let them be collected.
        self._ending: set[asyncio.Task[None]] = set()
        self.waiting = 0
        """How many clips wait for a decoder."""

    def admit(self) -> None:
        """Raise Busy where too many clips wait already."""
        if self.waiting >= self._max_waiting:
            raise Busy(
                f"{self.waiting} clips wait already: come back later.",
                retry_after_s=self._clip_s * self.waiting / self._at_a_time,
            )

    @asynccontextmanager
    async def open(self, clip: bytes) -> AsyncIterator["ClipFrames"]:
        """A clip being decoded; its decoder ends with the block, however that ends.

        Args:
            clip: an MP4, MOV or WebM file, of H.264, HEVC, VP8, VP9, AV1 or MPEG-4 pictures.

        Raises:
            NotAVideo: no video begins like this, or there are no bytes.
            UnsupportedVideo: a video, in another container.
            ClipTooLarge: more bytes than are accepted.
            Busy: too many clips wait already.
            Unavailable: no process could be started.
        """
        check_length(clip, self._limits)
        demuxer = _identify(clip)
        self.admit()
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        started = self._clock()
        try:
            process = await _start(self._program, demuxer, self._limits)
        except BaseException:
            self._places.release()
            raise
        assert process.stdin is not None
        feeding = asyncio.create_task(_feed(process.stdin, clip))
        try:
            yield ClipFrames(process, self._limits, self._clock)
        finally:
            feeding.cancel()
            ending = asyncio.create_task(_end(process, feeding))
            self._ending.add(ending)
            ending.add_done_callback(self._ended)
            # Whoever is cancelled meanwhile does not wait, and it ends all the same.
            await asyncio.shield(ending)
            spent_s = self._clock() - started
            self._clip_s = _SMOOTHING * spent_s + (1 - _SMOOTHING) * self._clip_s

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._ending.discard(ending)
        self._places.release()


class ClipFrames:
    """The sampled frames of one clip, in their order.

    Args:
        process: the decoder.
        limits: what it was told.
        clock: tells seconds.

    Attributes:
        width_px: width of the upright clip, once a frame has come.
        height_px: height of the upright clip, likewise.
        duration_s: from its first frame to the end of its last, once all have come.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        limits: ClipLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._limits = limits
        self._clock = clock
        self._left_s = limits.wait_s
        self._size: tuple[int, int] | None = None
        self._orientation = 1
        self._last_s = -1.0
        self._taken = 0
        self._over = False
        self.width_px = 0
        self.height_px = 0
        self.duration_s = 0.0

    async def take(self, count: int) -> list[Still]:
        """The next frames, so many unless the clip ends before; none once it has.

        Raises:
            ClipError: the clip is not accepted, or not to its end (one subclass per reason).
            InternalError: the decoder failed by a bug.
        """
        stills: list[Still] = []
        while len(stills) < count and not self._over:
            still = await self._next()
            if still is not None:
                stills.append(still)
        return stills

    async def _next(self) -> Still | None:
        if self._size is None:
            self._size = await self._header()
        kind, time_s = await self._record(RECORD)
        if not self._last_s < time_s <= self._limits.duration_s:  # false for NaN, too
            raise _malformed()
        if kind == END and self._taken:
            self.duration_s, self._over = time_s, True
            return None
        self._last_s, self._taken = time_s, self._taken + 1
        if kind != FRAME or self._taken > self._limits.most_samples:
            raise _malformed()
        pixels = await self._read(3 * self._size[0] * self._size[1])
        image = Image.frombuffer("RGB", self._size, pixels, "raw", "RGB", 0, 1)
        return Still(time_s, upright(image, self._orientation))

    async def _header(self) -> tuple[int, int]:
        """Width and height of the frames as they come, which may have to be turned."""
        width, height, frame_width, frame_height, orientation = await self._record(HEADER)
        side_px = self._limits.side_px
        small = 0 < frame_width <= side_px and 0 < frame_height <= side_px
        if not (small and 0 < width * height <= self._limits.pixels):
            raise _malformed()
        self._orientation = orientation
        self.width_px, self.height_px = upright_size((width, height), orientation)
        return frame_width, frame_height

    async def _record(self, kind: Struct) -> tuple[Any, ...]:
        return kind.unpack(await self._read(kind.size))

    async def _read(self, count: int) -> bytes:
        """So many bytes, or why there are no more."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        started = self._clock()
        try:
            async with asyncio.timeout(self._left_s):
                try:
                    return await self._process.stdout.readexactly(count)
                except asyncio.IncompleteReadError:
                    words = await self._process.stderr.read(_WORDS_BYTES)
                    status = await self._process.wait()
        except TimeoutError as error:
            raise _refusal(Ending.TOO_DEMANDING, self._limits) from error
        finally:
            self._left_s -= self._clock() - started
        raise _fault(status, words, self._limits)


# --- The process ---


async def _start(
    program: Sequence[str], demuxer: str, limits: ClipLimits
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *program,
            *clip_decoder.arguments(demuxer, limits),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,  # Ctrl+C is for whoever started this, who then ends it
            limit=_FRAMES_AHEAD * 3 * limits.side_px**2 // 2,  # the reader holds twice as much
        )
    except OSError as error:
        _LOG.error("No decoder could be started: %s", error)
        raise Unavailable(
            f"No decoder could be started ({error.strerror}): see that the machine has processes, "
            "files and memory left."
        ) from error


async def _feed(stdin: asyncio.StreamWriter, clip: bytes) -> None:
    """Hand the clip over. A decoder that does not want it all has its reasons, and says them."""
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(clip), _SLICE_BYTES):
            stdin.write(memoryview(clip)[start : start + _SLICE_BYTES])
            await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


async def _end(process: asyncio.subprocess.Process, feeding: "asyncio.Task[None]") -> None:
    """Return when nothing is left of a decoder."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await asyncio.gather(feeding, return_exceptions=True)
    assert process.stdin is not None
    process.stdin.close()
    # What it still said is read away: a full pipe would keep its end from being noticed.
    await process.communicate()


def hindrance(program: Sequence[str] = PROGRAM) -> str:
    """What keeps clips from being decoded on this machine; empty where nothing does."""
    try:
        done = subprocess.run(  # noqa: S603
            [*program, *clip_decoder.arguments("mov", LIMITS)],
            input=b"",
            capture_output=True,
            env={},
            cwd="/",
            timeout=LIMITS.wait_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == Ending.BROKEN:  # as it should say of nothing
        return ""
    words = done.stderr[-_WORDS_BYTES:].decode("ascii", "replace")
    return f"the decoder ended with {done.returncode}: {words}"


# --- What a clip is, and why it is refused ---

_MAGIC = (
    (re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip)", re.DOTALL), "mov"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "matroska"),
)
_OTHER_MAGIC = (
    (re.compile(rb"RIFF.{4}AVI ", re.DOTALL), "AVI"),
    (re.compile(rb"FLV"), "Flash video"),
    (re.compile(rb"OggS"), "Ogg"),
    (re.compile(rb"\0\0\x01[\xba\xb3]"), "MPEG"),
    (re.compile(rb"G.{187}G", re.DOTALL), "MPEG transport stream"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "Windows Media"),
)


def _identify(clip: bytes) -> str:
    """The demuxer to use; raises NotAVideo or UnsupportedVideo."""
    head = clip[:1024]
    if is_picture(head):
        raise NotAVideo(f"This is a picture, not a video: send a video, as {ACCEPTED}.")
    for magic, demuxer in _MAGIC:
        if magic.match(head):
            return demuxer
    for magic, kind in _OTHER_MAGIC:
        if magic.match(head):
            raise UnsupportedVideo(
                f"This is a file of the {kind} kind, which is not accepted: send it as {ACCEPTED}."
            )
    raise _refusal(Ending.NOT_A_VIDEO, LIMITS)


def too_large(limits: ClipLimits = LIMITS) -> ClipTooLarge:
    """What a clip of too many bytes is refused with."""
    return ClipTooLarge(
        f"The clip has more than the {limits.clip_bytes / 2**20:g} MB accepted: send a shorter or "
        "more compressed one."
    )


def _refusal(ending: Ending, limits: ClipLimits) -> EngineError:
    match ending:
        case Ending.NOT_A_VIDEO:
            return NotAVideo(f"There is no video in this file: send one, as {ACCEPTED}.")
        case Ending.UNSUPPORTED:
            return UnsupportedVideo(
                "The video's pictures are compressed in a way that is not accepted: send H.264, "
                "HEVC, VP8, VP9, AV1 or MPEG-4."
            )
        case Ending.BROKEN:
            return BrokenVideo(
                "The video is truncated or damaged: send it again or record another one."
            )
        case Ending.TOO_LARGE:
            return too_large(limits)
        case Ending.TOO_LONG:
            return VideoTooLong(
                f"The video is longer than the {limits.duration_s:g} s accepted: send a shorter "
                "one."
            )
        case Ending.TOO_MANY_FRAMES:
            return TooManyFrames(
                f"The video has more than the {limits.frames} frames accepted: record it with "
                "fewer a second."
            )
        case Ending.TOO_MANY_PIXELS:
            return TooManyVideoPixels(
                f"The video's frames have more than the {limits.pixels / 1e6:g} million pixels "
                "accepted: send it in a lower resolution."
            )
        case Ending.TOO_DEMANDING:
            return VideoTooDemanding(
                "Decoding the video takes more time or memory than one is given: send one as "
                "telephones record them."
            )
        case Ending.WELL:
            return _malformed()


def _fault(status: int, words: bytes, limits: ClipLimits) -> EngineError:
    """What a decoder's end before that of the clip means.

    Args:
        status: its exit status, or a signal's number below zero.
        words: what it said on standard error.
        limits: what it was told.
    """
    if status in {*Ending}:
        return _refusal(Ending(status), limits)
    if -status in (signal.SIGXCPU, signal.SIGKILL):
        return _refusal(Ending.TOO_DEMANDING, limits)
    if status < 0:
        _LOG.warning("A clip made its decoder crash (%s).", signal.Signals(-status).name)
        return _refusal(Ending.BROKEN, limits)
    _LOG.error("The decoder failed (status %d): %r", status, words.decode("ascii", "replace"))
    return InternalError("The clip could not be decoded, by a bug of ours: the log tells more.")


def _malformed() -> BrokenVideo:
    """A decoder that a clip made say what it never says."""
    _LOG.warning("a clip's decoder broke the frame protocol; the clip was refused")
    return BrokenVideo("The video is damaged: send it again or record another one.")
