"""A decoded photo as a small JPEG, for whoever shows it. Knows nothing about faces."""

import io

from PIL import Image

from engine.media.image import upright

LONGEST_PX = 1600
_QUALITY = 90
_ORIENTATIONS = {90: 6, 180: 3, 270: 8}
"""Of EXIF, by the degrees that they turn a picture clockwise."""


def encode(image: Image.Image) -> bytes:
    """A JPEG of a picture.

    Args:
        image: mode "RGB"; shrunk to `LONGEST_PX` on its longer side where it is larger.
    """
    small = image.copy() if max(image.size) > LONGEST_PX else image
    small.thumbnail((LONGEST_PX, LONGEST_PX), reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def turned(jpeg: bytes, clockwise_degrees: int) -> bytes:
    """What `encode` made, turned.

    Args:
        jpeg: made by `encode`.
        clockwise_degrees: 90, 180 or 270.
    """
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return encode(upright(image, _ORIENTATIONS[clockwise_degrees]))
