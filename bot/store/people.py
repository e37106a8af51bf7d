"""A person's row, on which all that is theirs hangs, and the secrets that are theirs alone.

Whoever changes something of a person has their row locked first, so that two devices, or two
replicas, come one after the other. Knows nothing about faces, attempts or conversations.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table, delete, exists, func, or_, select, update

from bot.store import endings, seals
from bot.store.database import insert_of
from bot.store.errors import StoreError, Tampered
from bot.store.recovery import canonical
from bot.store.schema import (
    attempts,
    captures,
    challenges,
    consents,
    contacts,
    enrolments,
    fingerprints,
    flows,
    invitations,
    key_marks,
    people,
    preferences,
    recovery_marks,
    templates,
)
from bot.store.vault import DataKey, Vault
from bot.store.work import Work

_SECRET_BYTES = 32
_SUBJECT_BYTES = 16
# How often a person may be erased by others between being added and being found.
_TRIES = 5

NOTHING_COUNTED: dict[str, Any] = {
    "failed_photo": 0,
    "failed_video": 0,
    "voided": 0,
    "drawn": None,
}
"""Of somebody who has just passed by video, or was forgiven."""

ERASED: tuple[Table, ...] = (
    fingerprints,
    captures,
    templates,
    enrolments,
    consents,
    flows,
    challenges,
    attempts,
    contacts,
    invitations,
    recovery_marks,
    people,
    preferences,
)
"""Where rows of a person are."""


@dataclass(frozen=True, slots=True)
class StoredPerson:
    """A person's row, as it was read.

    Attributes:
        row: of `people`.
        vault: opens what is sealed in it.
        broken: names of the tables in which rows of theirs were changed without the key.
    """

    row: RowMapping
    vault: Vault
    broken: tuple[str, ...] = ()

    @property
    def code(self) -> bytes:
        """What stands for them in the tables."""
        return bytes(self.row["person"])

    @property
    def mark(self) -> bytes:
        """What is in every copy of their row, and says nothing about whose it is."""
        return bytes(self.row["mark"])

    @property
    def key(self) -> DataKey:
        """Their data key.

        Raises:
            StoreError: the template key that wraps it is missing or wrong.
        """
        return self.vault.unwrap(self.code, self.row["key_id"], self.row["wrapped_key"])

    @property
    def subject(self) -> bytes:
        """What stands for them in the audit trail; without their secret nobody can say so."""
        return self._derive(b"audit")[:_SUBJECT_BYTES]

    @property
    def pad(self) -> bytes:
        """32 bytes that mask their fingerprints."""
        return self._derive(b"fingerprints")

    @property
    def telegram_id(self) -> int:
        """Their Telegram id, which is also their chat's."""
        return int(self.key.open(self.row["address"], "people", "address"))

    @property
    def recovery(self) -> bytes | None:
        """Salt and hash of their recovery code, if they have one."""
        sealed = self.row["recovery"]
        return None if sealed is None else self.key.open(sealed, "people", "recovery")

    def _derive(self, purpose: bytes) -> bytes:
        secret = self.key.open(self.row["secret"], "people", "secret")
        return hmac.digest(secret, purpose, hashlib.sha256)


async def find(work: Work, telegram_id: int) -> StoredPerson | None:
    """A person, if the store knows them; locked where the transaction writes.

    Raises:
        Tampered: their rows were changed without the key: nobody is to be let in.
    """
    person = await lock(work, work.vault.code(telegram_id))
    if person is not None and person.broken:
        raise Tampered(person.code, person.broken)
    return person


async def find_or_add(work: Work, telegram_id: int) -> StoredPerson:
    """A person, locked; new ones get a data key.

    Raises:
        StoreError: there are no template keys.
        Tampered: see `find`.
    """
    for _ in range(_TRIES):
        person = await find(work, telegram_id)
        if person is not None:
            return person
        await _add(work, telegram_id)
    raise StoreError("This person is being erased at the same time: try again.")


async def change(work: Work, person: StoredPerson, **values: Any) -> None:
    """Change a person's row; a face or lock that ends by it does not come back with a backup."""
    if person.row["enrolments"] and "enrolments" in values:
        await endings.note(work, endings.of_face(work, person.mark, person.row["enrolments"]))
    if "locked" in values:
        await endings.note_lock(work, person.mark, locked=values["locked"] is not None)
    await work.connection.execute(
        update(people).where(people.c.person == person.code).values(values)
    )


async def set_recovery(
    work: Work, person: StoredPerson, digest: bytes | None, mark: bytes | None = None
) -> None:
    """Give a person the salt and hash of a recovery code, or none.

    Args:
        work: a transaction that writes.
        person: locked.
        digest: salt and hash.
        mark: by which the code finds its owner (`recovery_mark`).
    """
    before = person.recovery
    if before is not None:
        await endings.note(work, endings.of_code(work, person.mark, before))
    sealed = None if digest is None else person.key.seal(digest, "people", "recovery")
    await change(work, person, recovery=sealed)
    await work.connection.execute(
        delete(recovery_marks).where(recovery_marks.c.person == person.code)
    )
    if mark is not None:
        await work.connection.execute(recovery_marks.insert().values(person=person.code, mark=mark))


async def mark_recovery(work: Work, person: StoredPerson, code: str) -> None:
    """Have a person's recovery code find them, unless it does already."""
    statement = insert_of(work.connection, recovery_marks).values(
        person=person.code, mark=recovery_mark(work, code)
    )
    await work.connection.execute(statement.on_conflict_do_nothing())


def recovery_mark(work: Work, code: str) -> bytes:
    """What finds the owner of a recovery code, and without the key of the ids tells nothing."""
    return work.vault.mark("recovery", canonical(code).encode())


async def forgive(work: Work, person: StoredPerson) -> None:
    """Lift a person's lock and delays, and count none of their failures any more."""
    newest = select(func.coalesce(func.max(attempts.c.id), 0))
    newest = newest.where(attempts.c.person == person.code)
    await change(
        work,
        person,
        cleared_through=newest.scalar_subquery(),
        locked=None,
        locked_by=None,
        alarm=None,
        **NOTHING_COUNTED,
    )


async def renew_key(work: Work, person: StoredPerson) -> StoredPerson:
    """Give a person a new data key, under the newest template key, and seal what is theirs anew.

    What was sealed under the old key, in whatever copy of the database, is not opened by the new.
    """
    old = person.key
    new, wrapped = await _new_data_key(work, person.code)
    values: dict[str, Any] = {"key_id": new.key_id, "wrapped_key": wrapped}
    for column in ("secret", "address", "recovery"):
        sealed = person.row[column]
        if sealed is not None:
            values[column] = new.seal(old.open(sealed, "people", column), "people", column)
    await change(work, person, **values)
    await reseal_face(work, old, new)
    await reseal_contact(work, old, new)
    query = select(flows.c.id, flows.c.kind, flows.c.state).where(flows.c.person == person.code)
    for flow_id, kind, state in (await work.connection.execute(query)).all():
        place = ("flows", flow_row(flow_id, kind))
        sealed = new.seal(old.open(state, *place), *place)
        await work.connection.execute(
            update(flows).where(flows.c.id == flow_id).values(state=sealed)
        )
    renewed = await lock(work, person.code)
    assert renewed is not None
    return renewed


async def erase(work: Work, code: bytes) -> dict[str, int]:
    """Erase all rows of a person, and leave tombstones; returns how many rows of each table.

    Args:
        work: a transaction that writes.
        code: the person's.
    """
    counts = {}
    for table in ERASED:
        condition: ColumnElement[bool]
        if table is fingerprints:
            theirs = select(captures.c.id).where(captures.c.person == code)
            condition = fingerprints.c.capture.in_(theirs)
        else:
            condition = table.c.person == code
        if table in (people, preferences):
            marks = (await work.connection.execute(select(table.c.mark).where(condition))).scalars()
            for mark in marks.all():
                await endings.note(work, mark)
        result = await work.connection.execute(delete(table).where(condition))
        counts[table.name] = result.rowcount
    return counts


async def unused(work: Work) -> Sequence[bytes]:
    """Codes of people of whom nothing is left but their row."""
    query = select(people.c.person).where(~_held()).order_by(people.c.person)
    return (await work.connection.execute(query)).scalars().all()


async def drop_if_unused(work: Work, code: bytes) -> bool:
    """Delete a person's row if nothing is left of them but the row; whether it was deleted."""
    # Locked first, so that what is looked for next is not added meanwhile.
    if await lock(work, code) is None:
        return False
    statement = delete(people).where(people.c.person == code, ~_held())
    return (await work.connection.execute(statement)).rowcount == 1


async def codes_under_other_keys(work: Work, key_id: str, limit: int) -> Sequence[bytes]:
    """Codes of people whose data key another template key wraps."""
    query = select(people.c.person).where(people.c.key_id != key_id).limit(limit)
    return (await work.connection.execute(query)).scalars().all()


async def leave_old_key(work: Work, code: bytes, key_id: str) -> bool:
    """Renew a person's data key unless the newest template key wraps it; whether it was renewed."""
    person = await lock(work, code)
    if person is None or person.row["key_id"] == key_id:
        return False
    await renew_key(work, person)
    return True


async def find_by_code(work: Work, code: bytes) -> StoredPerson | None:
    """As `find`, by the code; whoever's rows were changed without the key is passed over."""
    person = await lock(work, code)
    return None if person is None or person.broken else person


async def lock(work: Work, code: bytes) -> StoredPerson | None:
    """As `find`, by the code, and whoever changed their rows.

    What is done to somebody whose seal is broken leaves it broken.
    """
    query = select(people).where(people.c.person == code)
    if work.writes:
        query = query.with_for_update()
    row = (await work.connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    code = bytes(row["person"])
    broken = () if code in work.changing else await seals.broken(work, row)
    if not broken:
        work.changing.setdefault(code, set())
    return StoredPerson(row, work.vault, broken)


async def count_by_key(work: Work) -> dict[str, int]:
    """How many people each template key protects, by its id."""
    query = select(people.c.key_id, func.count()).group_by(people.c.key_id)
    rows = (await work.connection.execute(query)).all()
    return {row[0]: row[1] for row in rows}


def flow_row(flow_id: int, kind: str) -> str:
    """Where a flow's state is sealed to."""
    return f"{flow_id} {kind}"


def template_row(slot: int, is_mean: bool) -> str:
    """Where a template is sealed to."""
    return "mean" if is_mean else str(slot)


def _held() -> ColumnElement[bool]:
    """Whether a person's row is needed."""
    tables = (enrolments, flows, challenges, attempts, captures, consents)
    used = [exists().where(table.c.person == people.c.person) for table in tables]
    return or_(*used, people.c.reset_due.is_not(None), people.c.locked.is_not(None))


async def _add(work: Work, telegram_id: int) -> None:
    code = work.vault.code(telegram_id)
    key, wrapped = await _new_data_key(work, code)
    secret = secrets.token_bytes(_SECRET_BYTES)
    statement = insert_of(work.connection, people).values(
        person=code,
        mark=secrets.token_bytes(32),
        key_id=key.key_id,
        wrapped_key=wrapped,
        secret=key.seal(secret, "people", "secret"),
        address=key.seal(str(telegram_id).encode(), "people", "address"),
        enrolments=0,
        cleared_through=0,
        **NOTHING_COUNTED,
    )
    if (await work.connection.execute(statement.on_conflict_do_nothing())).rowcount == 1:
        await seals.seal(work, code)


async def _new_data_key(work: Work, code: bytes) -> tuple[DataKey, bytes]:
    """A new data key, under a template key that will stay.

    Raises:
        StoreError: there are no template keys, or another process has given up the newest here.
    """
    keyring = work.vault.keyring
    if await _is_closed(work, keyring.current):
        keyring.reload()
        if await _is_closed(work, keyring.current):
            raise StoreError(
                f"Template key {keyring.current} was given up for a newer one, and nothing new is "
                "protected by it: start the bot with the newest key file."
            )
    return work.vault.new_data_key(code)


async def _is_closed(work: Work, key_id: str) -> bool:
    """Whether a template key was given up; until the transaction ends it is not if it is not."""
    query = select(key_marks.c.closed).where(key_marks.c.key_id == key_id)
    query = query.with_for_update(read=True)
    return (await work.connection.execute(query)).scalar_one_or_none() is not None


async def reseal_contact(work: Work, old: DataKey, new: DataKey) -> None:
    """Seal the address of a person's contact anew, and have it stand for whom the new key is."""
    query = select(contacts.c.address).where(contacts.c.person == old.person)
    address = (await work.connection.execute(query)).scalar_one_or_none()
    if address is not None:
        place = ("contacts", "address")
        await work.connection.execute(
            update(contacts)
            .where(contacts.c.person == old.person)
            .values(person=new.person, address=new.seal(old.open(address, *place), *place))
        )


async def reseal_face(work: Work, old: DataKey, new: DataKey) -> None:
    """Seal a person's templates anew, and have them stand for whom the new key is."""
    query = select(enrolments.c.embedder, enrolments.c.seed)
    query = query.where(enrolments.c.person == old.person)
    enrolment = (await work.connection.execute(query)).one_or_none()
    if enrolment is None:
        return
    embedder, seed = enrolment
    place = ("enrolments", "seed", embedder)
    sealed = new.seal(old.open(seed, *place), *place)
    await work.connection.execute(
        update(enrolments)
        .where(enrolments.c.person == old.person)
        .values(person=new.person, seed=sealed)
    )
    faces = select(templates).where(templates.c.person == old.person)
    for row in (await work.connection.execute(faces)).all():
        place = ("templates", template_row(row.slot, row.is_mean), embedder)
        sealed = new.seal(old.open(row.vector, *place), *place)
        await work.connection.execute(
            update(templates)
            .where(templates.c.person == old.person, templates.c.slot == row.slot)
            .values(person=new.person, vector=sealed)
        )
