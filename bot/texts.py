"""Every sentence a user reads, in Spanish and English, from `bot/locales/*.toml`.

Knows nothing about when a sentence is said. A sentence is a string with `{placeholders}`, or a
table with `one` and `other` chosen by the value of `count`.
"""

import functools
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LANGUAGES: Mapping[str, str] = {"es": "Español", "en": "English"}
DEFAULT = "es"
_FOLDER = Path(__file__).parent / "locales"


def language_of(language_code: str | None) -> str:
    """The language to speak to a user: a key of `LANGUAGES`.

    Args:
        language_code: Telegram's IETF tag ("pt-br", "en"), or None where the client sends none.
    """
    if not language_code:
        return DEFAULT
    primary = language_code.split("-")[0].lower()
    return primary if primary in LANGUAGES else "en"


def say(language: str, key: str, **values: object) -> str:
    """The sentence `key` in a language.

    Args:
        language: a key of `LANGUAGES`.
        key: section and name with a dot between, as "refusal.no_face".
        values: what the sentence's placeholders stand for; `count` also chooses the plural.

    Raises:
        KeyError: there is no such sentence, or it wants a value that was not given.
    """
    section, name = key.split(".", 1)
    sentence = sentences(language)[section][name]
    if isinstance(sentence, Mapping):
        sentence = sentence["one" if values["count"] == 1 else "other"]
    return str(sentence).format(**values)


def moment(when: datetime) -> str:
    """A time to show to people, whose time zone Telegram does not tell: in UTC, to the minute."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@functools.cache
def sentences(language: str) -> Mapping[str, Mapping[str, Any]]:
    """All sentences of a language by section and name, as the file has them."""
    return tomllib.loads((_FOLDER / f"{language}.toml").read_text("utf-8"))
