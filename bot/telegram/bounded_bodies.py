"""Bodies of a Bot API server's answers, of which no more is taken than is accepted.

python-telegram-bot's client takes an answer whole, whatever its size. Knows nothing about what an
answer says.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx


class BodyTooLarge(httpx.TransportError):
    """An answer's body is longer than is accepted; reading stopped there."""


def bounded(limit_bytes: int) -> dict[str, Any]:
    """Options of `httpx.AsyncClient`: `BodyTooLarge` for each body that is longer than a limit.

    A packed body, whose length says nothing, is not asked for; one that comes all the same is a
    `httpx.DecodingError`.

    Args:
        limit_bytes: of a body.
    """

    async def bound(response: httpx.Response) -> None:
        packed = response.headers.get("Content-Encoding", "identity")
        if packed != "identity":
            raise httpx.DecodingError(f"a body packed by {packed!r}", request=response.request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Bounded(response.stream, limit_bytes)

    return {"headers": {"Accept-Encoding": "identity"}, "event_hooks": {"response": [bound]}}


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        async for chunk in self._stream:
            taken += len(chunk)
            if taken > self._limit_bytes:
                raise BodyTooLarge(f"a body of more than {self._limit_bytes} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
