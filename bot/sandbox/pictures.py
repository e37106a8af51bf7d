"""What Telegram makes of a photo: JPEG sizes without metadata, never larger than the original.

Pure and synchronous; knows nothing about messages or files. Decoding is work for a thread.
"""

import io
from dataclasses import dataclass

import pillow_heif
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.media import heif

BOUNDS_PX = (90, 320, 800, 1280)
"""Longest sides of the sizes that Telegram makes."""
MAX_PIXELS = 100_000_000
THUMBNAIL_PX = 320
_QUALITY = 87
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class NotAPicture(Exception):
    """The bytes cannot be shown as a photo."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """One JPEG size of a photo; `width_px` by `height_px`."""

    data: bytes
    width_px: int
    height_px: int


def renditions(data: bytes) -> tuple[Rendition, ...]:
    """All sizes of a photo, smallest first: 90, 320, 800 and 1280 px, never upscaled.

    Raises:
        NotAPicture: the bytes are no image that can be decoded.
    """
    image = _decode(data)
    longest = max(image.size)
    bounds = [bound for bound in BOUNDS_PX if bound < longest]
    if longest <= BOUNDS_PX[-1]:
        bounds.append(longest)
    sizes = []
    for bound in reversed(bounds):
        # Every size is made from the next larger one: a quarter of the work, no visible loss.
        image = _shrink(image, bound)
        sizes.append(_encode(image))
    return tuple(reversed(sizes))


def thumbnail(data: bytes) -> Rendition | None:
    """A preview of a file of at most 320 px, or None where the file is no image."""
    try:
        return _encode(_shrink(_decode(data), THUMBNAIL_PX))
    except NotAPicture:
        return None


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels from the header, before any rotation.

    Raises:
        NotAPicture: there is no header of an image.
    """
    try:
        return _open(data).size
    except Exception as error:
        raise NotAPicture(str(error)) from error


def _decode(data: bytes) -> Image.Image:
    # Decoders meet hostile bytes with every kind of exception; all of them mean the same here.
    try:
        image = _open(data)
        if image.width * image.height > MAX_PIXELS:
            raise NotAPicture("too many pixels")
        image.draft("RGB", (BOUNDS_PX[-1] * 2, BOUNDS_PX[-1] * 2))
        return _flatten(ImageOps.exif_transpose(image))
    except NotAPicture:
        raise
    except Exception as error:
        raise NotAPicture(str(error)) from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        # HEIC, what phones make; Pillow reads it only after a change of its global tables.
        if not pillow_heif.is_supported(data[:64]):
            raise
        heif.read(data, MAX_PIXELS)  # refuses what would take minutes
        picture: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
        return picture


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda level: level / 256).convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGB", layer.size, "white")
        paper.paste(layer, mask=layer.getchannel("A"))
        return paper
    return image.convert("RGB")


def _shrink(image: Image.Image, bound_px: int) -> Image.Image:
    longest = max(image.size)
    if longest <= bound_px:
        return image
    width, height = (max(1, round(side * bound_px / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encode(image: Image.Image) -> Rendition:
    buffer = io.BytesIO()
    # A fresh picture carries no EXIF, no profile and no comment along.
    bare = Image.frombytes("RGB", image.size, image.tobytes())
    bare.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return Rendition(buffer.getvalue(), *image.size)
