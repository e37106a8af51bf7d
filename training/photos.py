"""A folder per person: which photo files there are, and whose.

Knows names, sizes and dates; opens no file. It never holds more than one person's list.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


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


def walk(folder: Path) -> Iterator[Photo]:
    """Every file of a folder per person, sorted by path; hidden files and folders are left out.

    A link to a file, or a person's folder that is a link, is followed; a link to a folder inside
    one is not, because it may lead in circles. Pipes, sockets and devices are left out.

    Raises:
        ValueError: the folder is missing, has no person in it, or one person twice.
        OSError: a folder cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Give a folder with one folder per person.")
    homes: dict[str, str] = {}
    for name in sorted((home.name for home in folder.iterdir()), key=_slashed):
        if name.startswith(".") or not (folder / name).is_dir():
            continue
        person = person_of(name)
        if not person:
            raise ValueError(f"{folder / name} names nobody. Rename it after the person.")
        other = homes.setdefault(person, name)
        if other != name:
            raise ValueError(
                f"{folder / other} and {folder / name} are both '{person}'. Rename one, or put "
                "the photos of one person into one folder."
            )
    found = False
    for person, name in homes.items():
        for photo in sorted(_inside(folder, name, person), key=lambda photo: photo.path):
            found = True
            yield photo
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
    """A folder's name as a person's: underscores, line breaks and the like become one space."""
    # Some file systems spell an accent as a letter of its own.
    letters = unicodedata.normalize("NFC", name).replace("_", " ")
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in letters).split())


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
