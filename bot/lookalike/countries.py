"""Countries by their ISO 3166-1 code: what people call them, and their flags.

Names are those of Unicode's CLDR, by way of Babel. Knows nothing about who comes from where.
"""

import functools
from collections.abc import Mapping
from typing import Final

from babel import Locale

_LOCALES: Final = {"es": "es_419", "en": "en"}  # Latin American Spanish
_REGIONAL_INDICATOR_A: Final = 0x1F1E6


def name(code: str, language: str) -> str:
    """What a country is called; the code itself where nobody knows it.

    Args:
        code: of two letters, as "AR".
        language: a key of `bot.texts.LANGUAGES`.
    """
    return _names(language).get(code, code)


def flag(code: str) -> str:
    """A country's flag as the emoji that its code spells."""
    return "".join(chr(_REGIONAL_INDICATOR_A + ord(letter) - ord("A")) for letter in code)


@functools.cache
def _names(language: str) -> Mapping[str, str]:
    return dict(Locale.parse(_LOCALES[language]).territories)
