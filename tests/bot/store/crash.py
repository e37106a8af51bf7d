"""Kills a process at the n-th time that it goes on after an await, and nothing of the bot knows.

A child process, forked from one that has everything loaded, runs a verb of the store on an event
loop whose tasks count how often they go on; at the n-th time the child kills itself as `kill -9`
would. Knows nothing about what must hold afterwards.
"""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import SimpleNamespace
from typing import Any, Protocol

from bot.store import Store
from tests.bot.store.places import Place

Verb = Callable[[Store, Place, int], Awaitable[object]]

PROCESSES = multiprocessing.get_context("forkserver")
# Also the modules that the children's functions are of: importing one takes a child 0.7 s.
PROCESSES.set_forkserver_preload(
    ["tests.bot.store.test_crash", "tests.bot.store.test_killed_bot", "alembic.command", "asyncpg"]
)
_LIMIT_S = 60


class Switch(Protocol):
    """Something that is on or off; another process may turn it."""

    value: bool


class Fuse:
    """Kills its process at the n-th burn, as long as it is lit."""

    def __init__(self, length: int, lit: Switch) -> None:
        self._left = length
        self._lit = lit

    def burn(self) -> None:
        if self._lit.value:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that burns a fuse each time that it goes on."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], fuse: Fuse) -> None:
        self._coroutine = coroutine
        self._fuse = fuse

    def send(self, value: Any) -> Any:
        self._fuse.burn()
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        self._fuse.burn()
        return self._coroutine.throw(*args)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._coroutine.__await__()


async def killed(verb: Verb, place: Place, person: int, at: int) -> bool:
    """Run a verb on a store of its own, in a process that dies at the given await.

    Args:
        verb: what to do; a function of a module, so that the child finds it.
        place: the database.
        person: for whom.
        at: when to die, from 1.

    Returns:
        Whether it died; False where it came to its end before that.
    """
    child = PROCESSES.Process(target=_run, args=(verb, place, person, at))
    child.start()
    await asyncio.to_thread(child.join, _LIMIT_S)
    if child.exitcode is None:
        child.kill()
        raise AssertionError(f"await {at} of {verb.__name__} takes forever")
    assert child.exitcode in (0, -signal.SIGKILL), f"{verb.__name__}: exit code {child.exitcode}"
    return child.exitcode != 0


def count_awaits(fuse: Fuse) -> None:
    """Have every task that this thread's loop is given from now on burn a fuse."""
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coroutine, **options: asyncio.Task(
            _Counted(coroutine, fuse), loop=loop, **options
        )
    )


def _run(verb: Verb, place: Place, person: int, at: int) -> None:
    lit: Any = SimpleNamespace(value=False)

    async def child() -> None:
        count_awaits(Fuse(at, lit))
        async with place.store() as store:
            lit.value = True
            await asyncio.create_task(verb(store, place, person))  # type: ignore[arg-type]
            lit.value = False

    asyncio.run(child())
