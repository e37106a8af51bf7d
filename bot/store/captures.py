"""Photos and clips that came in: known again by keyed hashes and masked fingerprints, never kept.

Knows nothing about Telegram beyond that it names files.
"""

import secrets
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from sqlalchemy import select

from bot.store import people, seals
from bot.store.database import insert_of
from bot.store.fingerprints import Least, fingerprint, is_copy, likeness, mask
from bot.store.people import StoredPerson
from bot.store.schema import captures, fingerprints
from bot.store.types import Known
from bot.store.work import Work


async def read(work: Work, telegram_id: int) -> Known:
    """What a person's photos and clips are known by."""
    person = await people.find(work, telegram_id)
    if person is None:
        return {}
    await seals.require(work, person.code)
    return await read_of(work, person)


async def claim(
    work: Work,
    telegram_id: int,
    file_unique_id: str,
    digest: bytes,
    patterns: Sequence[bytes],
    compared: Known,
    least: Least,
) -> bool:
    """See `Store.claim_capture`.

    Args:
        work: a transaction that writes.
        telegram_id: who sent it.
        file_unique_id: Telegram's name for the file.
        digest: SHA-256 of its bytes.
        patterns: of the face, where they are known.
        compared: the captures with which the patterns were compared before the transaction.
        least: how near they come to those. What was added meanwhile is compared in here.
    """
    person = await people.find_or_add(work, telegram_id)
    await seals.require(work, person.code)
    statement = insert_of(work.connection, captures).values(
        id=secrets.randbits(63),
        person=person.code,
        file_mark=work.vault.mark("file", file_unique_id.encode()),
        content_mark=work.vault.mark("content", digest),
        seen=work.clock(),
    )
    # Of either mark: the same file, or the same bytes under another name.
    statement = statement.on_conflict_do_nothing().returning(captures.c.id)
    capture_id = (await work.connection.execute(statement)).scalar_one_or_none()
    if capture_id is None:
        return False
    masked = [mask(fingerprint(each), person.pad) for each in patterns]
    known = await read_of(work, person) if patterns else {}
    added = [prints for capture, prints in known.items() if capture not in compared]
    if is_copy(np.minimum(least, likeness(patterns, added))):
        return False
    for place, each in enumerate(masked):
        await work.connection.execute(
            fingerprints.insert().values(capture=capture_id, place=place, masked=each)
        )
    return True


async def read_of(work: Work, person: StoredPerson) -> Known:
    """As `read`, of a person who was looked up; whether the rows are the bot's is not looked at."""
    query = (
        select(fingerprints.c.capture, fingerprints.c.masked)
        .join(captures, captures.c.id == fingerprints.c.capture)
        .where(captures.c.person == person.code)
        .order_by(fingerprints.c.capture, fingerprints.c.place)
    )
    rows = [(row[0], row[1]) for row in (await work.connection.execute(query)).all()]
    pad = person.pad
    return {
        capture: [mask(each, pad) for _, each in group]
        for capture, group in groupby(rows, itemgetter(0))
    }
