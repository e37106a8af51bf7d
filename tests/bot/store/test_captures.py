"""Photos and clips that came before are known again; by whom depends."""

import asyncio
import secrets

import pytest

from bot.store import Store
from bot.store.fingerprints import CLIP_DISTANCE, PHOTO_DISTANCE, nearly_same
from tests.bot.store.places import ANA, BEN, Place


def flipped(fingerprint: bytes, bits: int) -> bytes:
    """A fingerprint at a distance."""
    return (int.from_bytes(fingerprint, "big") ^ ((1 << bits) - 1)).to_bytes(32, "big")


PRINT = secrets.token_bytes(32)


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


async def test_nearly_the_same_picture_is_known_again_from_the_same_person(store: Store) -> None:
    assert await store.claim_capture(ANA, "1", b"1", [PRINT])
    near, far = flipped(PRINT, PHOTO_DISTANCE), flipped(PRINT, PHOTO_DISTANCE + 1)
    assert not await store.claim_capture(ANA, "2", b"2", [near])
    assert await store.claim_capture(BEN, "3", b"3", [near])
    assert await store.claim_capture(ANA, "4", b"4", [far])


async def test_fingerprints_may_come_later(store: Store) -> None:
    assert await store.claim_capture(ANA, "1", b"1")
    assert await store.claim_capture(ANA, "2", b"2")
    assert await store.add_fingerprints(ANA, "1", [PRINT])
    assert not await store.add_fingerprints(ANA, "2", [PRINT])
    assert not await store.add_fingerprints(ANA, "never claimed", [secrets.token_bytes(32)])
    assert not await store.add_fingerprints(BEN, "1", [secrets.token_bytes(32)])


async def test_a_refused_capture_leaves_no_fingerprints(place: Place) -> None:
    async with place.store() as store:
        assert await store.claim_capture(ANA, "1", b"1", [PRINT])
        assert not await store.claim_capture(ANA, "2", b"2", [PRINT])
        assert len(await place.sql("SELECT * FROM fingerprints")) == 1


def test_clips_are_compared_frame_by_frame_and_photos_with_every_frame() -> None:
    clip = [secrets.token_bytes(32) for _ in range(8)]
    copy = [flipped(frame, CLIP_DISTANCE) for frame in clip]
    assert nearly_same(copy, clip)
    assert nearly_same(copy[:6], clip), "cut short"
    assert nearly_same([*copy[:5], *(secrets.token_bytes(32) for _ in range(3))], clip), "mostly"
    assert not nearly_same([flipped(frame, CLIP_DISTANCE + 1) for frame in clip], clip)
    assert not nearly_same(clip[::-1], clip)
    assert nearly_same([clip[3]], clip)
    assert nearly_same(clip, [clip[3]])
    assert not nearly_same([], clip)


async def test_a_fingerprint_of_another_size_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        await store.claim_capture(ANA, "1", b"1", [b"x" * 16])
    assert await store.claim_capture(ANA, "1", b"1", [PRINT]), "and nothing was kept of it"


async def test_pads_differ_so_that_people_cannot_be_compared(place: Place) -> None:
    async with place.store() as store:
        await store.claim_capture(ANA, "1", b"1", [PRINT])
        await store.claim_capture(BEN, "2", b"2", [PRINT])
        rows = await place.sql("SELECT masked FROM fingerprints")
    assert len({bytes(masked) for (masked,) in rows} | {PRINT}) == 3
