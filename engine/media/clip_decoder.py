"""Hostile video bytes to small RGB frames, in a process of its own that can do nothing else.

    python -I engine/media/clip_decoder.py mov LIMITS < clip > frames

`engine.media.clip` runs this file by its path, so that no package is imported, and not even numpy:
a process that is born for one clip should be born quickly. Before it reads a byte it gives up what
it does not need (`engine.media.confinement`): memory and processor time beyond a limit, writing
files, opening any (an ffmpeg playlist or a reference inside a container would name one), sockets,
and most system calls. It decodes with one allow-listed demuxer and one of a few codecs, in one
thread, and stops at the first limit passed.

On standard output it puts a `HEADER`, then for each sampled frame a `RECORD` and its pixels, then a
last `RECORD`; how it ended is its exit status, an `Ending`. It says nothing in words: whoever
listens does not trust it. Knows nothing about faces, queues or who asked. Pixels are taken to be
square.
"""

import errno
import gc
import importlib.util
import io
import json
import os
import struct
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:  # it loads ffmpeg, after the limits are set
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

HEADER = struct.Struct("<IIIIB")
"""Width and height of the clip as stored, those of its frames, and how they are turned: see
`turn`."""
RECORD = struct.Struct("<cd")
"""`FRAME` and its seconds since the first one, and then come its RGB pixels, row by row; or `END`
and the clip's seconds, from its first frame to the end of its last."""
FRAME = b"F"
END = b"E"

CODECS = frozenset(("h264", "hevc", "vp8", "vp9", "av1", "mpeg4"))
_DECODERS = "h264,hevc,vp8,vp9,libdav1d,libaom-av1,av1,mpeg4"
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm"

_UPRIGHT = {-90: (0, 1, -1, 0), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}
"""Display matrices by the degrees, counterclockwise, that they turn a picture."""

_USUAL_FRAME_S = 1 / 30
_LONGEST_FRAME_S = 1.0
# Time stamps of a millisecond's precision (WebM) must not push a frame past its tenth.
_SLACK_S = 0.002


@dataclass(frozen=True, slots=True)
class ClipLimits:
    """How much a clip may ask for.

    Attributes:
        clip_bytes: of the file.
        duration_s: from its first frame to the end of its last, by the header or by decoding.
        frames: as decoded; 15 seconds of an ordinary telephone have 450 or 900.
        pixels: of a frame as stored.
        side_px: frames are scaled down to this on their longer side, never up.
        samples_per_s: how many of its frames are wanted.
        memory_bytes: of the decoder's address space, 130 MB of which are its code; the largest
            frames with as many references as there may be take 320 MB in all.
        cpu_s: of the decoder's processor time.
        wait_s: that its output is waited for, all together; the time it waits itself, because
            nobody takes its frames, does not count.
    """

    clip_bytes: int = 20 * 2**20
    duration_s: float = 15.5
    frames: int = 1000
    pixels: int = 4_000_000
    side_px: int = 384
    samples_per_s: float = 10.0
    memory_bytes: int = 2**29
    cpu_s: int = 10
    wait_s: float = 30.0

    @property
    def most_samples(self) -> int:
        """How many frames a clip has at most, once sampled."""
        return int(self.duration_s * self.samples_per_s) + 1


class Ending(IntEnum):
    """How the decoder ended, as its exit status; whatever else it may be is a bug or a crash."""

    WELL = 0
    NOT_A_VIDEO = 40
    UNSUPPORTED = 41
    BROKEN = 42
    TOO_LARGE = 43
    TOO_LONG = 44
    TOO_MANY_FRAMES = 45
    TOO_MANY_PIXELS = 46
    TOO_DEMANDING = 47


class Refused(Exception):
    """The clip is not accepted."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.name)
        self.ending = ending


def arguments(demuxer: str, limits: ClipLimits) -> list[str]:
    """What `main` reads from the command line."""
    return [demuxer, json.dumps(asdict(limits))]


def main(demuxer: str, limits: ClipLimits, source: BinaryIO, sink: BinaryIO) -> Ending:
    """Decode what comes from `source` to `sink`, under limits that this process keeps for ever."""
    confinement = _load_confinement()
    confinement.limit(limits.memory_bytes, limits.cpu_s)
    try:
        import av
        import av.sidedata.sidedata
        import av.subtitles.codeccontext
        import av.subtitles.stream  # what it would load only when it is needed, too
        import av.video.reformatter

        av.logging.set_level(av.logging.PANIC)
        # Everything is loaded: from here on there are only the three streams that there are.
        confinement.close()
        clip = source.read(limits.clip_bytes + 1)
        if len(clip) > limits.clip_bytes:
            return Ending.TOO_LARGE
        try:
            _decode(clip, demuxer, limits, sink)
        except av.error.FFmpegError as error:
            return Ending.TOO_DEMANDING if error.errno == errno.ENOMEM else Ending.BROKEN
    except Refused as refused:
        return refused.ending
    except MemoryError:
        return Ending.TOO_DEMANDING
    return Ending.WELL


def _load_confinement() -> ModuleType:
    """The module beside this file; the package around it would load numpy."""
    path = Path(__file__).with_name("confinement.py")
    specification = importlib.util.spec_from_file_location("confinement", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _decode(clip: bytes, demuxer: str, limits: ClipLimits, sink: BinaryIO) -> None:
    import av

    with av.open(
        io.BytesIO(clip),
        "r",
        format=demuxer,
        metadata_errors="replace",
        io_open=_open_nothing,
        options={
            "format_whitelist": _FORMATS,
            "codec_whitelist": _DECODERS,
            "protocol_whitelist": "none",
            "max_pixels": _allocated(limits),
            "threads": "1",
        },
    ) as container:
        stream = _choose(container, limits)
        reel = _FrameSampler(limits, _interval_s(stream), sink)
        for frame in _frames(container, stream):
            reel.add(frame)
        reel.end()


def _allocated(limits: ClipLimits) -> str:
    """Pixels for which ffmpeg may allocate memory: its frames have borders and padded rows."""
    return str(2 * limits.pixels)


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> Any:  # noqa: ARG001
    raise Refused(Ending.UNSUPPORTED)


def _choose(container: "InputContainer", limits: ClipLimits) -> "VideoStream":
    """The stream to decode, ready to be decoded."""
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise Refused(Ending.NOT_A_VIDEO)
    stream = streams[0]
    context = stream.codec_context
    # ffmpeg knows more codecs than it can decode here.
    if context is None or context.codec.canonical_name not in CODECS:
        raise Refused(Ending.UNSUPPORTED)
    if context.width * context.height > limits.pixels:
        raise Refused(Ending.TOO_MANY_PIXELS)
    said = stream.duration
    if said is not None and stream.time_base and said * stream.time_base > limits.duration_s:
        raise Refused(Ending.TOO_LONG)
    context.thread_count = 1
    context.options = {"max_pixels": _allocated(limits)}
    return stream


def _interval_s(stream: "VideoStream") -> float:
    """Seconds from frame to frame where time stamps do not say, as far as that makes sense."""
    rate = stream.average_rate
    return 1 / float(rate) if rate and 1 <= rate <= 240 else _USUAL_FRAME_S


def _frames(container: "InputContainer", stream: "VideoStream") -> Iterator["VideoFrame"]:
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise Refused(Ending.BROKEN)
        for frame in packet.decode():
            if frame.is_corrupt:
                raise Refused(Ending.BROKEN)
            yield frame


class _FrameSampler:
    """What has been decoded so far, and what of it has been put out."""

    def __init__(self, limits: ClipLimits, interval_s: float, sink: BinaryIO) -> None:
        from av.video.reformatter import VideoReformatter

        self._limits = limits
        self._reformatter = VideoReformatter()
        self._interval_s = interval_s
        self._sink = sink
        self._decoded = 0
        self._began_s = 0.0
        self._time_s = 0.0
        self._frame_s = interval_s
        self._sampled = -1
        self._form: tuple[int, int, int] | None = None
        self._size = (0, 0)

    def add(self, frame: "VideoFrame") -> None:
        limits = self._limits
        self._decoded += 1
        if self._decoded > limits.frames:
            raise Refused(Ending.TOO_MANY_FRAMES)
        self._tell_time(frame)
        if self._time_s > limits.duration_s:
            raise Refused(Ending.TOO_LONG)
        if frame.width * frame.height > limits.pixels:
            raise Refused(Ending.TOO_MANY_PIXELS)
        form = (frame.width, frame.height, turn(_matrix(frame)))
        if self._form is None:
            self._begin(form)
        elif form != self._form:  # a clip is one picture all along
            raise Refused(Ending.BROKEN)
        sample = int((self._time_s + _SLACK_S) * limits.samples_per_s)
        if sample > self._sampled:
            self._sampled = sample
            self._put(frame)

    def end(self) -> None:
        if not self._decoded:
            raise Refused(Ending.BROKEN)
        duration_s = self._time_s + self._frame_s
        if duration_s > self._limits.duration_s:
            raise Refused(Ending.TOO_LONG)
        self._sink.write(RECORD.pack(END, duration_s))
        self._sink.flush()

    def _tell_time(self, frame: "VideoFrame") -> None:
        """Where this frame is in the clip: after the one before, whatever its time stamp says."""
        said = None
        if frame.pts is not None and frame.time_base:
            said = float(frame.pts * frame.time_base)
        if self._decoded == 1:
            self._began_s = said or 0.0
        else:
            following_s = self._time_s + self._interval_s
            time_s = following_s if said is None else said - self._began_s
            self._time_s = time_s if time_s > self._time_s else following_s
        lasts_s = float((frame.duration or 0) * (frame.time_base or 0))
        self._frame_s = lasts_s if 0 < lasts_s <= _LONGEST_FRAME_S else self._interval_s

    def _begin(self, form: tuple[int, int, int]) -> None:
        self._form = form
        width, height, orientation = form
        scale = min(1.0, self._limits.side_px / max(width, height))
        self._size = max(1, round(width * scale)), max(1, round(height * scale))
        self._sink.write(HEADER.pack(width, height, *self._size, orientation))

    def _put(self, frame: "VideoFrame") -> None:
        width, height = self._size
        # Bilinear in swscale looks at every pixel when it makes smaller.
        small = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation="BILINEAR", threads=1
        )
        plane = small.planes[0]
        rows, step = memoryview(plane), plane.line_size
        self._sink.write(RECORD.pack(FRAME, self._time_s))
        for top in range(0, step * height, step):
            self._sink.write(rows[top : top + 3 * width])
        self._sink.flush()


def _matrix(frame: "VideoFrame") -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: x' = ax + cy, y' = bx + dy, y downwards."""
    try:
        # Its type stub knows one key only.
        data = cast("dict[str, Any]", frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return 1, 0, 0, 1
    except ValueError:  # of kinds of side data that PyAV 18 does not know it reads none at all
        return _UPRIGHT.get(frame.rotation, (1, 0, 0, 1))
    values = struct.unpack_from("=9i", bytes(data))
    return values[0], values[1], values[3], values[4]


def turn(matrix: tuple[int, int, int, int]) -> int:
    """What a display matrix does to the picture, as EXIF's orientations have it, 1 to 8.

    What is no turn by right angles, mirrored or not, counts as the nearest one.
    """
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}[
            (a < 0, d < 0)
        ]
    return {(False, False): 5, (False, True): 6, (True, True): 7, (True, False): 8}[(b < 0, c < 0)]


def _status() -> int:
    """Do what the command line says; what goes wrong by a bug is told without the clip's words."""
    demuxer, said = sys.argv[1:]
    try:
        return main(demuxer, ClipLimits(**json.loads(said)), sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # nobody listens any more
        return Ending.WELL
    except BaseException as error:
        lines = traceback.format_tb(error.__traceback__)
        sys.stderr.write("".join([*lines, type(error).__name__]))
        sys.stderr.flush()
        return 1


if __name__ == "__main__":
    gc.disable()  # in so short a life it would only take time
    # No tidying up behind ffmpeg: the process ends, and with it all that it holds.
    os._exit(_status())
