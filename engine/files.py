"""Files that are there whole or not at all. Knows nothing about what is in them."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A file that takes its name when the block ends well; a failed block leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of text atomically."""
    with replacing(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


def write_text(path: Path, text: str) -> None:
    """Write a text atomically."""
    with replacing(path) as file:
        file.write(text.encode())
