"""Seals: rows that whoever writes to the database, but lacks the key of the ids, cannot forge.

A person's row has a head for each table with rows of theirs, a hash of all of these rows, and a
seal: an HMAC, under a key that comes from the key of the ids, of everything that is in the row. So
a row that was changed, added, taken away, put back from earlier or moved from another person is
seen. A person's seal is checked when they are looked for, and made anew at the end of the
transaction in which they were looked for; whoever has a broken one stays so, and nobody passes.

What somebody who writes to the database, and has no key, can still do: put all rows of one person
back as they were at an earlier moment, all at once; delete a person, their holds included; put back
the audit trail as a whole, or the whole database. Against the last there are tombstones, which are
in a file too. Holds have no seals, because deleting one would not be seen. Seals are no secret:
the key of the ids is in a file (IDS_KEY), never in the database.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache, reduce
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    LargeBinary,
    RowMapping,
    Table,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    union_all,
    update,
)

from bot.store.errors import Tampered
from bot.store.schema import (
    attempts,
    audit_ends,
    captures,
    challenges,
    consents,
    contacts,
    enrolments,
    fingerprints,
    flows,
    invitations,
    metadata,
    people,
    recovery_marks,
    takeover,
    templates,
)
from bot.store.work import Work

SHORT_LIVED = (flows, challenges)
"""Not in backups."""
USUAL = (*SHORT_LIVED, enrolments, attempts, contacts, invitations, recovery_marks)
"""Whose heads are checked whenever a person is looked for."""
ON_USE = (captures, fingerprints)
"""Whose heads are checked by `require`: there are too many rows for always."""
OTHERWISE = (templates, consents)
"""Templates open with the person's data key only, which is new with every face; consents let nobody
do anything.
"""
SINGLE = (audit_ends, takeover)
"""Tables of one row, which has a seal of its own."""
# A migration that changes one of these tables has this changed, too, and sets all seals to NULL:
# then everything is sealed anew, once.
_VERSION = b"1"
_COMMA = literal_column("','", Text)


Values = RowMapping | Mapping[str, Any]
"""Of a row, by the names of its columns."""


def of_row(work: Work, table: Table, values: Values) -> bytes:
    """The seal of a row by itself.

    Args:
        work: has the keys.
        table: where the row is.
        values: all of the row's; its seal is left out.
    """
    return work.vault.mark(f"seal {table.name}", _text(values))


def is_whole(work: Work, table: Table, values: Values) -> bool:
    """Whether a row has the seal that it must have."""
    return hmac.compare_digest(values["seal"] or b"", of_row(work, table, values))


async def broken(work: Work, row: Values, tables: Iterable[Table] = USUAL) -> tuple[str, ...]:
    """Names of the tables in which a person's rows were changed without the key.

    Args:
        work: a transaction; one that writes has the person locked.
        row: theirs in `people`.
        tables: which ones are looked at, beside `people` itself.
    """
    if not is_whole(work, people, row):
        return (people.name,)
    names = [table.name for table in tables]
    now = await _heads_now(work, bytes(row["person"]), names)
    heads = _heads(row)
    return tuple(name for name in names if heads.get(name) != now.get(name))


async def require(work: Work, code: bytes) -> None:
    """See that a person's captures are all there, as they were left; they may change then.

    Args:
        work: a transaction in which the person was looked for.
        code: the person's.

    Raises:
        Tampered: they are not.
    """
    changing = work.changing[code]
    if changing:
        return
    query = select(people.c.heads).where(people.c.person == code)
    heads = _heads({"heads": (await work.connection.execute(query)).scalar_one()})
    names = [table.name for table in ON_USE]
    now = await _heads_now(work, code, names)
    changed = tuple(name for name in names if heads.get(name) != now.get(name))
    if changed:
        raise Tampered(code, changed)
    changing.update(ON_USE)


async def renew(work: Work) -> None:
    """Seal anew whoever may have been changed in this transaction; they are locked."""
    for code, changing in work.changing.items():
        await seal(work, code, (*USUAL, *changing))


async def seal(work: Work, code: bytes, tables: Iterable[Table] = (*USUAL, *ON_USE)) -> None:
    """Seal a person's rows as they are now.

    Args:
        work: a transaction that writes; the person is locked.
        code: the person's; somebody of whom there is no row is passed over.
        tables: of which the heads are made anew.
    """
    query = select(people).where(people.c.person == code)
    row = (await work.connection.execute(query)).mappings().one_or_none()
    if row is None:
        return
    names = [table.name for table in tables]
    others = {name: head for name, head in _heads(row).items() if name not in names}
    heads = others | await _heads_now(work, code, names)
    written = json.dumps(heads, sort_keys=True, separators=(",", ":"))
    sealed = of_row(work, people, {**row, "heads": written})
    if (row["heads"], row["seal"]) != (written, sealed):
        values = {"heads": written, "seal": sealed}
        await work.connection.execute(update(people).where(people.c.person == code).values(values))


def all_sealed(work: Work) -> bytes:
    """A tombstone of rows without seals: where it is, one without a seal is a forgery."""
    return work.vault.mark("sealed", _VERSION)


async def seal_unsealed(work: Work) -> None:
    """Seal all rows that have no seal: those of before there were any.

    To be called once in a database's life, or when the operator put an older one back.
    """
    query = select(people.c.person).where(people.c.seal.is_(None)).order_by(people.c.person)
    codes = (await work.connection.execute(query)).scalars().all()
    for code in codes:
        await seal(work, code)
    for table in SINGLE:
        query = select(table).where(table.c.seal.is_(None))
        for row in (await work.connection.execute(query)).mappings().all():
            values = {"seal": of_row(work, table, row)}
            await work.connection.execute(update(table).values(values))


async def check(work: Work) -> list[str]:
    """What was changed without the key, in sentences; see `audit.check` for the audit trail."""
    found = []
    query = select(people).order_by(people.c.person)
    for row in (await work.connection.execute(query)).mappings().all():
        for name in await broken(work, row, (*USUAL, *ON_USE)):
            found.append(f"{name}: of person {bytes(row['person']).hex()[:8]}")
    for row in (await work.connection.execute(select(takeover))).mappings().all():
        if not is_whole(work, takeover, row):
            found.append(f"{takeover.name}: the date")
    return found


async def _heads_now(work: Work, code: bytes, names: Iterable[str]) -> dict[str, str]:
    """Hashes of a person's rows as they are, by table; those without any are left out."""
    query = _rows(tuple(names), work.connection.dialect.name)
    rows: dict[str, list[str]] = {}
    for row in (await work.connection.execute(query, {"code": code})).all():
        rows.setdefault(row[0], []).append(row[1])
    return {
        name: hashlib.sha256("\n".join(sorted(each)).encode()).hexdigest()
        for name, each in rows.items()
    }


@cache
def _rows(names: tuple[str, ...], dialect: str) -> CompoundSelect[Any]:
    """One query for all rows of a person, each as a text that no other row has."""
    parts = []
    for name in names:
        table = metadata.tables[name]
        quoted = [_quoted(column, dialect) for column in table.columns]
        text = reduce(lambda before, each: before + _COMMA + each, quoted)
        part = select(literal_column(f"'{name}'", Text), text)
        theirs = table
        if table is fingerprints:
            theirs = captures
            part = part.join(captures, captures.c.id == fingerprints.c.capture)
        parts.append(part.where(theirs.c.person == bindparam("code", type_=LargeBinary)))
    return union_all(*parts)


def _quoted(column: Column[Any], dialect: str) -> ColumnElement[str]:
    if dialect == "sqlite":
        return func.quote(column, type_=Text)
    if isinstance(column.type, LargeBinary):
        return func.quote_nullable(func.encode(column, "hex"), type_=Text)
    return func.quote_nullable(cast(column, Text), type_=Text)


def _heads(row: Values) -> dict[str, str]:
    heads: dict[str, str] = json.loads(row["heads"] or "{}")
    return heads


def _text(values: Values) -> bytes:
    """A row as bytes, the same in every database; a column that is empty adds nothing."""
    plain = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None and name != "seal"
    }
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), default=bytes.hex).encode()
