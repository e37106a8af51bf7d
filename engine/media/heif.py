"""What a HEIF or AVIF file's boxes say, read before a decoder sees the file.

The container (ISO/IEC 14496-12 and 23008-12) may name one tile hundreds of times, nest grids in
grids, or tell that its metadata lies in overlapping pieces of itself; a decoder would do all of
that. What the primary picture would cost is added up here, from the boxes alone.

Knows nothing about pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.errors import BrokenImage, ImageTooDemanding

_MOST_BOXES = 10_000
_MOST_ITEMS = 2000
_MOST_REFERENCES = 1000
_DEEPEST = 3
"""A grid of tiles, cut out or turned, is two or three levels."""
_MOST_PIXELS_DECODED = 3
"""Times as many pixels as a picture may have: its tiles, a little over its edge, and an alpha
plane."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the boxes say of the primary picture.

    Attributes:
        turned: whether the container itself turns or mirrors it (`irot`, `imir`), which outranks
            EXIF.
        exif: its EXIF block, empty where there is none.
    """

    turned: bool
    exif: bytes


@dataclass(slots=True)
class _Boxes:
    """Tables of a file's `meta` box, by item."""

    primary: int | None = None
    kind: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    references: dict[tuple[bytes, int], list[int]] = field(default_factory=dict)
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)
    associated: dict[int, list[int]] = field(default_factory=dict)

    def of(self, item: int) -> list[tuple[bytes, int, int]]:
        """An item's properties: kind of the box, and where its content starts and ends."""
        return [self.properties[n - 1] for n in self.associated.get(item, ()) if n]


def read(data: bytes, most_pixels: int) -> Header | None:
    """Read the boxes of a HEIF or AVIF file, and refuse what would cost too much.

    Args:
        data: the file.
        most_pixels: that a picture may have.

    Returns:
        None where the file has no `meta` box, as an image sequence may.

    Raises:
        ImageTooDemanding: more items, references, levels, metadata or pixels than a photo has.
        BrokenImage: a box claims what there is not.
    """
    found = _Boxes()
    budget = [_MOST_BOXES]
    try:
        for kind, start, end in _boxes(data, 0, len(data), budget):
            if kind == b"meta":
                _meta(data, start + 4, end, found, budget)
                break
        else:
            return None
    except IndexError as error:
        raise _broken() from error
    if found.primary is None:
        return None
    pieces = [piece for extents in found.extents.values() for piece in extents]
    if any(at + length > len(data) for at, length in pieces):
        raise _broken()
    if sum(length for _, length in pieces) > len(data):
        raise _too_demanding("parts that overlap")
    _require_modest(found, data, most_pixels)
    turned = any(kind in (b"irot", b"imir") for kind, _, _ in found.of(found.primary))
    return Header(turned, _exif(data, found))


def _boxes(
    data: bytes, position: int, end: int, budget: list[int]
) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box in a part of the file, and where its content starts and ends."""
    while position + 8 <= end:
        budget[0] -= 1
        if budget[0] < 0:
            raise _too_demanding(f"more than {_MOST_BOXES} boxes")
        size, header = _number(data, position, 4), 8
        kind = data[position + 4 : position + 8]
        if size == 1:
            size, header = _number(data, position + 8, 8), 16
        elif size == 0:
            size = end - position
        if size < header:
            raise IndexError
        yield kind, position + header, min(position + size, end)
        position += size


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + size], "big")


def _meta(data: bytes, start: int, end: int, found: _Boxes, budget: list[int]) -> None:
    for kind, begin, stop in _boxes(data, start, end, budget):
        match kind:
            case b"pitm":
                found.primary = _number(data, begin + 4, 2 if data[begin] == 0 else 4)
            case b"iinf":
                first = begin + (6 if data[begin] == 0 else 8)
                for inner, at, _ in _boxes(data, first, stop, budget):
                    if inner == b"infe" and data[at] in (2, 3):
                        width = 2 if data[at] == 2 else 4
                        item = _number(data, at + 4, width)
                        found.kind[item] = data[at + 6 + width : at + 10 + width]
            case b"iref":
                _references(data, begin, stop, found, budget)
            case b"iprp":
                for inner, at, ends in _boxes(data, begin, stop, budget):
                    if inner == b"ipco":
                        found.properties = list(_boxes(data, at, ends, budget))
                    elif inner == b"ipma":
                        _associations(data, at, found)
            case b"iloc":
                _locations(data, begin, found)
    _require_few_items(len(found.kind))


def _references(data: bytes, begin: int, end: int, found: _Boxes, budget: list[int]) -> None:
    width = 2 if data[begin] == 0 else 4
    total = 0
    for kind, at, _ in _boxes(data, begin + 4, end, budget):
        item, count = _number(data, at, width), _number(data, at + width, 2)
        total += count
        if total > _MOST_REFERENCES:
            raise _too_demanding(f"more than {_MOST_REFERENCES} references")
        first = at + width + 2
        targets = [_number(data, first + width * n, width) for n in range(count)]
        found.references.setdefault((kind, item), []).extend(targets)


def _associations(data: bytes, at: int, found: _Boxes) -> None:
    version, wide = data[at], data[at + 3] & 1
    count, position = _number(data, at + 4, 4), at + 8
    _require_few_items(count)
    id_size, size = 2 if version == 0 else 4, 2 if wide else 1
    for _ in range(count):
        item, entries = _number(data, position, id_size), _number(data, position + id_size, 1)
        position += id_size + 1
        # The highest bit says whether a reader must know the property.
        mask = (1 << (8 * size - 1)) - 1
        own = [_number(data, position + size * n, size) & mask for n in range(entries)]
        if any(number > len(found.properties) for number in own):
            raise IndexError
        found.associated.setdefault(item, []).extend(own)
        position += size * entries


def _locations(data: bytes, at: int, found: _Boxes) -> None:
    version = data[at]
    sizes = _number(data, at + 4, 2)
    offset_size, length_size, base_size = sizes >> 12, (sizes >> 8) & 15, (sizes >> 4) & 15
    index_size = sizes & 15 if version else 0
    id_size = 4 if version == 2 else 2
    count, position = _number(data, at + 6, id_size), at + 6 + id_size
    total = 0
    _require_few_items(count)
    for _ in range(count):
        item = _number(data, position, id_size)
        position += id_size
        method = 0
        if version:
            method = _number(data, position, 2) & 15
            position += 2
        position += 2  # the data reference
        base = _number(data, position, base_size)
        extents = _number(data, position + base_size, 2)
        position += base_size + 2
        total += extents
        if total > _MOST_ITEMS:
            raise _too_demanding(f"more than {_MOST_ITEMS} pieces")
        pieces = []
        for _ in range(extents):
            position += index_size
            offset = _number(data, position, offset_size)
            length = _number(data, position + offset_size, length_size)
            position += offset_size + length_size
            # An offset of another kind (into `idat`, into another item) is no place in the file.
            pieces.append((base + offset if method == 0 else -1, length))
        found.extents[item] = pieces


def _require_modest(found: _Boxes, data: bytes, most_pixels: int) -> None:
    """Raise ImageTooDemanding where the pictures that the primary one is made of are too much."""
    assert found.primary is not None
    total = 0
    waiting = [(found.primary, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _DEEPEST:
            raise _too_demanding("pictures nested in pictures")
        sizes = [
            _number(data, start + 4, 4) * _number(data, start + 8, 4)
            for kind, start, end in found.of(item)
            if kind == b"ispe" and end - start >= 12
        ]
        parts = found.references.get((b"dimg", item), [])
        if len(set(parts)) < len(parts):
            raise _too_demanding("the same tile more than once")
        if not parts:
            total += max(sizes, default=0)
        if total > _MOST_PIXELS_DECODED * most_pixels:
            raise _too_demanding("tiles of far more pixels than the picture")
        waiting += [(part, depth + 1) for part in parts]


def _exif(data: bytes, found: _Boxes) -> bytes:
    """The EXIF block that describes the primary picture, from the TIFF header on."""
    for item, kind in found.kind.items():
        about = found.references.get((b"cdsc", item), [])
        if kind != b"Exif" or (about and found.primary not in about):
            continue
        block = b"".join(
            data[at : at + length] for at, length in found.extents.get(item, ()) if at >= 0
        )
        # Before the TIFF header comes how far away it is.
        skip = 4 + int.from_bytes(block[:4], "big")
        return block[skip:] if skip < len(block) else b""
    return b""


def _require_few_items(count: int) -> None:
    if count > _MOST_ITEMS:
        raise _too_demanding(f"more than {_MOST_ITEMS} items")


def _broken() -> BrokenImage:
    return BrokenImage(
        "The picture's container is truncated or damaged: send it again or use another one."
    )


def _too_demanding(why: str) -> ImageTooDemanding:
    return ImageTooDemanding(
        f"The picture's container has {why}, which no camera writes: save it again as a JPEG."
    )
