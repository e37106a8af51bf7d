"""Work that is done again and again as long as the bot runs, whatever becomes of one round.

Knows nothing about the work.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)

Pause = Callable[[float], Awaitable[None]]
"""Waits for seconds."""

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 3600.0


def log_fault(task: "asyncio.Task[Any]") -> None:
    """Log the fault that a task ended with, if any: what to do when a task is done."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        logger.error("%s ended by a fault", task.get_name(), exc_info=fault)


async def repeat(
    one_round: Callable[[], Awaitable[float | None]], name: str, pause: Pause = asyncio.sleep
) -> None:
    """Do rounds until one was the last, or for ever. A fault of one is logged with its traceback.

    Args:
        one_round: returns the seconds until the next one; None where there is none.
        name: of the work, for the log.
        pause: waits for the next round. After a fault that is a few seconds, and with each further
            one twice as long, up to an hour.
    """
    after_fault_s = _FIRST_PAUSE_S
    while True:
        try:
            wait_s = await one_round()
        except Exception:
            logger.exception("%s failed; the next try is in %.0f s", name, after_fault_s)
            wait_s, after_fault_s = after_fault_s, min(2 * after_fault_s, _LONGEST_PAUSE_S)
        else:
            if wait_s is None:
                return
            after_fault_s = _FIRST_PAUSE_S
        await pause(wait_s)


async def either(*tasks: "asyncio.Task[None]") -> None:
    """Wait for whichever ends first, and fail if it did."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()
