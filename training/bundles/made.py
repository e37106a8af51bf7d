"""Whether a command has made a bundle already, from the same input with the same options.

A note beside the bundle says what it was made from, and which bytes that gave: a bundle that was
changed since, by `add`, `calibrate` or anything else, is no longer what the command made. Knows
nothing about what the input is.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.bundle import FORMAT, PREPROCESSING, Bundle
from engine.files import write_text
from training.console import say

_SUFFIX = ".made"


def date_of(created: str | None) -> str | None:
    """The date that an operator has given for a bundle, which is an option; today's is none."""
    return created or os.environ.get("SOURCE_DATE_EPOCH")


def lent_by(lender: Bundle | None) -> str | None:
    """What a bundle takes from another one: a sha256 over the other one's `.json`."""
    return None if lender is None else _sha256(lender.manifest.model_dump_json().encode())


def has_note(stem: Path) -> bool:
    """Whether a command has left a note beside a bundle."""
    return _path(stem).exists()


def known(stem: Path, what: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was remembered with a bundle that is there as a command made it; it is said.

    Args:
        stem: the bundle's path without suffix.
        what: everything that decides the result, as plain JSON values.

    Returns:
        None where it is to be made.
    """
    try:
        note = json.loads(_path(stem).read_text("utf-8"))
        if note["from"] != _digest(what) or note["files"] != _files(stem):
            return None
        report = dict(note["report"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    say(
        f"{stem.name} is made from the same faces with the same options already: nothing to do. "
        f"Delete {stem}.json to make it again."
    )
    return report


def remember(stem: Path, what: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Leave a note beside a bundle that was just made.

    Args:
        stem: the bundle's path without suffix.
        what: see `known`.
        report: what the bundle itself does not say, to be given back by `known`.
    """
    note = {"from": _digest(what), "files": _files(stem), "report": dict(report)}
    write_text(_path(stem), json.dumps(note, indent=1) + "\n")


def _path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}{_SUFFIX}")


def _files(stem: Path) -> list[str]:
    suffixes = (".pth", ".json")
    return [_sha256(stem.with_name(f"{stem.name}{each}").read_bytes()) for each in suffixes]


def _digest(what: Mapping[str, Any]) -> str:
    version = {"format": FORMAT, "preprocessing": PREPROCESSING}
    return _sha256(json.dumps(version | dict(what), sort_keys=True, ensure_ascii=False).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
