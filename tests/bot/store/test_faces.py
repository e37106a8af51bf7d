"""Templates: stored whole or not at all, read as they were, and opened only where they belong."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from bot.store import FlowKind, Keyring, Store, StoreError, people
from bot.store.rotation import rotation
from bot.store.schema import templates
from bot.store.work import Work
from tests.bot.store.places import (
    ANA,
    BEN,
    CODE,
    CODED,
    EMBEDDER,
    NORMAL,
    Place,
    challenged,
    enroll,
    enrolment,
    vectors,
)


@pytest.mark.parametrize(("count", "dimension"), [(1, 3), (3, 128), (5, 512)])
async def test_templates_come_back_as_they_were_enrolled(
    place: Place, count: int, dimension: int
) -> None:
    given = vectors(count, dimension)
    async with place.store() as store:
        assert await store.templates(ANA) is None
        await enroll(store, given=enrolment(given))
    async with place.store() as store:
        found = await store.templates(ANA)
    assert found is not None
    assert found.embedder == EMBEDDER
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors, given, atol=1e-7)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, given @ given.T, atol=1e-6)


async def test_an_enrolment_is_a_membership_with_a_consent_and_ends_the_flow(
    place: Place,
) -> None:
    async with place.store() as store:
        assert await store.membership(ANA) is None
        await enroll(store)
        member = await store.membership(ANA)
        assert member is not None
        assert (member.since, member.last_used) == (place.clock.now, None)
        assert (member.templates, member.embedder, member.locked) == (3, EMBEDDER, False)
        assert member.deleted_on == place.clock.now + timedelta(days=NORMAL.idle_days)
        assert await store.flow(ANA) is None
        exported = await store.export(ANA)
        (consent,) = exported["consents"]
        assert (consent["version"], consent["language"]) == ("2026-11", "es")


async def test_only_the_current_enrolment_flow_enrolls(place: Place) -> None:
    async with place.store() as store:
        old = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        new = await store.advance_flow(old, {"step": 2})
        assert new is not None
        assert not await store.enroll(old, enrolment())
        verifying = await store.begin_flow(BEN, FlowKind.VERIFY, {}, lifetime_s=60)
        assert not await store.enroll(verifying, enrolment())
        assert not await store.enroll(replace(new, telegram_id=BEN), enrolment())
        place.clock.advance(seconds=60)
        assert not await store.enroll(new, enrolment())
        assert await store.membership(ANA) is await store.membership(BEN) is None
        assert await place.sql("SELECT * FROM templates") == []


async def test_enrolling_anew_replaces_the_templates_and_the_data_key(place: Place) -> None:
    async with place.store() as store:
        await enroll(store, ANA, CODED)
        before = await place.sql("SELECT wrapped_key, secret, recovery FROM people")
        old = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        assert await store.enroll(old, enrolment(vectors(5, seed=1)))
        after = await place.sql("SELECT wrapped_key, secret, recovery FROM people")
        assert not set(before[0]) & set(after[0])
        found = await store.templates(ANA)
        assert found is not None
        np.testing.assert_allclose(found.vectors, vectors(5, seed=1), atol=1e-7)
        assert await store.check_recovery_code(ANA, CODE), "the code stays where none is given"
        events = [entry["event"] for entry in (await store.export(ANA))["audit"]]
        assert events.count("enrolled") == 2, "the trail goes on under the new key"


@pytest.mark.rules
async def test_an_open_challenge_does_not_outlive_an_enrolment(store: Store) -> None:
    await enroll(store)
    _, nonce = await challenged(store)
    await enroll(store)
    flow = await store.begin_flow(ANA, FlowKind.VERIFY, {}, lifetime_s=60)
    assert getattr(await store.begin_attempt(flow, "video", nonce), "reason", None) == "spent"


@pytest.mark.rules
@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(128, np.float32),
        np.zeros((0, 128), np.float32),
        np.full((1, 4), np.nan, np.float32),
        np.full((2, 4), np.inf, np.float32),
    ],
)
async def test_vectors_that_are_none_are_refused(store: Store, bad: np.ndarray) -> None:
    flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
    with pytest.raises(ValueError, match="templates"):
        await store.enroll(flow, enrolment(bad))
    assert await store.flow(ANA) == flow


async def test_a_mean_that_an_older_version_kept_is_passed_over(store: Store) -> None:
    given = vectors()

    async def keep_mean(work: Work) -> None:
        person = await people.find(work, ANA)
        assert person is not None
        sealed = person.key.seal(given[0].astype("<f8").tobytes(), "templates", "mean", EMBEDDER)
        values = {"person": person.code, "slot": len(given), "is_mean": True, "vector": sealed}
        await work.connection.execute(templates.insert().values(values))

    await enroll(store, given=enrolment(given))
    await store._write(keep_mean)
    found = await store.templates(ANA)
    assert found is not None
    np.testing.assert_allclose(found.vectors, given, atol=1e-7)


# What an intruder who can write to the database might do.
SWAPS = {
    "two templates of one person": (
        "UPDATE templates SET vector = (SELECT vector FROM templates AS other WHERE "
        "other.person = templates.person AND other.slot = 1 - templates.slot) WHERE slot < 2"
    ),
    "a template that was taken away": "DELETE FROM templates WHERE slot = 0",
    "a template twice": (
        "INSERT INTO templates (person, slot, is_mean, vector) SELECT person, 9, is_mean, vector "
        "FROM templates WHERE slot = 0"
    ),
    "templates of two people": (
        "UPDATE templates SET vector = (SELECT vector FROM templates AS other WHERE "
        "other.person <> templates.person AND other.slot = templates.slot)"
    ),
    "data keys of two people": (
        "UPDATE people SET wrapped_key = (SELECT wrapped_key FROM people AS other WHERE "
        "other.person <> people.person)"
    ),
    "the embedder": "UPDATE enrolments SET embedder = 'facenet-vggface2'",
    "whether they are a mean": "UPDATE templates SET is_mean = NOT is_mean",
    "the seeds of two people": (
        "UPDATE enrolments SET seed = (SELECT seed FROM enrolments AS other WHERE "
        "other.person <> enrolments.person)"
    ),
    "a seed for a template": (
        "UPDATE templates SET vector = (SELECT seed FROM enrolments AS other WHERE "
        "other.person = templates.person)"
    ),
    "nothing at all": "UPDATE templates SET vector = substr(vector, 1, 8)",
}


@pytest.mark.rules
@pytest.mark.parametrize("statement", SWAPS.values(), ids=SWAPS)
async def test_what_was_moved_to_another_place_does_not_open(place: Place, statement: str) -> None:
    async with place.store() as store:
        await enroll(store, ANA)
        await enroll(store, BEN, enrolment(vectors(seed=1)))
        assert await store.templates(ANA) is not None
        await place.sql(statement)
        with pytest.raises(StoreError, match=r"does not open|changed by somebody"):
            await store.templates(ANA)


@pytest.mark.rules
async def test_without_template_keys_there_are_languages_and_no_faces(place: Place) -> None:
    place.keyring = None
    async with place.store() as store:
        await store.choose_language(ANA, "es")
        assert await store.language(ANA) == "es"
        assert await store.membership(ANA) is None
        with pytest.raises(StoreError, match="python -m bot keys new"):
            await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)


async def test_who_is_to_be_forgotten_is_forgotten_without_their_key(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
    place.keyring = None
    async with place.store() as store:
        receipt = await store.forget(ANA)
        assert receipt.counts["templates"] == 3
        assert await place.sql("SELECT * FROM people") == []


def test_a_throwaway_key_ring_is_a_new_one_each_time() -> None:
    one, other = Keyring.throwaway(), Keyring.throwaway()
    assert one.key(one.current) != other.key(other.current)


@pytest.mark.parametrize("dimension", [1, 2, 3, 128, 129, 512])
def test_a_rotation_is_orthogonal_and_its_seed_s_own(dimension: int) -> None:
    matrix = rotation(b"s" * 32, dimension)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dimension), atol=1e-12)
    np.testing.assert_array_equal(matrix, rotation(b"s" * 32, dimension))


def test_a_rotation_never_changes_or_what_is_stored_is_lost() -> None:
    # From the first version. Where this fails, templates of before cannot be read any more.
    expected = [[-0.766064716486, 0.642763448055], [0.642763448055, 0.766064716486]]
    np.testing.assert_allclose(rotation(bytes(range(32)), 2), expected, atol=1e-9)


def test_rotations_are_spread_evenly() -> None:
    # Of a Haar matrix, tr(Q)^k has the moments of a standard normal for small k (Diaconis and
    # Shahshahani, 1994); the standard error of a variance over 2,000 seeds is 0.032.
    traces = [np.trace(rotation(seed.to_bytes(32, "big"), 6)) for seed in range(2000)]
    assert abs(np.mean(traces)) < 0.1
    assert abs(np.var(traces) - 1) < 0.15


def test_one_face_under_two_seeds_is_two_faces() -> None:
    face = vectors(1, 128)[0].astype(np.float64)
    cosines = [
        (face @ rotation(seed.to_bytes(32, "big"), 128)) @ (face @ rotation(b"x" * 32, 128))
        for seed in range(50)
    ]
    assert np.abs(cosines).max() < 0.5, "as of two random directions, whose sd is 0.09"
