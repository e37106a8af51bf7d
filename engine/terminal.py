"""Texts from elsewhere on a terminal: names of files and people, messages, errors.

Whatever prints with rich passes them through here. Knows nothing about what they are.
"""

from typing import NoReturn

import typer
from rich import markup
from rich.console import Console

from engine import controls
from engine.environment import SettingsError


def escape(text: str) -> str:
    """A text of one line for rich to print as it is: no markup, and nothing a terminal obeys."""
    return markup.escape(controls.escape(text))


def complain(*problems: str | Exception, kind: str = "error") -> None:
    """Print errors, or what else `kind` says, to standard error, each on one line.

    All that is wrong with settings is one exception, and has a line each.
    """
    console = Console(stderr=True)
    for problem in problems:
        lines = problem.problems if isinstance(problem, SettingsError) else [str(problem)]
        for line in lines:
            console.print(f"[red]{kind}:[/] {escape(line)}", highlight=False, soft_wrap=True)


def fail(*problems: str | Exception, code: int) -> NoReturn:
    """End a command with errors and an exit code."""
    complain(*problems)
    raise typer.Exit(code)
