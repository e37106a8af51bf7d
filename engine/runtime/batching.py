"""The async door: many callers, a few preparing threads, one or two computing, small batches.

A thin async shell over two synchronous functions. Each item is prepared (a photo decoded) in a
small pool of threads, waits in a bounded queue, and is computed together with whatever else waits
when the device is free. The rules:

* Full is full: beyond `queue_size` waiting items the answer is `Busy` at once, with an estimate of
  when to come back.
* Memory is bounded: at most `max_ready` prepared items exist, waiting or being computed; before
  that an item is only its bytes.
* Nobody computes for nobody: what was cancelled or has expired is dropped from the queue.
* A short batch waits at most `max_wait_s`, and only if another item is being prepared.
* One bad item never fails its batch: after an unexpected error each item is tried alone.
* A lane that fails answers its batch with an `InternalError`, is logged and begun anew.
* What takes many items (a clip) is an errand: it is accepted once, as a whole, and submits a few at
  a time, so that others come in between.

All state lives in the event loop's thread, so there are no locks; the device's threads only look
whether an item is still wanted before it tries it alone. Knows nothing about photos or faces.
"""

import asyncio
import contextlib
import contextvars
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from engine.errors import Busy, EngineError, InternalError, Unavailable, too_late
from engine.runtime.observers import Observers

_LOG = logging.getLogger(__name__)
# How much the newest batch counts in the running mean of an item's time.
_SMOOTHING = 0.3
_SHORTEST_RETRY_S = 0.1
_FIRST_RETRY_S = 1.0

Raw = TypeVar("Raw")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[Result]):
    """A result, and where its time went.

    Attributes:
        result: what was computed.
        prepare_s: seconds that preparing took.
        queue_s: seconds spent waiting, for a preparing thread and for the device.
        compute_s: seconds that its batch took.
        batch: the number of its batch: items of one batch share its seconds.
    """

    result: Result
    prepare_s: float
    queue_s: float
    compute_s: float
    batch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of one batch, for whoever measures.

    Attributes:
        prepare_s: of each item, seconds that preparing took.
        queue_s: of each item, seconds spent waiting.
        compute_s: seconds that the batch took.
    """

    prepare_s: tuple[float, ...]
    queue_s: tuple[float, ...]
    compute_s: float

    def __len__(self) -> int:
        return len(self.prepare_s)


@dataclass(eq=False, slots=True)
class _Entry(Generic[Item, Result]):
    """A prepared item on its way through the queue."""

    item: Item
    arrived: float
    queued: float
    prepare_s: float
    context: contextvars.Context
    answer: "asyncio.Future[BatchResult[Result]]"

    def queue_s(self, started: float) -> float:
        """Seconds spent waiting, when its batch started then."""
        return max(0.0, started - self.arrived - self.prepare_s)


@dataclass(frozen=True, slots=True)
class Errand(Generic[Raw, Result]):
    """What takes many items, and was accepted as one.

    Attributes:
        submit: has one of its items prepared and computed; see `Batcher.submit` for what it raises,
            other than `Busy`.
    """

    submit: Callable[[Raw], Coroutine[Any, Any, BatchResult[Result]]]


class Batcher(Generic[Raw, Item, Result]):
    """Turns single requests into batches. Use it as an async context manager.

    Args:
        prepare: makes an item of what was submitted; runs in a pool of `prepare_threads` threads.
            An `EngineError` that it raises is the answer.
        compute: makes one result of each item, in order; runs in one thread, never twice at a
            time unless there are `lanes`. An `EngineError` in place of a result is that item's
            answer. Another function may be put in its place: it has the next batch.
        queue_size: how many items may wait, prepared or not, besides those being computed.
        max_batch: how many items are computed together at most.
        lanes: how many batches are computed side by side. What waits is divided among those that
            are free, so that none gets everything.
        max_ready: how many prepared items may exist; None is a batch for each lane and one at the
            door.
        prepare_threads: how many items are prepared at a time.
        max_wait_s: how long the first item of a short batch waits for company.
        thread: where batches are computed, with a thread for each lane; None starts them. It is
            shut down with the batcher.
        clock: tells seconds, for measurements.
    """

    def __init__(
        self,
        prepare: Callable[[Raw], Item],
        compute: Callable[[list[Item]], Sequence[Result | EngineError]],
        *,
        queue_size: int = 64,
        max_batch: int = 8,
        lanes: int = 1,
        max_ready: int | None = None,
        prepare_threads: int = 2,
        max_wait_s: float = 0.005,
        thread: ThreadPoolExecutor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prepare = prepare
        self.compute = compute
        self._queue_size = queue_size
        self._max_batch = max_batch
        self._lanes = lanes
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._thread = thread or ThreadPoolExecutor(lanes, "engine-device")
        self._pool = ThreadPoolExecutor(prepare_threads, "engine-prepare")
        self._ready = asyncio.Semaphore(max_ready or (lanes + 1) * max_batch)
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._scopes: set[asyncio.Timeout] = set()
        self._accepted = 0
        self._errands = 0
        self._batches = 0
        self._preparing = 0
        self._computing = 0
        self._item_s: float | None = None
        # When each batch that is being computed was begun, the oldest first.
        self._started: list[float] = []
        self._last_end = 0.0
        self._observers: Observers[Batch] = Observers()
        self._closed = False
        self._given_up = False
        self._dispatchers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._dispatchers = [self._lane() for _ in range(self._lanes)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        """How many items wait, prepared or not."""
        return self._accepted - self._computing

    @property
    def ready(self) -> int:
        """How many of them are prepared and wait for the device."""
        return len(self._queue)

    @property
    def stalled_s(self) -> float:
        """For how long nothing has come of what the device has or could have; 0 when it has none.

        A device that hangs shows here, and nowhere else.
        """
        if self._started:
            return self._clock() - self._started[0]
        if self._queue:
            return self._clock() - max(self._last_end, self._queue[0].queued)
        return 0.0

    def observe(self, observer: Callable[[Batch], None]) -> None:
        """Have someone told of every batch, in the event loop, as soon as it has ended."""
        self._observers.add(observer)

    async def submit(self, raw: Raw, *, deadline_s: float | None = None) -> BatchResult[Result]:
        """Have one item prepared and computed.

        Args:
            raw: what `prepare` makes an item of.
            deadline_s: the event loop's time from which on an answer is of no use; None waits for
                ever.

        Raises:
            Busy: too many items wait already.
            DeadlineExceeded: the deadline passed; if the item had not been begun, it never is.
            Unavailable: the batcher is closed, or was closed before the item's turn came.
            InternalError: `prepare` or `compute` failed; the log has the traceback.
            EngineError: whatever `prepare` raised or `compute` answered.
        """
        self.admit()
        async with self._scope(deadline_s):
            return await self._accept(raw)

    @asynccontextmanager
    async def errand(
        self, *, deadline_s: float | None = None
    ) -> AsyncIterator[Errand[Raw, Result]]:
        """Have several items computed, one after another or a few at a time, as one.

        It is refused at once or not at all, however full the queue becomes meanwhile; closing
        waits for its end as for that of an item. Whoever runs it submits no more at a time than a
        batch has, for the sake of everybody else.

        Args:
            deadline_s: the event loop's time from which on the whole of it is of no use; None waits
                for ever.

        Raises:
            Busy: too many items wait already.
            DeadlineExceeded: the deadline passed.
            Unavailable: the batcher is closed, or was closed before the errand ended.
        """
        self.admit()
        self._errands += 1
        try:
            async with self._scope(deadline_s):
                yield Errand(self._accept)
        finally:
            self._errands -= 1
            self._tell_idle()

    def admit(self) -> None:
        """Raise what `submit` would raise at once: Unavailable when closed, Busy when full."""
        if self._closed or not self._dispatchers:
            raise Unavailable("The engine is shut down: ask again when it is back.")
        if self.waiting >= self._queue_size:
            raise Busy(
                f"{self.waiting} photos wait already: come back later.",
                retry_after_s=self._retry_after_s(),
            )

    async def close(self, *, limit_s: float = 10.0) -> None:
        """Take nothing new, finish what was accepted, stop the threads.

        Args:
            limit_s: after how long the unfinished is given up: its callers get `Unavailable`. A
                batch that is being computed cannot be stopped; it is not waited for.
        """
        self._closed = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._drained()
        finally:
            self._given_up = True
            for scope in self._scopes:
                if not scope.expired():
                    scope.reschedule(asyncio.get_running_loop().time())
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._thread.shutdown(wait=False, cancel_futures=True)
        await self._drained()
        for dispatcher in self._dispatchers:
            dispatcher.cancel()
        await asyncio.gather(*self._dispatchers, return_exceptions=True)

    async def _drained(self) -> None:
        while self._accepted or self._errands:
            self._idle.clear()
            await self._idle.wait()

    def _tell_idle(self) -> None:
        if not (self._accepted or self._errands):
            self._idle.set()

    @asynccontextmanager
    async def _scope(self, deadline_s: float | None) -> AsyncIterator[None]:
        """Ends what is in it at the deadline, or when the batcher gives up."""
        scope = asyncio.timeout_at(deadline_s)
        try:
            async with scope:
                self._scopes.add(scope)
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            if self._given_up:
                raise Unavailable("The engine was shut down before it could answer.") from error
            raise too_late() from error
        finally:
            self._scopes.discard(scope)

    def _retry_after_s(self) -> float:
        """When those who wait now will have been served, going by recent throughput."""
        if self._item_s is None:
            return _FIRST_RETRY_S
        return max(_SHORTEST_RETRY_S, self._accepted * self._item_s)

    # --- One item's way, in its caller's task ---

    async def _accept(self, raw: Raw) -> BatchResult[Result]:
        self._accepted += 1
        try:
            return await self._serve(raw)
        finally:
            self._accepted -= 1
            self._tell_idle()

    async def _serve(self, raw: Raw) -> BatchResult[Result]:
        arrived, context = self._clock(), contextvars.copy_context()
        await self._ready.acquire()
        item, prepare_s = await self._prepared(raw)
        loop = asyncio.get_running_loop()
        entry: _Entry[Item, Result] = _Entry(
            item, arrived, self._clock(), prepare_s, context, loop.create_future()
        )
        self._queue.append(entry)
        self._changed.set()
        try:
            return await entry.answer
        finally:
            # Cancelled before its turn: leaves its place at once. Once in a batch, the batch ends.
            if entry in self._queue:
                self._queue.remove(entry)
                self._ready.release()

    async def _prepared(self, raw: Raw) -> tuple[Item, float]:
        """Prepare in a thread; what does not come to be an item gives back its place."""
        try:
            work = self._pool.submit(contextvars.copy_context().run, self._timed_prepare, raw)
        except RuntimeError as error:  # shut down while this one waited for its place
            self._ready.release()
            raise Unavailable("The engine was shut down before it could answer.") from error
        self._preparing += 1
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            # A thread cannot be stopped, and what it makes takes up memory until it ends.
            loop = asyncio.get_running_loop()
            work.add_done_callback(lambda _: _call_soon(loop, self._ready.release))
            raise
        except EngineError:
            self._ready.release()
            raise
        finally:
            self._preparing -= 1
            self._changed.set()

    def _timed_prepare(self, raw: Raw) -> tuple[Item, float]:
        started = self._clock()
        try:
            item = self._prepare(raw)
        except EngineError:
            raise
        except BaseException as error:  # in a thread, nothing means to end the process
            _LOG.exception("Preparing failed.")
            raise _internal() from error
        return item, self._clock() - started

    # --- The device's way, in a task for each lane ---

    def _lane(self) -> asyncio.Task[None]:
        lane = asyncio.create_task(self._dispatch(), name="engine-batching")
        lane.add_done_callback(self._lane_ended)
        return lane

    def _lane_ended(self, lane: asyncio.Task[None]) -> None:
        if lane.cancelled():  # by `close`, or by a loop that ends
            return
        _LOG.error("A lane failed and is begun anew.", exc_info=lane.exception())
        self._dispatchers[self._dispatchers.index(lane)] = self._lane()

    async def _dispatch(self) -> None:
        while True:
            await self._company()
            batch = self._take()
            if not batch:
                continue
            self._computing += len(batch)
            try:
                await self._run(batch)
            finally:
                self._computing -= len(batch)
                for entry in batch:
                    self._ready.release()
                    if not entry.answer.done():
                        entry.answer.set_exception(_internal())

    async def _company(self) -> None:
        """Return when there is something to compute and no more that is worth waiting for."""
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        give_up = self._queue[0].queued + self._max_wait_s
        while self._preparing and 0 < len(self._queue) < self._max_batch:
            remaining = give_up - self._clock()
            if remaining <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(remaining):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        share = math.ceil(len(self._queue) / (self._lanes - len(self._started)))
        while self._queue and len(batch) < min(share, self._max_batch):
            entry = self._queue.popleft()
            if entry.answer.done():  # cancelled, or its deadline passed
                self._ready.release()
            else:
                batch.append(entry)
        return batch

    async def _run(self, batch: list[_Entry[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        started = self._clock()
        self._started.append(started)
        try:
            results = await loop.run_in_executor(self._thread, self._compute_each, batch)
        finally:
            self._started.remove(started)
        ended = self._clock()
        self._batches += 1
        # From batch to batch while there is a backlog, so that slow preparing counts as well.
        spent = ended - max(self._last_end, min(entry.arrived for entry in batch))
        self._last_end = ended
        item_s = spent / len(batch)
        if self._item_s is not None:
            item_s = _SMOOTHING * item_s + (1 - _SMOOTHING) * self._item_s
        self._item_s = item_s
        for entry, result in zip(batch, results, strict=True):
            if entry.answer.done():
                continue
            if isinstance(result, EngineError):
                entry.answer.set_exception(result)
            else:
                queue_s, compute_s = entry.queue_s(started), ended - started
                entry.answer.set_result(
                    BatchResult(result, entry.prepare_s, queue_s, compute_s, self._batches)
                )
        told = Batch(
            prepare_s=tuple(entry.prepare_s for entry in batch),
            queue_s=tuple(entry.queue_s(started) for entry in batch),
            compute_s=ended - started,
        )
        self._observers.tell(told)

    # --- In the device's threads ---

    def _compute_each(self, batch: list[_Entry[Item, Result]]) -> list[Result | EngineError]:
        try:
            results = list(self.compute([entry.item for entry in batch]))
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")
            return results
        except EngineError as error:
            if len(batch) == 1:
                return [error]
        except BaseException:  # in a thread, nothing means to end the process
            if len(batch) == 1:
                batch[0].context.run(_LOG.exception, "Computing failed.")
                return [_internal()]
            _LOG.exception("Computing a batch of %d failed.", len(batch))
        return [
            too_late() if entry.answer.done() else self._compute_each([entry])[0] for entry in batch
        ]


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    # The event loop may have already been closed, and then nobody waits for this.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


def _internal() -> InternalError:
    return InternalError("The engine failed on this photo, by a bug of ours: the log tells more.")
