"""How the store's verbs reach the database: each is bound to one transaction, keys and clock.

A verb is a function whose first parameter is the transaction; `reads` and `writes` make methods of
verbs. At the end of a transaction that writes, whoever was changed in it is sealed anew
(`bot.store.seals`).
"""

import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store import audit, people, seals
from bot.store.database import LONG_S, Database
from bot.store.errors import StoreError, Tampered
from bot.store.types import Retention
from bot.store.vault import Vault
from bot.store.work import Work

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
Verb = Callable[Concatenate[Work, Arguments], Awaitable[Result]]
Method = Callable[Concatenate["Transactions", Arguments], Coroutine[Any, Any, Result]]


class Transactions:
    """What all parts of the store share.

    Args:
        database: where it is.
        vault: the keys.
        clock: the time, in UTC.
        retention: how long things are kept.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Callable[[], datetime],
        retention: Retention,
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._retention = retention
        self._tampered: set[bytes | None] = set()

    async def _read(
        self,
        verb: Verb[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        work = self._database.read(self._bound(False, verb, *args, **kwargs))
        return await self._reporting(work)

    async def _write(
        self,
        verb: Verb[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        work = self._database.write(self._bound(True, verb, *args, **kwargs))
        return await self._reporting(work)

    async def _write_many(
        self,
        verb: Verb[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """As `_write`, for work on many rows, which may take long."""
        work = self._bound(True, verb, *args, **kwargs)
        return await self._reporting(self._database.write(work, limit_s=LONG_S))

    def _bound(
        self,
        writes: bool,
        verb: Verb[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Callable[[AsyncConnection], Awaitable[Result]]:
        async def bound(connection: AsyncConnection) -> Result:
            work = Work(connection, self._vault, self._clock, writes, retention=self._retention)
            result = await verb(work, *args, **kwargs)
            if writes:
                await seals.renew(work)
            return result

        return bound

    async def _reporting(self, work: Awaitable[Result]) -> Result:
        """Have the operator told of rows that were changed without the key."""
        try:
            return await work
        except Tampered as fault:
            if fault.person not in self._tampered:
                await self._report(fault)
            raise

    async def _report(self, fault: Tampered) -> None:
        self._tampered.add(fault.person)
        logger.error(
            "tampered: rows of %s were changed without the key of the ids (%s); nobody passes by "
            "them. Look with: python -m bot db check",
            "the audit trail" if fault.person is None else "a person",
            ", ".join(fault.tables),
        )
        with contextlib.suppress(StoreError):  # the audit trail may be what was changed
            await self._write(_note, fault)


def reads(verb: Verb[Arguments, Result]) -> Method[Arguments, Result]:
    """A method of `Transactions` that does a verb which changes nothing."""

    async def method(
        self: Transactions, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return await self._read(verb, *args, **kwargs)

    functools.update_wrapper(method, verb)
    return method


def writes(verb: Verb[Arguments, Result]) -> Method[Arguments, Result]:
    """A method of `Transactions` that does a verb which changes something."""

    async def method(
        self: Transactions, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return await self._write(verb, *args, **kwargs)

    functools.update_wrapper(method, verb)
    return method


async def _note(work: Work, fault: Tampered) -> None:
    person = None if fault.person is None else await people.lock(work, fault.person)
    if person is not None:
        try:
            _ = person.subject
        except StoreError:
            person = None  # what tells whom it is about was changed too
    await audit.append(work, "tampered", person, tables=list(fault.tables))
