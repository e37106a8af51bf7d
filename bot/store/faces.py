"""Templates of people's faces: rotated, sealed, replaced as a whole.

Knows nothing about who may enroll or how templates are compared.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import RowMapping, delete, select, update

from bot.store import audit, flows, holds, people, recovery
from bot.store.errors import Tampered
from bot.store.people import StoredPerson, template_row
from bot.store.rotation import SEED_BYTES, rotation
from bot.store.schema import challenges, consents, enrolments, templates
from bot.store.schema import flows as flows_table
from bot.store.schema import people as people_table
from bot.store.types import Enrolment, Flow, FlowKind, Right, Templates
from bot.store.work import Work

_STORED = np.dtype("<f8")


@dataclass(frozen=True, slots=True)
class Prepared:
    """An enrolment, ready to be stored.

    Attributes:
        enrolment: as it was given.
        seed: of the rotation.
        vectors: (k, d) float64, rotated.
        recovery: salt and hash of the new recovery code, if there is one.
    """

    enrolment: Enrolment
    seed: bytes = field(repr=False)
    vectors: NDArray[np.float64] = field(repr=False)
    recovery: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RotatedTemplates:
    """Templates as they are stored, decrypted.

    Attributes:
        embedder: id of the embedder that made them.
        seed: of the rotation.
        vectors: (k, d) float64, rotated.
    """

    embedder: str
    seed: bytes = field(repr=False)
    vectors: NDArray[np.float64] = field(repr=False)


def prepare(enrolment: Enrolment) -> Prepared:
    """Rotate the templates and hash the recovery code. Slow: call it in a thread.

    Raises:
        ValueError: the vectors are not (k, d), or not finite.
    """
    vectors = np.asarray(enrolment.vectors, np.float64)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(f"templates of shape {vectors.shape}, not (k, d)")
    if not np.isfinite(vectors).all():
        raise ValueError("templates with numbers that are not finite")
    seed = secrets.token_bytes(SEED_BYTES)
    rotated = vectors @ rotation(seed, vectors.shape[1])
    code = enrolment.recovery_code
    return Prepared(enrolment, seed, rotated, None if code is None else recovery.digest(code))


def rotate_back(rotated: RotatedTemplates) -> Templates:
    """Turn the rotation back. Slow: call it in a thread."""
    vectors = rotated.vectors @ rotation(rotated.seed, rotated.vectors.shape[1]).T
    return Templates(rotated.embedder, vectors.astype(np.float32))


async def enroll(work: Work, flow: Flow, prepared: Prepared) -> bool:
    """See `Store.enroll`."""
    person = await people.find(work, flow.telegram_id)
    if person is None or flow.kind is not FlowKind.ENROLL:
        return False
    if not await flows.is_current(work, person, flow):
        return False
    now = work.clock()
    enrolment = prepared.enrolment
    again = await row_of(work, person) is not None
    if not await _may(work, person, enrolment.right, again=again):
        return False
    for table in (templates, enrolments, flows_table):
        await work.connection.execute(delete(table).where(table.c.person == person.code))
    await work.connection.execute(
        update(challenges)
        .where(challenges.c.person == person.code, challenges.c.spent.is_(None))
        .values(spent=now)
    )
    person = await people.renew_key(work, person)
    if prepared.recovery is not None or enrolment.right is Right.CODE:
        code = enrolment.recovery_code
        mark = None if code is None else people.recovery_mark(work, code)
        await people.set_recovery(work, person, prepared.recovery, mark)
    await people.change(work, person, enrolments=people_table.c.enrolments + 1, reset_due=None)
    if enrolment.right is Right.CODE:
        await people.forgive(work, person)
    await _insert(work, person, prepared, now)
    await work.connection.execute(
        consents.insert().values(
            person=person.code,
            version=enrolment.consent,
            language=enrolment.language,
            given=now,
        )
    )
    await audit.append(
        work,
        "enrolled",
        person,
        again=again,
        consent=enrolment.consent,
        embedder=enrolment.embedder,
        recovery_code=prepared.recovery is not None,
        right=enrolment.right.value,
        templates=len(prepared.vectors),
    )
    return True


async def read(work: Work, telegram_id: int) -> RotatedTemplates | None:
    """A person's templates, decrypted but rotated."""
    person = await people.find(work, telegram_id)
    row = None if person is None else await row_of(work, person)
    if person is None or row is None:
        return None
    embedder = row["embedder"]
    query = select(templates).where(templates.c.person == person.code).order_by(templates.c.slot)
    key = person.key
    vectors = []
    for each in (await work.connection.execute(query)).all():
        place = ("templates", template_row(each.slot, each.is_mean), embedder)
        vector = np.frombuffer(key.open(each.vector, *place), _STORED)
        if not each.is_mean:  # versions before 0.2 kept the mean of the others, too
            vectors.append(vector)
    if len(vectors) != row["templates"]:
        raise Tampered(person.code, (templates.name,))
    seed = key.open(row["seed"], "enrolments", "seed", embedder)
    return RotatedTemplates(embedder, seed, np.vstack(vectors))


async def note_use(work: Work, person: StoredPerson) -> None:
    """Note that a person's templates were of use now."""
    await work.connection.execute(
        update(enrolments)
        .where(enrolments.c.person == person.code)
        .values(last_used=work.clock(), noticed=None)
    )


def deleted_on(work: Work, row: RowMapping) -> datetime:
    """When unused templates go: after their time, and not before the person's notice is over."""
    idle: datetime = (row["last_used"] or row["since"]) + timedelta(days=work.retention.idle_days)
    if row["noticed"] is None:
        return idle
    noticed: datetime = row["noticed"]
    return max(idle, noticed + timedelta(days=work.retention.notice_days))


async def row_of(work: Work, person: StoredPerson) -> RowMapping | None:
    """A person's row in `enrolments`, if they are enrolled."""
    query = select(enrolments).where(enrolments.c.person == person.code)
    return (await work.connection.execute(query)).mappings().one_or_none()


async def _may(work: Work, person: StoredPerson, right: Right, *, again: bool) -> bool:
    """Whether a person may store a face now, for what they say lets them."""
    if not again:
        return await holds.until(work, person.telegram_id) is None
    match right:
        case Right.FIRST:
            return False
        case Right.CODE:
            return person.recovery is not None
        case Right.VIDEO:
            return person.row["locked"] is None
        case Right.WAIT:
            due = person.row["reset_due"]
            return person.row["locked"] is None and due is not None and due <= work.clock()


async def _insert(work: Work, person: StoredPerson, prepared: Prepared, now: datetime) -> None:
    key, embedder = person.key, prepared.enrolment.embedder
    await work.connection.execute(
        enrolments.insert().values(
            person=person.code,
            embedder=embedder,
            templates=len(prepared.vectors),
            seed=key.seal(prepared.seed, "enrolments", "seed", embedder),
            since=now,
        )
    )
    for slot, vector in enumerate(prepared.vectors):
        row = template_row(slot, is_mean=False)
        await work.connection.execute(
            templates.insert().values(
                person=person.code,
                slot=slot,
                is_mean=False,
                vector=key.seal(vector.astype(_STORED).tobytes(), "templates", row, embedder),
            )
        )
