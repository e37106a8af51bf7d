"""A training run's log: the table of numbers that Lightning's CSVLogger writes.

Tolerant of which columns there are: what is logged is the recipe's business.
"""

import csv
from collections import defaultdict
from pathlib import Path

NAME = "metrics.csv"
FOLDER = Path(__file__).resolve().parent.parent / "run" / "training"

_NOT_RESULTS = ("epoch", "step")


def locate(run: str) -> Path:
    """The log of a run, given as its name in run/training, its folder, or the file itself.

    Raises:
        ValueError: there is none.
    """
    given = Path(run)
    home = FOLDER / run if given.name == run and not given.exists() else given
    if home.is_file():
        return home
    logs = sorted(home.rglob(NAME), key=lambda path: path.stat().st_mtime) if home.is_dir() else []
    if not logs:
        others = sorted({path.name for path in FOLDER.iterdir()}) if FOLDER.is_dir() else []
        raise ValueError(
            f"There is no {NAME} in {home}. Give a run's name, its folder, or the file. "
            + (f"run/training has: {', '.join(others)}." if others else "Nothing was trained yet.")
        )
    return logs[-1]


def read(path: Path) -> dict[str, list[tuple[float, float]]]:
    """From each column's name to its (epoch, mean value) points, in the order of the epochs.

    Raises:
        ValueError: it is not such a table, or has no numbers yet.
        OSError: it cannot be read.
    """
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
    if not gathered:
        raise ValueError(f"{path} has no numbers yet. Wait until the first epoch is over.")
    return {
        name: [(at, sum(values) / len(values)) for at, values in sorted(points.items())]
        for name, points in gathered.items()
    }


def _is_rate_of_learning(name: str) -> bool:
    return name == "lr" or name.startswith(("lr-", "lr_", "learning_rate"))


def _number(text: object) -> float | None:
    try:
        return float(str(text)) if text not in (None, "") else None
    except ValueError:
        return None
