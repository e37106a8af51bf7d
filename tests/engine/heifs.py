"""HEIF containers written by hand, box by box, honest and not."""

import struct
from collections.abc import Sequence


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def grid(
    tiles: Sequence[int],
    *,
    tile_px: int = 512,
    canvas_px: int = 1024,
    nested: Sequence[tuple[int, int]] = (),
    extents: Sequence[tuple[int, int]] = (),
    items: int = 0,
) -> bytes:
    """A HEIC file whose primary item, 1, is a grid of other items.

    Args:
        tiles: the items of the grid, in order.
        tile_px: side of each tile.
        canvas_px: side of the grid.
        nested: further items that are grids, each with the one item that it is made of.
        extents: of the item 2, offset and length.
        items: how many further items there are.
    """
    kinds = {1: b"grid", **dict.fromkeys(tiles, b"hvc1")}
    kinds |= {item: b"grid" for item, _ in nested}
    kinds |= {1000 + n: b"hvc1" for n in range(items)}
    infes = [
        full(b"infe", struct.pack(">HH", item, 0), kind, b"\0", version=2)
        for item, kind in kinds.items()
    ]
    sizes = {1: 2}
    references = [box(b"dimg", struct.pack(f">HH{len(tiles)}H", 1, len(tiles), *tiles))]
    references += [box(b"dimg", struct.pack(">HHH", item, 1, of)) for item, of in nested]
    meta = full(
        b"meta",
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", struct.pack(">H", 1)),
        full(b"iinf", struct.pack(">H", len(infes)), *infes),
        full(b"iref", *references),
        box(
            b"iprp",
            box(
                b"ipco", *(full(b"ispe", struct.pack(">II", px, px)) for px in (tile_px, canvas_px))
            ),
            full(
                b"ipma",
                struct.pack(">I", len(kinds)),
                *(struct.pack(">HBB", item, 1, sizes.get(item, 1)) for item in kinds),
            ),
        ),
        full(
            b"iloc",
            b"\x44\0",
            struct.pack(">HHHH", 1, 2, 0, len(extents)),
            *(struct.pack(">II", *extent) for extent in extents),
        ),
    )
    return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + meta + box(b"mdat", bytes(64))
