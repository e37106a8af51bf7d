"""What operators do about keys, database and people: `python -m bot keys`, `db` and `unlock`.

Turns options into calls and faults into sentences; knows nothing about how anything is kept.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress

from bot import settings as bot_settings
from bot import storing
from bot.settings import StoreChoice
from bot.store import Ended, Store, StoreError, Vault, add_key, back_up, restore, retire_key
from engine.environment import SettingsError
from engine.terminal import complain, fail

keys = typer.Typer(no_args_is_help=True, help="The keys that protect the faces kept.")
db = typer.Typer(no_args_is_help=True, help="The database.")

Result = TypeVar("Result")
_WRONG = 2
_FAILED = 1


@keys.command()
def new() -> None:
    """Make a key, or one more: new faces are kept under the newest.

    Back the file up where the database's backups are not: with both, faces can be read.
    """
    with _settings() as choice:
        path = _key_file(choice)
        key_id = add_key(path)
        print(f"Key {key_id} is in {path}.")
        print("Keep a copy of that file, apart from the database's backups: without it nobody")
        print("can verify, and everybody has to enroll again.")


@keys.command()
def rotate() -> None:
    """Move everybody to the newest key; it may be stopped, and goes on when given again."""
    with _settings() as choice:
        moved = _ask(choice, _rotate)
        print(f"{moved} people were moved to key {storing.keyring(choice).current}.")


@keys.command("list")
def listed() -> None:
    """Show the keys, and how many people each protects."""
    with _settings() as choice:
        ring = storing.keyring(choice)
        used = _ask(choice, lambda store: store.keys_in_use())
        for key_id in ring.ids:
            newest = "  (the newest)" if key_id == ring.current else ""
            print(f"{key_id}  {used.get(key_id, 0)} people{newest}")


@keys.command()
def retire(key_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")]) -> None:
    """Destroy a key that protects nobody any more: older backups that need it become unreadable.

    A bot that runs learns of it before it protects anybody with that key.
    """
    with _settings() as choice:
        path = _key_file(choice)
        if key_id in storing.keyring(choice).ids[:-1]:
            _ask(choice, lambda store: store.give_up_key(key_id))
        retire_key(path, key_id)
        print(f"Key {key_id} is gone.")


@db.command()
def migrate() -> None:
    """Bring the database to this version's form; `run` does it by itself."""
    with _settings() as choice:
        _ask(choice, _nothing)
        print("The database is up to date.")


@db.command()
def check() -> None:
    """Look whether audit trail and logins are as the bot left them."""
    with _settings() as choice:
        broken, changed = _ask(choice, _check)
        if broken is not None:
            changed.insert(
                0,
                f"Entry {broken} of the audit trail was changed, or one before it, or the one "
                "after it is missing.",
            )
        if changed:
            changed.append("Compare with a backup, and find out who can write to the database.")
            raise StoreError("\n".join(changed))
        print("The audit trail is whole, and all logins are as the bot left them.")


@db.command()
def backup(
    file: Annotated[
        Path | None, typer.Argument(help="What to make. Default: run/backups/DATE.db.")
    ] = None,
) -> None:
    """Copy the database while the bot runs; conversations and challenges are left out."""
    with _settings() as choice:
        now = datetime.now(UTC)
        made = file or bot_settings.home() / f"run/backups/{now:%Y-%m-%d-%H%M%S}.db"
        asyncio.run(back_up(storing.address(choice), made))
        print(
            f"{made} is made. Keep it apart from {choice.template_keys_file} and {choice.ids_key}."
        )


@db.command("restore")
def put_back(file: Annotated[Path, typer.Argument(help="As `db backup` made it.")]) -> None:
    """Put a backup in the database's place, without what has ended since.

    The bot must not be running.
    """
    with _settings() as choice:
        vault = Vault.open(choice.ids_key, storing.keyring(choice) if choice.face_login else None)
        ended = asyncio.run(
            restore(file, storing.address(choice), vault, retention=storing.retention(choice))
        )
        print(f"{file} is in place.")
        _tell(ended)


@db.command()
def clock() -> None:
    """Say that this machine's clock is right, where the bot's log doubts it.

    What was kept long enough is erased by it in the bot's next round.
    """
    with _settings() as choice:
        _ask(choice, lambda store: store.confirm_clock())
        now = datetime.now(UTC)
        print(f"By this machine's clock it is {now:%Y-%m-%d %H:%M} UTC; the bot goes by it.")


@db.command()
def settle() -> None:
    """After pg_restore: what was under way when the backup was made ends, and what ended since.

    `db restore` does it by itself. Rows of an older version, which have no seals, are sealed: give
    it only when you have put a backup of yours in place.
    """
    with _settings() as choice:
        _tell(_ask(choice, _ended, restored=True))


def unlock(telegram_id: Annotated[int, typer.Argument(help="The person's number.")]) -> None:
    """Lift a person's lock and delays after failed verifications, and the wait after /forget."""
    with _settings() as choice:
        lifted = _ask(choice, lambda store: store.unlock(telegram_id))
        print("They may try again." if lifted else "Nothing keeps them from trying.")


def export(
    telegram_id: Annotated[int, typer.Argument(help="The person's number.")],
    file: Annotated[Path, typer.Argument(help="What to make.")],
) -> None:
    """Write all that is kept about a person into a file, for them alone: their templates too.

    A face can be rebuilt from it: hand it over as you would hand over their photos.
    """
    with _settings() as choice:
        kept = _ask(choice, lambda store: store.export(telegram_id, vectors=True))
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as made:
            json.dump(kept, made, indent=1, ensure_ascii=False)
        print(f"{file} is made.")


def _ask(
    choice: StoreChoice, question: Callable[[Store], Awaitable[Result]], *, restored: bool = False
) -> Result:
    """Open the store, ask it something, and let go of it."""

    async def asked() -> Result:
        async with storing.store(choice, restored=restored) as store:
            return await question(store)

    return asyncio.run(asked())


async def _nothing(_store: Store) -> None:
    """Opening the store is all."""


async def _ended(store: Store) -> Ended:
    return store.ended


async def _rotate(store: Store) -> int:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("Moving people", total=None)
        return await store.rotate_keys(
            lambda done, total: progress.update(bar, completed=done, total=total)
        )


async def _check(store: Store) -> tuple[int | None, list[str]]:
    return await store.check_audit(), await store.check_seals()


def _tell(ended: Ended) -> None:
    """Say what was ended of a backup."""
    print("Conversations, challenges and waits of the backup have ended. Ended since it was made:")
    print(f"  {ended.erased} rows of people who were erased: erased again")
    print(f"  {ended.faces} faces that were replaced: their people enroll again")
    print(f"  {ended.codes} recovery codes that were used or replaced: not good any more")
    print(f"  {ended.locks} locks that were in force: in force")
    print(f"  {ended.contacts} accounts that were told of somebody's login: not told any more")
    print("Failed attempts since the backup are forgotten.")


def _key_file(choice: StoreChoice) -> Path:
    if choice.template_keys is not None:
        raise StoreError(
            "TEMPLATE_KEYS has the keys themselves, and only you can change them there: put them "
            "into a file, a line each, and name it in TEMPLATE_KEYS_FILE instead."
        )
    return choice.template_keys_file


@contextmanager
def _settings() -> Iterator[StoreChoice]:
    """The store's settings; faults become sentences and exit codes."""
    try:
        complain(*bot_settings.mistyped(os.environ), kind="warning")
        yield StoreChoice.read()
    except SettingsError as error:
        fail(error, code=_WRONG)
    except (StoreError, OSError) as error:
        fail(error, code=_FAILED)
