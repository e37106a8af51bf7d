"""The key that stands between the database and the people in it.

Knows nothing about the database: a Telegram id goes in, a code that only the key's holder can
connect with it comes out.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from bot.store.errors import StoreError

_KEY_BYTES = 32


class Vault:
    """Codes people's ids with HMAC-SHA256 (RFC 2104) under a secret key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """Read the key, or make one at first start: a file that only its owner can read.

        Raises:
            StoreError: the file is no key, or cannot be read or made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                _make(path)
            key = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"The key {path} cannot be read or made ({error.strerror}): mend its permissions, "
                "or name another file in IDS_KEY."
            ) from error
        if len(key) != _KEY_BYTES:
            raise StoreError(
                f"{path} is no key of {_KEY_BYTES} bytes: put the right one back, or delete it to "
                "begin anew (chosen languages are then forgotten)."
            )
        return cls(key)

    def code(self, telegram_id: int) -> bytes:
        """32 bytes that stand for a person."""
        return hmac.digest(self._key, str(telegram_id).encode(), hashlib.sha256)


def _make(path: Path) -> None:
    """Write a new key whole or not at all; where another process was faster, its key stays."""
    # mkstemp's files are their owner's alone.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
