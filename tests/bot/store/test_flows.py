"""Conversations: one a person, overtaken ones change nothing, and a deadline is a deadline."""

import asyncio

from bot.store import FlowKind, Store
from tests.bot.store.places import ANA, BEN, Place

STATE = {"step": 1, "captures": ["aGVsbG8="], "names": "ñandú"}


async def test_a_flow_is_read_as_it_was_begun_by_another_replica(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        begun = await one.begin_flow(ANA, FlowKind.ENROLL, STATE, lifetime_s=60)
        assert await other.flow(ANA) == begun
        assert begun.state == STATE
        assert await other.flow(BEN) is None


async def test_a_new_flow_takes_the_place_of_the_old_one(store: Store) -> None:
    old = await store.begin_flow(ANA, FlowKind.ENROLL, STATE, lifetime_s=60)
    new = await store.begin_flow(ANA, FlowKind.FORGET, {}, lifetime_s=60)
    assert await store.flow(ANA) == new
    assert await store.advance_flow(old, {"step": 2}) is None
    assert not await store.end_flow(old)
    assert await store.flow(ANA) == new


async def test_of_two_who_advance_the_same_revision_one_does(place: Place) -> None:
    async with place.store() as one, place.store() as other:
        flow = await one.begin_flow(ANA, FlowKind.ENROLL, STATE, lifetime_s=60)
        results = await asyncio.gather(
            *(store.advance_flow(flow, {"by": name}) for name, store in (("a", one), ("b", other)))
        )
        (winner,) = (result for result in results if result is not None)
        assert await one.flow(ANA) == winner
        assert (winner.revision, winner.deadline) == (flow.revision + 1, flow.deadline)


async def test_a_flow_ends_at_its_deadline_unless_it_gets_another(place: Place) -> None:
    async with place.store() as store:
        flow = await store.begin_flow(ANA, FlowKind.VERIFY, STATE, lifetime_s=60)
        place.clock.advance(seconds=59)
        longer = await store.advance_flow(flow, STATE, lifetime_s=60)
        assert longer is not None
        place.clock.advance(seconds=59)
        assert await store.flow(ANA) == longer
        place.clock.advance(seconds=1)
        assert await store.advance_flow(longer, STATE) is None
        assert await store.flow(ANA) is None
        assert await place.sql("SELECT * FROM flows") == []


async def test_who_never_enrolled_leaves_nothing_when_their_flow_ends(place: Place) -> None:
    async with place.store() as store:
        ended = await store.begin_flow(ANA, FlowKind.ENROLL, STATE, lifetime_s=60)
        assert await store.end_flow(ended)
        await store.begin_flow(BEN, FlowKind.ENROLL, STATE, lifetime_s=60)
        place.clock.advance(seconds=61)
        assert await store.flow(BEN) is None
        assert await place.sql("SELECT * FROM people") == []


async def test_a_state_that_is_no_json_is_refused_whole(store: Store) -> None:
    flow = await store.begin_flow(ANA, FlowKind.ENROLL, STATE, lifetime_s=60)
    for bad in ({"x": float("nan")}, {"x": object()}):
        try:
            await store.advance_flow(flow, bad)
        except (TypeError, ValueError):
            pass
        else:
            raise AssertionError(bad)
    assert await store.flow(ANA) == flow
