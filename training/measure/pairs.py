"""Lists of pairs of photos: a table of files, or LFW's own format.

Knows the two formats; knows nothing about what the photos show.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.vectors import Flags, Numbers

_LABELS = ("same", "label", "decision", "is_same", "issame", "match", "target", "y")
_YES = {"1", "1.0", "true", "t", "yes", "y", "same", "genuine", "match", "positive"}
_NO = {"0", "0.0", "-1", "false", "f", "no", "n", "different", "impostor", "mismatch", "negative"}


@dataclass(frozen=True)
class PairList:
    """Pairs of files.

    Attributes:
        files: every file once.
        first, second: (n,) indices into `files`.
        same: (n,) whether both show one person.
    """

    files: list[Path]
    first: Numbers
    second: Numbers
    same: Flags

    def __len__(self) -> int:
        return len(self.same)


@dataclass(frozen=True)
class LfwPairs:
    """LFW's pairs (Huang et al. 2007, pairs.txt).

    Attributes:
        first, second: (n) each photo as person and number, as in "Ana_Lee", 3.
        same: (n,) whether both show one person.
        fold: (n,) which of the folds.
    """

    first: list[tuple[str, int]]
    second: list[tuple[str, int]]
    same: Flags
    fold: Numbers

    def __len__(self) -> int:
        return len(self.same)


def read_csv(path: Path) -> PairList:
    """Read a table with the columns file_x, file_y and same.

    Files are relative to the table's folder. The last column may be called label, decision,
    is_same or match instead, and says 1 or 0, true or false, yes or no, same or different.

    Raises:
        ValueError: a column is missing, or a line is not understood; the message gives its number.
        OSError: the table cannot be read, or names a file that is not there.
    """
    number: dict[Path, int] = {}
    first: list[int] = []
    second: list[int] = []
    same: list[bool] = []
    with path.open(encoding="utf-8-sig", newline="") as file, _readable(path):
        rows = csv.DictReader(file, skipinitialspace=True)
        rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
        label = next((name for name in _LABELS if name in rows.fieldnames), None)
        if label is None or not {"file_x", "file_y"} <= set(rows.fieldnames):
            raise ValueError(
                f"{path} needs the columns file_x, file_y and same; it has "
                f"{', '.join(filter(None, rows.fieldnames)) or 'none'}."
            )
        for row in rows:
            place = f"{path}, line {rows.line_num}"
            answer = (row[label] or "").strip().lower()
            if answer not in _YES | _NO:
                raise ValueError(f"{place}: {label} is {answer!r}; it can be 1 or 0, yes or no.")
            if not row["file_x"] or not row["file_y"]:
                raise ValueError(f"{place} lacks a file.")
            for side, column in ((first, "file_x"), (second, "file_y")):
                photo = path.parent / row[column].strip()
                if photo not in number and not photo.is_file():
                    raise ValueError(f"{place}: there is no file {photo}.")
                side.append(number.setdefault(photo, len(number)))
            same.append(answer in _YES)
    if not same:
        raise ValueError(f"{path} has no pairs.")
    return PairList(list(number), np.array(first), np.array(second), np.array(same))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file is no table."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table in UTF-8 ({error}). Save it as one.") from error


def read_lfw(path: Path) -> LfwPairs:
    """Read pairs in LFW's format.

    The first line gives the number of folds and of pairs of either kind in each; then come, fold
    by fold, the genuine pairs (person, number, number) and the impostor pairs (person, number,
    person, number), separated by tabs.

    Raises:
        ValueError: the file is something else; the message gives the line.
        OSError: it cannot be read.
    """
    lines = path.read_text("utf-8").splitlines()
    head = lines[0].split() if lines else []
    if not head or len(head) > 2 or not all(word.isdigit() for word in head):
        raise ValueError(f"{path} is not in LFW's format: its first line must be like '10 300'.")
    folds, each = (int(head[0]), int(head[1])) if len(head) == 2 else (1, int(head[0]))
    if folds < 2:
        raise ValueError(f"{path} has one fold only; LFW's protocol needs its ten (pairs.txt).")
    first: list[tuple[str, int]] = []
    second: list[tuple[str, int]] = []
    same: list[bool] = []
    fold: list[int] = []
    for number, line in enumerate(lines[1:], 2):
        words = line.split("\t") if "\t" in line else line.split()
        if not words or not line.strip():
            continue
        numbers = words[1:] if len(words) == 3 else words[1::2]
        if len(words) not in (3, 4) or not all(word.strip().isdigit() for word in numbers):
            raise ValueError(f"{path}, line {number} is not a pair in LFW's format.")
        other = words[0] if len(words) == 3 else words[2]
        first.append((words[0], int(numbers[0])))
        second.append((other, int(numbers[1])))
        same.append(len(words) == 3)
        fold.append(len(fold) // (2 * each))
    if len(same) != 2 * folds * each:
        raise ValueError(
            f"{path} announces {2 * folds * each} pairs and has {len(same)}. Fetch it again."
        )
    return LfwPairs(first, second, np.array(same), np.array(fold, np.int64))


def stem(person: str, number: int) -> str:
    """The name of LFW's file of a photo, without suffix: Ana_Lee_0003."""
    return f"{person}_{number:04d}"
