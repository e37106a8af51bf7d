"""The key that stands between the database and the people in it.

Knows nothing about the database: a Telegram id goes in, a code that only the key's holder can
connect with it comes out.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

_KEY_BYTES = 32


class Vault:
    """Codes people's ids with HMAC-SHA256 (RFC 2104) under a secret key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """Read the key, or make one at first start: a file that only its owner can read.

        Raises:
            ValueError: the file is no key.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if len(key) != _KEY_BYTES:
                raise ValueError(
                    f"{path} is no key of {_KEY_BYTES} bytes: put the right one back, or delete "
                    "it to begin anew (chosen languages are then forgotten)"
                ) from None
            return cls(key)
        with os.fdopen(descriptor, "wb") as file:
            key = secrets.token_bytes(_KEY_BYTES)
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        return cls(key)

    def code(self, telegram_id: int) -> bytes:
        """32 bytes that stand for a person."""
        return hmac.digest(self._key, str(telegram_id).encode(), hashlib.sha256)
