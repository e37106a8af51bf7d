"""What a verb of the store works with: one transaction, the keys, the clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.vault import Vault


@dataclass(frozen=True, slots=True)
class Work:
    """One transaction.

    Attributes:
        connection: in the transaction.
        vault: the keys.
        clock: the time, in UTC. To be asked after rows were locked, which may take a while.
        writes: whether the transaction is one that writes, so that what it reads is locked.
    """

    connection: AsyncConnection
    vault: Vault
    clock: Callable[[], datetime]
    writes: bool
