"""What a person is told and given, and that nothing of them is left when they say so."""

import json
import logging
import re
import shutil
from datetime import timedelta

import numpy as np
import pytest

from bot.store import FlowKind, Retention, Right, Store, StoreError
from bot.store.fingerprints import fingerprint
from tests.bot import fakes
from tests.bot.store.places import (
    ANA,
    BEN,
    CODE,
    EMBEDDER,
    Place,
    begin,
    challenged,
    enroll,
    enrolment,
    everything,
    fail,
    finish,
    name_contact,
    vectors,
)

NAME = "Ana Canaria"
FILE = "AgADcanary-file"
CONTACT = 7_123_456_789
CONTENT = b"canary content " * 400
PATTERN = fakes.pattern(0)


async def live(store: Store, person: int) -> None:
    """Do everything that leaves something behind."""
    await store.choose_language(person, "es")
    flow = await store.begin_flow(person, FlowKind.ENROLL, {"name": NAME}, lifetime_s=60)
    packed = vectors(seed=person).tobytes().hex()
    flow = await store.advance_flow(flow, {"name": NAME, "vectors": packed}) or flow
    content = CONTENT + bytes([person % 256])
    assert await store.claim_capture(person, f"{FILE}{person}", content, [PATTERN])
    code = CODE if person == ANA else CODE[::-1]
    assert await store.enroll(flow, enrolment(vectors(seed=person), recovery_code=code))
    await name_contact(store, CONTACT, person)
    await fail(store, person, times=2)
    await finish(store, await begin(store, person), passed=True)
    await store.schedule_reset(person, delay_s=60)
    await challenged(store, person)
    await store.begin_flow(person, FlowKind.RESET, {"name": NAME}, lifetime_s=60)


def spellings(person: int) -> list[bytes]:
    """Of an id, an embedding, a name, a code and a capture, as bytes might have them."""
    faces = vectors(seed=person)
    faces64 = faces.astype(np.float64)
    rows = [*faces, faces.mean(axis=0, dtype=np.float32)]
    return [
        str(person).encode(),
        f"{person:x}".encode(),
        *(person.to_bytes(size, order) for size in (5, 8) for order in ("big", "little")),
        *(row.tobytes()[:16] for row in rows),
        *(row.tobytes()[:16] for row in faces64),
        faces[0].tobytes().hex()[:32].encode(),
        NAME.encode(),
        CODE.encode(),
        CODE.replace("-", "").encode(),
        FILE.encode(),
        CONTENT[:15],
        PATTERN,
        fingerprint(PATTERN),
    ]


def found(raw: bytes, wanted: list[bytes]) -> list[bytes]:
    return [each for each in wanted if re.search(re.escape(each), raw, re.IGNORECASE)]


async def test_a_stolen_database_gives_neither_faces_nor_ids(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await live(store, ANA)
        raw = everything(sqlite.folder)  # while it is open: the write-ahead log is there as well
        assert (sqlite.folder / "bot.db-wal").stat().st_size > 0
        assert b"people" in raw
        assert found(raw, spellings(ANA)) == []


def of_person(place: Place, person: int, rows: dict[str, list[bytes]]) -> list[bytes]:
    """What stands for a person in the database: their code and all that was sealed for them."""
    return [place.vault.code(person), *(value for values in rows.values() for value in values)]


async def sealed_rows(place: Place, person: int) -> dict[str, list[bytes]]:
    code = place.vault.code(person).hex()
    wanted = {
        "people": ("wrapped_key", "secret", "address", "recovery", "mark"),
        "enrolments": ("seed",),
        "templates": ("vector",),
        "flows": ("state",),
        "captures": ("file_mark", "content_mark"),
        "challenges": ("nonce_hash",),
        "contacts": ("address",),
        "invitations": ("mark",),
        "recovery_marks": ("mark",),
    }
    rows: dict[str, list[bytes]] = {}
    for table, columns in wanted.items():
        found_rows = await place.sql(
            f"SELECT {', '.join(columns)} FROM {table} WHERE person = x'{code}'"
        )
        assert found_rows, table
        rows[table] = [bytes(value)[:24] for row in found_rows for value in row]
    # Marks are what tombstones are made of: random, and about nobody once the row is gone.
    mark = rows["people"].pop(4)
    assert len(mark) == 24
    return rows


async def test_nothing_of_a_person_is_left_in_any_file(
    sqlite: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with sqlite.store() as store:
        await live(store, ANA)
        await live(store, BEN)
        rows = await sealed_rows(sqlite, ANA)
        wanted = of_person(sqlite, ANA, rows) + spellings(ANA)
        there = found(everything(sqlite.folder), wanted)
        assert set(of_person(sqlite, ANA, rows)) == set(there), "the test finds what is there"
        receipt = await store.forget(ANA)
        assert found(everything(sqlite.folder), wanted) == []
        assert receipt.counts["templates"] == 3
        assert receipt.counts["captures"] == receipt.counts["preferences"] == 1
        assert await store.membership(ANA) is await store.templates(ANA) is None
        assert await store.flow(ANA) is await store.language(ANA) is None
        assert await store.templates(BEN) is not None
        assert await store.language(BEN) == "es"
    assert found(everything(sqlite.folder), wanted) == []
    assert found(caplog.text.encode(), wanted) == []


async def test_forgetting_on_either_database(place: Place) -> None:
    async with place.store() as store:
        await live(store, ANA)
        await live(store, BEN)
        counts = (await store.forget(ANA)).counts
        assert counts == {
            "fingerprints": 1,
            "captures": 1,
            "templates": 3,
            "enrolments": 1,
            "consents": 1,
            "flows": 1,
            "challenges": 4,
            "attempts": 3,
            "contacts": 1,
            "invitations": 1,
            "recovery_marks": 1,
            "people": 1,
            "preferences": 1,
        }
        assert set((await store.forget(ANA)).counts.values()) == {0}
        assert await store.membership(BEN) is not None
        exported = await store.export(ANA)
        assert exported["enrolled"] is exported["language"] is None
        assert exported["audit"] == exported["attempts"] == exported["consents"] == []
        place.clock.advance(hours=24)
        await live(store, ANA)  # and they may come back
        assert await store.membership(ANA) is not None


async def test_the_export_is_all_that_is_kept_and_json(place: Place) -> None:
    async with place.store() as store:
        await live(store, ANA)
        exported = json.loads(json.dumps(await store.export(ANA)))
        assert exported["language"] == "es"
        assert exported["enrolled"]["embedder"] == EMBEDDER
        assert exported["enrolled"]["since"] == place.clock.now.isoformat()
        assert exported["enrolled"]["templates"] == 3
        assert "templates" not in exported, "whoever has the chat would have the face"
        whole = json.loads(json.dumps(await store.export(ANA, vectors=True)))
        np.testing.assert_allclose(whole["templates"]["vectors"], vectors(seed=ANA), atol=1e-6)
        assert [each["outcome"] for each in exported["attempts"]] == ["failed", "failed", "passed"]
        assert exported["captures"]["count"] == 1
        assert exported["flow"]["kind"] == "reset"
        assert exported["recovery_code"] is True
        assert exported["contact"] == {"since": place.clock.now.isoformat(), "ends": None}
        assert exported["challenges"] == 4
        assert exported["audit"][0]["event"] == "enrolled"
        events = [entry["event"] for entry in (await store.export(ANA))["audit"]]
        assert events[-1] == "exported"
        assert (await store.export(BEN))["enrolled"] is None


async def test_who_is_erased_is_held_by_a_mark_that_goes(place: Place) -> None:
    async with place.store(retention=Retention(hold_hours=2)) as store:
        await live(store, ANA)
        code = place.vault.code(ANA)
        failed = place.clock.now
        place.clock.advance(hours=23, minutes=30)
        receipt = await store.forget(ANA)
        # For its time, and not before the failures count no more: whichever is later.
        until = max(place.clock.now + timedelta(hours=2), failed + timedelta(hours=24))
        assert receipt.held_until == until
        assert (await store.export(ANA))["held_until"] == until.isoformat()
        ((mark,),) = await place.sql("SELECT mark FROM holds")
        assert bytes(mark) != code
        assert (await store.forget(ANA)).held_until == until, "nothing renews it"
        flow = await store.begin_flow(ANA, FlowKind.ENROLL, {}, lifetime_s=60)
        assert not await store.enroll(flow, enrolment(right=Right.FIRST))
        assert await store.held_until(BEN) is None
        place.clock.advance(hours=2)
        assert await store.held_until(ANA) is None
        assert (await store.tidy()).counts["holds"] == 1
        assert await place.sql("SELECT mark FROM holds") == []
        await enroll(store, ANA, enrolment(right=Right.FIRST))


async def test_failures_are_not_forgotten_by_being_erased(place: Place) -> None:
    async with place.store(retention=Retention(hold_hours=1)) as store:
        await enroll(store)
        await fail(store, times=4)
        until = place.clock.now + timedelta(hours=24)
        assert (await store.forget(ANA)).held_until == until


async def test_a_mark_of_a_clock_that_was_ahead_is_shortened(place: Place) -> None:
    async with place.store() as store:
        await enroll(store)
        place.clock.advance(days=30)
        await store.forget(ANA)
        place.clock.advance(days=-30)
        await store.confirm_clock()
        await store.erasing_waits()
        assert await store.held_until(ANA) == place.clock.now + timedelta(hours=24)


async def test_whoever_had_no_face_is_not_held(store: Store) -> None:
    await store.choose_language(ANA, "es")
    assert (await store.forget(ANA)).held_until is None


async def test_the_export_shows_neither_scores_nor_reasons(store: Store) -> None:
    await live(store, ANA)
    exported = await store.export(ANA)
    assert {"verified", "refused"} <= {entry["event"] for entry in exported["audit"]}
    for entry in exported["audit"] + exported["attempts"]:
        assert not {"bucket", "reason", "score"} & entry.keys()


async def test_a_restored_older_database_does_not_bring_the_erased_back(sqlite: Place) -> None:
    kept = sqlite.folder / "kept.db"
    async with sqlite.store() as store:
        await live(store, ANA)
        await live(store, BEN)
    shutil.copy(sqlite.path, kept)  # by hand, without a word to the bot
    async with sqlite.store() as store:
        await store.forget(ANA)
        assert await store.unlock(ANA)
        await live(store, ANA)
        await store.forget(BEN)
    shutil.copy(kept, sqlite.path)
    async with sqlite.store() as store:
        for person in (ANA, BEN):
            assert await store.membership(person) is await store.language(person) is None
        assert await store.check_audit() is None
        assert await store.unlock(BEN), "and is held as after /forget"
        await enroll(store, BEN)
    async with sqlite.store() as store:
        assert await store.membership(BEN) is not None, "who came back afterwards stays"


async def test_tombstones_reach_the_file_again_when_it_was_lost(place: Place) -> None:
    async with place.store() as store:
        await live(store, ANA)
        await store.forget(ANA)
    marks = {bytes(mark) for (mark,) in await place.sql("SELECT mark FROM tombstones")}
    assert len(marks) == 3  # and that all rows have seals
    place.tombstones.unlink()
    async with place.store():
        pass
    assert set(map(bytes.fromhex, place.tombstones.read_text().split())) == marks
    with place.tombstones.open("ab") as file:
        file.write(b"deadbe")  # a power cut tore a line
    async with place.store() as store:
        await live(store, BEN)
        await store.forget(BEN)
    assert len(await place.sql("SELECT mark FROM tombstones")) == 5
    async with place.store():
        pass
    whole = [line for line in place.tombstones.read_text().split() if len(line) == 64]
    assert len(whole) == len(set(whole)) == 5


async def test_no_fault_says_anything_about_a_person(sqlite: Place) -> None:
    async with sqlite.store() as store:
        await live(store, ANA)
        wanted = of_person(sqlite, ANA, await sealed_rows(sqlite, ANA)) + spellings(ANA)
        wanted += [each.hex().encode() for each in wanted]
        await sqlite.sql("ALTER TABLE people RENAME TO peoples")
        texts = []
        for verb in (
            store.membership(ANA),
            store.forget(ANA),
            store.claim_capture(ANA, FILE, CONTENT, [PATTERN]),
            store.begin_flow(ANA, FlowKind.ENROLL, {"name": NAME}, lifetime_s=1),
        ):
            with pytest.raises(StoreError) as caught:
                await verb
            texts.append(told(caught.value))
    assert found("\n".join(texts).encode(), wanted) == []


def told(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
