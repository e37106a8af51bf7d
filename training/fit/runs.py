"""A training run's folder: what it is a run of, where it stands, and when it is over.

A run that was killed is taken up again by the same command on the same faces; anything else starts
anew. Knows files; knows nothing about what is trained.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import locks
from engine.files import write_text
from training.datasets.data import Faces

FOLDER = Path(__file__).resolve().parents[2] / "run" / "training"

_RANKS = ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID")
"""Of a process among others, as Lightning, torchrun and SLURM tell it; 0 is the first."""

_DESCRIPTION = "run.json"
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Run:
    """One training run on disk.

    Attributes:
        home: its folder: `run.json`, `history/` (CSV), `tensorboard/` and `checkpoints/`.
        last: the checkpoint to go on from; None for a run that begins.
    """

    home: Path
    last: Path | None

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.home / _CHECKPOINTS

    @property
    def latest(self) -> Path:
        """The checkpoint of the last whole epoch, once there is one."""
        return self.checkpoints / "last.ckpt"

    def finish(self) -> None:
        """Mark the run as over: checkpoints go, the history stays."""
        record = json.loads((self.home / _DESCRIPTION).read_text("utf-8"))
        _write(self.home, record | {"finished": True})
        shutil.rmtree(self.checkpoints, ignore_errors=True)


@contextmanager
def alone(name: str, folder: Path) -> Iterator[None]:
    """A name for one command at a time: two would write each other's checkpoints.

    Raises:
        ValueError: another one is training under it.
    """
    if is_helper():  # the first process has it
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)

    def taken() -> None:
        raise ValueError(
            f"Another command is training {name} in {folder}. Wait for it, or give another --out."
        )

    with locks.alone(folder / f".{name}.lock", taken):
        yield


def begin(name: str, what: Mapping[str, Any], folder: Path) -> Run:
    """Take up the run of this name, or start it.

    Args:
        name: the run's, usually the bundle's.
        what: everything that decides the result, as plain JSON values.
        folder: where runs live; usually `FOLDER`.

    Returns:
        The run to go on with, where one of the same `what` was cut off; else a fresh one, whose
        predecessor of that name is gone.

    Raises:
        ValueError: the name is none, or its folder holds something else than runs.
    """
    if Path(name).name in {"", ".."}:
        raise ValueError(
            f"{name!r} is no name for a training run. Give --out a name, not a folder."
        )
    home = folder / name
    wanted = json.loads(json.dumps(dict(what)))
    record = _read(home)
    if record is not None and record.get("what") == wanted and not record.get("finished"):
        last = Run(home, None).latest
        return Run(home, last if last.exists() else None)
    if not is_helper():
        _clear(home)
        home.mkdir(parents=True)
        _write(home, {"what": wanted, "finished": False})
    return Run(home, None)


def is_helper() -> bool:
    """Whether this process only helps another one: by the words of whatever started them."""
    return any(os.environ.get(name, "0") != "0" for name in _RANKS)


def fingerprint(faces: Faces) -> str:
    """A sha256 over which faces there are, whose they are, and which belong together."""
    digest = hashlib.sha256()
    for row, owner, group in zip(faces.rows, faces.owner, faces.group, strict=True):
        digest.update(f"{row.id}\0{faces.people[owner]}\0{group}\n".encode())
    return digest.hexdigest()


def _clear(home: Path) -> None:
    """Delete what was trained under a name before, and nothing else."""
    if not home.exists():
        return
    if not _holds_runs(home):
        raise ValueError(
            f"{home} holds something else than training runs, which would be lost. Give another "
            "--runs or another --out."
        )
    for entry in home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _DESCRIPTION:
            entry.unlink()
    # It goes last, so that a folder that was cleared by half is still known for a run's.
    (home / _DESCRIPTION).unlink(missing_ok=True)
    home.rmdir()


def _holds_runs(home: Path) -> bool:
    """Whether a folder is a run's, or has nothing but runs' folders in it."""
    if home.is_symlink() or not home.is_dir():
        return False
    return (home / _DESCRIPTION).is_file() or all(
        _holds_runs(entry) or entry.name.startswith(f".{_DESCRIPTION}.") for entry in home.iterdir()
    )


def _read(home: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((home / _DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _write(home: Path, record: Mapping[str, Any]) -> None:
    write_text(home / _DESCRIPTION, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
