"""Threads that work on parts of a batch side by side, each on cores of its own.

On a CPU most of a pipeline's operations are so small that threads which share each of them wait
for one another longer than they work: two halves of a batch side by side took 0.7 to 0.9 of the
time that two cores need for the whole, one operation after the other
(`tests/benchmarks/halves.py`). Knows nothing about what is computed.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Lock
from typing import TypeVar

import torch

Result = TypeVar("Result")

MOST = 4
"""Parts of a batch: smaller ones would lose more to small batches than they gain."""


class WorkerThreads:
    """As many threads as parts; the torch threads there are, divided among them.

    Several may call at a time. Work is divided among the threads that are free; where none is, it
    waits whole for the first, because small parts cost more than large ones.

    Args:
        threads: how many threads torch may use in all.
    """

    def __init__(self, threads: int) -> None:
        self._parts = min(threads, MOST)
        self._free = self._parts
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        if self._parts > 1:
            self._pool = ThreadPoolExecutor(self._parts, "engine-worker")
            self._start(threads)

    @property
    def several(self) -> bool:
        """Whether there are threads to share the work."""
        return self._pool is not None

    def map(
        self, work: Callable[[Sequence[int]], Sequence[Result]], costs: Sequence[float]
    ) -> list[Result]:
        """Have items worked on, side by side where there are several.

        Args:
            work: results of some items, given by their numbers, in that order; called in several
                threads at once.
            costs: about how much work each item is, so that parts take equally long.

        Returns:
            The results, in the order of the items.
        """
        with self._lock:
            alone = self._free == self._parts
            count = max(1, min(self._free, len(costs)))
            if self._pool is None or (alone and count == 1):
                count = 0  # the caller does it, with all cores
            self._free -= count
        if not count:
            return list(work(range(len(costs))))
        done: list[Future[Sequence[Result]]] = []
        try:
            shares = self._deal(costs, count)
            for share in shares:
                done.append(self._begin(work, share))
        finally:
            with self._lock:
                self._free += count - len(done)  # those that could not be given their part
        results: list[Result | None] = [None] * len(costs)
        for share, future in zip(shares, done, strict=True):
            for i, result in zip(share, future.result(), strict=True):
                results[i] = result
        return [result for result in results if result is not None]

    def _begin(
        self, work: Callable[[Sequence[int]], Sequence[Result]], part: Sequence[int]
    ) -> Future[Sequence[Result]]:
        assert self._pool is not None

        def and_tell() -> Sequence[Result]:
            try:
                return work(part)
            finally:
                with self._lock:
                    self._free += 1

        return self._pool.submit(and_tell)

    @staticmethod
    def _deal(costs: Sequence[float], count: int) -> list[list[int]]:
        """Indices for each part: the costly ones first, each to whoever has the least."""
        shares: list[list[int]] = [[] for _ in range(count)]
        load = [0.0] * count
        for i in sorted(range(len(costs)), key=costs.__getitem__, reverse=True):
            least = min(range(count), key=lambda part: (load[part], len(shares[part])))
            shares[least].append(i)
            load[least] += costs[i]
        return [sorted(share) for share in shares]

    def _start(self, threads: int) -> None:
        """Give each thread its cores.

        OpenMP keeps the number by thread; torch also keeps one for threads that are still to come,
        and MKL one for all, so that the caller's is set again at the end.
        """
        assert self._pool is not None
        each, together = threads // self._parts, Barrier(self._parts)

        def prepare() -> None:
            torch.get_num_threads()  # or the thread takes the common number when it first asks
            torch.set_num_threads(each)
            together.wait()  # or one thread would prepare for all of them

        for done in [self._pool.submit(prepare) for _ in range(self._parts)]:
            done.result()
        torch.set_num_threads(threads)
