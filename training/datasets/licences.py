"""Terms of data and weights: shown and agreed to once, and remembered.

Knows what was agreed to; knows nothing about what is fetched.
"""

import json
import sys
from pathlib import Path

import typer

from engine import bundle
from engine.files import write_text
from training.console import say

AGREED = bundle.FOLDER.parent / "licences.json"


def agree(name: str, terms: str, *, accept: bool, agreed: Path = AGREED) -> None:
    """Return when the operator has agreed to the terms, now or before.

    Terms that have changed since are asked about again.

    Args:
        name: of what is wanted.
        terms: in words.
        accept: the operator has agreed on the command line.
        agreed: where agreements are remembered: JSON, the terms by name.

    Raises:
        ValueError: the operator does not agree, or there is nobody to ask.
        OSError: the agreement cannot be remembered.
    """
    known = _read(agreed)
    if known.get(name) == terms:
        return
    for line in f"{name}: {terms}".splitlines():
        say(line)
    if not accept:
        if not sys.stdin.isatty():
            raise ValueError(
                f"{name} was not fetched: give --accept-license if you agree to its terms."
            )
        if not typer.confirm("Do you agree to these terms?", err=True):
            raise ValueError(f"{name} was not fetched, because its terms were not agreed to.")
    text = json.dumps(known | {name: terms}, indent=1, ensure_ascii=False)
    write_text(agreed, text + "\n")


def _read(agreed: Path) -> dict[str, str]:
    try:
        content = json.loads(agreed.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # damaged: everything is asked again
        return {}
    return content if isinstance(content, dict) else {}
