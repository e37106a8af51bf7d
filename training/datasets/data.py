"""A prepared dataset in memory: who, where, and which faces belong together.

Reads manifests and crops and caches embeddings beside them; knows nothing about what they are
learned by.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from engine import bundle
from engine.errors import ImageError
from engine.media import image
from engine.vision import align, embed
from engine.vision.align import Template
from training.console import Advance, silent
from training.datasets import manifest
from training.datasets.manifest import Code, Row
from training.vectors import Owners, Vectors

CACHE = "embeddings.sqlite"
_BATCH = 64
_LOOKED_UP = 500


class Rows(Sequence[Row]):
    """Rows of a manifest, each made when it is looked at.

    A million rows are half a gigabyte of text in one piece, which processes can share; as objects
    they would be three, and each process that looked at them would get its own.

    Args:
        text: lines of a manifest, one after the other.
        starts: (n,) where in the text each row begins; in any order.
        ends: (n,) and where it ends.
    """

    def __init__(self, text: bytes | bytearray, starts: Owners, ends: Owners) -> None:
        self._text, self._starts, self._ends = text, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> "Rows": ...

    def __getitem__(self, index: int | slice) -> "Row | Rows":
        if isinstance(index, slice):
            return self.part(np.arange(len(self))[index])
        return manifest.parse(self._text[self._starts[index] : self._ends[index]])

    def part(self, index: NDArray[np.int64]) -> "Rows":
        """Some of the rows."""
        return Rows(self._text, self._starts[index], self._ends[index])


@dataclass(frozen=True)
class Faces:
    """The faces of a manifest that are learned from.

    Attributes:
        home: the manifest's folder; crops and caches lie below it.
        name: the dataset's name.
        people: names, sorted; `owner` indexes them.
        owner: (n,) int64.
        group: (n,) int64; near-duplicates share one.
        rows: (n) the manifest's.
        dropped: how many rows are not learned from, by code.
        homes: the folders of several manifests that were merged
            (`training.datasets.people.merged`); `home` is the first of them.
        home_of: (n,) which of `homes` each face's crop lies below; None where there is only `home`.
    """

    home: Path
    name: str
    people: list[str]
    owner: Owners
    group: Owners
    rows: Sequence[Row]
    dropped: Mapping[str, int]
    homes: tuple[Path, ...] = ()
    home_of: Owners | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int) -> Path:
        """The file of a face's crop."""
        row = self.rows[index]
        assert row.crop is not None
        home = self.home if self.home_of is None else self.homes[self.home_of[index]]
        return home / row.crop

    def by_home(self) -> Iterator[tuple[Path, Owners]]:
        """Each folder, and the indices of the faces that lie below it."""
        if self.home_of is None:
            yield self.home, np.arange(len(self))
            return
        for number, home in enumerate(self.homes):
            members = np.flatnonzero(self.home_of == number)
            if len(members):
                yield home, members

    def part(self, index: NDArray[np.int64]) -> "Faces":
        """Some of the faces, of the same people; `owner` keeps its meaning."""
        return replace(
            self,
            owner=self.owner[index],
            group=self.group[index],
            rows=(
                self.rows.part(index)
                if isinstance(self.rows, Rows)
                else [self.rows[i] for i in index]
            ),
            home_of=None if self.home_of is None else self.home_of[index],
        )


def load(source: Path) -> Faces:
    """The faces of a manifest, or of the one in a folder.

    Raises:
        ValueError: the manifest is damaged or keeps no face.
        OSError: it cannot be read.
    """
    path = manifest.locate(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Give a folder with one folder per person, or what `prepare` made "
            "of one."
        )
    text = bytearray()
    ends: list[int] = []
    owners: list[int] = []
    groups: list[int] = []
    number: dict[str, int] = {}
    dropped: Counter[str] = Counter()
    for line, row in manifest.lines(path):
        if row.kept:
            text += line
            ends.append(len(text))
            owners.append(number.setdefault(row.owner, len(number)))
            groups.append(row.group if row.group >= 0 else -len(ends))
        else:
            dropped[row.code if row.override is None else Code.OPERATOR] += 1
    if not ends:
        raise ValueError(f"{path} keeps no face. Look at its reasons, or give other photos.")
    people = sorted(number)
    rank = np.empty(len(people), np.int64)
    rank[[number[person] for person in people]] = np.arange(len(people))
    return Faces(
        home=path.parent,
        name=path.parent.resolve().name,
        people=people,
        owner=rank[owners],
        group=np.array(groups, np.int64),
        rows=Rows(text, np.array([0, *ends[:-1]], np.int64), np.array(ends, np.int64)),
        dropped=dict(sorted(dropped.items())),
    )


def read_crops(faces: Faces, index: Sequence[int], template: Template) -> NDArray[np.uint8]:
    """Some faces' pictures, cut on a template.

    Args:
        faces: the dataset.
        index: which of them.
        template: where the landmarks go.

    Returns:
        (k, size_px, size_px, 3) RGB.

    Raises:
        OSError: a crop is missing or damaged.
    """
    cut = np.empty((len(index), template.size_px, template.size_px, 3), np.uint8)
    for j, i in enumerate(index):
        cut[j] = align.cut(read_crop(faces, i), faces.rows[i].landmarks, template)
    return cut


def read_crop(faces: Faces, index: int) -> Image:
    """A face's picture as `prepare` keeps it.

    Raises:
        OSError: it is missing or damaged.
    """
    path = faces.place(index)
    try:
        return image.open_photo(path.read_bytes()).image
    except (ImageError, OSError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise OSError(f"The crop {path} cannot be read ({told}). Run prepare again.") from error


def vectors(faces: Faces, embedder: embed.Embedder, advance: Advance = silent) -> Vectors:
    """(n, d) unit embeddings, from the cache where they are there, computed and kept where not.

    Raises:
        OSError: a crop is missing or damaged, or the cache is.
    """
    result = np.empty((len(faces), embedder.specification.dimension), np.float32)
    done = 0
    for home, members in faces.by_home():
        result[members] = _vectors(home, faces, members, embedder, after(done, advance))
        done += len(members)
    return result


def after(before: int, advance: Advance) -> Advance:
    """Tells of items that come after so many others."""
    return lambda done: advance(before + done)


def _vectors(
    home: Path, faces: Faces, members: Owners, embedder: embed.Embedder, advance: Advance
) -> Vectors:
    """(k, d) embeddings of the faces that lie below one folder."""
    form = embedder.specification
    result = np.empty((len(members), form.dimension), np.float32)
    ids = np.array([faces.rows[i].id for i in members])
    with usable(home), closing(open_cache(home)) as cache:
        known = _look_up(cache, form, ids, result)
        missing = np.flatnonzero(~known)
        advance(len(members) - len(missing))
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            crops = read_crops(faces, members[part].tolist(), form.template)
            made = embed.embed_crops(embedder, crops).cpu().numpy()
            result[part] = made
            keep_vectors(cache, form, ids[part].tolist(), made)
            advance(len(members) - len(missing) + start + len(part))
    return result


def _look_up(
    cache: sqlite3.Connection, form: embed.Specification, ids: NDArray[np.str_], result: Vectors
) -> NDArray[np.bool_]:
    """Fill in the vectors that the cache has; tells which."""
    known = np.zeros(len(ids), bool)
    order = np.argsort(ids, kind="stable")  # as the cache is sorted
    for start in range(0, len(ids), _LOOKED_UP):
        part = order[start : start + _LOOKED_UP]
        wanted = sorted(set(ids[part].tolist()))
        marks = ",".join("?" * len(wanted))
        query = f"SELECT face, vector FROM embeddings WHERE embedder = ? AND face IN ({marks})"  # noqa: S608
        have = dict(cache.execute(query, (key(form), *wanted)))
        for i in part.tolist():
            vector = have.get(str(ids[i]))
            if vector is not None and len(vector) == result[i].nbytes:
                result[i] = np.frombuffer(vector, np.float32)
                known[i] = True
    return known


def keep_vectors(
    cache: sqlite3.Connection, form: embed.Specification, ids: Sequence[str], made: Vectors
) -> None:
    """Put embeddings into a cache, in one transaction."""
    with cache:
        cache.executemany(
            "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)",
            [(key(form), face, row.tobytes()) for face, row in zip(ids, made, strict=True)],
        )


def open_cache(home: Path) -> sqlite3.Connection:
    """The cache of a prepared dataset; the caller closes it.

    Raises:
        OSError: it is damaged or cannot be written.
    """
    with usable(home):
        cache = sqlite3.connect(home / CACHE)
        cache.execute("PRAGMA journal_mode = WAL")
        cache.execute(
            "CREATE TABLE IF NOT EXISTS embeddings (embedder TEXT NOT NULL, face TEXT NOT NULL, "
            "vector BLOB NOT NULL, PRIMARY KEY (embedder, face)) WITHOUT ROWID"
        )
    return cache


@contextmanager
def usable(home: Path) -> Iterator[None]:
    """Say what is to be done about a cache that does not work."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise OSError(
            f"{home / CACHE} cannot be used ({error}). See that its folder can be written to; if "
            "it can, delete that file, which is then made anew."
        ) from error


def key(form: embed.Specification) -> str:
    """An embedder's name in caches: its id, its weights, and how its crops were made."""
    return f"{form.id}@{form.weights_sha256}/{bundle.PREPROCESSING}"


def split(faces: Faces, share: float, seed: int) -> tuple[Owners, Owners]:
    """Divide the faces so that no near-duplicate of one part is in the other.

    Every person with two groups of faces or more is in both parts; a person with one group only is
    in the first.

    Args:
        faces: the dataset.
        share: of each person's faces that go into the second part, about.
        seed: another seed, another division.

    Returns:
        Sorted indices of the first part (training) and the second (validation).
    """
    generator = np.random.default_rng(seed)
    second = np.zeros(len(faces), bool)
    # A group may hold several people's faces: it goes to one side as a whole.
    decided: dict[int, bool] = {}
    for person in range(len(faces.people)):
        members = np.flatnonzero(faces.owner == person)
        groups, counts = np.unique(faces.group[members], return_counts=True)
        order = generator.permutation(len(groups))
        wanted = share * len(members)
        if len(groups) > 1:
            wanted = max(wanted, 1)
        taken = sum(
            count for group, count in zip(groups, counts, strict=True) if decided.get(int(group))
        )
        left = len(groups) - sum(decided.get(int(group), False) for group in groups)
        before = set(decided)
        for k in order:
            group, count = int(groups[k]), int(counts[k])
            if group in decided:
                continue
            goes = taken + count / 2 <= wanted and left > 1
            decided[group] = goes
            taken += count * goes
            left -= goes
        if not taken and left > 1:  # each is too large for the share: the smallest goes
            own = [k for k in order if int(groups[k]) not in before]
            if own:
                decided[int(groups[min(own, key=lambda k: counts[k])])] = True
        second[members] = [decided[int(group)] for group in faces.group[members]]
    _give_back(faces, second)
    return np.flatnonzero(~second), np.flatnonzero(second)


def _give_back(faces: Faces, second: NDArray[np.bool_]) -> None:
    """Return a group to the first part for everybody whose groups others took to the second."""
    for person in np.setdiff1d(faces.owner, faces.owner[~second]):
        groups, counts = np.unique(faces.group[faces.owner == person], return_counts=True)
        second[faces.group == groups[counts.argmax()]] = False
