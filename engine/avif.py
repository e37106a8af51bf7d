"""AVIF's pixels, decoded in a process of its own.

An AVIF header may claim ten pixels for a stream of a quarter of a thousand million, and Pillow has
no way to tell its AV1 decoder a limit. A child process has: its memory is capped by what the header
claims. It costs about a tenth of a second for a format that few people send.

This file is also the child's program: run alone, without the packages around it, it reads the
picture on its standard input and writes the pixels on its standard output. Knows nothing about
limits, rotation or transparency.
"""

import io
import subprocess
import sys

from PIL import AvifImagePlugin, Image

# The largest picture allowed takes two; stopping the bot may have to wait for it.
_TIME_LIMIT_S = 6.0
_BASE_BYTES = 512 * 2**20
_BYTES_PER_PIXEL = 24
_MODES = ("RGB", "RGBA")


def supported() -> bool:
    """Whether the installed Pillow was built with AVIF."""
    return AvifImagePlugin.SUPPORTED


def open_header(data: bytes) -> Image.Image:
    """Read the header alone: size, mode, and in `info` the EXIF block that tells the rotation.

    Raises:
        Exception: whatever Pillow makes of a damaged file.
    """
    return AvifImagePlugin.AvifImageFile(io.BytesIO(data))


def load(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Decode a file's first frame.

    Args:
        data: an AVIF file.
        size: width and height by its header; they bound the memory.

    Returns:
        The picture, mode "RGB" or "RGBA", not rotated.

    Raises:
        ValueError: the file is damaged, or asks for more memory or time than its size is worth.
    """
    memory = _BASE_BYTES + _BYTES_PER_PIXEL * size[0] * size[1]
    try:
        child = subprocess.run(  # noqa: S603 (our own file, numbers for arguments)
            [sys.executable, "-I", __file__, str(memory)],
            input=data,
            capture_output=True,
            timeout=_TIME_LIMIT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(last or f"its decoder ended with {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"its decoder was not done after {_TIME_LIMIT_S:g} s") from error
    mode = _MODES[child.stdout[0]]
    return Image.frombytes(mode, size, memoryview(child.stdout)[1:])


def _child(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows, where only the time is limited
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # Every thread reserves address space, which is what is limited.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with AvifImagePlugin.AvifImageFile(io.BytesIO(sys.stdin.buffer.read())) as image:
        image.load()
        sys.stdout.buffer.write(bytes([_MODES.index(image.mode)]) + image.tobytes())


if __name__ == "__main__":
    _child(int(sys.argv[1]))
