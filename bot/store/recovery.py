"""Recovery codes: 100 random bits that a person can copy by hand, and the slow hash of one.

Knows nothing about whose they are or where the hash is kept.
"""

import hashlib
import hmac
import secrets

# Crockford's base 32 (https://www.crockford.com/base32.html): no I, L, O, U.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKALIKES = str.maketrans({"O": "0", "I": "1", "L": "1"})
_GROUPS, _GROUP = 4, 5
_SALT_BYTES, _HASH_BYTES = 16, 32
# RFC 7914; 16 MiB and about 50 ms. A code has 100 bits, so that a heavier hash would gain nothing.
_COST, _BLOCK, _LANES = 2**14, 8, 1

NOBODYS = bytes(_SALT_BYTES + _HASH_BYTES)
"""A digest of no code, to compare with where there is none: it takes as long."""


def new_recovery_code() -> str:
    """A new code: 20 characters in groups, 100 bits; to be shown once and not kept."""
    letters = [secrets.choice(_ALPHABET) for _ in range(_GROUPS * _GROUP)]
    return "-".join("".join(letters[i : i + _GROUP]) for i in range(0, len(letters), _GROUP))


def is_recovery_code(text: str) -> bool:
    """Whether a text could be a code, however it is spaced or capitalised."""
    code = canonical(text)
    return len(code) == _GROUPS * _GROUP and set(code) <= set(_ALPHABET)


def digest(code: str) -> bytes:
    """Salt and scrypt hash of a code. Slow: call it in a thread."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return salt + _scrypt(code, salt)


def matches(code: str, digested: bytes) -> bool:
    """Whether a code is the one whose `digest` is given. Slow: call it in a thread."""
    salt, expected = digested[:_SALT_BYTES], digested[_SALT_BYTES:]
    return hmac.compare_digest(_scrypt(code, salt), expected)


def _scrypt(code: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        canonical(code).encode(), salt=salt, n=_COST, r=_BLOCK, p=_LANES, dklen=_HASH_BYTES
    )


def canonical(text: str) -> str:
    """A code as it is hashed, however it was spaced or capitalised."""
    letters = "".join(letter for letter in text.upper() if letter.isalnum())
    return letters.translate(_LOOKALIKES)
