"""What all commands of the workshop share: where errors, progress and results go.

Knows terminals; knows nothing about faces.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from engine import controls
from engine.errors import EngineError
from engine.terminal import complain, escape

results = Console()
errors = Console(stderr=True)

_LINE_EVERY_S = 10.0
_INTERRUPTED = 130

Advance = Callable[[int], None]
"""Told how many items are done in all."""


def silent(done: int) -> None:
    """Where nobody wants to be told."""
    del done


@contextmanager
def failures(*, goes_on: str = "") -> Iterator[None]:
    """Turn the faults an operator can mend into one line on standard error and exit code 1.

    Args:
        goes_on: what is told where the operator stops a command that can be continued.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not goes_on:
            raise
        say(f"Stopped. {goes_on}")
        raise typer.Exit(_INTERRUPTED) from None
    except (EngineError, ValueError, OSError) as error:
        complain(error)
        raise typer.Exit(1) from error


@contextmanager
def full_disk(told: str) -> Iterator[None]:
    """Say in words what a full disk means, in place of the system's OSError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) and "is full" not in str(error):
            raise
        raise OSError(told) from error


@contextmanager
def progress(
    what: str, total: int | None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Advance]:
    """A progress bar on standard error; where that is no terminal, a line every 10 seconds.

    Args:
        what: is being done.
        total: how many items there are; None where that is not known.
        clock: seconds that only move forward.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=total)
        told_s = clock()

        def advance(done: int) -> None:
            nonlocal told_s
            bar.update(task, completed=done)
            if not errors.is_terminal and clock() - told_s >= _LINE_EVERY_S:
                told_s = clock()
                say(f"{what}: {done:,}" + ("" if total is None else f" of {total:,}"))

        yield advance


def say(text: str) -> None:
    """A line for people, on standard error, so that standard output stays the result's."""
    errors.print(escape(text), highlight=False, soft_wrap=True)


def show(text: str) -> None:
    """A line of a result for people, on standard output."""
    results.print(escape(text), highlight=False, soft_wrap=True)


def emit(record: Any) -> None:
    """A result for machines, as JSON on standard output."""
    echo(json.dumps(record, ensure_ascii=False, indent=1))


def echo(text: str) -> None:
    """Lines on standard output, whatever names they have in them."""
    for line in text.split("\n"):
        typer.echo(controls.escape(line))


def today() -> str:
    """The date that goes into bundles: SOURCE_DATE_EPOCH's, or today's."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.date().isoformat()
