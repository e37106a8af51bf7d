"""One question to an engine's service and what comes of it: a value, or why there is none.

Knows the service's headers and how answers end badly: nobody there, a connection lost, a proxy's
page, broken JSON, a body without end. Of an answer never more is read than `ANSWER_MAX_BYTES`.
Knows nothing about asking twice, nor about what is asked. Neither keys nor files get into a
sentence.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPMethod, HTTPStatus
from typing import TypeVar

import aiohttp

from engine import request_id
from engine.errors import Busy, EngineError, Unavailable
from engine.remote.address import Address
from engine.wire import ANSWER_MAX_BYTES, Unreadable, read_problem

PROBLEM_MAX_BYTES = 2**16
_CHUNK_BYTES = 2**16

# The server is told a little less than its caller waits, so that its word comes in time.
_RETURN_S = 0.05
_RETURN_SHARE = 0.1

_SHOWN_CHARACTERS = 200

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the service, however often.

    Attributes:
        method: of HTTP.
        path: the route.
        query: its parameters.
        file: a photo's or a clip's bytes, sent as they are.
    """

    method: HTTPMethod
    path: str
    query: Mapping[str, str] | None = None
    file: bytes | None = field(default=None, repr=False)


class Failed(Exception):
    """A question without a value.

    Attributes:
        error: what the caller gets when it is not asked again.
        answered: whether an engine said so, rather than nobody, or something else.
        again: whether asking again may end better.
        pause_s: how long the server asked to wait before.
    """

    def __init__(
        self,
        error: EngineError,
        *,
        answered: bool = False,
        again: bool = False,
        pause_s: float | None = None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.answered = answered
        self.again = again
        self.pause_s = pause_s


class Exchange:
    """Kept connections to one service.

    Args:
        address: the service's.
        key: what it wants to be shown.
        connect_s: how long a connection may take, the name's lookup included.
    """

    def __init__(self, address: Address, *, key: str | None, connect_s: float) -> None:
        self._address = address
        headers = {"Accept-Encoding": "identity"}  # what is unpacked has no bounds
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        # No limit on connections: the queue in front of the device is the engine's, and it alone
        # knows when to say that it is full.
        connector = (
            aiohttp.TCPConnector(limit=0)
            if address.socket is None
            else aiohttp.UnixConnector(address.socket, limit=0)
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections; questions under way fail."""
        await self._session.close()

    async def ask(
        self, question: Question, read: Callable[[bytes], Value], *, left_s: float
    ) -> Value:
        """Ask once. Cancelling it closes the connection, by which the server notices.

        Args:
            question: what is asked.
            read: makes a value of the answer's body; raises Unreadable where it is another.
            left_s: how long the caller still waits; the server is told, nothing is stopped here.

        Raises:
            Failed: there is no value.
        """
        try:
            async with self._session.request(
                question.method,
                f"{self._address.base_url}{question.path}",
                params=question.query,
                data=None if question.file is None else io.BytesIO(question.file),
                headers={"X-Timeout-Ms": str(_told_ms(left_s)), **request_id.headers()},
                allow_redirects=False,  # the key is for this address alone
            ) as response:
                body = await self._body(response)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise self._nobody(_brief(error)) from error
        except aiohttp.ClientError as error:
            raise self._malformed(f"broken HTTP ({_brief(error)})") from error
        if response.status != HTTPStatus.OK:
            raise self._refusal(response, body)
        try:
            return read(body)
        except Unreadable as error:
            raise self._malformed(f"an answer that cannot be read ({_brief(error)})") from error

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._malformed("a compressed answer, which was not asked for")
        most = ANSWER_MAX_BYTES if response.status == HTTPStatus.OK else PROBLEM_MAX_BYTES
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > most:
                raise self._malformed(f"{response.status} with more than {most} bytes")
        return bytes(body)

    def _refusal(self, response: aiohttp.ClientResponse, body: bytes) -> Failed:
        """What an answer other than 200 is."""
        again = response.status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
        pause_s = _retry_after_s(response.headers)
        try:
            error = read_problem(body)
        except Unreadable:
            failed = self._malformed(f"{response.status}, which no engine sends")
            failed.again, failed.pause_s = again, pause_s
            return failed
        if isinstance(error, Busy):
            pause_s = error.retry_after_s  # the header has whole seconds only
        return Failed(error, answered=True, again=again, pause_s=pause_s)

    def _nobody(self, reason: str) -> Failed:
        message = (
            f"The engine at {self._address.name} cannot be reached ({reason}): start it, or "
            "correct its address."
        )
        # A file can be sent twice: looking at it changes nothing.
        return Failed(Unavailable(message), again=True)

    def _malformed(self, what: str) -> Failed:
        message = (
            f"What listens at {self._address.name} gave {what}: see that it is an engine, of the "
            "same version as this program."
        )
        return Failed(Unavailable(message))


def _told_ms(left_s: float) -> int:
    return max(1, int(1000 * (left_s - min(_RETURN_S, _RETURN_SHARE * left_s))))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What a Retry-After asks for; one that is a date, or no number, never fits."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    return float(value) if value.isascii() and value.isdecimal() else math.inf


def _brief(error: BaseException) -> str:
    """A fault's text for a sentence: one line and not a long one, whatever a server put in."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
