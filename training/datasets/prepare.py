"""A folder of people to a prepared dataset: crops, manifest and embeddings.

Two stages: every photo is seen once and written into a journal (`training.datasets.seeing`), then
all of them are judged together (`training.datasets.audit`). A run that was killed, or whose folder
has changed since, does only what is missing. Knows nothing about the command line.
"""

import contextlib
import hashlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np

from engine import bundle, locks
from engine.errors import EngineError
from engine.media import image
from engine.vision import align, embed
from training.console import Advance, full_disk, progress, say
from training.datasets import audit, data, journal, manifest, photos, registration, seeing, verdicts
from training.datasets.audit import Decisions, FaceLimits
from training.datasets.journal import Journal
from training.datasets.manifest import Row
from training.measure.lending import lender_for
from training.tools import Tools
from training.vectors import Vectors

DATASETS = bundle.FOLDER.parent / "datasets"

_FEW = 5
_CROPS_AT_HAND = 1024
_TOLD = 20
_OWN_NAME = re.compile(r"-[0-9a-f]{16}(\.[^.]*)?$")


@dataclass(frozen=True)
class Summary:
    """What a folder has become.

    Attributes:
        home: the prepared dataset.
        photos: how many there are.
        seen: how many of them were new or changed.
        codes: how many rows there are of each code, "" included.
        people: faces kept of each person, by name.
        outside: files that lie beside the people's folders.
        folders: a sentence on each folder that was left out, or taken together with another.
        lost: photos whose override no longer applies, because their file is another one now or
            gone.
    """

    home: Path
    photos: int
    seen: int
    codes: Mapping[str, int]
    people: Mapping[str, int]
    outside: int
    folders: Sequence[str]
    lost: Sequence[str]

    @property
    def kept(self) -> int:
        """How many faces are learned from."""
        return sum(self.people.values())

    @property
    def few(self) -> list[str]:
        """People with fewer photos than can be judged."""
        return [name for name, count in self.people.items() if count < _FEW]


def dataset(source: Path, tools: Tools, *, aligned: bool = False) -> data.Faces:
    """The faces of a manifest, of a prepared folder, or of a folder of people.

    A folder of people is prepared first, below run/datasets; again, only what has changed.

    Args:
        source: what the operator gave.
        tools: what sees.
        aligned: the photos of a folder of people are crops on the ArcFace template already.

    Raises:
        ValueError: there is nobody in it, or nobody to keep.
        OSError: it cannot be read, or the prepared dataset cannot be written.
    """
    if not source.is_dir() or manifest.locate(source).exists():
        return data.load(source)
    place = source.resolve()
    word = f"{place}\n{aligned}\n{data.key(tools.embedder.specification)}"
    mark = hashlib.sha256(os.fsencode(word)).hexdigest()[:8]
    home = DATASETS / f"{place.name}-{mark}"
    prepare(source, home, tools, aligned=aligned)
    return replace(data.load(home), name=place.name)


def prepare(
    source: Path,
    home: Path,
    tools: Tools,
    *,
    aligned: bool = False,
    limits: FaceLimits | None = None,
) -> Summary:
    """Prepare a folder of people, or go on with it.

    Args:
        source: a folder per person.
        home: the prepared dataset's folder.
        tools: what sees.
        aligned: the photos are crops on the ArcFace template already.
        limits: what a face must be to be kept.

    Raises:
        ValueError: there is nobody in `source`, or `home` was made otherwise.
        OSError: `source` cannot be read or `home` cannot be written.
    """
    full = f"The disk of {home} is full. Make room; the same command then goes on from here."
    with full_disk(full), _alone(source, home), closing(Journal(home / journal.NAME)) as book:
        _require_same(book, source, home, tools.embedder.specification, aligned=aligned)
        words = _words(home)
        book.forget(list(_without_crop(book, home)))
        told: list[str] = []
        pending = book.plan(photos.walk(source, told.append))
        for sentence in told[:_TOLD]:
            say(sentence)
        if len(told) > _TOLD:
            say(f"... and {len(told) - _TOLD} more such folders; `prepare --json` lists them all.")
        with progress("Seeing photos", pending) as advance:
            seeing.see(source, home, book, tools, aligned=aligned, advance=advance)
        total, _ = book.counts()
        form, wanted = tools.embedder.specification, limits or FaceLimits()
        with progress("Judging faces", 3 * total) as advance:
            summary = _judge(book, home, form, wanted, words, advance)
        return replace(summary, seen=pending, outside=photos.outside(source), folders=told)


# --- Before anything is seen ---


def _alone(source: Path, home: Path) -> AbstractContextManager[object]:
    """The prepared dataset's folder, for one run at a time."""
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder. Give a folder with one folder per person.")
    outer, inner = source.resolve(), home.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ValueError(
            f"{home} and {source} lie in each other; crops would be taken for photos. Give an "
            "--out beside the photos."
        )
    home.mkdir(parents=True, exist_ok=True)
    waiting = partial(say, f"Another command is preparing {home}; waiting for it.")
    return locks.alone(home / ".lock", waiting)


def _require_same(
    book: Journal, source: Path, home: Path, form: embed.Specification, *, aligned: bool
) -> None:
    for name, value, said in (
        ("aligned", str(aligned), "with" if not aligned else "without"),
        ("embedder", data.key(form), "by the embedder"),
    ):
        was = book.setting(name, value)
        if was != value:
            if name == "embedder" and was.split("@")[0] == form.id:
                raise ValueError(
                    f"{home} was prepared with other weights of {form.id}, or by another version "
                    "of face-matcher. Give another --out."
                )
            told = f"{said} --aligned" if name == "aligned" else f"{said} {was.split('@')[0]}"
            raise ValueError(f"{home} was prepared {told}. Do so again, or give another --out.")
    place = os.fsencode(source.resolve()).decode("utf-8", "backslashreplace")
    was = book.setting("source", place)
    if was != place:
        if Path(was).is_dir():
            raise ValueError(f"{home} was prepared from {was}. Give another --out.")
        book.remember("source", place)  # it has moved


def _words(home: Path) -> list[Row]:
    """The rows that an operator has overruled."""
    path = home / manifest.NAME
    if not path.exists():
        return []
    return [
        row
        for row in manifest.read(path)
        if row.override or row.override_person or row.override_face
    ]


def _without_crop(book: Journal, home: Path) -> Iterator[str]:
    """Photos with a face whose crop is missing or damaged."""
    for path, crop, length in book.crops():
        places = (home / folder / crop for folder in (seeing.CROPS, seeing.OTHERS))
        if length not in {_length(place) for place in places}:
            yield path


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


# --- When everything is seen ---


def _judge(
    book: Journal,
    home: Path,
    form: embed.Specification,
    limits: FaceLimits,
    overruled: Sequence[Row],
    advance: Advance,
) -> Summary:
    total, _ = book.counts()
    words, lost = verdicts.match(book, overruled)
    faces = verdicts.load(book, form.dimension, words, advance)
    decided = audit.decide(
        faces.photos,
        limits,
        _same(book, home, faces),
        _lender(form),
        lambda done: advance(total + done),
    )
    kept: Counter[str] = Counter()
    codes: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for done, row in enumerate(verdicts.rows(book, faces, decided, words, limits), 1):
            codes[str(row.code)] += 1
            kept[row.owner] += row.kept
            yield row
            if done % 256 == 0:
                advance(2 * total + done)

    _settle(book, home, faces, decided)
    _fill_cache(book, home, form, decided)
    manifest.write(home / manifest.NAME, rows())
    _sweep(book, home)
    advance(3 * total)
    return Summary(
        home=home,
        photos=total,
        seen=0,
        codes=dict(sorted(codes.items())),
        people=dict(sorted(kept.items())),
        outside=0,
        folders=(),
        lost=lost,
    )


def _same(book: Journal, home: Path, faces: verdicts.JournalFaces) -> audit.Same:
    """Compares the crops of two faces."""

    @lru_cache(maxsize=_CROPS_AT_HAND)
    def picture(index: int) -> registration.Grey:
        photo = int(np.searchsorted(faces.photos.first, index, side="right")) - 1
        face = book.faces_of(faces.paths[photo])[index - int(faces.photos.first[photo])]
        places = (home / folder / face.crop for folder in (seeing.CROPS, seeing.OTHERS))
        crop = image.open_photo(next(filter(Path.exists, places)).read_bytes()).image
        return registration.grey(align.cut(crop, face.landmarks, align.ARCFACE_TEMPLATE))

    return lambda one, other: registration.same_picture(picture(one), picture(other))


def _lender(form: embed.Specification) -> tuple[Vectors, int] | None:
    """The mean face of the default bundle's people, where it is of the same embedder."""
    try:
        known = bundle.load(lender_for(form.id))
    except EngineError:
        return None
    centre = known.tensors.get("centre")
    if centre is None or not known.made_with(form.id, form.weights_sha256):
        return None
    return (centre.numpy(), len(known.manifest.people)) if len(centre) == form.dimension else None


def _settle(book: Journal, home: Path, faces: verdicts.JournalFaces, decided: Decisions) -> None:
    """Put the chosen one of several faces' crops among the crops, and the rest aside."""
    first = faces.photos.first
    moves: dict[str, list[str]] = {seeing.OTHERS: [], seeing.CROPS: []}
    for i in np.flatnonzero(np.diff(first) > 1).tolist():
        for position, face in enumerate(book.faces_of(faces.paths[i]), first[i]):
            chosen = position == decided.chosen[i]
            moves[seeing.CROPS if chosen else seeing.OTHERS].append(face.crop)
    # The crops come last: a copy's other face never takes the place of a chosen one.
    for goal, other in ((seeing.OTHERS, seeing.CROPS), (seeing.CROPS, seeing.OTHERS)):
        for crop in moves[goal]:
            target = home / goal / crop
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    (home / other / crop).replace(target)


def _fill_cache(book: Journal, home: Path, form: embed.Specification, decided: Decisions) -> None:
    """Put the chosen faces' vectors, made straight from the photos, where `data.vectors` looks."""
    chosen = np.zeros(book.counts()[1], bool)
    chosen[decided.chosen] = True
    with closing(data.open_cache(home)) as cache:
        try:
            cache.execute("ATTACH ? AS journal", (str(home / journal.NAME),))
            with cache:
                cache.execute("CREATE TEMP TABLE chosen (face TEXT PRIMARY KEY) WITHOUT ROWID")
                cache.executemany(
                    "INSERT OR IGNORE INTO chosen VALUES (?)",
                    ((face,) for face, taken in zip(book.ids(), chosen, strict=True) if taken),
                )
                cache.execute("DELETE FROM embeddings WHERE face NOT IN (SELECT face FROM chosen)")
                # Of equal files the first one's vector is written last, and stays.
                cache.execute(
                    "INSERT OR REPLACE INTO embeddings SELECT ?, id, vector FROM journal.faces "
                    "WHERE id IN (SELECT face FROM chosen) ORDER BY path DESC, number DESC",
                    (data.key(form),),
                )
        except sqlite3.OperationalError as error:
            raise OSError(f"{home / data.CACHE} could not be written: {error}.") from error


def _sweep(book: Journal, home: Path) -> None:
    """Delete the crops of photos that are gone; only files that are named like crops."""
    known: set[str] = set()
    for folder, crops in groupby((crop for _, crop, _ in book.crops()), _folder):
        known.add(folder)
        names = {crop.partition("/")[2] for crop in crops}
        for place in (home / seeing.CROPS / folder, home / seeing.OTHERS / folder):
            _delete_crops(place, names)
    for kind in (seeing.CROPS, seeing.OTHERS):
        if (home / kind).is_dir():
            for place in list((home / kind).iterdir()):
                if place.name not in known:
                    _delete_crops(place, set())


def _folder(crop: str) -> str:
    return crop.partition("/")[0]


def _delete_crops(place: Path, spared: set[str]) -> None:
    if not place.is_dir():
        return
    with os.scandir(place) as entries:
        gone = [e.path for e in entries if e.name not in spared and _OWN_NAME.search(e.name)]
    for path in gone:
        Path(path).unlink()
    if not spared:
        with contextlib.suppress(OSError):  # somebody else's files are in it
            place.rmdir()
