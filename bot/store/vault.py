"""The keys that stand between the database and the people in it.

Two secrets: the key of the ids, under which a Telegram id becomes a code that only the key's
holder can connect with it; and the template keys (`bot.store.keyring`), which wrap one data key for
each person. What is a person's is sealed under their data key with AES-256-GCM (NIST SP 800-38D),
with associated data that says what it is, where it stands and whose it is: a value that was moved
to another row, table, person or key does not open. Knows nothing about the database.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bot.store.errors import StoreError
from bot.store.keyring import KEY_BYTES, Keyring

_FORMAT = b"\x01"
_NONCE_BYTES = 12
_NO_KEYS = (
    "There are no template keys, without which there is no face login: make one with: python -m "
    "bot keys new, and name its file in TEMPLATE_KEYS_FILE."
)


@dataclass(frozen=True, slots=True)
class DataKey:
    """What protects one person's things; sealed values open with nothing else.

    Attributes:
        person: their code.
        key_id: of the template key that wraps it.
        key: 32 bytes.
    """

    person: bytes
    key_id: str
    key: bytes = field(repr=False)

    def seal(self, plain: bytes, table: str, row: str, embedder: str = "") -> bytes:
        """Encrypt a value for one place.

        Args:
            plain: the value.
            table: where it will stand.
            row: which row and column of it.
            embedder: id of the embedder, for what depends on one.
        """
        return _seal(self.key, plain, self._place(table, row, embedder))

    def open(self, sealed: bytes, table: str, row: str, embedder: str = "") -> bytes:
        """Decrypt what was sealed for this place.

        Raises:
            StoreError: it was not sealed for this place under this key.
        """
        return _open(self.key, sealed, self._place(table, row, embedder))

    def _place(self, table: str, row: str, embedder: str) -> bytes:
        return _place(table, row, self.person, embedder, self.key_id)


class Vault:
    """Codes people's ids, and makes and opens their data keys.

    Args:
        key: of the ids, 32 bytes.
        keyring: the template keys; without them there are languages and update numbers only.
    """

    def __init__(self, key: bytes, keyring: Keyring | None = None) -> None:
        self._key = key
        self._keyring = keyring

    @classmethod
    def open(cls, path: Path, keyring: Keyring | None = None) -> "Vault":
        """Read the key of the ids, or make one at first start, in a file that is its owner's alone.

        Args:
            path: the file.
            keyring: the template keys, if there are any.

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
                "or its volume where that is mounted read-only, or name another file in IDS_KEY."
            ) from error
        if len(key) != KEY_BYTES:
            raise StoreError(
                f"{path} is no key of {KEY_BYTES} bytes: put its backup back. To begin anew "
                "instead, with nobody enrolled, move it and the database away."
            )
        return cls(key, keyring)

    @property
    def keyring(self) -> Keyring:
        """The template keys.

        Raises:
            StoreError: there are none.
        """
        if self._keyring is None:
            raise StoreError(_NO_KEYS)
        return self._keyring

    @property
    def has_keys(self) -> bool:
        """Whether there are template keys."""
        return self._keyring is not None

    def code(self, telegram_id: int) -> bytes:
        """32 bytes that stand for a person: HMAC-SHA256 (RFC 2104) of their Telegram id."""
        return hmac.digest(self._key, str(telegram_id).encode(), hashlib.sha256)

    def mark(self, purpose: str, content: bytes) -> bytes:
        """32 bytes that stand for some content, for one purpose, and tell nothing about it."""
        # No purpose is a number, so that no mark is anybody's code.
        key = hmac.digest(self._key, f"face-matcher {purpose}".encode(), hashlib.sha256)
        return hmac.digest(key, content, hashlib.sha256)

    def key_mark(self, key_id: str) -> bytes:
        """32 bytes by which a template key is known again."""
        check = hmac.digest(self.keyring.key(key_id), b"face-matcher check", hashlib.sha256)
        return self.mark("template key", key_id.encode() + b"\0" + check)

    def new_data_key(self, person: bytes) -> tuple[DataKey, bytes]:
        """A new data key for a person, and the same wrapped by the current template key.

        Raises:
            StoreError: there are no template keys.
        """
        key_id = self.keyring.current
        data_key = DataKey(person, key_id, secrets.token_bytes(KEY_BYTES))
        place = _place("people", "wrapped_key", person, "", key_id)
        return data_key, _seal(self.keyring.key(key_id), data_key.key, place)

    def unwrap(self, person: bytes, key_id: str, wrapped: bytes) -> DataKey:
        """A person's data key.

        Raises:
            StoreError: there is no such template key, or the wrapped one does not open.
        """
        place = _place("people", "wrapped_key", person, "", key_id)
        return DataKey(person, key_id, _open(self.keyring.key(key_id), wrapped, place))


def _place(table: str, row: str, person: bytes, embedder: str, key_id: str) -> bytes:
    """Associated data: each part with its length, so that no two places read the same."""
    names = (each.encode() for each in (table, row, embedder, key_id))
    parts = (b"face-matcher", _FORMAT, person, *names)
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _seal(key: bytes, plain: bytes, place: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _FORMAT + nonce + AESGCM(key).encrypt(nonce, plain, place)


def _open(key: bytes, sealed: bytes, place: bytes) -> bytes:
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        if sealed[:1] != _FORMAT or len(nonce) != _NONCE_BYTES:
            raise InvalidTag
        return AESGCM(key).decrypt(nonce, ciphertext, place)
    except InvalidTag:
        raise StoreError(
            "Something that is stored does not open with its key: the database was damaged or "
            "changed by hand, or the key is another one. Restore a backup, or let the person "
            "/forget and enroll anew."
        ) from None


def _make(path: Path) -> None:
    """Write a new key whole or not at all; where another process was faster, its key stays."""
    # mkstemp's files are their owner's alone.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
