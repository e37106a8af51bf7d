"""Photos and clips that came in: known again by keyed hashes and masked fingerprints, never kept.

Knows nothing about Telegram beyond that it names files.
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from sqlalchemy import select

from bot.store import people, seals
from bot.store.database import insert_of
from bot.store.fingerprints import fingerprint, is_copy, mask
from bot.store.people import Person
from bot.store.schema import captures, fingerprints
from bot.store.work import Work


async def claim(
    work: Work, telegram_id: int, file_unique_id: str, digest: bytes, patterns: Sequence[bytes]
) -> bool:
    """See `Store.claim_capture`.

    Args:
        work: a transaction that writes.
        telegram_id: who sent it.
        file_unique_id: Telegram's name for the file.
        digest: SHA-256 of its bytes.
        patterns: see `Store.add_fingerprints`, where they are known already.
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
    return not patterns or await _add(work, person, capture_id, patterns)


async def add_fingerprints(
    work: Work, telegram_id: int, file_unique_id: str, patterns: Sequence[bytes]
) -> bool:
    """See `Store.add_fingerprints`."""
    person = await people.find(work, telegram_id)
    if person is None:
        return False
    await seals.require(work, person.code)
    query = select(captures.c.id).where(
        captures.c.person == person.code,
        captures.c.file_mark == work.vault.mark("file", file_unique_id.encode()),
    )
    capture_id = (await work.connection.execute(query)).scalar_one_or_none()
    if capture_id is None:
        return False
    return await _add(work, person, capture_id, patterns)


async def _add(work: Work, person: Person, capture_id: int, patterns: Sequence[bytes]) -> bool:
    pad = person.pad
    masked = [mask(fingerprint(each), pad) for each in patterns]
    query = (
        select(fingerprints.c.capture, fingerprints.c.masked)
        .join(captures, captures.c.id == fingerprints.c.capture)
        .where(captures.c.person == person.code, captures.c.id != capture_id)
        .order_by(fingerprints.c.capture, fingerprints.c.place)
    )
    rows: Iterable[tuple[int, bytes]] = (tuple(row) for row in await work.connection.execute(query))
    earlier = [[mask(each, pad) for _, each in group] for _, group in groupby(rows, itemgetter(0))]
    if await asyncio.to_thread(is_copy, patterns, earlier):
        return False
    for place, each in enumerate(masked):
        await work.connection.execute(
            insert_of(work.connection, fingerprints)
            .values(capture=capture_id, place=place, masked=each)
            .on_conflict_do_nothing()
        )
    return True
