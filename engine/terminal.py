"""Texts from elsewhere on a terminal: names of files and people, messages.

Whatever prints with rich passes them through here. Knows nothing about what they are.
"""

from rich import markup

from engine import controls


def escape(text: str) -> str:
    """A text of one line for rich to print as it is: no markup, and nothing a terminal obeys."""
    return markup.escape(controls.escape(text))
