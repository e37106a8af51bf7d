"""Everything doubtful of a prepared dataset on one HTML page, with pictures.

Reads the manifest, the crops and the journal of what was seen; decides nothing. The page needs no
other file, and shows a sample where there is too much for one page.
"""

import base64
import heapq
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader

from engine.errors import ImageError
from engine.files import write_text
from engine.media import image
from training.datasets import journal, manifest
from training.datasets.journal import Journal
from training.datasets.manifest import Code, Row
from training.datasets.seeing import OTHERS

NAME = "doubts.html"

SHOWN = 48
"""Of each kind of doubt, at most."""

_EXAMPLES = 3
_THUMBNAIL_PX = 112
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class _Picture:
    """A thumbnail with its caption; `source` is "" where the crop is gone."""

    source: str
    caption: str


@dataclass(frozen=True, slots=True)
class _Card:
    row: Row
    face: _Picture | None
    beside: Sequence[_Picture]


def write(home: Path, name: str) -> Path:
    """Write the page into a prepared dataset's folder.

    Args:
        home: the folder.
        name: the dataset's, for the heading.

    Returns:
        The page's path.

    Raises:
        ValueError, OSError: the manifest cannot be read or the page not written.
    """
    path = home / manifest.NAME
    sample = _sample(manifest.read(path))
    company = _company(manifest.read(path), [row for own in sample.rows.values() for row in own])
    with closing(Journal(home / journal.NAME)) as book:
        cards = {
            code: [_card(home, book, row, company) for row in own]
            for code, own in sample.rows.items()
        }
    page = Environment(loader=PackageLoader("training"), autoescape=True).get_template(NAME)
    text = page.render(
        name=name,
        counts=sample.counts,
        kept=sample.kept,
        cards=cards,
        manifest=manifest.NAME,
    )
    write_text(home / NAME, text)
    return home / NAME


@dataclass(frozen=True)
class _Sample:
    """How many rows there are of each code and how many are kept, and some of each."""

    counts: Counter[str]
    kept: int
    rows: Mapping[str, Sequence[Row]]


def _sample(rows: Iterable[Row]) -> _Sample:
    counts: Counter[str] = Counter()
    some: defaultdict[str, list[Row]] = defaultdict(list)
    kept = 0
    for row in rows:
        counts[row.code] += 1
        kept += row.kept
        if row.code:
            own = some[row.code]
            own.append(row)
            if len(own) >= 4 * SHOWN:
                own[:] = _chosen(own)
    return _Sample(
        counts,
        kept,
        {code: sorted(_chosen(own), key=lambda row: row.path) for code, own in some.items()},
    )


def _chosen(rows: Iterable[Row]) -> list[Row]:
    # Ids are hashes: the smallest are a fair sample, and the same each time.
    return heapq.nsmallest(SHOWN, rows, key=lambda row: (row.id, row.path))


@dataclass(frozen=True)
class _Company:
    """Who stands beside the doubtful: copies' originals by path, faces of people by name."""

    twins: Mapping[str, Row]
    people: Mapping[str, Sequence[Row]]


def _company(rows: Iterable[Row], doubtful: Sequence[Row]) -> _Company:
    wanted = {row.twin for row in doubtful}
    names = {
        name
        for row in doubtful
        if row.code in (Code.MISLABEL, Code.STRAY)
        for name in (row.owner, row.likely)
    }
    twins: dict[str, Row] = {}
    people: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.path in wanted:
            twins[row.path] = row
        if row.owner in names and row.kept and not row.code and len(people[row.owner]) < _EXAMPLES:
            people[row.owner].append(row)
    return _Company(twins, people)


def _card(home: Path, book: Journal, row: Row, company: _Company) -> _Card:
    if row.crop is None:
        return _Card(row, None, ())
    beside: list[_Picture] = []
    if twin := company.twins.get(row.twin or ""):
        beside.append(_picture(home, twin, f"stays: {row.twin}"))
    if row.code in (Code.MISLABEL, Code.STRAY):
        for name in filter(None, (row.likely, row.owner)):
            beside += [_picture(home, other, name) for other in company.people.get(name, ())]
    if row.faces > 1:
        beside += [
            _Picture(_thumbnail(home / OTHERS / face.crop), f"not chosen: {face.id}")
            for face in book.faces_of(row.path)
            if face.id != row.id
        ]
    return _Card(row, _picture(home, row, row.owner), beside)


def _picture(home: Path, row: Row, caption: str) -> _Picture:
    return _Picture(_thumbnail(home / (row.crop or "")), caption)


def _thumbnail(path: Path) -> str:
    """A small picture as a data URI; "" where it cannot be read."""
    try:
        picture = image.open_photo(path.read_bytes()).image
    except (ImageError, OSError):
        return ""
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
