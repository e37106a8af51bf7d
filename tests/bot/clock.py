"""The event loop's clock, put forward by a test: deadlines are long, and nobody waits for them."""

import asyncio


async def advance(seconds: float) -> None:
    """Put the running loop's clock forward, and let everything run that is due by then.

    Servers close their idle connections too, of which their clients learn before they use them.
    """
    loop = asyncio.get_running_loop()
    before = loop.time
    setattr(loop, "time", lambda: before() + seconds)  # noqa: B010 (mypy: a method)
    for _ in range(20):
        await asyncio.sleep(0)


async def advance_to(time_s: float | None) -> None:
    """Put the clock forward to a time of the running loop: a deadline that was given."""
    assert time_s is not None
    await advance(max(0.0, time_s - asyncio.get_running_loop().time()))
