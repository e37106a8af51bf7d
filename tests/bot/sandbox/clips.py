"""Videos that tests draw themselves: a grey square that grows brighter."""

import io
from fractions import Fraction

import av
import numpy as np


def clip(
    seconds: float = 2.0, width: int = 96, height: int = 96, *, form: str = "mp4", rate: int = 10
) -> bytes:
    """A video of so many seconds; `form` is "mp4" (H.264) or "webm" (VP8)."""
    buffer = io.BytesIO()
    frames = round(seconds * rate)
    with av.open(buffer, "w", format=form) as container:
        codec = {"mp4": "libx264", "webm": "libvpx"}[form]
        stream = container.add_stream(codec, rate=Fraction(rate))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            shade = np.full((height, width, 3), 255 * number // max(1, frames - 1), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
