"""What the bot remembers across restarts: languages, update numbers, and the face login's people.

Erasing a person is this package's work alone: nobody else keeps anything about them.
"""

from bot.store.attempts import LOCK_WINDOW
from bot.store.backup import back_up, restore
from bot.store.contacts import LINK_LIVES
from bot.store.database import CLOSE_S
from bot.store.errors import StoreError, Tampered
from bot.store.keyring import Keyring, add_key, retire_key
from bot.store.lease import Lease
from bot.store.recovery import is_recovery_code, new_recovery_code
from bot.store.store import Store, tombstones_beside
from bot.store.tidying import ATTEMPTS_COUNT
from bot.store.types import (
    Alarm,
    Attempt,
    Barred,
    Contact,
    Ended,
    Enrolment,
    Flow,
    FlowKind,
    Level,
    Membership,
    Receipt,
    Retention,
    Right,
    Takeover,
    Templates,
    Tidied,
)
from bot.store.vault import Vault

__all__ = [
    "ATTEMPTS_COUNT",
    "CLOSE_S",
    "LINK_LIVES",
    "LOCK_WINDOW",
    "Alarm",
    "Attempt",
    "Barred",
    "Contact",
    "Ended",
    "Enrolment",
    "Flow",
    "FlowKind",
    "Keyring",
    "Lease",
    "Level",
    "Membership",
    "Receipt",
    "Retention",
    "Right",
    "Store",
    "StoreError",
    "Takeover",
    "Tampered",
    "Templates",
    "Tidied",
    "Vault",
    "add_key",
    "back_up",
    "is_recovery_code",
    "new_recovery_code",
    "restore",
    "retire_key",
    "tombstones_beside",
]
