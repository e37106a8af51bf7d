"""Pictures that tests draw themselves: every seed gives another one, always the same."""

import io

import numpy as np
from PIL import Image


def picture(width: int, height: int, *, seed: int = 0, exif: Image.Exif | None = None) -> bytes:
    """A JPEG of coarse random colours, with EXIF where given."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **({"exif": exif} if exif else {}))
    return buffer.getvalue()
