"""The question for the folder of faces, where none was given.

Knows terminals and desktops; knows nothing about what happens to the folder.
"""

import os
import sys
from pathlib import Path

from training.console import say
from training.datasets import fetch
from training.datasets.fetch import Places

LFW_PHOTOS = 20
"""People of LFW with at least so many photos are taken where no folder was chosen."""


def folder(places: Places, *, browse: bool, accept_license: bool) -> Path:
    """Ask for the folder with a folder per person in it; fetch LFW where none is chosen.

    Args:
        places: where LFW would go.
        browse: whether to ask in the desktop's dialog instead of the terminal.
        accept_license: whether LFW's licence is agreed to already.

    Raises:
        ValueError: there is nobody to ask.
    """
    if browse:
        chosen = _dialog()
    elif sys.stdin.isatty():
        chosen = _prompt()
    else:
        raise ValueError(
            "No folder was given and there is no terminal to ask. Give one: "
            "`python -m training classifier DIR`, with one folder per person in it."
        )
    if chosen is not None:
        return chosen
    say(f"No folder chosen: taking LFW, people with {LFW_PHOTOS} photos or more.")
    return fetch.lfw(LFW_PHOTOS, places, accept=accept_license)


def _prompt() -> Path | None:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import PathCompleter
    from prompt_toolkit.validation import Validator

    def is_answer(text: str) -> bool:
        return not text.strip() or Path(text.strip()).expanduser().is_dir()

    session: PromptSession[str] = PromptSession(
        completer=PathCompleter(only_directories=True, expanduser=True),
        validator=Validator.from_callable(
            is_answer, "This is not a folder.", move_cursor_to_end=True
        ),
        validate_while_typing=False,
    )
    say("Which folder has the faces? One folder per person in it; Tab completes.")
    say("Enter without a name (or Ctrl-C) takes LFW, a public dataset.")
    try:
        answer = session.prompt("Folder: ").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return Path(answer).expanduser() if answer else None


def _dialog() -> Path | None:
    """The desktop's own folder dialog.

    Raises:
        ValueError: there is no desktop, or Python came without its toolkit.
    """
    try:
        import tkinter
        from tkinter import filedialog

        root = tkinter.Tk()
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"The folder dialog needs Tk ({error}). Install it (Debian: python3-tk), or leave "
            "--browse out and type the folder."
        ) from error
    except Exception as error:
        # tkinter.TclError, which cannot be named before the import: no display.
        where = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "no display"
        raise ValueError(
            f"The folder dialog could not be opened ({where}: {error}). Leave --browse out and "
            "type the folder."
        ) from error
    root.withdraw()
    try:
        chosen = filedialog.askdirectory(title="Folder with one folder per person", mustexist=True)
    finally:
        root.destroy()
    return Path(chosen) if chosen else None
