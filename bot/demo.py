"""The whole bot on this machine: a Telegram of its own, the real bot, an engine.

Ties them together and knows nothing about what they do. What the bot stores goes to a temporary
folder that goes with the demo.
"""

import asyncio
import contextlib
import os
import random
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from pydantic import SecretStr

from bot import app
from bot.sandbox import Person, Rates, Sandbox
from bot.sandbox.client import Message
from bot.sandbox.errors import UserError
from bot.sandbox.stage import Performer
from bot.settings import Settings
from bot.store import add_key
from bot.telegram.incoming import PHOTO_IS_TO_BLAME
from bot.telegram.request import Request
from engine.client import Engine

_ONCE_TIMEOUT_S = 60.0


class PhotoOutcome(StrEnum):
    """What became of one photo."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Reply:
    """One message that the bot answered with.

    Attributes:
        text: text or caption.
        buttons: labels, in reading order.
        photo: the card as Telegram re-encodes it, JPEG; None where the message has none.
    """

    text: str
    buttons: tuple[str, ...]
    photo: bytes | None = field(repr=False)


async def serve(
    engine: AbstractAsyncContextManager[Engine], *, port: int, ready: Callable[[str], None]
) -> None:
    """Run sandbox, bot and engine until SIGINT or SIGTERM.

    Args:
        engine: not open yet; see `bot.engines`.
        port: of the chat page; 0 takes a free one.
        ready: told the page's address when it can be opened.

    Raises:
        OSError: the port is taken.
        ConfigurationError: the engine cannot be built.
    """
    async with Sandbox(port=port, rates=Rates()) as sandbox, engine as opened:
        sandbox.performer = _performer(opened)
        with _settings(sandbox) as settings:
            ready(sandbox.url)
            await app.run(settings, opened)


async def once(
    engine: AbstractAsyncContextManager[Engine],
    photo: bytes,
    name: str,
    person_name: str = "ana",
) -> tuple[PhotoOutcome, tuple[Reply, ...]]:
    """Send one file as a user would, as a photo where it is one, and wait for what comes back.

    Args:
        engine: not open yet; see `bot.engines`.
        photo: the file's bytes.
        name: the file's name.
        person_name: who sends it: "ana", who speaks Spanish, or "ben", who speaks English.

    Raises:
        TimeoutError: the bot did not answer in time.
        UserError: Telegram itself would not take the file.
        ConfigurationError: the engine cannot be built.
    """
    finished: asyncio.Queue[Request] = asyncio.Queue()
    async with (
        Sandbox(rates=Rates()) as sandbox,
        engine as opened,
        running_bot(sandbox, opened, finished.put_nowait),
    ):
        person = sandbox.person(person_name)
        await _send(person, photo, name)
        answer = await person.reply(timeout_s=_ONCE_TIMEOUT_S)
        request = await asyncio.wait_for(finished.get(), _ONCE_TIMEOUT_S)
        return _ending(request), (await _reply(person, answer),)


def open_browser(url: str) -> bool:
    """Show a page in the operator's browser, where there is one with windows."""
    if sys.platform == "linux" and not ({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        return False  # what is found there runs in the terminal, in the way of everything else
    with contextlib.suppress(webbrowser.Error):
        return webbrowser.open(url)
    return False


@asynccontextmanager
async def running_bot(
    sandbox: Sandbox, engine: Engine, finished: Callable[[Request], None] = lambda _: None
) -> AsyncIterator[None]:
    """The real bot in a sandbox, as long as the block lasts.

    Args:
        sandbox: open.
        engine: open.
        finished: told each request that came to its end.
    """
    with _settings(sandbox) as settings:
        async with app.running(settings, engine, finished=finished):
            yield


@contextlib.contextmanager
def _settings(sandbox: Sandbox) -> Iterator[Settings]:
    """The bot's settings for a sandbox, with a store that is gone afterwards."""
    with TemporaryDirectory(prefix="face-matcher-") as folder:
        template_keys = Path(folder) / "template.keys"
        add_key(template_keys)
        yield Settings.read(
            bot_token=SecretStr(sandbox.token),
            bot_token_file=None,
            telegram_api_url=sandbox.url,
            webhook_url=None,
            telegram_local_dir=None,
            engine_url=None,
            engine_api_key=None,
            engine_api_key_file=None,
            database=Path(folder) / "demo.db",
            database_url=None,
            ids_key=Path(folder) / "ids.key",
            # A throw-away one: it goes with the folder.
            template_keys=None,
            template_keys_file=template_keys,
        )


def _performer(engine: Engine) -> Performer:
    """What makes challenge clips from photos for the chat page."""
    from bot.sandbox.acting import Acting  # scipy, which nobody else here needs

    return Acting(engine, random.SystemRandom())


def _ending(request: Request) -> PhotoOutcome:
    if request.outcome == "answered":
        return PhotoOutcome.ANSWERED
    reasons = {f"refused_{reason.value}" for reason in PHOTO_IS_TO_BLAME}
    return PhotoOutcome.REFUSED if request.outcome in reasons else PhotoOutcome.FAILED


async def _send(person: Person, photo: bytes, name: str) -> None:
    try:
        try:
            await person.send_photo(photo)
        except UserError:
            # What a chat app cannot show as a photo it still sends as a file.
            await person.send_document(photo, name=name)
    except httpx.TimeoutException as error:
        raise TimeoutError("the sandbox did not take the file in time") from error


async def _reply(person: Person, message: Message) -> Reply:
    return Reply(
        text=message.text,
        buttons=tuple(button.text for row in message.buttons for button in row),
        photo=await person.download(message) if message.photo else None,
    )
