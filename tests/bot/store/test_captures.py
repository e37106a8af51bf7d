"""Photos and clips that came before are known again; by whom depends."""

import asyncio
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.store import FlowKind, Store, fingerprints
from bot.store.fingerprints import (
    CLIP_DISTANCE,
    PHOTO_DISTANCE,
    Signs,
    distances,
    fingerprint,
    likeness,
    signs,
)
from engine.vision.fingerprint import SIDE_PX
from tests.bot.fakes import pattern
from tests.bot.store.places import ANA, BEN, Place


def blended(one: bytes, other: bytes, share: float) -> bytes:
    """A pattern between two."""
    a, b = (np.frombuffer(each, np.int8).astype(np.float64) for each in (one, other))
    return np.rint((1 - share) * a + share * b).astype(np.int8).tobytes()


def near(one: bytes, least: float, most: float) -> bytes:
    """A pattern at a distance from another one, by bisection: the more is blended, the farther."""
    low, high = 0.0, 1.0
    for _ in range(20):
        found = blended(one, pattern(99), (low + high) / 2)
        distance = distances(found, signs([fingerprint(one)])).item()
        if least < distance <= most:
            return found
        low, high = (low, (low + high) / 2) if distance > most else ((low + high) / 2, high)
    raise AssertionError("none is so far")


def mirrored(one: bytes) -> bytes:
    return np.frombuffer(one, np.int8).reshape(SIDE_PX, SIDE_PX)[:, ::-1].tobytes()


PATTERN = pattern(0)
COPY = near(PATTERN, 0.8 * PHOTO_DISTANCE, PHOTO_DISTANCE)
NO_COPY = near(PATTERN, PHOTO_DISTANCE, 1.5 * PHOTO_DISTANCE)


async def test_a_file_or_its_bytes_are_new_once_for_everybody(place: Place) -> None:
    async with place.store() as store:
        assert await store.claim_capture(ANA, "file", b"bytes")
        assert not await store.claim_capture(ANA, "file", b"bytes")
        assert not await store.claim_capture(BEN, "file", b"others")
        assert not await store.claim_capture(BEN, "another", b"bytes")
        assert await store.claim_capture(BEN, "another", b"others")
    async with place.store() as store:
        assert not await store.claim_capture(BEN, "file", b"bytes")


async def test_of_two_who_send_the_same_bytes_at_once_one_is_first(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        claimed = await asyncio.gather(
            one.claim_capture(ANA, "a", b"bytes"),
            other.claim_capture(BEN, "b", b"bytes"),
            one.claim_capture(BEN, "c", b"bytes"),
        )
        assert sorted(claimed) == [False, False, True]


async def test_nearly_the_same_shot_is_known_again_from_the_same_person(store: Store) -> None:
    assert await store.claim_capture(ANA, "1", b"1", [PATTERN])
    assert not await store.claim_capture(ANA, "2", b"2", [COPY])
    assert not await store.claim_capture(ANA, "3", b"3", [mirrored(COPY)])
    assert await store.claim_capture(BEN, "4", b"4", [COPY])
    assert await store.claim_capture(ANA, "5", b"5", [NO_COPY])


async def test_of_two_copies_at_once_one_is_new(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        claimed = await asyncio.gather(
            one.claim_capture(ANA, "a", b"a", [PATTERN]),
            other.claim_capture(ANA, "b", b"b", [PATTERN]),  # whichever is first
        )
        assert sorted(claimed) == [False, True]


async def test_a_clip_is_compared_while_others_write(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, begun, go_on = [pattern(1, frame) for frame in range(8)], Event(), Event()

    def distances_later(shot: bytes, kept: Signs) -> NDArray[np.float32]:
        begun.set()
        assert go_on.wait(60)
        return distances(shot, kept)

    async with place.store() as store, place.store() as other:
        assert await store.claim_capture(ANA, "1", b"1", [PATTERN])
        with monkeypatch.context() as patch:
            patch.setattr(fingerprints, "distances", distances_later)
            comparing = asyncio.create_task(store.claim_capture(ANA, "2", b"2", clip))
            assert await asyncio.to_thread(begun.wait, 60)
        # Each would wait for the comparison's end, were it in a transaction that writes.
        await other.choose_language(BEN, "en")
        await other.begin_flow(ANA, FlowKind.VERIFY, {}, lifetime_s=60)
        assert await other.claim_capture(ANA, "3", b"3", clip)
        assert not comparing.done()
        go_on.set()
        assert not await comparing, "what was added meanwhile is compared too"


async def test_a_refused_capture_leaves_no_fingerprints(place: Place) -> None:
    async with place.store() as store:
        assert await store.claim_capture(ANA, "1", b"1", [PATTERN])
        assert not await store.claim_capture(ANA, "2", b"2", [PATTERN])
        assert len(await place.sql("SELECT * FROM fingerprints")) == 1


def kept(*captures: list[bytes]) -> list[list[bytes]]:
    return [[fingerprint(each) for each in patterns] for patterns in captures]


def is_copy(patterns: list[bytes], earlier: list[list[bytes]]) -> bool:
    return fingerprints.is_copy(likeness(patterns, earlier))


def test_a_photo_is_compared_with_every_photo_and_every_frame() -> None:
    clip = [pattern(1, frame) for frame in range(8)]
    assert is_copy([COPY], kept([pattern(2)], [PATTERN], clip))
    assert is_copy([blended(clip[3], pattern(3), 0.05)], kept([PATTERN], clip))
    assert not is_copy([NO_COPY], kept([PATTERN], clip))
    assert not is_copy([PATTERN], [])
    assert not is_copy([], kept([PATTERN]))


def test_a_clip_with_a_frame_like_a_photo_is_a_copy() -> None:
    clip = [pattern(1, frame) for frame in range(8)]
    assert is_copy(clip, kept([pattern(2)], [clip[3]]))
    assert not is_copy(clip, kept([pattern(2)], [pattern(3)]))


def test_a_clip_is_a_copy_where_most_of_it_is_like_frames_of_earlier_clips() -> None:
    one, other, new = ([pattern(clip, frame) for frame in range(8)] for clip in range(1, 4))
    copy = [near(frame, 0.5 * CLIP_DISTANCE, CLIP_DISTANCE) for frame in one]
    earlier = kept(one, other)
    assert is_copy(copy, earlier)
    assert is_copy(copy[::-1], earlier), "in any order"
    assert is_copy([mirrored(frame) for frame in copy], earlier)
    assert is_copy([*one[:3], *other[5:], *new[:2]], earlier), "cut together"
    assert not is_copy([*one[:5], *new[:3]], earlier), "a good part is new"
    assert not is_copy(new, earlier)


async def test_a_pattern_of_another_size_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        await store.claim_capture(ANA, "1", b"1", [b"x" * 16])
    assert await store.claim_capture(ANA, "1", b"1", [PATTERN]), "and nothing was kept of it"


async def test_pads_differ_so_that_people_cannot_be_compared(place: Place) -> None:
    async with place.store() as store:
        await store.claim_capture(ANA, "1", b"1", [PATTERN])
        await store.claim_capture(BEN, "2", b"2", [PATTERN])
        rows = await place.sql("SELECT masked FROM fingerprints")
    found = {bytes(masked) for (masked,) in rows}
    assert len(found | {fingerprint(PATTERN)}) == 3
    assert {len(each) for each in found} == {32}
