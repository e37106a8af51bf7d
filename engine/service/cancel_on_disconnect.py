"""Requests have an end: their callers' patience, or their callers' leaving.

Knows nothing about what is asked.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from engine.errors import DeadlineExceeded

Result = TypeVar("Result")


@asynccontextmanager
async def until(deadline: float) -> AsyncIterator[None]:
    """Read a request's body, to its end or until the event loop's time is over.

    Raises:
        DeadlineExceeded: it is.
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            "The request's body took longer than the answer may take: send it faster, or allow "
            "more time."
        ) from error


async def attended(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work comes to, unless the caller leaves: then the work ends as well.

    Starlette goes on with a handler whose client has gone, so somebody has to look.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_departure(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
