"""Hostile bytes to an upright RGB picture.

Whatever arrives is checked in this order: its length, its format by magic number against a short
allow-list, the size that its header claims; only then is it decoded. JPEG, PNG and GIF files are
first reduced to the parts that draw the (first) picture, so that no metadata (profiles, compressed
texts, thumbnails, further pictures) reaches a decoder; of HEIC and AVIF files the container is read
first (`engine.media.heif`).

Strangers' files are decoded by this module in a confined process, see `engine.media.decoder_pool`;
elsewhere Pillow may warn of what it finds in a file. Knows nothing about faces. Colour profiles are
not
applied: pixels are read as sRGB, CMYK as Adobe writes it.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from engine.errors import (
    BrokenImage,
    EmptyImage,
    FileTooLarge,
    ImageError,
    ImageTooDemanding,
    NotAnImage,
    TooManyPixels,
    UnsupportedFormat,
)
from engine.media import heif

ENOUGH_PX = 2560
"""Photos in which faces are looked for are decoded no smaller than this on their longer side. The
detector finds faces from 28 pixels on a canvas 640 wide; the smallest of them has 112 here, so
that an embedder's crop loses next to nothing."""

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".heic", ".heif", ".avif")
) | {".bmp", ".tif", ".tiff", ".svg", ".jxl"}
"""Of file names that promise a picture, of a format that is read here or not."""


def files_in(paths: Iterable[Path]) -> list[Path]:
    """Files as given; of folders, every file in them whose name says that it is a picture.

    Raises:
        ValueError: there is none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES)
            found += [p for p in inside if p.is_file() and not p.name.startswith(".")]
        else:
            found.append(path)
    if not found:
        raise ValueError("There is no picture in what was given.")
    return found


ACCEPTED = "JPEG, PNG, WebP, GIF, HEIC or AVIF"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How much a picture may ask for.

    Attributes:
        file_bytes: of the file.
        pixels: width times height, by the header.
        jpeg_scans: passes that a progressive JPEG makes over the picture (10 are usual); each
            costs the decoder the whole picture's time, and takes only a few bytes to ask for.
        cpu_s: of processor time, where `engine.media.decoder_pool` decodes it.
        memory_bytes: that decoding may take, likewise.
        wait_s: after how many seconds decoding is given up, likewise, however little of the
            processor it got.
    """

    file_bytes: int = 20 * 1024 * 1024
    pixels: int = 25_000_000
    jpeg_scans: int = 100
    cpu_s: float = 3.0
    memory_bytes: int = 600 * 2**20
    wait_s: float = 30.0


LIMITS = ImageLimits()

_TOO_DEMANDING = (
    "Decoding the picture takes more time or memory than one is given: save it again as an "
    "ordinary JPEG."
)


def too_demanding() -> ImageTooDemanding:
    """What a picture is refused with that takes too much processor time or memory."""
    return ImageTooDemanding(_TOO_DEMANDING)


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded picture that may be smaller than its original.

    Attributes:
        image: upright, mode "RGB", independent of the file; the original shrunk to 1/2, 1/4 or
            1/8 (a whole original pixel is `width_px / image.width` wide), or the original itself.
        width_px: width of the upright original.
        height_px: height of the upright original.
    """

    image: Image.Image
    width_px: int
    height_px: int


def decode(data: bytes, *, limits: ImageLimits = LIMITS) -> Image.Image:
    """Decode a picture file at its full size.

    Args:
        data: a JPEG (MPO included), PNG, WebP, GIF (its first frame), HEIC or AVIF file.
        limits: see `ImageLimits`.

    Returns:
        The upright picture, mode "RGB"; what is transparent is white.

    Raises:
        EmptyImage: there are no bytes.
        FileTooLarge: more bytes than `limits.file_bytes`.
        NotAnImage: no picture format begins like this.
        UnsupportedFormat: a picture, in another format or variant.
        TooManyPixels: more pixels than `limits.pixels`, or a JPEG of more scans than allowed.
        ImageTooDemanding: the file is cut into far more parts than its picture needs.
        BrokenImage: truncated or damaged.
    """
    return decode_scaled(data, at_least_px=None, limits=limits).image


def decode_scaled(data: bytes, *, at_least_px: int | None, limits: ImageLimits = LIMITS) -> Photo:
    """Decode a picture file no larger than needed.

    JPEG is decoded at the smaller size directly, which takes a fraction of the time; other formats
    are averaged down after decoding, which saves the memory.

    Args:
        data: see `decode`.
        at_least_px: the picture is shrunk to 1/2, 1/4 or 1/8 as long as its longer side keeps at
            least this many pixels; None keeps its full size.
        limits: see `ImageLimits`.

    Returns:
        The upright picture and the size of its original.

    Raises:
        ImageError: as `decode` does.
    """
    check_length(data, limits)
    kind = _identify(data)
    try:
        image, size, orientation = _READERS[kind](data, at_least_px, limits)
        shrink = _shrink(size, at_least_px)
        if shrink > 1 and image.size == size:
            image = _to_rgb(image).reduce(shrink)
        else:
            image = _to_rgb(image)
        image = upright(image, orientation)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(_too_many_pixels(None, limits)) from error
    except ImageError:
        raise
    except MemoryError as error:
        raise too_demanding() from error
    # Decoders answer hostile bytes with whatever they stumble on, down to bare Exceptions.
    except Exception as error:
        raise BrokenImage(
            f"The {kind} file is truncated or damaged ({error}): send it again or use another one."
        ) from error
    # Nothing of the file stays with the picture, so nothing of it can be saved with one either.
    image.info = {}
    return Photo(image, *upright_size(size, orientation))


def open_photo(data: bytes, *, limits: ImageLimits = LIMITS) -> Photo:
    """Decode a picture file as everything that looks for faces does: see `decode_scaled`."""
    return decode_scaled(data, at_least_px=ENOUGH_PX, limits=limits)


def check_length(data: bytes, limits: ImageLimits) -> None:
    """Raise EmptyImage or FileTooLarge where a file is refused for its length alone."""
    if not data:
        raise EmptyImage("The file is empty: send one that has a picture in it.")
    if len(data) > limits.file_bytes:
        raise FileTooLarge(
            f"The file has {len(data) / 2**20:.1f} MB, more than the {limits.file_bytes / 2**20:g}"
            " MB accepted: send a smaller or more compressed version."
        )


def _too_many_pixels(size: tuple[int, int] | None, limits: ImageLimits) -> str:
    claimed = f"{size[0]} x {size[1]} pixels" if size else "far more pixels"
    return (
        f"The picture has {claimed}, more than the {limits.pixels / 1e6:g} million accepted: "
        "send a smaller version."
    )


# --- Which format is it? ---

_MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
)
_OTHER_MAGIC = (
    (re.compile(rb"%PDF-"), "PDF"),
    # No repetition of anything that may itself repeat: strangers would make it take for ever.
    (re.compile(rb"(\xef\xbb\xbf)?\s{0,64}<([?!].{0,1000}?<)?svg[\s>/]", re.DOTALL), "SVG"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF or camera raw"),
    (re.compile(rb"BM.{4}\0{4}", re.DOTALL), "BMP"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"), "JPEG XL"),
    (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), "JPEG 2000"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"\0\0[\x01\x02]\0[^\0]"), "icon"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "PostScript"),
    (re.compile(rb"v/1\x01"), "OpenEXR"),
    (re.compile(rb"qoif"), "QOI"),
)
_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)


def _identify(data: bytes) -> str:
    """A key of `_READERS`; raises NotAnImage or UnsupportedFormat."""
    head = data[:1024]
    for magic, kind in _MAGIC:
        if magic.match(head):
            return kind
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIC"
        raise NotAnImage(f"This is a video, not a picture: send a {ACCEPTED} picture.")
    for magic, kind in _OTHER_MAGIC:
        if magic.match(head):
            raise UnsupportedFormat(
                f"This is a {kind} file, which is not accepted: send it as {ACCEPTED}."
            )
    raise NotAnImage(f"This is not a picture: send a {ACCEPTED} picture.")


def is_picture(data: bytes) -> bool:
    """Whether a file begins like a picture, of a format that is read here or not."""
    try:
        _identify(data)
    except UnsupportedFormat:
        return True
    except NotAnImage:
        return False
    return True


# --- One reader a format: bytes to (loaded picture, size of the original, EXIF orientation) ---

_Read = tuple[Image.Image, tuple[int, int], int]


def _read_jpeg(data: bytes, at_least_px: int | None, limits: ImageLimits) -> _Read:
    drawing, exif, scans = _strip_jpeg(data)
    if scans > limits.jpeg_scans:
        raise TooManyPixels(
            f"The JPEG draws its picture in {scans} passes, more than the {limits.jpeg_scans} "
            "accepted: save it again as an ordinary JPEG."
        )
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(drawing))
    size = _check_pixels(image, limits)
    shrink = _shrink(size, at_least_px)
    if shrink > 1:
        image.draft(None, (max(1, size[0] // shrink), max(1, size[1] // shrink)))
    image.load()
    return image, size, _orientation(exif)


def _read_png(data: bytes, at_least_px: int | None, limits: ImageLimits) -> _Read:  # noqa: ARG001
    drawing, exif = _strip_png(data)
    image = PngImagePlugin.PngImageFile(io.BytesIO(drawing))
    size = _check_pixels(image, limits)
    image.load()
    return image, size, _orientation(exif)


def _read_webp(data: bytes, at_least_px: int | None, limits: ImageLimits) -> _Read:  # noqa: ARG001
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    size = _check_pixels(image, limits)
    image.load()
    return image, size, _orientation(image.info.get("exif", b""))


def _read_gif(data: bytes, at_least_px: int | None, limits: ImageLimits) -> _Read:  # noqa: ARG001
    image = GifImagePlugin.GifImageFile(io.BytesIO(_strip_gif(data)))
    size = _check_pixels(image, limits)
    image.load()
    return image, size, 1


def _read_heic(data: bytes, at_least_px: int | None, limits: ImageLimits) -> _Read:  # noqa: ARG001
    try:
        import pillow_heif
    except ImportError as error:  # its wheels do not cover every machine
        raise UnsupportedFormat(
            "HEIC pictures cannot be read here, for want of pillow-heif: send a JPEG."
        ) from error
    header = heif.read(data, limits.pixels)
    image: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    _check_pixels(image, limits)
    image.load()
    # The decoder has turned the picture as the container says, which outranks EXIF.
    orientation = 1 if header is None or header.turned else _orientation(header.exif)
    return image, image.size, orientation


def _read_avif(data: bytes, at_least_px: int | None, limits: ImageLimits) -> _Read:  # noqa: ARG001
    if not AvifImagePlugin.SUPPORTED:
        raise UnsupportedFormat(
            "AVIF pictures cannot be read here, for want of a Pillow with AVIF: send a JPEG."
        )
    header = heif.read(data, limits.pixels)
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    size = _check_pixels(image, limits)
    # Pillow tells the container's turn as an EXIF orientation, and forgets EXIF's own.
    pillows = image.info.get("exif", b"")
    orientation = _orientation(pillows if header is None or header.turned else header.exif)
    image.load()
    return image, size, orientation


_READERS = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "WebP": _read_webp,
    "GIF": _read_gif,
    "HEIC": _read_heic,
    "AVIF": _read_avif,
}


def _check_pixels(image: Image.Image, limits: ImageLimits) -> tuple[int, int]:
    if image.width * image.height > limits.pixels:
        raise TooManyPixels(_too_many_pixels(image.size, limits))
    return image.size


def _shrink(size: tuple[int, int], at_least_px: int | None) -> int:
    if at_least_px is None:
        return 1
    return next((by for by in (8, 4, 2) if max(size) // by >= at_least_px), 1)


# --- Only what draws the picture ---

# A marker in JPEG data: neither a stuffed FF 00, nor a restart marker, nor a fill byte.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_WITHOUT_LENGTH = frozenset((0x01, 0xD8))
# JFIF (APP0) and Adobe (APP14) tell the colour space.
_JPEG_METADATA = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))


# Of a file, restart markers included; a picture of 25 megapixels with one in every block has so
# many. Each is a turn of a Python loop.
_MOST_PARTS = 400_000
# Of a PNG or a GIF. A PNG of 20 MB in chunks of 4 KiB has 5,000.
_MOST_CHUNKS = 50_000


def _strip_jpeg(data: bytes) -> tuple[bytes, bytes, int]:
    """A JPEG's drawing parts up to its end marker, its EXIF block, the number of its scans."""
    view = memoryview(data)
    drawing = bytearray(data[:2])
    exif = b""
    scans = 0
    position = 2
    for _ in range(_MOST_PARTS):
        found = _JPEG_MARKER.search(data, position)
        if not found:
            break
        start, marker = found.start(), data[found.start() + 1]
        if scans:
            drawing += view[position:start]
        if marker == 0xD9:
            drawing += b"\xff\xd9"
            return bytes(drawing), exif, scans
        if marker in _JPEG_WITHOUT_LENGTH:
            position = start + 2
            continue
        position = start + 2 + int.from_bytes(view[start + 2 : start + 4], "big")
        if marker in _JPEG_METADATA:
            if marker == 0xE1 and not exif and data.startswith(b"Exif\0\0", start + 4):
                exif = data[start + 4 : position]
            continue
        if marker in (0xC0, 0xC1, 0xC2) and data[start + 4 : start + 5] not in (b"\x08", b""):
            raise UnsupportedFormat("A JPEG of more than 8 bits a colour: save it as usual JPEG.")
        scans += marker == 0xDA
        drawing += view[start:position]
    else:
        raise BrokenImage("The JPEG is cut into absurdly many parts: save it again.")
    # No end marker: the decoder will find out whether the picture is whole.
    drawing += view[position:]
    return bytes(drawing), exif, scans


def _strip_png(data: bytes) -> tuple[bytes, bytes]:
    """A PNG's drawing parts (an animation's default picture) and its EXIF block."""
    view = memoryview(data)
    drawing = bytearray(data[:8])
    exif = b""
    # Transparency by colour in 16 bits is not what the decoder's 8-bit pixels compare with.
    wanted = {b"IHDR", b"PLTE", b"IDAT", b"IEND", *((b"tRNS",) if data[24:25] != b"\x10" else ())}
    position, parts = 8, 0
    while position < len(data):
        parts += 1
        if parts > _MOST_CHUNKS:
            raise ImageTooDemanding(f"The PNG has more than {_MOST_CHUNKS} chunks: save it again.")
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        if kind in wanted:
            drawing += view[position:end]
        elif kind == b"eXIf":
            exif = data[position + 8 : end - 4]
        if kind == b"IEND":
            break
        position = end
    return bytes(drawing), exif


def _strip_gif(data: bytes) -> bytes:
    """A GIF's first picture alone, with its colours and what of it is transparent (GIF89a)."""
    position = 13 + _colours_bytes(data[10:11])
    drawing = bytearray(data[:position])
    control = b""
    for _ in range(_MOST_CHUNKS):
        kind = data[position : position + 1]
        start, is_picture = position, kind == b","
        if is_picture:
            position += 10 + _colours_bytes(data[position + 9 : position + 10]) + 1
        elif kind == b"!":
            position += 2
        else:
            break  # the end, or what the decoder will not understand either
        position = _after_blocks(data, position)
        if is_picture:
            return bytes(drawing + control + data[start:position] + b";")
        if data[start + 1 : start + 2] == b"\xf9":
            control = data[start:position]
    else:
        raise ImageTooDemanding(f"The GIF has more than {_MOST_CHUNKS} parts: save it again.")
    return bytes(drawing) + data[position:]


def _colours_bytes(flags: bytes) -> int:
    """How long a colour table is, by the flags before it."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _after_blocks(data: bytes, position: int) -> int:
    """Where a GIF's chain of sub-blocks, each up to 255 bytes long, ends."""
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return position + 1


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """A picture turned as an EXIF orientation says; what is none of 1 to 8 turns nothing."""
    turn = _TRANSPOSITIONS.get(orientation)
    return image if turn is None else image.transpose(turn)


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of what `upright` makes of a picture of that size."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _orientation(exif: bytes) -> int:
    """The orientation tag of an EXIF block's first directory (TIFF 6.0, section 2), else 1.

    Pillow's own reader raises or warns on blocks that real cameras write; this needs one number
    and takes whatever bytes there are.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    if exif[:2] not in (b"II", b"MM"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], "little" if exif[:2] == b"II" else "big")

    directory = number(4, 4)
    entries = min(number(directory, 2), len(exif) // 12)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if number(entry, 2) == 0x0112:
            return number(entry + 8, 4 if number(entry + 2, 2) == 4 else 2)
    return 1


# --- Pixels ---


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new picture in mode "RGB" without its file: 16 bits scaled, transparency on white."""
    if image.mode == "I;16":
        # Pillow would clip to 255 what has to be scaled: of each two bytes the higher one stays.
        image = Image.frombytes("L", image.size, image.tobytes()[1::2])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")
