"""What operators do about keys, database and people: `python -m bot keys`, `db` and `unlock`.

Turns options into calls and faults into sentences; knows nothing about how anything is kept.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from bot import settings as bot_settings
from bot import storing
from bot.settings import SettingsError, StoreChoice
from bot.store import Ended, StoreError, Vault, add_key, back_up, restore, retire_key

keys = typer.Typer(no_args_is_help=True, help="The keys that protect the faces kept.")
db = typer.Typer(no_args_is_help=True, help="The database.")

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
        moved = asyncio.run(_rotate(choice))
        print(f"{moved} people were moved to key {storing.keyring(choice).current}.")


@keys.command("list")
def listed() -> None:
    """Show the keys, and how many people each protects."""
    with _settings() as choice:
        ring = storing.keyring(choice)
        used = asyncio.run(_keys_in_use(choice))
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
            asyncio.run(_give_up(choice, key_id))
        retire_key(path, key_id)
        print(f"Key {key_id} is gone.")


@db.command()
def migrate() -> None:
    """Bring the database to this version's form; `run` does it by itself."""
    with _settings() as choice:
        asyncio.run(_open(choice))
        print("The database is up to date.")


@db.command()
def check() -> None:
    """Look whether audit trail and logins are as the bot left them."""
    with _settings() as choice:
        broken, changed = asyncio.run(_check(choice))
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
        asyncio.run(_confirm_clock(choice))
        now = datetime.now(UTC)
        print(f"By this machine's clock it is {now:%Y-%m-%d %H:%M} UTC; the bot goes by it.")


@db.command()
def settle() -> None:
    """After pg_restore: what was under way when the backup was made ends, and what ended since.

    `db restore` does it by itself. Rows of an older version, which have no seals, are sealed: give
    it only when you have put a backup of yours in place.
    """
    with _settings() as choice:
        _tell(asyncio.run(_settle(choice)))


def unlock(telegram_id: Annotated[int, typer.Argument(help="The person's number.")]) -> None:
    """Lift a person's lock and delays after failed verifications, and the wait after /forget."""
    with _settings() as choice:
        lifted = asyncio.run(_unlock(choice, telegram_id))
        print("They may try again." if lifted else "Nothing keeps them from trying.")


def export(
    telegram_id: Annotated[int, typer.Argument(help="The person's number.")],
    file: Annotated[Path, typer.Argument(help="What to make.")],
) -> None:
    """Write all that is kept about a person into a file, for them alone: their templates too.

    A face can be rebuilt from it: hand it over as you would hand over their photos.
    """
    with _settings() as choice:
        content = asyncio.run(_export(choice, telegram_id))
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as made:
            made.write(content)
        print(f"{file} is made.")


async def _open(choice: StoreChoice) -> None:
    async with storing.store(choice):
        pass


async def _rotate(choice: StoreChoice) -> int:
    async with storing.store(choice) as store:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("Moving people", total=None)
            return await store.rotate_keys(
                lambda done, total: progress.update(bar, completed=done, total=total)
            )


async def _keys_in_use(choice: StoreChoice) -> dict[str, int]:
    async with storing.store(choice) as store:
        return await store.keys_in_use()


async def _check(choice: StoreChoice) -> tuple[int | None, list[str]]:
    async with storing.store(choice) as store:
        return await store.check_audit(), await store.check_seals()


async def _give_up(choice: StoreChoice, key_id: str) -> None:
    async with storing.store(choice) as store:
        await store.give_up_key(key_id)


async def _export(choice: StoreChoice, telegram_id: int) -> str:
    async with storing.store(choice) as store:
        exported = await store.export(telegram_id, vectors=True)
    return json.dumps(exported, indent=1, ensure_ascii=False)


async def _settle(choice: StoreChoice) -> Ended:
    async with storing.store(choice, restored=True) as store:
        return store.ended


def _tell(ended: Ended) -> None:
    """Say what was ended of a backup."""
    print("Conversations, challenges and waits of the backup have ended. Ended since it was made:")
    print(f"  {ended.erased} rows of people who were erased: erased again")
    print(f"  {ended.faces} faces that were replaced: their people enroll again")
    print(f"  {ended.codes} recovery codes that were used or replaced: not good any more")
    print(f"  {ended.locks} locks that were in force: in force")
    print("Failed attempts since the backup are forgotten.")


async def _confirm_clock(choice: StoreChoice) -> None:
    async with storing.store(choice) as store:
        await store.confirm_clock()


async def _unlock(choice: StoreChoice, telegram_id: int) -> bool:
    async with storing.store(choice) as store:
        return await store.unlock(telegram_id)


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
        for doubt in bot_settings.mistyped(os.environ):
            print(doubt, file=sys.stderr)
        yield bot_settings.load_store_choice()
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(_WRONG) from None
    except (StoreError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(_FAILED) from None
