"""Picture files whose structure is wrong: parts repeated, dropped, moved, and lying of themselves.

Random bytes are refused by the first check they meet. These keep what the format asks for (lengths,
checksums, a known beginning) often enough to get further.
"""

import contextlib
import functools
import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
import skimage.data
from PIL import Image

from engine.media.image import LIMITS

KINDS = ("HEIF", "AVIF", "PNG", "GIF", "WEBP", "JPEG")
_CONTAINERS = frozenset((b"meta", b"iprp", b"ipco", b"iinf", b"iref", b"dinf"))
_MOST_REPEATED_BYTES = 2**22
_TABLES = {b"meta": 4, b"iinf": 6, b"iref": 4}
"""Bytes before the boxes that are in these boxes."""


@functools.cache
def photo(
    kind: str, size: tuple[int, int] = (64, 48), *, grain: float = 0.0, **options: object
) -> bytes:
    """A real photo of a format, with EXIF where the format has it.

    Args:
        kind: one of `KINDS`.
        size: width and height in pixels.
        grain: standard deviation of the noise added to 8-bit values, as a sensor adds it: without
            it an enlarged picture is smoother than a photo of its size, and its file smaller.
        **options: of Pillow's writer.
    """
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture = Image.fromarray(skimage.data.astronaut()).resize(size)
    if grain:
        noise = np.random.default_rng(0).normal(0, grain, (*picture.size[::-1], 3))
        picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    picture.save(file, kind, exif=exif.tobytes(), **options)
    return file.getvalue()


def mutated(kind: str, lot: random.Random) -> bytes:
    """A picture file with one to four changes of its structure."""
    data = photo(kind)
    for _ in range(lot.randint(1, 4)):
        data = _MUTATIONS[kind](data, lot)
    return data


def slow() -> bytes:
    """A small JPEG that keeps a decoder busy: a hundred passes over 24 megapixels."""
    file = io.BytesIO()
    Image.new("RGB", (6000, 4000), (200, 120, 40)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    passes = data.count(b"\xff\xda")
    return data[:last] + data[last:-2] * (LIMITS.jpeg_scans + 1 - passes) + data[-2:]


def _number(lot: random.Random) -> int:
    """Sizes that are wrong in a way that code forgets."""
    return lot.choice(
        (0, 1, 2, 7, 8, 9, 15, 16, 255, 256, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
    )


def _scramble(data: bytes, lot: random.Random) -> bytes:
    """Some bytes of a part replaced by numbers."""
    changed = bytearray(data)
    for _ in range(lot.randint(1, 3)):
        size = lot.choice((1, 2, 4))
        if len(changed) >= size:
            at = lot.randrange(len(changed) - size + 1)
            changed[at : at + size] = (_number(lot) % 256**size).to_bytes(size, "big")
    return bytes(changed)


def _rearranged(parts: list[bytes], change: Callable[[bytes], bytes], lot: random.Random) -> bytes:
    """Parts of a file, one of them repeated, dropped, moved or changed."""
    at = lot.randrange(len(parts))
    match lot.choice(("repeat", "many", "drop", "move", "change", "change", "change")):
        case "repeat":
            parts.insert(lot.randrange(len(parts) + 1), parts[at])
        case "many":
            most = max(1, _MOST_REPEATED_BYTES // max(1, len(parts[at])))
            parts[at:at] = [parts[at]] * min(most, lot.choice((10, 300, 3000)))
        case "drop":
            del parts[at]
        case "move":
            parts.insert(lot.randrange(len(parts)), parts.pop(at))
        case _:
            parts[at] = change(parts[at])
    return b"".join(parts)


# --- HEIF and AVIF: boxes in boxes ---


def _split_boxes(data: bytes) -> list[bytes]:
    parts, position = [], 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        end = position + size if 8 <= size <= len(data) - position else len(data)
        parts.append(data[position:end])
        position = end
    if position < len(data):
        parts.append(data[position:])
    return parts


def _of_boxes(data: bytes, lot: random.Random) -> bytes:
    parts = _split_boxes(data)
    return _rearranged(parts, lambda box: _of_box(box, lot), lot) if parts else data


def _of_box(box: bytes, lot: random.Random) -> bytes:
    kind, content = box[4:8], box[8:]
    if kind in _CONTAINERS and lot.random() < 0.8:
        skip = _TABLES.get(kind, 0)
        content = content[:skip] + _of_boxes(content[skip:], lot)
    elif lot.random() < 0.8:
        content = _scramble(content, lot)
    size = 8 + len(content) if lot.random() < 0.8 else _number(lot)
    return struct.pack(">I", size % 2**32) + kind + content


# --- PNG: chunks ---


def _of_chunks(data: bytes, lot: random.Random) -> bytes:
    parts, position = [], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        parts.append(data[position:end])
        position = end

    def change(chunk: bytes) -> bytes:
        kind, content = chunk[4:8], _scramble(chunk[8:-4], lot)
        if kind == b"IDAT" and lot.random() < 0.5:
            with contextlib.suppress(zlib.error):
                content = zlib.compress(_scramble(zlib.decompress(chunk[8:-4]), lot))
        size = len(content) if lot.random() < 0.8 else _number(lot)
        return (
            struct.pack(">I", size) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    return data[:8] + _rearranged(parts, change, lot) if parts else data


# --- GIF: blocks ---


def _of_blocks(data: bytes, lot: random.Random) -> bytes:
    start = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    head, parts, position = data[:start], [], start
    while position < len(data):
        begun = position
        if data[position : position + 1] == b"!":
            position += 2
        elif data[position : position + 1] == b",":
            flags = data[position + 9] if len(data) > position + 9 else 0
            position += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        else:
            parts.append(data[position:])
            break
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
        parts.append(data[begun:position])
    if not parts or lot.random() < 0.2:
        return _scramble(head, lot) + b"".join(parts)
    return head + _rearranged(parts, lambda block: _scramble(block, lot), lot)


# --- WebP: RIFF chunks; JPEG: segments ---


def _of_riff(data: bytes, lot: random.Random) -> bytes:
    parts, position = [], 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + size + size % 2
        parts.append(data[position:end])
        position = end

    def change(chunk: bytes) -> bytes:
        content = _scramble(chunk[8:], lot)
        size = len(content) if lot.random() < 0.8 else _number(lot)
        return chunk[:4] + struct.pack("<I", size) + content

    body = _rearranged(parts, change, lot) if parts else data[12:]
    size = len(body) + 4 if lot.random() < 0.9 else _number(lot)
    return b"RIFF" + struct.pack("<I", size % 2**32) + b"WEBP" + body


def _of_segments(data: bytes, lot: random.Random) -> bytes:
    parts, position = [], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        parts.append(data[position:end])
        position = end
    parts.append(data[position:])

    def change(segment: bytes) -> bytes:
        return segment[:2] + _scramble(segment[2:], lot)

    return data[:2] + _rearranged(parts, change, lot)


_MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "HEIF": _of_boxes,
    "AVIF": _of_boxes,
    "PNG": _of_chunks,
    "GIF": _of_blocks,
    "WEBP": _of_riff,
    "JPEG": _of_segments,
}
