"""All crops of a dataset, decoded once, in one file that is mapped into memory.

Training goes over the same crops many times; this way an epoch costs no decoding and no memory
that the system could not take back. Knows nothing about what is learned.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.threads import usable_cores
from engine.vision.align import Template
from training.console import Advance, silent
from training.datasets.data import Faces, read_crops

_CHUNK = 64


def mapped(faces: Faces, template: Template, advance: Advance = silent) -> NDArray[np.uint8]:
    """(n, px, px, 3) RGB crops on a template, read-only; cut on first use and kept in `home`.

    Raises:
        ValueError: a crop is missing or damaged; the message says which.
        OSError: there is no room, or the folder cannot be written.
    """
    path = faces.home / f"pixels-{template.size_px}-{_fingerprint(faces, template)}.npy"
    shape = (len(faces), template.size_px, template.size_px, 3)
    if not path.exists():
        _cut(faces, template, path, shape, advance)
    else:
        advance(len(faces))
    found: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return found


def _cut(
    faces: Faces,
    template: Template,
    path: Path,
    shape: tuple[int, ...],
    advance: Advance,
) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        made = open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        parts = [range(k, min(k + _CHUNK, len(faces))) for k in range(0, len(faces), _CHUNK)]
        with ThreadPoolExecutor(usable_cores(), "crops") as pool:
            done = 0
            for part, crops in zip(
                parts, pool.map(lambda part: _read(faces, part, template), parts), strict=True
            ):
                made[part.start : part.stop] = crops
                done += len(part)
                advance(done)
        made.flush()
        del made
        unfinished.replace(path)
        # Of the same size, but of other faces: what it was before the dataset changed.
        for old in path.parent.glob(f"pixels-{template.size_px}-*.npy"):
            if old != path:
                old.unlink(missing_ok=True)
    finally:
        unfinished.unlink(missing_ok=True)


def _read(faces: Faces, part: Sequence[int], template: Template) -> NDArray[np.uint8]:
    try:
        return read_crops(faces, part, template)
    except (EngineError, OSError) as error:
        names = f"{faces.rows[part[0]].crop} to {faces.rows[part[-1]].crop}"
        raise ValueError(
            f"One of the crops {names} in {faces.home} cannot be read ({error}). Run prepare again."
        ) from error


def _fingerprint(faces: Faces, template: Template) -> str:
    digest = hashlib.sha256(template.landmarks.tobytes())
    for row in faces.rows:
        digest.update(f"{row.id}\0{row.landmarks}\n".encode())
    return digest.hexdigest()[:16]
