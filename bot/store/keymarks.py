"""Knows a database's keys again, so that a wrong one is found at the start and not at a login.

And the bot that it is of.
"""

import hmac

from sqlalchemy import select, update

from bot.store import people
from bot.store.errors import StoreError
from bot.store.schema import key_marks
from bot.store.work import Work

_IDS = ""
_BOT = " bot"
"""No key's name has a space in it."""


async def check(work: Work) -> None:
    """See that the keys are those that the database was made with; new template keys are noted.

    Raises:
        StoreError: one is another one, or one that protects somebody is missing.
    """
    known = {
        row.key_id: bytes(row.mark)
        for row in (await work.connection.execute(select(key_marks))).all()
    }
    if not await _fits(work, known, _IDS, work.vault.mark("ids", b"")):
        raise StoreError(
            "The key of the ids is another one than the database was made with: put the right "
            "file back, or name it in IDS_KEY."
        )
    if not work.vault.has_keys:
        return
    keyring = work.vault.keyring
    for key_id in await people.count_by_key(work):
        keyring.key(key_id)  # or the complaint that it is missing
    for key_id in keyring.ids:
        if not await _fits(work, known, key_id, work.vault.key_mark(key_id)):
            raise StoreError(
                f"Template key {key_id} is another one than the one of this name that the "
                "database was made with: put the right line back into the key file."
            )


async def is_bot(work: Work, bot_id: int) -> bool:
    """Whether no other bot had the database before this one, which has it from now on."""
    mark = work.vault.mark("bot", str(bot_id).encode())
    query = select(key_marks.c.mark).where(key_marks.c.key_id == _BOT)
    known = (await work.connection.execute(query)).scalar_one_or_none()
    if known is None:
        await work.connection.execute(key_marks.insert().values(key_id=_BOT, mark=mark))
        return True
    ours = bytes(known) == mark
    if not ours:
        changed = update(key_marks).where(key_marks.c.key_id == _BOT).values(mark=mark)
        await work.connection.execute(changed)
    return ours


async def close_older(work: Work) -> None:
    """Give up the template keys that are here but the newest: they protect nothing new any more."""
    older = key_marks.c.key_id.in_(work.vault.keyring.ids[:-1])
    await work.connection.execute(
        update(key_marks).where(older, key_marks.c.closed.is_(None)).values(closed=work.clock())
    )


async def give_up(work: Work, key_id: str) -> None:
    """See that a template key may be destroyed: nobody will be protected by it any more.

    Args:
        work: a transaction.
        key_id: not the newest one's.

    Raises:
        StoreError: it protects somebody.
    """
    await work.connection.execute(
        update(key_marks).where(key_marks.c.key_id == key_id).values(closed=work.clock())
    )
    # After that, because whoever was being protected by it meanwhile is there now.
    count = (await people.count_by_key(work)).get(key_id, 0)
    if count:
        raise StoreError(
            f"Key {key_id} still protects {count} people: move them first, with: python -m bot "
            "keys rotate"
        )


async def _fits(work: Work, known: dict[str, bytes], key_id: str, mark: bytes) -> bool:
    if key_id in known:
        return hmac.compare_digest(known[key_id], mark)
    await work.connection.execute(key_marks.insert().values(key_id=key_id, mark=mark))
    return True
