"""`python -m bot`: the bot's command line.

Turns settings and options into a running bot and faults into sentences; knows nothing about what
the bot does.
"""

import asyncio
import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Annotated, Literal

import typer
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from telegram.error import InvalidToken, TelegramError

from bot import admin, app, engines
from bot import demo as bot_demo
from bot import settings as bot_settings
from bot.login import embedder_change
from bot.sandbox.errors import UserError
from bot.store import StoreError
from bot.telegram import logs
from engine import settings as engine_settings
from engine.client import Engine
from engine.environment import SettingsError
from engine.errors import ConfigurationError
from engine.terminal import complain, fail

main = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, secrets among them
    help="A Telegram bot that tells whom a face resembles.",
)

main.add_typer(admin.keys, name="keys")
main.add_typer(admin.db, name="db")
main.command()(admin.unlock)
main.command()(admin.export)

_WRONG = 2
_FAILED = 1
_WHOLE = "`uv sync --no-default-groups --group demo`"
_EXIT_CODES = {
    bot_demo.PhotoOutcome.ANSWERED: 0,
    bot_demo.PhotoOutcome.REFUSED: _WRONG,
    bot_demo.PhotoOutcome.FAILED: _FAILED,
}


def _show_settings(context: typer.Context, wanted: bool) -> None:
    if not wanted:
        return
    print(context.get_help())
    settings = Table("setting", "default", "what it is", title="Environment, or a file .env")
    for row in bot_settings.table():
        settings.add_row(row.name, row.default, row.help)
    settings.add_section()
    for name, field in engine_settings.Settings.model_fields.items():
        if name not in bot_settings.Settings.model_fields:
            default = "" if field.default is None else str(field.default)
            settings.add_row(name.upper(), default, field.description)
    Console().print(settings)
    raise typer.Exit


@main.command(context_settings={"help_option_names": []})
def run(
    _help: Annotated[
        bool,
        typer.Option(
            "--help",
            is_eager=True,
            callback=_show_settings,
            help="Show this, and every setting with its default.",
        ),
    ] = False,
) -> None:
    """Run the bot until it is stopped; settings come from the environment."""
    _choose_durations()
    settings, engine = _settings()
    logs.configure(settings.secrets, settings.log_level, sys.stderr)
    try:
        asyncio.run(_run(settings, engine))
    except InvalidToken as error:
        fail(_refusal(error, settings.telegram_api_url), code=_WRONG)
    except ConfigurationError as error:
        fail(error, code=_WRONG)
    except TelegramError as error:
        hidden = logs.Redact(settings.secrets).clean(str(error))
        fail(f"{settings.telegram_api_url} cannot be used: {hidden}", code=_FAILED)
    except (StoreError, OSError) as error:
        fail(logs.Redact(settings.secrets).clean(str(error)), code=_FAILED)


@main.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the chat page.")] = 8080,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    photo: Annotated[
        Path | None,
        typer.Option(
            "--once", metavar="PHOTO", help="Send this one photo, print the answer, and end."
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png", help="With --once: where to put the answer's card, as PNG."
        ),
    ] = None,
    language: Annotated[
        Literal["es", "en"], typer.Option(help="With --once: the sender's language.")
    ] = "es",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="With --once: print the answer as JSON. A reply's photo is the path given with "
            "--card, or null.",
        ),
    ] = False,
) -> None:
    """Try everything on this machine: no token, no account, no network.

    With --once, exit code 0 means that the bot answered with matches, 2 that it refused the
    photo, 1 that something failed.
    """
    _choose_durations()
    try:
        choice = bot_settings.EngineChoice.read()
        engine = _engine(choice)
    except ConfigurationError as error:
        fail(error, code=_FAILED)
    if photo is None and not _are_installed("av", "scipy"):
        fail(
            f"The chat page makes clips, which takes more packages: {_WHOLE}, or use --once.",
            code=_FAILED,
        )
    logs.configure(choice.secrets, "info" if photo is None else "error", sys.stderr)
    if photo is None:
        _demo(engine, choice.engine_url, port, browser)
    else:
        raise typer.Exit(_demo_once(engine, photo, card, language, as_json))


def _demo(
    engine: AbstractAsyncContextManager[Engine], engine_url: str | None, port: int, browser: bool
) -> None:
    where = (
        "The bot and its engine run here; nothing leaves this machine."
        if engine_url is None
        else f"The bot runs here and shows photos to the engine at {engine_url}."
    )

    def ready(url: str) -> None:
        console = Console()
        console.print(
            f"\n  [bold]Open [link={url}]{url}[/link][/bold] and drop a photo of somebody into "
            f"the chat.\n  {escape(where)} Ctrl+C ends it.\n",
            highlight=False,
            soft_wrap=True,
        )
        if browser:
            opening.append(Thread(target=bot_demo.open_browser, args=(url,), daemon=True))
            opening[0].start()  # a browser may take its time, and the bot should not wait

    opening: list[Thread] = []
    if engine_url is None:
        print("Loading the engine ...")
    try:
        asyncio.run(bot_demo.serve(engine, port=port, ready=ready))
    except KeyboardInterrupt:
        return
    except ConfigurationError as error:
        fail(error, code=_FAILED)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        fail(
            f"Port {port} is taken: choose another one with --port, or 0 for a free one.",
            code=_FAILED,
        )


def _demo_once(
    engine: AbstractAsyncContextManager[Engine],
    photo: Path,
    card: Path | None,
    language: Literal["es", "en"],
    as_json: bool,
) -> int:
    """Send one photo; the exit code."""
    try:
        sender = {"es": "ana", "en": "ben"}[language]
        ending, replies = asyncio.run(bot_demo.once(engine, photo.read_bytes(), photo.name, sender))
        written = _write_cards(replies, card)
    except TimeoutError:
        complain("The bot did not answer in time.")
        return _FAILED
    except (ConfigurationError, UserError) as error:
        complain(error)
        return _FAILED
    except OSError as error:
        complain(f"{error.filename or photo}: {error.strerror or error}.")
        return _FAILED
    if as_json:
        record = [
            {
                "text": reply.text,
                "buttons": list(reply.buttons),
                "photo": str(path) if path else None,
            }
            for reply, path in zip(replies, written, strict=True)
        ]
        print(json.dumps({"replies": record}, ensure_ascii=False))
    else:
        for reply, path in zip(replies, written, strict=True):
            print(reply.text, *(f"[{button}]" for button in reply.buttons), sep="\n")
            if path:
                print(f"Card: {path}")
    return _EXIT_CODES[ending]


def _write_cards(replies: Sequence[bot_demo.Reply], card: Path | None) -> list[Path | None]:
    """Where each reply's card is now; None without a card or a place for it."""
    written: list[Path | None] = []
    for reply in replies:
        if card is None or reply.photo is None:
            written.append(None)
            continue
        with Image.open(io.BytesIO(reply.photo)) as picture:
            picture.save(card, "PNG")
        written.append(card)
    return written


def _engine(
    choice: bot_settings.EngineChoice, bot: bot_settings.Settings | None = None
) -> AbstractAsyncContextManager[Engine]:
    """The engine that ENGINE_URL chooses, not open yet.

    Args:
        choice: where it is.
        bot: for whose enrolled people it is; None is for a demo, which begins without any.

    Raises:
        ConfigurationError: it is to be one in this process, and its settings are wrong or it is
            not installed.
    """
    if choice.engine_url is not None:
        greeted = partial(embedder_change.greet, bot) if bot else None
        return engines.remote(choice.engine_url, choice.engine_key, greeted=greeted)
    if not _are_installed("torch"):
        raise ConfigurationError(
            "No engine is installed here: set ENGINE_URL to one elsewhere, or install it: "
            f"{_WHOLE}."
        )
    own = engine_settings.load(os.environ)
    return embedder_change.embedded(bot, own) if bot else engines.embedded(own)


def _are_installed(*modules: str) -> bool:
    return all(find_spec(module) for module in modules)


def _settings() -> tuple[bot_settings.Settings, AbstractAsyncContextManager[Engine]]:
    """The bot's settings and its engine, or all that is wrong with them and exit code 2."""
    problems: list[str | Exception] = []
    bot = engine = choice = None
    try:
        complain(*bot_settings.mistyped(os.environ), kind="warning")
        bot = bot_settings.Settings.read()
    except SettingsError as error:
        problems += error.problems
    # What is wrong with the choice alone was wrong with the bot's settings as well.
    with contextlib.suppress(SettingsError):
        choice = bot_settings.EngineChoice.read()
    try:
        if choice is not None:
            engine = _engine(choice, bot)
    except ConfigurationError as error:
        problems.append(error)
    if bot is None or engine is None:
        fail(*problems, code=_WRONG)
    return bot, engine


def _refusal(error: InvalidToken, url: str) -> str:
    """What to do about a token that is not known; PTB tells a wrong address from one no more."""
    said = f"{error} {error.__cause__}"
    if "Not Found" in said and url != bot_settings.PUBLIC_API:
        return (
            f"{url} answered 404: look whether TELEGRAM_API_URL leads to a Bot API server, and "
            "BOT_TOKEN up again at @BotFather."
        )
    return "BOT_TOKEN was refused by Telegram: look it up again at @BotFather."


async def _run(
    settings: bot_settings.Settings, engine: AbstractAsyncContextManager[Engine]
) -> None:
    async with engine as opened:
        await app.run(settings, opened)


def _choose_durations() -> None:
    """Have python-telegram-bot give durations as timedelta; without it, reading some of them warns.

    It looks at the environment only, at any time.
    """
    os.environ["PTB_TIMEDELTA"] = "1"


def _print_whatever_the_output_takes() -> None:
    """Print what a standard stream's encoding lacks as its escape; no command ends by it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    _print_whatever_the_output_takes()
    main(prog_name="python -m bot")
