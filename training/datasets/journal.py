"""What `prepare` has seen so far, in a SQLite file, so that nothing is seen twice.

A batch of photos is in it as a whole or not at all. Knows photos, their faces and the numbers
measured on them; knows nothing about how they are measured or judged.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.photos import Photo

NAME = "journal.sqlite"
_FORMAT = "1"

GREY_PX = 16
"""Side of the tiny grey picture of a face by which copies are told."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS photos (
    path TEXT PRIMARY KEY, person TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,
    sha256 TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, again INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS faces (
    path TEXT NOT NULL, number INTEGER NOT NULL, id TEXT NOT NULL, crop TEXT NOT NULL,
    crop_bytes INTEGER NOT NULL, landmarks BLOB NOT NULL, area REAL NOT NULL,
    size_px REAL NOT NULL, blur REAL NOT NULL, exposure REAL NOT NULL, yaw REAL, pitch REAL,
    grey BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (path, number)
);
CREATE INDEX IF NOT EXISTS faces_by_id ON faces (id);
"""
# In the order of the records' fields.
_FACE = "number, id, crop, crop_bytes, landmarks, area, size_px, blur, exposure, yaw, pitch, grey"
_PHOTO = "path, person, size, modified, sha256, code, reason, again"


@dataclass(frozen=True, slots=True)
class SeenPhoto:
    """What became of a photo.

    Attributes:
        photo: the file.
        sha256: of its bytes, in hex; "" where they could not be read.
        code: why it has no faces; "" where it has.
        reason: the same in words.
        again: whether it may be otherwise next time, though the file stays as it is.
    """

    photo: Photo
    sha256: str
    code: str = ""
    reason: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class JournalFace:
    """A face in a photo.

    Attributes:
        number: of the face in the photo; 0 is the largest.
        id: see `training.datasets.manifest.Row`.
        crop: its picture, as "<folder>/<file>".
        crop_bytes: that picture's length.
        landmarks: (5, 2) float32 in the crop's pixels.
        area: of its box, relative to the photo's other faces.
        size_px, blur, exposure, yaw, pitch: see `engine.types`; None where the landmarks tell no
            pose.
        grey: (GREY_PX, GREY_PX) uint8, see `GREY_PX`.
    """

    number: int
    id: str
    crop: str
    crop_bytes: int
    landmarks: NDArray[np.float32]
    area: float
    size_px: float
    blur: float
    exposure: float
    yaw: float | None
    pitch: float | None
    grey: NDArray[np.uint8]


class Journal:
    """The open file.

    Args:
        path: where it is, or will be.

    Raises:
        ValueError: it is no journal, or another version's.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path} cannot be used ({error}). If the folder can be written to, delete that "
                "file and run prepare again; everything is then seen anew."
            ) from error
        if self.setting("format", _FORMAT) != _FORMAT:
            raise ValueError(
                f"{path} is of another version of face-matcher. Delete it, or give another --out."
            )

    def close(self) -> None:
        """Close the file; what is not committed is forgotten."""
        self._db.close()

    def setting(self, name: str, default: str) -> str:
        """A remembered word; the first one given as default is remembered."""
        with _writing(self._db):
            self._db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, default))
        (value,) = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return str(value)

    def remember(self, name: str, value: str) -> None:
        """Change a remembered word."""
        with _writing(self._db):
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def plan(self, photos: Iterable[Photo]) -> int:
        """Forget the photos that are gone, and list those that are new or changed.

        Args:
            photos: all there are.

        Returns:
            How many are listed for `pending`.
        """
        with _writing(self._db):
            self._db.execute("DROP TABLE IF EXISTS temp.found")
            self._db.execute("DROP TABLE IF EXISTS temp.pending")
            self._db.execute(
                "CREATE TEMP TABLE found (path TEXT PRIMARY KEY, person TEXT, size INTEGER, "
                "modified INTEGER) WITHOUT ROWID"
            )
            self._db.executemany(
                "INSERT INTO found VALUES (?, ?, ?, ?)",
                ((p.path, p.person, p.size_bytes, p.modified_ns) for p in photos),
            )
            for table in ("faces", "photos"):
                self._db.execute(f"DELETE FROM {table} WHERE path NOT IN (SELECT path FROM found)")  # noqa: S608
            # A person is spelled as the first of their folders, which may be another one now.
            self._db.execute(
                "UPDATE photos SET person = f.person FROM found f "
                "WHERE f.path = photos.path AND f.person != photos.person"
            )
            self._db.execute(
                "CREATE TEMP TABLE pending AS SELECT f.path, f.person, f.size, f.modified, "
                "ifnull(p.sha256, '') AS sha256, ifnull(p.again, 0) AS again "
                "FROM found f LEFT JOIN photos p USING (path) WHERE p.path IS NULL "
                "OR p.again OR p.size != f.size OR p.modified != f.modified "
                "ORDER BY ifnull(p.again, 0), f.path"
            )
        (count,) = self._db.execute("SELECT count(*) FROM pending").fetchone()
        return int(count)

    def pending(self, batch: int) -> Iterator[list[tuple[Photo, str]]]:
        """The listed photos and their bytes' last known hash, in batches.

        The batches do not depend on where an earlier run was interrupted. Those that could not be
        read then come last, so that they do not shift the others' batches.
        """
        for again in (0, 1):
            part: list[tuple[Photo, str]] = []
            query = (
                "SELECT path, person, size, modified, sha256 FROM pending WHERE again = ? "
                "ORDER BY rowid"
            )
            for *photo, sha256 in self._db.execute(query, (again,)):
                part.append((Photo(*photo), sha256))
                if len(part) == batch:
                    yield part
                    part = []
            if part:
                yield part

    def record(
        self,
        seen: Sequence[SeenPhoto],
        faces: Sequence[tuple[str, JournalFace, NDArray[np.float32]]],
        unchanged: Sequence[Photo],
    ) -> None:
        """Write a batch down: its photos, their (path, face, vector)s, and mere changes of date."""
        with _writing(self._db):
            self._db.executemany(
                "DELETE FROM faces WHERE path = ?", [(s.photo.path,) for s in seen]
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*_values(s.photo), *_values(s)[1:]) for s in seen],
            )
            self._db.executemany(
                f"INSERT INTO faces (path, {_FACE}, vector) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(path, *_values(face), vector.tobytes()) for path, face, vector in faces],
            )
            self._db.executemany(
                "UPDATE photos SET size = ?, modified = ? WHERE path = ?",
                [(p.size_bytes, p.modified_ns, p.path) for p in unchanged],
            )

    def forget(self, paths: Sequence[str]) -> None:
        """Forget photos, so that they are seen again."""
        with _writing(self._db):
            for table in ("faces", "photos"):
                self._db.executemany(
                    f"DELETE FROM {table} WHERE path = ?",  # noqa: S608
                    [(path,) for path in paths],
                )

    def counts(self) -> tuple[int, int]:
        """How many photos there are, and how many faces on them."""
        (photos,) = self._db.execute("SELECT count(*) FROM photos").fetchone()
        (faces,) = self._db.execute("SELECT count(*) FROM faces").fetchone()
        return int(photos), int(faces)

    def photos(self) -> Iterator[tuple[SeenPhoto, int]]:
        """Every photo, by path, and how many faces it has."""
        query = (
            f"SELECT {_PHOTO}, (SELECT count(*) FROM faces f WHERE f.path = p.path) "  # noqa: S608
            "FROM photos p ORDER BY path"
        )
        for path, person, size, modified, sha256, code, reason, again, count in self._db.execute(
            query
        ):
            photo = Photo(path, person, size, modified)
            yield SeenPhoto(photo, sha256, code, reason, bool(again)), count

    def faces(self) -> Iterator[tuple[str, JournalFace]]:
        """Every face, by its photo's path and its number, without its vector."""
        query = f"SELECT path, {_FACE} FROM faces ORDER BY path, number"  # noqa: S608
        for path, *values in self._db.execute(query):
            yield path, _candidate(values)

    def faces_of(self, path: str) -> list[JournalFace]:
        """The faces of one photo, by number."""
        query = f"SELECT {_FACE} FROM faces WHERE path = ? ORDER BY number"  # noqa: S608
        return [_candidate(values) for values in self._db.execute(query, (path,))]

    def vectors(self) -> Iterator[bytes]:
        """Every face's float32 vector, in the order of `faces`."""
        for (vector,) in self._db.execute("SELECT vector FROM faces ORDER BY path, number"):
            yield vector

    def ids(self) -> Iterator[str]:
        """Every face's id, in the order of `faces`."""
        for (face,) in self._db.execute("SELECT id FROM faces ORDER BY path, number"):
            yield face

    def photos_of(self, face: str) -> list[str]:
        """Paths of the photos that show a face, by its id."""
        query = "SELECT path FROM faces WHERE id = ? ORDER BY path"
        return [path for (path,) in self._db.execute(query, (face,))]

    def sha256_of(self, path: str) -> str | None:
        """The hash of a photo's bytes; None where there is no such photo."""
        query = "SELECT sha256 FROM photos WHERE path = ?"
        row = self._db.execute(query, (path,)).fetchone()
        return None if row is None else str(row[0])

    def crops(self) -> Iterator[tuple[str, str, int]]:
        """(photo's path, crop, its length) of every face, by crop."""
        yield from self._db.execute("SELECT path, crop, crop_bytes FROM faces ORDER BY crop")


def _values(record: Photo | SeenPhoto | JournalFace) -> list[Any]:
    """A record's fields, in their order, as SQLite keeps them."""
    values = (getattr(record, entry.name) for entry in fields(record))
    return [v.tobytes() if isinstance(v, np.ndarray) else v for v in values]


def _candidate(values: Sequence[Any]) -> JournalFace:
    made = JournalFace(*values)
    points = np.frombuffer(values[4], np.float32).reshape(5, 2)
    picture = np.frombuffer(values[-1], np.uint8).reshape(GREY_PX, GREY_PX)
    return replace(made, landmarks=points, grey=picture)


@contextmanager
def _writing(db: sqlite3.Connection) -> Iterator[None]:
    """One transaction; what goes wrong with the disk is an OSError."""
    try:
        with db:
            yield
    except sqlite3.OperationalError as error:
        raise OSError(f"The journal could not be written: {error}.") from error
