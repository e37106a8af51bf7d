"""Opens the store as the settings say; for the bot, and for what operators do without it.

Knows which settings belong to the store; knows nothing about what is kept there.
"""

import logging
from pathlib import Path
from urllib.parse import urlsplit

from bot import machine
from bot.settings import StoreChoice
from bot.store import CLOSE_S, Keyring, Retention, Store, StoreError, Vault, tombstones_beside

logger = logging.getLogger(__name__)


def store(settings: StoreChoice, *, close_s: float = CLOSE_S, restored: bool = False) -> Store:
    """The store, to be entered.

    Args:
        settings: where it is, and how long things are kept.
        close_s: how long leaving it may take.
        restored: whether the operator says that the database came from a backup.

    Raises:
        StoreError: a key is missing or none; the message says how to make one. Or the database is
            an empty file, though its key is there.
    """
    place = address(settings)
    if isinstance(place, Path) and settings.ids_key.exists():
        _look_after(place, settings.ids_key)
    return Store(
        place,
        Vault.open(settings.ids_key, keyring(settings) if settings.face_login else None),
        updates_kept=settings.updates_kept,
        retention=retention(settings),
        close_s=close_s,
        restored=restored,
        # With PostgreSQL too: what the server's own backups bring back is erased again.
        tombstones=tombstones_beside(settings.database),
    )


def retention(settings: StoreChoice) -> Retention:
    """How long things are kept."""
    return Retention(
        captures_days=settings.capture_days,
        audit_days=settings.audit_days,
        idle_days=settings.idle_days,
        notice_days=settings.notice_days,
        hold_hours=settings.reset_hours,
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


def places(settings: StoreChoice) -> str:
    """Where database and keys are, for the log; a file in memory is warned of."""
    files = {"IDS_KEY": settings.ids_key}
    if settings.database_url is None:
        files["DATABASE"] = settings.database
    if settings.face_login and settings.template_keys is None:
        files["TEMPLATE_KEYS_FILE"] = settings.template_keys_file
    for setting, path in files.items():
        if machine.in_memory(path):
            logger.warning(
                "%s is in memory, and gone when this machine restarts: name a file on a disk in %s",
                path,
                setting,
            )
    keys = " ".join(f"{name.lower()}={files[name]}" for name in files if name != "DATABASE")
    return f"database={named(settings)} {keys}"


def _look_after(database: Path, ids_key: Path) -> None:
    """Tell a database that was lost from one that is to be made: its key is there already.

    Raises:
        StoreError: the file is empty.
    """
    if not database.exists():
        logger.warning(
            "%s is made anew, though the key %s is there already: if there was a database, stop "
            "the bot and put it back, or its newest backup with: python -m bot db restore",
            database,
            ids_key,
        )
    elif database.stat().st_size == 0:
        raise StoreError(
            f"The database {database} is an empty file, though its key {ids_key} is there already: "
            "delete the file, and put the newest backup back with: python -m bot db restore. To "
            "begin anew instead, with nobody enrolled, delete the file and start the bot."
        )


def keyring(settings: StoreChoice) -> Keyring:
    """The template keys.

    Raises:
        StoreError: there are none, or they are no keys.
    """
    keys = settings.template_keys
    if keys is None:
        return Keyring.load(settings.template_keys_file)
    return Keyring.parse(keys.get_secret_value(), "TEMPLATE_KEYS")
