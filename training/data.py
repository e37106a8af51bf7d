"""A prepared dataset in memory: who, where, and which faces belong together.

Reads manifests and crops and caches embeddings beside them; knows nothing about what they are
learned by.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import align, embed, image
from engine.align import Template
from training import manifest
from training.console import Advance
from training.manifest import Row

Vectors = NDArray[np.float32]
Owners = NDArray[np.int64]

CACHE = "embeddings.sqlite"
_BATCH = 64


@dataclass(frozen=True)
class Faces:
    """The faces of a manifest that are learned from.

    Attributes:
        home: the manifest's folder; crops lie below it.
        name: the dataset's name.
        people: names, sorted; `owner` indexes them.
        owner: (n,) int64.
        group: (n,) int64; near-duplicates share one.
        rows: (n) the manifest's.
        dropped: how many rows are not learned from, by code.
    """

    home: Path
    name: str
    people: list[str]
    owner: Owners
    group: Owners
    rows: Sequence[Row]
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, index: NDArray[np.int64]) -> "Faces":
        """Some of the faces, of the same people; `owner` keeps its meaning."""
        return replace(
            self,
            owner=self.owner[index],
            group=self.group[index],
            rows=[self.rows[i] for i in index],
        )


def load(source: Path) -> Faces:
    """The faces of a manifest, or of the one in a folder.

    Raises:
        ValueError: the manifest is damaged or keeps no face.
        OSError: it cannot be read.
    """
    path = manifest.locate(source)
    kept: list[Row] = []
    dropped: Counter[str] = Counter()
    for row in manifest.read(path):
        if row.kept:
            kept.append(row)
        else:
            dropped[row.code if row.override is None else "operator"] += 1
    if not kept:
        raise ValueError(f"{path} keeps no face. Look at its reasons, or give other photos.")
    people = sorted({row.owner for row in kept})
    index = {person: i for i, person in enumerate(people)}
    return Faces(
        home=path.parent,
        name=path.parent.resolve().name,
        people=people,
        owner=np.array([index[row.owner] for row in kept], np.int64),
        group=np.array([row.group for row in kept], np.int64),
        rows=kept,
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
        ImageError, OSError: a crop is missing or damaged.
    """
    cut = np.empty((len(index), template.size_px, template.size_px, 3), np.uint8)
    for j, i in enumerate(index):
        row = faces.rows[i]
        assert row.crop is not None
        picture = image.open_photo((faces.home / row.crop).read_bytes()).image
        cut[j] = align.cut(picture, row.landmarks, template)
    return cut


def vectors(faces: Faces, embedder: embed.Embedder, advance: Advance | None = None) -> Vectors:
    """(n, d) unit embeddings, from the cache where they are there, computed and kept where not."""
    form = embedder.specification
    result = np.empty((len(faces), form.dimension), np.float32)
    with closing(_open_cache(faces.home)) as cache:
        have = dict(_cached(cache, form))
        missing = [i for i, row in enumerate(faces.rows) if row.id not in have]
        for i, row in enumerate(faces.rows):
            if row.id in have:
                result[i] = np.frombuffer(have[row.id], np.float32)
        if advance:
            advance(len(faces) - len(missing))
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            crops = read_crops(faces, part, form.template)
            made = embed.embed_crops(embedder, crops).cpu().numpy()
            result[part] = made
            keep_vectors(cache, form, [faces.rows[i].id for i in part], made)
            if advance:
                advance(len(faces) - len(missing) + start + len(part))
    return result


def keep_vectors(
    cache: sqlite3.Connection, form: embed.Specification, ids: Sequence[str], made: Vectors
) -> None:
    """Put embeddings into a cache, in one transaction."""
    with cache:
        cache.executemany(
            "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)",
            [(_key(form), face, row.tobytes()) for face, row in zip(ids, made, strict=True)],
        )


def _open_cache(home: Path) -> sqlite3.Connection:
    cache = sqlite3.connect(home / CACHE)
    cache.execute("PRAGMA journal_mode = WAL")
    cache.execute(
        "CREATE TABLE IF NOT EXISTS embeddings (embedder TEXT NOT NULL, face TEXT NOT NULL, "
        "vector BLOB NOT NULL, PRIMARY KEY (embedder, face)) WITHOUT ROWID"
    )
    return cache


def _cached(cache: sqlite3.Connection, form: embed.Specification) -> Iterator[tuple[str, bytes]]:
    query = "SELECT face, vector FROM embeddings WHERE embedder = ?"
    yield from cache.execute(query, (_key(form),))


def _key(form: embed.Specification) -> str:
    return f"{form.id}@{form.weights_sha256}"


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
        for k in order:
            group, count = int(groups[k]), int(counts[k])
            if group in decided:
                continue
            goes = taken + count / 2 <= wanted and left > 1
            decided[group] = goes
            taken += count * goes
            left -= goes
        second[members] = [decided[int(group)] for group in faces.group[members]]
    return np.flatnonzero(~second), np.flatnonzero(second)
