"""Where faces look, for those of which a dataset does not say: crops that came aligned.

Whoever prepares aligned crops looks for no landmarks in them. Here they are looked for, and what is
found is kept beside the embeddings. Knows nothing about what a pose is good for.
"""

import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.bundle import PREPROCESSING
from engine.vision.detect import Detector
from engine.vision.pose import pose
from training.console import Advance, silent
from training.datasets import data
from training.datasets.data import Faces
from training.datasets.manifest import Row

Poses = NDArray[np.float64]
"""(n, 2) yaw and pitch, see `engine.types.Pose`; NaN where they cannot be told."""

_BATCH = 16
_ROOM = 0.5
"""Grey around an aligned crop, on each side, in widths of it: detectors want to see a head's
surroundings."""
_SIDE_PX = 160
_GREY = (127, 127, 127)
_FARTHEST = 0.2
"""How far the eyes and mouth may be from where the crop has them, in widths of it, on the mean."""


def poses(faces: Faces, detector: Detector, advance: Advance = silent) -> Poses:
    """Where the faces of a dataset look.

    Args:
        faces: the dataset.
        detector: looks where the manifest does not tell.
        advance: told how many faces are done.

    Raises:
        OSError: a crop is missing or damaged, or the cache is.
    """
    rows = list(faces.rows)
    found = np.array([(_number(row.yaw), _number(row.pitch)) for row in rows], np.float64)
    found = found.reshape(len(rows), 2)
    unknown: NDArray[np.bool_] = np.asarray(np.isnan(found).any(axis=1))
    done = len(rows) - int(unknown.sum())
    for home, members in faces.by_home():
        todo = members[unknown[members]]
        if not len(todo):
            continue
        with data.usable(home), closing(data.open_cache(home)) as cache:
            cache.execute(
                "CREATE TABLE IF NOT EXISTS poses (version TEXT NOT NULL, face TEXT NOT NULL, "
                "yaw REAL, pitch REAL, PRIMARY KEY (version, face)) WITHOUT ROWID"
            )
            _fill(found, rows, todo, faces, detector, cache, data.after(done, advance))
        done += len(todo)
    return found


def _fill(
    found: Poses,
    rows: Sequence[Row],
    unknown: NDArray[np.int64],
    faces: Faces,
    detector: Detector,
    cache: sqlite3.Connection,
    advance: Advance,
) -> None:
    version = f"{PREPROCESSING}/1"
    query = "SELECT face, yaw, pitch FROM poses WHERE version = ?"
    known = {face: (yaw, pitch) for face, yaw, pitch in cache.execute(query, (version,))}
    todo = []
    for i in unknown.tolist():
        if rows[i].id in known:
            found[i] = [_number(value) for value in known[rows[i].id]]
        else:
            todo.append(i)
    for start in range(0, len(todo), _BATCH):
        part = todo[start : start + _BATCH]
        found[part] = _seen(faces, part, detector)
        with cache:
            cache.executemany(
                "INSERT OR REPLACE INTO poses VALUES (?, ?, ?, ?)",
                [(version, rows[i].id, *map(_or_null, found[i].tolist())) for i in part],
            )
        advance(len(unknown) - len(todo) + start + len(part))


def _seen(faces: Faces, index: Sequence[int], detector: Detector) -> Poses:
    """Poses of some crops, by the face that lies where the crop has it."""
    pictures, expected = [], []
    for i in index:
        crop = data.read_crop(faces, i)
        scale = _SIDE_PX / max(crop.size)
        size = (round(crop.width * scale), round(crop.height * scale))
        margin = round(_ROOM * _SIDE_PX)
        canvas = Image.new("RGB", (size[0] + 2 * margin, size[1] + 2 * margin), _GREY)
        canvas.paste(crop.resize(size, Image.Resampling.BICUBIC), (margin, margin))
        pictures.append(canvas)
        expected.append(np.array(faces.rows[i].landmarks) * scale + margin)
    poses = np.full((len(index), 2), np.nan)
    for k, detected in enumerate(detector.detect(pictures)):
        if not len(detected):
            continue
        away = np.linalg.norm(detected.landmarks - expected[k], axis=2)
        # The nose tells the pose; the rest tells whether it is the same face.
        distance = away[:, [0, 1, 3, 4]].mean(axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] <= _FARTHEST * _SIDE_PX:
            facing = pose(detected.landmarks[nearest])
            poses[k] = facing.yaw, facing.pitch
    return poses


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None
