"""Characters that are obeyed instead of read: by terminals, or by whatever lays out a line.

Knows nothing about where texts come from.
"""

import re

# C0, DEL and C1; marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm
# (UAX 9); line and paragraph separators; halves of surrogate pairs, which are no text.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def first(text: str) -> str:
    """The first of them, as in "U+001B"; "" where there is none."""
    found = _OBEYED.search(text)
    return f"U+{ord(found[0]):04X}" if found else ""


def escape(text: str) -> str:
    r"""A text of one line with each of them as in "\u001b", which JSON reads as the same text."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def remove(text: str) -> str:
    """A text without them."""
    return _OBEYED.sub("", text)
