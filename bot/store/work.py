"""What a verb of the store works with: one transaction, the keys, the clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.types import Retention
from bot.store.vault import Vault

CLOCKS_DIFFER = timedelta(minutes=1)
"""By how much the clocks of replicas may differ; what is later is of a clock that was wrong."""


@dataclass(frozen=True, slots=True)
class Work:
    """One transaction.

    Attributes:
        connection: in the transaction.
        vault: the keys.
        clock: the time, in UTC. To be asked after rows were locked, which may take a while.
        writes: whether the transaction is one that writes, so that what it reads is locked.
        changing: codes of people whose seals were whole when they were looked for, and of which
            tables beyond the usual they were looked at; see `bot.store.seals`.
        retention: how long things are kept.
    """

    connection: AsyncConnection
    vault: Vault
    clock: Callable[[], datetime]
    writes: bool
    changing: dict[bytes, set[Table]] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)

    def lately(self, moment: ColumnElement[Any], window: timedelta) -> ColumnElement[bool]:
        """Whether a moment is within the time before now; one that is yet to come is not."""
        now = self.clock()
        return (moment > now - window) & (moment <= now + CLOCKS_DIFFER)
