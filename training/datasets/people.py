"""Who a dataset's people are: spellings of one name, merged datasets, and who is a stranger.

Reads the list of people that a gallery is made of; knows nothing about embeddings or files of
photos.
"""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from training.datasets.data import Faces

COLUMNS = ("folder", "display_name", "country", "known_for_en", "known_for_es")
"""What a list of people must have; it may have more."""

WITHOUT = "without"
"""A further column: names of photo files that show somebody else or must not be used."""

FAMILY = "family"
"""A further column: blood relatives have the same word in it."""

_SEPARATOR = ";"
_COUNTRY = re.compile(r"^([A-Z]{2})?$")


@dataclass(frozen=True)
class Listed:
    """A person of a list.

    Attributes:
        folders: names that the person's folders have in the sources.
        name: to be shown.
        country: ISO 3166-1 alpha-2 code, or "".
        known_for: language code to a few words.
        without: names of photo files that are left out.
        family: shared by blood relatives, or "". They are no strangers to each other.
    """

    folders: tuple[str, ...]
    name: str
    country: str = ""
    known_for: dict[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    family: str = ""


def key(name: str) -> str:
    """What spellings of one name have in common.

    Accents, case, punctuation and the order of the words do not count: "Choi_Sung-hong" and
    "Sung Hong Choi" are one name.
    """
    plain = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    # Of a name without a letter, such as one of signs alone, everything counts.
    return " ".join(sorted(re.findall(r"\w+", letters.replace("_", " ")))) or letters


def read(path: Path) -> list[Listed]:
    """The people of a list: tab-separated, with a line of column names (see `COLUMNS`).

    Args:
        path: the file. `folder` may hold several names, with ";" between them.

    Raises:
        ValueError: a column or a name is missing, or a person is in it twice.
        OSError: it cannot be read.
    """
    # Spreadsheets begin a text with a byte order mark.
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise ValueError(f"{path} lacks the column {', '.join(missing)}.")
    people = []
    for number, row in enumerate(rows, 2):
        folders = _several(row["folder"])
        name, country = (row["display_name"] or "").strip(), (row["country"] or "").strip()
        if not folders or not name:
            raise ValueError(f"{path}, line {number}: a folder and a display_name are needed.")
        if not _COUNTRY.match(country):
            raise ValueError(
                f"{path}, line {number}: '{country}' is no ISO 3166-1 alpha-2 code, such as AR."
            )
        said = {code: (row[f"known_for_{code}"] or "").strip() for code in ("en", "es")}
        people.append(
            Listed(
                tuple(folders),
                name,
                country,
                {code: words for code, words in said.items() if words},
                frozenset(_several(row.get(WITHOUT))),
                (row.get(FAMILY) or "").strip(),
            )
        )
    folders_of = [{key(folder) for folder in person.folders} for person in people]
    for what, values in (
        ("display_name", [person.name for person in people]),
        ("folder", [own for several in folders_of for own in several]),
    ):
        value, count = Counter(values).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{path} has the {what} '{value}' twice.")
    return people


def merged(sources: Sequence[Faces], listed: Sequence[Listed] | None = None) -> Faces:
    """The people of several datasets as one; whoever has one name in them is one person.

    A face that is in two of them is taken from the first: it must not be held out and learned from.

    Args:
        sources: datasets, at least one.
        listed: whom to keep, under which name; None keeps everybody. Of spellings that differ, the
            first stays.

    Raises:
        ValueError: nobody of the list is in the sources.
    """
    spellings = {key(name) for name in sources[0].people}
    if len(sources) == 1 and listed is None and len(spellings) == len(sources[0].people):
        return sources[0]
    named = {key(folder): one for one in listed or () for folder in one.folders}
    known: set[str] = set()
    names: list[str] = []
    kept: list[tuple[Faces, np.ndarray]] = []
    dropped: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    for source in sources:
        entries = [named.get(key(folder)) for folder in source.people]
        chosen, ids = [], []
        for i, owner in enumerate(source.owner.tolist()):
            entry = entries[owner]
            if listed is not None and entry is None:
                continue
            row = source.rows[i]
            if row.id in known or (entry and Path(row.path).name in entry.without):
                continue
            folder = source.people[owner]
            names.append(entry.name if entry else spelling.setdefault(key(folder), folder))
            chosen.append(i)
            ids.append(row.id)
        kept.append((source, np.array(chosen, np.int64)))
        known.update(ids)
        dropped.update(source.dropped)
    if not names:
        raise ValueError("Nobody of the list of people is in these photos; compare their names.")
    people, owner = np.unique(np.array(names), return_inverse=True)
    parts = [source.part(index) for source, index in kept]
    step = 1 + max((int(np.abs(part.group).max(initial=0)) for part in parts), default=0)
    # Each source counts its groups from 0, and faces without any downwards from -1.
    groups = [
        part.group + np.sign(part.group + 0.5).astype(np.int64) * step * number
        for number, part in enumerate(parts)
    ]
    return Faces(
        home=sources[0].home,
        name=" and ".join(source.name for source in sources),
        people=people.tolist(),
        owner=owner.astype(np.int64),
        group=np.concatenate(groups),
        rows=[row for part in parts for row in part.rows],
        dropped=dict(sorted(dropped.items())),
        homes=tuple(part.home for part in parts),
        home_of=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
    )


def strangers(sources: Sequence[Faces], gallery: Sequence[str]) -> Faces:
    """The faces of people who are not in a gallery.

    Args:
        sources: datasets, at least one.
        gallery: every name of the gallery's people, the names of their folders included.

    Raises:
        ValueError: everybody is in the gallery.
    """
    known = {key(name) for name in gallery}
    everybody = merged(sources)
    outside = np.array([key(person) not in known for person in everybody.people])
    index = np.flatnonzero(outside[everybody.owner])
    if not len(index):
        raise ValueError("Everybody among the strangers is in the gallery. Give other people.")
    part = everybody.part(index)
    numbers, owner = np.unique(part.owner, return_inverse=True)
    return replace(
        part,
        people=[everybody.people[i] for i in numbers],
        owner=owner.astype(np.int64),
    )


def _several(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(_SEPARATOR) if part.strip()]
