"""The faces that a bundle is tried on: all of a manifest's, the doubtful ones marked.

What is fit to learn from is not what a bot meets: leaving out the faces that `prepare` doubts would
leave out the hard ones. Knows manifests; knows nothing about bundles or scores.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.datasets import manifest, prepare
from training.datasets.data import Faces
from training.datasets.manifest import Code, Row, Status
from training.datasets.people import key
from training.tools import Tools
from training.vectors import Flags, Numbers

_COPIES = frozenset({Code.COPY, Code.NEAR_COPY})


@dataclass(frozen=True)
class Probes:
    """Faces to try a bundle on.

    Attributes:
        faces: every face of the manifest but those an operator dropped; `faces.dropped` counts
            what is not among them.
        copy: (n,) whether a face is a copy of another one here; it must not count twice.
        doubted: (n,) whether `prepare` would not learn from it and no operator disagreed; copies
            are not doubted.
        doubts: how many are doubted, by code.
    """

    faces: Faces
    copy: Flags
    doubted: Flags
    doubts: Mapping[str, int]

    def part(self, index: Numbers) -> "Probes":
        """Some of the faces."""
        rows = [self.faces.rows[i] for i in index]
        doubted = self.doubted[index]
        return Probes(self.faces.part(index), self.copy[index], doubted, _counted(rows, doubted))


def load(source: Path, name: str | None = None) -> Probes:
    """The faces of a manifest, or of the one in a folder.

    Args:
        source: the manifest or its folder.
        name: of the data; that of the folder when None.

    Raises:
        ValueError: the manifest is damaged or has no face.
        OSError: it cannot be read.
    """
    path = manifest.locate(source)
    rows: list[Row] = []
    unusable: Counter[str] = Counter()
    for row in manifest.read(path):
        if row.crop is None:
            unusable[row.code or "no face"] += 1
        elif row.override is Status.DROP:
            unusable["operator"] += 1
        else:
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no face. Give a folder or manifest with faces in it.")
    people = sorted({row.owner for row in rows})
    index = {person: i for i, person in enumerate(people)}
    kept = np.array([row.kept for row in rows])
    copy = np.array([row.code in _COPIES for row in rows]) & ~kept
    doubted = ~kept & ~copy
    return Probes(
        faces=Faces(
            home=path.parent,
            name=name or path.parent.resolve().name,
            people=people,
            owner=np.array([index[row.owner] for row in rows], np.int64),
            group=np.array([row.group for row in rows], np.int64),
            rows=rows,
            dropped=dict(sorted(unusable.items())),
        ),
        copy=copy,
        doubted=doubted,
        doubts=_counted(rows, doubted),
    )


def of(source: Path, see: Callable[[], Tools], *, aligned: bool = False) -> Probes:
    """The faces of whatever an operator gives: a manifest, a prepared folder, a folder of people.

    Args:
        source: what is given; a folder of people is prepared first.
        see: loads what sees, where that is needed.
        aligned: the photos of a folder of people are crops on the ArcFace template.

    Raises:
        ValueError, OSError: see `training.datasets.prepare.dataset` and `load`.
    """
    if not source.is_dir() or manifest.locate(source).exists():
        return load(source)
    faces = prepare.dataset(source, see(), aligned=aligned)
    return load(faces.home, faces.name)


def number_of(people: Sequence[str], names: Mapping[int, str]) -> Numbers:
    """(people,) the number that a bundle gives each person; -1 for those it does not know."""
    known = {key(name): number for number, name in names.items()}
    return np.array([known.get(key(person), -1) for person in people], np.int64)


def _counted(rows: Sequence[Row], doubted: Flags) -> dict[str, int]:
    codes = Counter(row.code or "dropped" for row, yes in zip(rows, doubted, strict=True) if yes)
    return dict(sorted(codes.items()))
