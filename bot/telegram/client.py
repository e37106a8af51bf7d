"""The way to Telegram: python-telegram-bot's client, made to bear malformed updates.

Knows nothing about what is sent.
"""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
from telegram import Update
from telegram.error import InvalidToken, TelegramError
from telegram.ext import ExtBot
from telegram.request import HTTPXRequest

from bot.settings import Settings
from bot.telegram.bounded_bodies import bounded
from bot.telegram.rate_limits import Limiter
from engine.errors import ConfigurationError
from engine.media.image import LIMITS

_LARGEST_UPDATE_ID = 2**53
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_ASKED_AGAIN_AFTER_S = (1, 2, 4, 8, 16)


class Malformed(ValueError):
    """A JSON value that is no update; the message says nothing of its content."""


def parse_update(raw: object, bot: "Telegram") -> Update:
    """Turn a JSON value into an update.

    Raises:
        Malformed: it is none, in whatever way.
    """
    number = update_id(raw)
    if number is None or not isinstance(raw, dict):
        raise Malformed("an update without a number")
    try:
        # PTB takes some values out of the dictionaries that it reads; `raw` is not used again.
        return Update.de_json(raw, bot)
    except Exception as error:  # PTB promises no error for malformed data, so any will come
        raise Malformed(f"update {number}: {type(error).__name__}") from None


def update_id(raw: object) -> int | None:
    """The number of what may be an update."""
    number = raw.get("update_id") if isinstance(raw, dict) else None
    if isinstance(number, int) and not isinstance(number, bool):
        return number if 0 <= number < _LARGEST_UPDATE_ID else None
    return None


class Telegram(ExtBot[None]):
    """PTB's client, with updates available before they are parsed.

    PTB's own `get_updates` gives up a whole batch for one update that it cannot parse, and then
    asks for the same batch for ever.
    """

    async def raw_updates(
        self, offset: int | None, wait_s: int, allowed: tuple[str, ...]
    ) -> list[object]:
        """Long-poll for updates.

        Args:
            offset: first update number wanted; those below count as received.
            wait_s: how long Telegram may hold the question open.
            allowed: kinds of updates wanted.

        Raises:
            TelegramError: as every method of the client.
        """
        asked = {"offset": offset, "timeout": wait_s, "allowed_updates": list(allowed)}
        answer: object = await self._post("getUpdates", asked, read_timeout=wait_s + 10)
        return answer if isinstance(answer, list) else []


async def refused_for_good(
    ask: Callable[[], Awaitable[object]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bool:
    """Whether a token that was refused once is refused again and again, for half a minute.

    A proxy before a Bot API server that restarts answers 404 in its place, as to a wrong token.

    Args:
        ask: makes a call that needs nothing but the token.
        sleep: waits.
    """
    for pause_s in _ASKED_AGAIN_AFTER_S:
        await sleep(pause_s)
        try:
            await ask()
        except InvalidToken:
            continue
        except TelegramError:
            pass  # away, which is no refusal
        return False
    return True


def connect(settings: Settings) -> Telegram:
    """The client as the settings say.

    Raises:
        ConfigurationError: the environment's proxies cannot be used.
    """
    # The environment's proxies lead out of this machine, so not to a server on it.
    server = urlsplit(settings.telegram_api_url)
    direct = server.hostname in ("127.0.0.1", "localhost", "::1")
    way = {"trust_env": not direct, **bounded(LIMITS.file_bytes)}
    if direct and server.scheme == "http":  # no TLS, and reading certificates takes 25 ms
        way["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with _proxies_named():
        calls, polls = (
            HTTPXRequest(
                connection_pool_size=2 * settings.concurrency + 8,
                read_timeout=20,
                write_timeout=20,
                pool_timeout=10,
                httpx_kwargs=way,
            ),
            HTTPXRequest(connection_pool_size=2, httpx_kwargs=way),
        )
    return Telegram(
        settings.bot_token.get_secret_value(),
        base_url=f"{settings.telegram_api_url}/bot",
        base_file_url=f"{settings.telegram_api_url}/file/bot",
        request=calls,
        get_updates_request=polls,
        rate_limiter=Limiter(rate=settings.send_rate, patience_s=settings.answer_timeout_s),
    )


@contextmanager
def _proxies_named() -> Iterator[None]:
    """Turn faults of the environment's proxies into a sentence, without their passwords."""
    try:
        yield
    except (ValueError, RuntimeError, httpx.InvalidURL) as error:
        given = [name for name in os.environ if name.upper() in _PROXIES]
        if not given:
            raise
        raise ConfigurationError(
            f"{', '.join(sorted(given))} cannot be used: a proxy is written http://host:port "
            "(socks5:// needs the package httpx[socks]), and NO_PROXY has names of hosts and "
            "addresses without brackets, separated by commas. Set it right, or remove it."
        ) from error
