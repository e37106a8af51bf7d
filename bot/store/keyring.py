"""The template keys: several at a time, so that an old one can be retired while a new one serves.

A key file has a line `ID base64key` for each key; the last line's is the one that new things are
protected with. Knows nothing about what they protect.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from filelock import FileLock

from bot.store.errors import StoreError
from engine.files import replacing

KEY_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
_HOW = "make one with: python -m bot keys new"
_INSTEAD = f"put its backup back. Where nobody is enrolled yet, delete it first, and {_HOW}"


class Keyring:
    """Keys of 32 bytes by id, in order of age.

    Args:
        keys: by id, the newest last; one or more.
        path: the file they came from, looked into again for a key that is not among them.
    """

    def __init__(self, keys: Mapping[str, bytes], path: Path | None = None) -> None:
        if not keys:
            raise ValueError("a key ring without a key")
        self._keys = dict(keys)
        self._path = path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file.

        Raises:
            StoreError: there is none, or it is no key file.
        """
        return cls(_read(path), path)

    @classmethod
    def parse(cls, text: str, name: str = "the template keys") -> Self:
        """Read a key file's text, wherever it came from.

        Args:
            text: the lines.
            name: what to call it in a complaint.

        Raises:
            StoreError: it is no key file's text.
        """
        return cls(_parse(text, name))

    @classmethod
    def throwaway(cls) -> Self:
        """One new key that is nowhere but here: what it protects dies with the process."""
        return cls({_new_id(): secrets.token_bytes(KEY_BYTES)})

    @property
    def current(self) -> str:
        """Id of the key for what is new."""
        return next(reversed(self._keys))

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, oldest first."""
        return tuple(self._keys)

    def reload(self) -> None:
        """Read the file again, where the keys came from one.

        Raises:
            StoreError: it is no key file any more.
        """
        if self._path is not None:
            self._keys = _read(self._path)

    def key(self, key_id: str) -> bytes:
        """The key of an id.

        Raises:
            StoreError: there is none of this id.
        """
        if key_id not in self._keys:
            # Another process may have begun to use a key that was added after this one started.
            self.reload()
        try:
            return self._keys[key_id]
        except KeyError:
            where = self._path or "the template keys"
            raise StoreError(
                f"Key {key_id} is missing from {where}, and some of what is stored cannot be read "
                "without it: put its line back."
            ) from None


def add_key(path: Path) -> str:
    """Add a new key to a key file, which is made where there is none; returns the key's id.

    The file is replaced whole or not at all, and is its owner's alone (mode 0600).

    Raises:
        StoreError: the file is no key file, or cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_name(f".{path.name}.lock")):
            keys = _read(path) if path.exists() else {}
            key_id = _new_id()
            while key_id in keys:
                key_id = _new_id()
            _write(path, {**keys, key_id: secrets.token_bytes(KEY_BYTES)})
    except OSError as error:
        raise StoreError(
            f"The key file {path} cannot be written ({error.strerror}): mend its permissions, or "
            "its volume where that is mounted read-only, or name another file in "
            "TEMPLATE_KEYS_FILE."
        ) from None
    return key_id


def retire_key(path: Path, key_id: str) -> None:
    """Take a key out of a key file: whatever it protects, backups included, is gone for good.

    Raises:
        StoreError: the file has no such key, or it is the current one, or it cannot be written.
    """
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):
            keys = _read(path)
            if key_id not in keys:
                raise StoreError(f"{path} has no key {key_id}: it has {', '.join(keys)}.")
            if key_id == next(reversed(keys)):
                raise StoreError(
                    f"Key {key_id} is the current one: first make another one with: python -m bot "
                    "keys new, and move everybody to it with: python -m bot keys rotate"
                )
            del keys[key_id]
            _write(path, keys)
    except OSError as error:
        raise StoreError(
            f"The key file {path} cannot be written ({error.strerror}): mend its permissions."
        ) from None


def _new_id() -> str:
    return secrets.token_hex(4)


def _read(path: Path) -> dict[str, bytes]:
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise StoreError(f"There is no key file {path}: {_HOW}") from None
    except OSError as error:
        raise StoreError(
            f"The key file {path} cannot be read ({error.strerror}): mend its permissions, or name "
            "another file in TEMPLATE_KEYS_FILE."
        ) from None
    except ValueError:
        raise StoreError(f"{path} is no key file: {_INSTEAD}") from None
    return _parse(text, str(path))


def _parse(text: str, name: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        key_id, _, encoded = line.strip().partition(" ")
        try:
            key = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not _ID.fullmatch(key_id) or len(key) != KEY_BYTES:
            raise StoreError(
                f"Line {number} of {name} is no 'ID base64key' with a key of {KEY_BYTES} bytes: "
                f"put the right line back, or all of the file: {_INSTEAD}"
            )
        if key_id in keys:
            raise StoreError(f"Line {number} of {name} has the id of a line before it: remove one.")
        keys[key_id] = key
    if not keys:
        raise StoreError(f"There is no key in {name}: {_INSTEAD}")
    return keys


def _write(path: Path, keys: Mapping[str, bytes]) -> None:
    with replacing(path, mode=0o600) as file:
        for key_id, key in keys.items():
            file.write(f"{key_id} {base64.b64encode(key).decode()}\n".encode())
