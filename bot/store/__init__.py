"""What the bot remembers across restarts: languages, update numbers, and the face login's people.

Erasing a person is this package's work alone: nobody else keeps anything about them.
"""

from bot.store.attempts import LOCK_WINDOW as LOCK_WINDOW
from bot.store.backup import back_up as back_up
from bot.store.backup import restore as restore
from bot.store.contacts import LINK_LIVES as LINK_LIVES
from bot.store.database import CLOSE_S as CLOSE_S
from bot.store.errors import StoreError as StoreError
from bot.store.errors import Tampered as Tampered
from bot.store.keyring import Keyring as Keyring
from bot.store.keyring import add_key as add_key
from bot.store.keyring import retire_key as retire_key
from bot.store.lease import Lease as Lease
from bot.store.recovery import is_recovery_code as is_recovery_code
from bot.store.recovery import new_recovery_code as new_recovery_code
from bot.store.store import Store as Store
from bot.store.store import tombstones_beside as tombstones_beside
from bot.store.tidying import ATTEMPTS_COUNT as ATTEMPTS_COUNT
from bot.store.types import Alarm as Alarm
from bot.store.types import Attempt as Attempt
from bot.store.types import Barred as Barred
from bot.store.types import Clip as Clip
from bot.store.types import Contact as Contact
from bot.store.types import Conversation as Conversation
from bot.store.types import Ended as Ended
from bot.store.types import Enrolment as Enrolment
from bot.store.types import Finished as Finished
from bot.store.types import Flow as Flow
from bot.store.types import FlowKind as FlowKind
from bot.store.types import Known as Known
from bot.store.types import Level as Level
from bot.store.types import Membership as Membership
from bot.store.types import Receipt as Receipt
from bot.store.types import Retention as Retention
from bot.store.types import Right as Right
from bot.store.types import Takeover as Takeover
from bot.store.types import Templates as Templates
from bot.store.types import Tidied as Tidied
from bot.store.types import Unusable as Unusable
from bot.store.vault import Vault as Vault
