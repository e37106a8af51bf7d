"""A clip is claimed and its attempt begun in one transaction: all of it or nothing."""

from collections.abc import Callable

import numpy as np

from bot.store import Barred, Clip, Store, Unusable
from tests.bot.fakes import pattern
from tests.bot.store.places import ANA, EMBEDDER, Place, challenged, enroll, fail, vectors
from tests.bot.store.test_crash import about_to_verify, kills

PATTERNS = tuple(pattern(number) for number in range(3))


def clip(name: str = "clip", embedder: str = EMBEDDER) -> Clip:
    return Clip(name, name.encode(), PATTERNS, embedder)


async def test_a_clip_begins_an_attempt_and_is_known_from_then_on(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        flow, nonce = await challenged(store)
        found = await store.conversation(ANA)
        assert (found.flow, found.language, found.known) == (flow, None, {})
        begun = await store.begin_by_clip(flow, nonce, clip(), found.known)
        assert isinstance(begun, tuple)
        attempt, rotated = begun
        assert (attempt.telegram_id, attempt.steps) == (ANA, "side up")
        templates = await store.unrotated(rotated)
        assert templates is not None
        np.testing.assert_allclose(templates.vectors, vectors(), atol=1e-6)
        assert await store.flow(ANA) is None
        # The same shot under another name: what was known when it came, and what was added since.
        for known in ({}, None):
            again, nonce = await challenged(store)
            seen = (await store.conversation(ANA)).known if known is None else known
            begun = await store.begin_by_clip(again, nonce, clip("other"), seen)
            assert begun is Unusable.SEEN_BEFORE
            assert await store.flow(ANA) == again, "it may be answered by another clip"


async def test_templates_of_another_embedder_end_the_flow_and_charge_nobody(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        flow, nonce = await challenged(store)
        begun = await store.begin_by_clip(flow, nonce, clip(embedder="another"), {})
        assert begun is Unusable.OTHER_EMBEDDER
        assert await store.flow(ANA) is None
        assert (await store.export(ANA))["attempts"] == []


async def test_who_may_not_try_now_is_barred(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        await fail(store, times=5)
        flow, nonce = await challenged(store)
        begun = await store.begin_by_clip(flow, nonce, clip(), {})
        assert isinstance(begun, Barred)


async def begins(store: Store, _place: Place, person: int) -> None:
    found = await store.conversation(person)
    assert found.flow is not None
    nonce = bytes.fromhex(found.flow.state["nonce"])
    begun = await store.begin_by_clip(found.flow, nonce, clip(str(person)), found.known)
    assert isinstance(begun, tuple)


async def test_a_clip_that_was_claimed_was_charged(
    place: Place, one_in: Callable[[int], int]
) -> None:
    outcomes = set()
    async with place.store() as store:
        async for person in kills(store, place, begins, about_to_verify, one_in(29)):
            attempts = (await store.export(person))["attempts"][4:]
            claimed = (await store.export(person))["captures"]["count"]
            outcomes.add(claimed)
            assert len(attempts) == claimed
            assert (await store.flow(person) is None) == bool(attempts)
        assert await store.check_audit() is None
    assert outcomes == {0, 1}
