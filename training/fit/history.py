"""A training run's log: the table of numbers that Lightning's CSVLogger writes.

Tolerant of which columns there are: what is logged is the recipe's business.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

NAME = "metrics.csv"
FOLDER = Path(__file__).resolve().parents[2] / "run" / "training"

_NOT_RESULTS = ("epoch", "step")


def locate(run: str) -> list[Path]:
    """The logs of a run, given as its name in run/training, its folder, or a log itself.

    A run that was cut off has one for each time that it was taken up, oldest first.

    Raises:
        ValueError: there is none.
    """
    given = Path(run)
    home = FOLDER / run if given.name == run and not given.exists() else given
    if home.is_file():
        return [home]
    logs = sorted(home.rglob(NAME), key=lambda path: path.stat().st_mtime) if home.is_dir() else []
    if not logs:
        others = (
            sorted({path.name for path in FOLDER.iterdir() if path.is_dir()})
            if FOLDER.is_dir()
            else []
        )
        raise ValueError(
            f"There is no {NAME} in {home}. Give a run's name, its folder, or the file. "
            + (f"run/training has: {', '.join(others)}." if others else "Nothing was trained yet.")
        )
    # Of several runs in the folder, such as folds, the newest.
    return [log for log in logs if log.parent.parent == logs[-1].parent.parent]


def read(logs: Sequence[Path]) -> dict[str, list[tuple[float, float]]]:
    """From each column's name to its (epoch, mean value) points, in the order of the epochs.

    Args:
        logs: of one run; of an epoch that is in several, the last one counts.

    Raises:
        ValueError: one is not such a table, or there are no numbers yet.
        OSError: one cannot be read.
    """
    merged: dict[str, dict[float, float]] = defaultdict(dict)
    for path in logs:
        try:
            means = _means(path)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is not a table ({error}). Is it a run's log?") from error
        for name, points in means.items():
            merged[name] |= points
    if not merged:
        raise ValueError(f"{logs[-1]} has no numbers yet. Wait until the first epoch is over.")
    return {name: sorted(points.items()) for name, points in merged.items()}


def _means(path: Path) -> dict[str, dict[float, float]]:
    """From each column's name to its mean value by epoch."""
    gathered: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        place = next((name for name in _NOT_RESULTS if name in (rows.fieldnames or ())), None)
        if place is None:
            raise ValueError(f"{path} has no column 'epoch' or 'step'. Is it a training run's log?")
        for row in rows:
            at = _number(row[place])
            for name, text in row.items():
                value = _number(text)
                if at is None or value is None or name in _NOT_RESULTS:
                    continue
                if not _is_rate_of_learning(name):
                    gathered[name][at].append(value)
    return {
        name: {at: sum(values) / len(values) for at, values in points.items()}
        for name, points in gathered.items()
    }


def _is_rate_of_learning(name: str) -> bool:
    return name == "lr" or name.startswith(("lr-", "lr_", "learning_rate"))


def _number(text: object) -> float | None:
    try:
        return float(str(text)) if text not in (None, "") else None
    except ValueError:
        return None
