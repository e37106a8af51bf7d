"""A folder per person: which photo files there are, and whose.

Knows names, sizes and dates; opens no file. It never holds more than one person's list.
"""

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine import controls
from training.datasets.people import key

_SPACES = {"Cc", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Photo:
    """One file of one person.

    Attributes:
        path: relative to the dataset's folder, with slashes; what is not UTF-8 in it is escaped.
        person: whose folder it is in.
        size_bytes: of the file; -1 where it cannot be opened, being a link that leads nowhere or
            having a name that is not UTF-8.
        modified_ns: when it was last written.
    """

    path: str
    person: str
    size_bytes: int
    modified_ns: int


def walk(folder: Path, tell: Callable[[str], None]) -> Iterator[Photo]:
    """Every file of a folder per person, sorted by path; hidden files and folders are left out.

    A link to a file, or a person's folder that is a link, is followed; a link to a folder inside
    one is not, because it may lead in circles, and neither is one to photos that another person's
    folder has. Pipes, sockets and devices are left out. Folders whose names are spellings of one
    (`training.datasets.people.key`) are one person's.

    Args:
        folder: the dataset's.
        tell: told, in a sentence each, of folders that are left out or taken together.

    Raises:
        ValueError: the folder is missing, or has no person in it.
        OSError: a folder cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Give a folder with one folder per person.")
    people: dict[str, tuple[str, str]] = {}
    found = False
    for name in _homes(folder, tell):
        spelled = person_of(name)
        if not spelled:
            raise ValueError(f"{folder / name} names nobody. Rename it after the person.")
        person, first = people.setdefault(key(spelled), (spelled, name))
        if first != name:
            tell(
                f"{folder / first} and {folder / name} are spellings of one name: their photos "
                f"count as one person's, '{person}'. If they are two people, rename one of them."
            )
        photos = sorted(_inside(folder, name, person), key=lambda photo: photo.path)
        if not photos:
            tell(f"{folder / name} has no photos and is left out. Put photos in it, or delete it.")
        found = found or bool(photos)
        yield from photos
    if not found:
        raise ValueError(
            f"{folder} has no photos in folders. Make one folder per person in it, named after "
            "the person, with their photos inside."
        )


def outside(folder: Path) -> int:
    """How many files lie beside the people's folders and so belong to nobody."""
    with os.scandir(folder) as entries:
        return sum(not entry.name.startswith(".") and entry.is_file() for entry in entries)


def person_of(name: str) -> str:
    """A folder's name as a person's: underscores, line breaks and the like become one space.

    What tells in which direction to write is left out: no bundle may have it (`engine.controls`).
    """
    # Some file systems spell an accent as a letter of its own.
    letters = unicodedata.normalize("NFC", name).replace("_", " ")
    spaced = "".join(" " if unicodedata.category(c) in _SPACES else c for c in letters)
    return " ".join(controls.remove(spaced).split())


def _homes(folder: Path, tell: Callable[[str], None]) -> list[str]:
    """The names of the people's folders, without links to photos that one of them has."""
    names = sorted((home.name for home in folder.iterdir()), key=_slashed)
    names = [name for name in names if not name.startswith(".")]
    taken: dict[Path, str] = {}
    above: dict[Path, str] = {}
    # Links come last: the folder that one leads to has the person's name.
    for name in sorted(names, key=lambda name: (folder / name).is_symlink()):
        home = folder / name
        if not home.is_dir():
            if not home.exists():
                tell(f"{home} is a link that leads nowhere and is left out. Mend or delete it.")
            continue
        place = home.resolve()
        known = (taken.get(each) for each in (place, *place.parents))
        other = next(filter(None, known), above.get(place))
        if other is not None:
            tell(
                f"{home} is a link to photos that {folder / other} has, and is left out: no photo "
                "counts twice. If it is another person, put their own photos in its place."
            )
            continue
        taken[place] = name
        for each in place.parents:
            above.setdefault(each, name)
    return sorted(taken.values(), key=_slashed)


def _slashed(name: str) -> str:
    # Folders are sorted as their files' paths are.
    return f"{name}/"


def _inside(root: Path, relative: str, person: str) -> Iterator[Photo]:
    with os.scandir(root / relative) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _inside(root, path, person)
                continue
            try:
                status = entry.stat()
            except OSError:
                yield Photo(_printable(path), _printable(person), -1, 0)
                continue
            if stat.S_ISREG(status.st_mode):
                printable = _printable(path)
                size = status.st_size if printable == path else -1
                yield Photo(printable, _printable(person), size, status.st_mtime_ns)


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
