"""A perceptual hash of a picture, by which near copies are told.

Knows nothing about who keeps fingerprints or how near is too near.
"""

import numpy as np
from PIL import Image

_SIDE = 16


def fingerprint(image: Image.Image) -> bytes:
    """The difference hash of a picture: where it becomes brighter from left to right.

    ImageHash's `dhash` (Krawetz 2013) at 16x16 places. Copies that were scaled or compressed again
    differ in few of the 256 bits, other pictures in about half.

    Args:
        image: upright, mode "RGB".

    Returns:
        32 bytes, row by row, the leftmost place in the highest bit.
    """
    import imagehash  # a bot whose engine is elsewhere does without it

    return np.packbits(imagehash.dhash(image, hash_size=_SIDE).hash).tobytes()
