"""Languages that people chose, or are written to in."""

import secrets

from sqlalchemy import select

from bot.store.database import insert_of
from bot.store.schema import consents, preferences
from bot.store.work import Work


async def language(work: Work, telegram_id: int) -> str | None:
    """The language that a person chose, if any."""
    query = select(preferences.c.language)
    query = query.where(preferences.c.person == work.vault.code(telegram_id))
    return (await work.connection.execute(query)).scalar_one_or_none()


async def writing_language(work: Work, telegram_id: int) -> str | None:
    """The language to write to a person in: the one that they chose, or consented in."""
    chosen = await language(work, telegram_id)
    if chosen is not None:
        return chosen
    query = select(consents.c.language).where(consents.c.person == work.vault.code(telegram_id))
    query = query.order_by(consents.c.id.desc()).limit(1)
    return (await work.connection.execute(query)).scalar_one_or_none()


async def choose_language(work: Work, telegram_id: int, language: str) -> None:
    """Remember the language that a person chose."""
    statement = insert_of(work.connection, preferences).values(
        person=work.vault.code(telegram_id), language=language, mark=secrets.token_bytes(32)
    )
    statement = statement.on_conflict_do_update(
        index_elements=[preferences.c.person], set_={"language": language}
    )
    await work.connection.execute(statement)
