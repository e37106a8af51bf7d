"""Videos to show an engine: honest ones, and such as somebody would make who means ill."""

import io
import multiprocessing
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import cache

import av
import numpy as np
import psutil
import skimage.data
from PIL import Image

from engine.media import clip_decoder

RATE = 30


def pictures(count: int, size: tuple[int, int] = (96, 64)) -> list[Image.Image]:
    """As many pictures, each of its own grey: the k-th is of about 40 + 4 k."""
    return [Image.new("RGB", size, (shade,) * 3) for shade in (40 + 4 * k for k in range(count))]


def shade_of(image: Image.Image) -> float:
    """The number of the picture that a frame shows."""
    return (float(np.asarray(image).mean()) - 40) / 4


def astronaut(count: int, *, side_px: int = 384, step_px: int = 2) -> list[Image.Image]:
    """A face that moves to the right, from picture to picture."""
    photo = Image.fromarray(skimage.data.astronaut())
    boxes = [(60 - step_px * k, 0, 60 - step_px * k + 384, 384) for k in range(count)]
    return [photo.crop(box).resize((side_px, side_px)) for box in boxes]


def encode(
    frames: Iterable[Image.Image],
    *,
    container: str = "mp4",
    codec: str = "libx264",
    rate: int = RATE,
    times_s: Sequence[float] | None = None,
    audio: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """A video file of these pictures, at a rate or at times of their own."""
    file = io.BytesIO()
    frames = list(frames)
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000 if times_s else rate)
        sound = out.add_stream("aac", rate=8000) if audio else None
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts = k if times_s is None else round(1000 * times_s[k])
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound is not None:
            _add_silence(out, sound, len(frames) / rate)
    return file.getvalue()


def encode_elsewhere(frames: Iterable[Image.Image], **options) -> bytes:
    """The same, by a process of its own.

    For SVT-AV1, which gives whoever calls it as root real-time priority, and so all that they start
    later: threads that wait for each other then keep all others, and each other, from the cores.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(encode, list(frames), **options).result()


def sound_only(seconds: float = 1.0) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        _add_silence(out, out.add_stream("aac", rate=8000), seconds)
    return file.getvalue()


def _add_silence(out, stream, seconds: float) -> None:
    samples = np.zeros((1, int(8000 * seconds)), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.rate, frame.pts = 8000, 0
    out.mux(stream.encode(frame))
    out.mux(stream.encode())


def turned(clip: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 whose track says how it is to be shown: (a, b, c, d) of its matrix."""
    at = clip.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    return clip[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + clip[at + 36 :]


def claiming(clip: bytes, width: int, height: int) -> bytes:
    """An MP4 that says that its pictures have another size."""
    at = clip.index(b"avc1") + 4 + 24
    return clip[:at] + struct.pack(">HH", width, height) + clip[at + 4 :]


def packets(clip: bytes) -> list[bytes]:
    with av.open(io.BytesIO(clip)) as opened:
        return [bytes(packet) for packet in opened.demux(video=0) if packet.size]


def remuxed(
    frames: Iterable[bytes], time_ms: Callable[[int], int], size: tuple[int, int] = (96, 64)
) -> bytes:
    """A WebM of these frames of VP8, with time stamps that someone made up.

    ffmpeg's muxer would refuse them, and say how long the clip is.
    """

    def element(identifier: str, payload: bytes) -> bytes:
        return bytes.fromhex(identifier) + (2**56 + len(payload)).to_bytes(8, "big") + payload

    def number(identifier: str, value: int) -> bytes:
        return element(identifier, value.to_bytes(4, "big"))

    header = element("1A45DFA3", element("4282", b"webm"))
    video = element("E0", number("B0", size[0]) + number("BA", size[1]))
    entry = number("D7", 1) + number("73C5", 1) + number("83", 1) + element("86", b"V_VP8") + video
    tracks = element("1654AE6B", element("AE", entry))
    info = element("1549A966", number("2AD7B1", 1_000_000))
    blocks = b"".join(
        element("A3", b"\x81" + time_ms(k).to_bytes(2, "big", signed=True) + b"\x80" + frame)
        for k, frame in enumerate(frames)
    )
    cluster = element("1F43B675", number("E7", 0) + blocks)
    return header + element("18538067", info + tracks + cluster)


@cache
def endless(size: tuple[int, int] = (1920, 1920)) -> bytes:
    """A WebM of 20 MB that shows one frame and then goes on with frames that are never shown.

    Each takes as long to decode as a large picture.
    """
    (shown,) = packets(encode(pictures(1, size), container="webm", codec="libvpx"))
    hidden = bytes([shown[0] & ~0x10]) + shown[1:]  # RFC 6386, 9.1: show_frame
    count = 20 * 10**6 // len(shown)
    return remuxed([shown] + [hidden] * count, lambda k: min(k, 10_000), size)


def children() -> list[psutil.Process]:
    """The decoders that this process, or whatever it started, still has."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if clip_decoder.__file__ in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
