"""Tells whether two photos or clips are nearly the same picture, by fingerprints that are masked.

A fingerprint is a difference hash of 256 bits. It is stored XORed with a person's pad: distances
between one person's fingerprints stay, and without the pad they tell nothing. Knows nothing about
how fingerprints are made or where they are kept.
"""

import statistics
from collections.abc import Sequence

FINGERPRINT_BYTES = 32
_ROW_BYTES = 2
PHOTO_DISTANCE = 24
"""In bits of 256, up to which a photo is a copy; from `tests.benchmarks.fingerprints`.

Of 158 photos' copies these are within it: encoded anew at JPEG 85 or 30, scaled to a half or to 320
px, darker by 25 %: all; mirrored: 99 %; brighter by 25 %: 98 %; cropped by 1 %, turned by 1 degree:
more than 95 %; equalised: 86 %; cropped by 2 %: 32 %, by 3 %: 2 %, by 5 %: none. Of 12,403 pairs of
other photos 8 are, which are copies that the folder has (5 or less); the next is at 29, and 99 % at
62 or more. Of 921 pairs of frames a second or more apart in one generated clip 5 % are: so often a
second selfie is refused of somebody who moves neither head nor camera. Who crops more passes: that
a photo is new is for the challenge to say, and this for whoever sends the same one again.
"""
CLIP_DISTANCE = 32
"""The same for the median over a clip's frames.

18 clips that were encoded anew, smaller and worse, are at 9 to 25.5; 18 pairs of clips made of one
photo before one background, with other challenges, at 60.5 to 113.5.
"""


def mask(fingerprint: bytes, pad: bytes) -> bytes:
    """A fingerprint under a pad, or a masked one in the open; 32 bytes each.

    Raises:
        ValueError: the fingerprint does not have 32 bytes.
    """
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint of {len(fingerprint)} bytes, not {FINGERPRINT_BYTES}")
    return bytes(one ^ other for one, other in zip(fingerprint, pad, strict=True))


def mirrored(fingerprint: bytes) -> bytes:
    """What the mirror image of a picture has for a fingerprint, but for a few bits.

    Left becomes right in each row of 16, and what became brighter becomes darker.
    """
    rows = (fingerprint[at : at + _ROW_BYTES] for at in range(0, FINGERPRINT_BYTES, _ROW_BYTES))
    turned = (f"{int.from_bytes(row, 'big'):016b}"[::-1] for row in rows)
    return b"".join((int(row, 2) ^ 0xFFFF).to_bytes(_ROW_BYTES, "big") for row in turned)


def nearly_same(new: Sequence[bytes], old: Sequence[bytes]) -> bool:
    """Whether two captures, each with the fingerprints of its frames in order, are copies.

    A photo has one fingerprint. A photo is a copy of a clip when it is one of its frames; two clips
    are copies by the median over their frames at the same times.

    Args:
        new: of one capture, all under the same pad as the other's.
        old: of the other.
    """
    if not new or not old:
        return False
    if len(new) == 1 or len(old) == 1:
        return min(_distance(one, other) for one in new for other in old) <= PHOTO_DISTANCE
    pairs = zip(new, old, strict=False)  # a copy may have been cut short
    return statistics.median(_distance(one, other) for one, other in pairs) <= CLIP_DISTANCE


def _distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()
