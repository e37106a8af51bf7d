"""Opens the store as the settings say; for the bot, and for what operators do without it.

Knows which settings belong to the store; knows nothing about what is kept there.
"""

from pathlib import Path
from urllib.parse import urlsplit

from bot.settings import StoreChoice
from bot.store import Keyring, Retention, Store, Vault, tombstones_beside


def store(settings: StoreChoice) -> Store:
    """The store, to be entered.

    Raises:
        StoreError: a key is missing or none; the message says how to make one.
    """
    return Store(
        address(settings),
        Vault.open(settings.ids_key, keyring(settings) if settings.face_login else None),
        updates_kept=settings.updates_kept,
        retention=Retention(
            challenges_hours=settings.challenge_hours,
            captures_days=settings.capture_days,
            audit_days=settings.audit_days,
            idle_days=settings.idle_days,
            notice_days=settings.notice_days,
        ),
        # With PostgreSQL too: what the server's own backups bring back is erased again.
        tombstones=tombstones_beside(settings.database),
    )


def address(settings: StoreChoice) -> Path | str:
    """SQLite's file, or PostgreSQL's URL."""
    url = settings.database_url
    return settings.database if url is None else url.get_secret_value()


def named(settings: StoreChoice) -> str:
    """The database as logs name it: without user, password and options."""
    found = address(settings)
    if isinstance(found, Path):
        return str(found)
    parts = urlsplit(found)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def keyring(settings: StoreChoice) -> Keyring:
    """The template keys.

    Raises:
        StoreError: there are none, or they are no keys.
    """
    keys = settings.template_keys
    if keys is None:
        return Keyring.load(settings.template_keys_file)
    return Keyring.parse(keys.get_secret_value(), "TEMPLATE_KEYS")
