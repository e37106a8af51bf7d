"""What a video says of itself: container, length and size, as an honest client would claim them.

Reads the container and decodes no picture. Knows nothing about messages or files.
"""

import io
from dataclasses import dataclass

_WEBM_START = b"\x1a\x45\xdf\xa3"


@dataclass(frozen=True, slots=True)
class Shape:
    """Length in whole seconds, 1 or more, and size in pixels."""

    duration_s: int
    width_px: int
    height_px: int


UNKNOWN = Shape(3, 384, 384)
"""What is claimed for bytes that are no video."""


def container(data: bytes) -> tuple[str, str]:
    """File name suffix and MIME type: WebM, which browsers record, or else MP4."""
    if data.startswith(_WEBM_START):
        return ".webm", "video/webm"
    return ".mp4", "video/mp4"


def shape(data: bytes) -> Shape:
    """Length and size of a video, or `UNKNOWN`. Work for a thread."""
    import av  # only who sends a video needs FFmpeg's libraries in memory

    try:
        with av.open(io.BytesIO(data), "r") as opened:
            stream = opened.streams.video[0]
            if opened.duration:
                length_s = opened.duration / av.time_base
            else:  # a browser's recording has no length in its header
                length_s = max(
                    (float(one.pts * one.time_base) for one in opened.demux(stream) if one.pts),
                    default=0.0,
                )
            return Shape(max(1, round(length_s)), stream.width or 384, stream.height or 384)
    except (av.FFmpegError, IndexError, ValueError):
        return UNKNOWN
