"""Strangers' picture files to pixels, one after another, in a process that can do nothing else.

    python -I -B engine/media/photo_decoder.py LIMITS [DESCRIPTOR]

`engine.media.decoder_pool` starts it, and stops it where a file takes too long. On standard input
comes a `REQUEST` and the file for each picture; on standard output goes a `REPLY`, then, where it
was decoded, a `PICTURE`, or the reason why not. The pixels, row by row, go to the start of the
shared memory that DESCRIPTOR opens; without one they follow the `PICTURE`. Before it reads the
first byte it gives up everything that decoding does not need (`engine.media.confinement`).

This process may be made to say anything by a file that breaks into it: `engine.media.decoder_pool`
checks what it says.
"""

import ctypes
import json
import mmap
import os
import select
import struct
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:  # loaded below, once the process knows where
    from engine.errors import ImageError
    from engine.media.image import ImageLimits

REQUEST = struct.Struct("<II")
"""Bytes of the file, and `at_least_px` of `engine.media.image.decode_scaled`, 0 for None."""
REPLY = struct.Struct("<BI")
"""`DECODED`, or `REFUSED` and how many bytes of JSON follow: the refusal's code and message."""
PICTURE = struct.Struct("<IIII")
"""Width and height of the picture that follows, and of its original."""
READY = b"R"
"""Said once, when requests are welcome; then comes a line of JSON, a list of what is in force."""
DECODED, REFUSED = 0, 1

MEMORY_KEPT_S = 2.0
"""For how long memory is kept for the next file (see `engine.media.decoder_pool.ENVIRONMENT`)."""
LIFETIME_CPU_S = 120
"""Of processor time in all. A decoder is replaced long before; this one stops it where its parent
is gone."""


def arguments(limits: "ImageLimits") -> list[str]:
    """What `main` reads from the command line."""
    return [json.dumps(asdict(limits))]


def main(limits_json: str, descriptor: str = "") -> None:
    """Decode until standard input ends."""
    shared = _mapped(int(descriptor)) if descriptor else None
    # What a stranger's file is like is nobody's to read, and nobody reads it: in the end the pipe
    # would be full.
    warnings.simplefilter("ignore")
    # The package without its __init__, which loads numpy: that would double this process.
    package = ModuleType("engine")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["engine"] = package
    from engine.media import confinement
    from engine.media.image import ImageLimits

    limits = ImageLimits(**json.loads(limits_json))
    _load_all()
    confinement.limit(_address_space_bytes() + limits.memory_bytes, LIFETIME_CPU_S)
    in_force = confinement.close()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(READY + json.dumps(in_force).encode("ascii") + b"\n")
    sink.flush()
    while head := _next(source, give_back):
        size, at_least_px = REQUEST.unpack(head)
        _answer(source.read(size), at_least_px or None, limits, sink, shared)
        sink.flush()


def _next(source: BinaryIO, give_back: Callable[[int], object]) -> bytes:
    """The next request; what `malloc` keeps is given back where it does not come soon."""
    if not select.select([source], [], [], MEMORY_KEPT_S)[0]:
        give_back(0)
    return source.read(REQUEST.size)


def _mapped(descriptor: int) -> mmap.mmap:
    """Shared memory, without its descriptor."""
    shared = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    return shared


def _load_all() -> None:
    """Load what decoders would load when it is first needed: no file can be opened later."""
    from PIL import AvifImagePlugin, TiffImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    del TiffImagePlugin  # reads EXIF
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        # Each thread would take address space; one file at a time has the processor to itself.
        pillow_heif.options.DECODE_THREADS = 1


def _address_space_bytes() -> int:
    """What this process has mapped so far; where that cannot be told, what it is on Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 2**29
    return pages * os.sysconf("SC_PAGE_SIZE")


def _answer(
    data: bytes,
    at_least_px: int | None,
    limits: "ImageLimits",
    sink: BinaryIO,
    shared: mmap.mmap | None,
) -> None:
    from engine.errors import ImageError
    from engine.media.image import decode_scaled, too_demanding

    try:
        photo = decode_scaled(data, at_least_px=at_least_px, limits=limits)
        pixels = photo.image.tobytes()
        sink.write(REPLY.pack(DECODED, 0))
        sink.write(PICTURE.pack(*photo.image.size, photo.width_px, photo.height_px))
        if shared is None:
            sink.write(pixels)
        else:
            shared[: len(pixels)] = pixels
    except MemoryError:
        _refuse(too_demanding(), sink)
    except ImageError as error:
        _refuse(error, sink)


def _refuse(error: "ImageError", sink: BinaryIO) -> None:
    told = json.dumps([error.code, error.message]).encode("ascii")
    sink.write(REPLY.pack(REFUSED, len(told)))
    sink.write(told)


if __name__ == "__main__":
    main(*sys.argv[1:])
