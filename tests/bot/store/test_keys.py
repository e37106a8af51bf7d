"""Template keys: made, read, rotated while people log in, and taken away at last."""

import stat
from pathlib import Path

import pytest

from bot.store import FlowKind, Keyring, StoreError, Vault, add_key, retire_key
from tests.bot import fakes
from tests.bot.store.places import ANA, BEN, CODE, CODED, Place, enroll, enrolment, vectors

TWO = {"first": b"1" * 32, "second": b"2" * 32}


def test_new_keys_are_their_owner_s_and_the_last_is_current(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "template.keys"
    first = add_key(path)
    second = add_key(path)
    ring = Keyring.load(path)
    assert ring.ids == (first, second)
    assert ring.current == second
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ring.key(first) != ring.key(second)
    assert Keyring.parse(path.read_text()).ids == ring.ids


def test_a_key_is_retired_but_never_the_current_one(tmp_path: Path) -> None:
    path = tmp_path / "template.keys"
    first, second = add_key(path), add_key(path)
    with pytest.raises(StoreError, match="is the current one"):
        retire_key(path, second)
    with pytest.raises(StoreError, match="has no key third"):
        retire_key(path, "third")
    retire_key(path, first)
    assert Keyring.load(path).ids == (second,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no key in"),
        ("one", "Line 1 of"),
        ("one AAAA", "Line 1 of"),
        ("a b " + "A" * 43 + "=", "Line 1 of"),
        ("one " + "A" * 43 + "=\none " + "B" * 43 + "=", "Line 2 of .* has the id"),
        ("one " + "A" * 43 + "=\n\nsch\xf6n " + "B" * 43 + "=", "is no key file"),
    ],
)
def test_a_file_that_is_no_key_file_is_said_and_left_alone(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "template.keys"
    path.write_text(text, "latin-1")
    with pytest.raises(StoreError, match=says) as caught:
        Keyring.load(path)
    assert "AAAA" not in str(caught.value)
    with pytest.raises(StoreError):
        add_key(path)
    assert path.read_text("latin-1") == text


def test_a_bom_before_a_key_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "template.keys"
    key_id = add_key(path)
    path.write_text(path.read_text("ascii"), "utf-8-sig")
    assert Keyring.load(path).ids == (key_id,)


def test_an_empty_key_file_is_to_be_put_back_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "template.keys"
    path.touch()
    for refused in (Keyring.load, add_key):
        with pytest.raises(StoreError, match="put its backup back") as caught:
            refused(path)
    assert "delete it first" in str(caught.value)
    path.unlink()
    key_id = add_key(path)
    assert Keyring.load(path).ids == (key_id,)


def test_a_key_of_the_ids_of_another_length_is_not_said_to_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "ids.key"
    path.write_bytes(b"\xef\xbb\xbf" + b"i" * 32)
    with pytest.raises(StoreError, match="put its backup back") as caught:
        Vault.open(path)
    # A new key opens no database that was made with another one.
    assert "database" in str(caught.value)


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="python -m bot keys new"):
        Keyring.load(tmp_path / "template.keys")


async def test_rotation_moves_everybody_and_all_that_is_theirs(place: Place) -> None:
    async with place.store() as store:
        await enroll(store, ANA, CODED)
        await enroll(store, BEN, enrolment(vectors(seed=1)))
        flow = await store.begin_flow(BEN, FlowKind.RESET, {"a": 1}, lifetime_s=60)
        assert await store.claim_capture(ANA, "file", b"bytes", [fakes.pattern(0)])
    place.keyring = Keyring(TWO)
    async with place.store() as store:
        assert await store.keys_in_use() == {"first": 2}
        told: list[tuple[int, int]] = []
        assert await store.rotate_keys(lambda *counts: told.append(counts)) == 2
        assert told == [(1, 2), (2, 2)]
        assert await store.keys_in_use() == {"second": 2}
        assert await store.rotate_keys() == 0
    place.keyring = Keyring({"second": TWO["second"]})
    async with place.store() as store:
        for person, seed in ((ANA, 0), (BEN, 1)):
            found = await store.templates(person)
            assert found is not None
            assert abs(found.vectors - vectors(seed=seed)).max() < 1e-6
            assert (await store.export(person))["audit"]
        assert await store.flow(BEN) == flow
        assert not await store.claim_capture(ANA, "file 2", b"other", [fakes.pattern(0)])
        assert await store.check_recovery_code(ANA, CODE)


async def test_a_rotation_goes_on_while_flows_are_advanced(place: Place) -> None:
    async with place.store() as store:
        flow = await store.begin_flow(ANA, FlowKind.ENROLL, {"n": 0}, lifetime_s=60)
        place.keyring = Keyring(TWO)
        async with place.store() as rotating:
            await rotating.rotate_keys()
        place.keyring = Keyring(TWO)
        async with place.store() as other:
            advanced = await other.advance_flow(flow, {"n": 1})
            assert advanced is not None
            assert await other.flow(ANA) == advanced


@pytest.mark.rules
async def test_a_bot_learns_of_a_key_that_was_added_after_its_start(place: Place) -> None:
    path = place.folder / "template.keys"
    add_key(path)
    place.keyring = Keyring.load(path)
    async with place.store() as store:
        await enroll(store)
        second = add_key(path)
        place.keyring = Keyring.load(path)
        async with place.store() as rotating:
            assert await rotating.rotate_keys() == 1
            assert await rotating.keys_in_use() == {second: 1}
        assert await store.templates(ANA) is not None


@pytest.mark.rules
async def test_a_missing_key_refuses_to_start_and_says_which(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
    place.keyring = Keyring({"second": b"2" * 32})
    with pytest.raises(StoreError, match="Key first is missing"):
        async with place.store():
            pass


@pytest.mark.rules
async def test_a_wrong_key_refuses_to_start_and_says_which(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
    place.keyring = Keyring({"first": b"x" * 32})
    with pytest.raises(StoreError, match="Template key first is another one"):
        async with place.store():
            pass
    place.keyring, place.ids_key = Keyring({"first": b"1" * 32}), b"x" * 32
    with pytest.raises(StoreError, match="key of the ids is another one"):
        async with place.store():
            pass
    place.ids_key = b"i" * 32
    async with place.store() as store:
        assert await store.templates(ANA) is not None, "nothing was lost"


async def test_a_running_bot_protects_nobody_by_a_key_that_is_rotated_away(place: Place) -> None:
    path = place.folder / "template.keys"
    first = add_key(path)
    place.keyring = Keyring.load(path)
    async with place.store() as running:
        await enroll(running)
        second = add_key(path)
        place.keyring = Keyring.load(path)
        async with place.store() as operating:
            await operating.rotate_keys()
            await enroll(running, BEN)
            assert await operating.keys_in_use() == {second: 2}
            await operating.give_up_key(first)
            retire_key(path, first)
        await enroll(running, 3)
    place.keyring = Keyring.load(path)
    async with place.store() as store:
        for person in (ANA, BEN, 3):
            assert await store.templates(person) is not None


async def test_a_running_bot_protects_nobody_by_a_key_that_is_retired(place: Place) -> None:
    """It never protected anybody, so that there was nothing to rotate."""
    path = place.folder / "template.keys"
    first, old = add_key(path), Keyring.load(path)
    second = add_key(path)
    place.keyring = old
    async with place.store() as running:
        place.keyring = Keyring.load(path)
        async with place.store() as operating:
            await operating.give_up_key(first)
            retire_key(path, first)
            await enroll(running)
            assert await operating.keys_in_use() == {second: 1}


async def test_a_key_that_protects_somebody_is_not_given_up(place: Place) -> None:
    path = place.folder / "template.keys"
    first = add_key(path)
    place.keyring = Keyring.load(path)
    async with place.store() as running:
        await enroll(running)
        add_key(path)
        place.keyring = Keyring.load(path)
        async with place.store() as operating:
            with pytest.raises(StoreError, match="still protects 1 people"):
                await operating.give_up_key(first)
        await enroll(running, BEN)
        assert await running.keys_in_use() == {first: 2}


@pytest.mark.rules
async def test_keys_without_a_file_refuse_whom_they_would_lose(place: Place) -> None:
    place.keyring = Keyring({"first": TWO["first"]})
    async with place.store() as running:
        await enroll(running)
        place.keyring = Keyring(TWO)
        async with place.store() as operating:
            await operating.rotate_keys()
        with pytest.raises(StoreError, match="first was given up"):
            await enroll(running, BEN)
    async with place.store() as store:
        assert await store.templates(ANA) is not None
        assert await store.keys_in_use() == {"second": 1}
