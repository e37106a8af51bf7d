"""What the bot remembers across restarts: languages chosen and update numbers already served."""

from bot.store.queries import Store
from bot.store.vault import StoreError, Vault

__all__ = ["Store", "StoreError", "Vault"]
