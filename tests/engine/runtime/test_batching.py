import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.errors import (
    BrokenImage,
    Busy,
    DeadlineExceeded,
    EngineError,
    InternalError,
    NotAnImage,
    Unavailable,
)
from engine.runtime.batching import Batch, Batcher, BatchResult
from tests.engine.seers import after

PATIENCE_S = 60.0
ODD = 1313


class Gate:
    """Holds threads up until it is opened, and tells when one stands before it."""

    def __init__(self, *, shut: bool) -> None:
        self._arrived = threading.Semaphore(0)
        self._open = threading.Event()
        if not shut:
            self._open.set()

    def pass_through(self) -> None:
        self._arrived.release()
        assert self._open.wait(PATIENCE_S)

    async def arrival(self) -> None:
        assert await asyncio.to_thread(self._arrived.acquire, timeout=PATIENCE_S)

    def open(self) -> None:
        self._open.set()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Works:
    """The two functions of a batcher: doubles numbers, remembers what it was given."""

    prepared: list[int] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    faults: dict[int, BaseException] = field(default_factory=dict)
    before_prepare: Gate = field(default_factory=lambda: Gate(shut=False))
    before_compute: Gate = field(default_factory=lambda: Gate(shut=False))
    during_compute: Callable[[], None] = lambda: None

    def prepare(self, raw: int) -> int:
        self.before_prepare.pass_through()
        self.prepared.append(raw)
        if raw < 0:
            raise NotAnImage(f"{raw} is no picture.")
        return raw

    def compute(self, items: list[int]) -> Sequence[int | EngineError]:
        self.batches.append(items)
        self.threads.add(threading.current_thread().name)
        self.before_compute.pass_through()
        self.during_compute()
        for item in items:
            if item in self.faults:
                raise self.faults[item]
        return [BrokenImage("Odd.") if item == ODD else 2 * item for item in items]

    def open_gates(self) -> None:
        self.before_prepare.open()
        self.before_compute.open()


@asynccontextmanager
async def batching(
    works: Works, clock: Clock | None = None, **options: Any
) -> AsyncIterator[Batcher[int, int, int]]:
    if clock is not None:
        options["clock"] = clock
    options.setdefault("prepare_threads", 1)  # one after the other: items queue up in order
    batcher: Batcher[int, int, int] = Batcher(works.prepare, works.compute, **options)
    try:
        async with batcher:
            yield batcher
    finally:
        works.open_gates()


async def settled(condition: Callable[[], bool]) -> None:
    """Let the event loop run until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (states of the batcher that nobody announces)
            await asyncio.sleep(0)


async def test_answers_each_with_its_own_result() -> None:
    works = Works()
    async with batching(works) as batcher:
        answers = await asyncio.gather(*(batcher.submit(n) for n in range(30)))
    assert [answer.result for answer in answers] == [2 * n for n in range(30)]
    assert sorted(n for batch in works.batches for n in batch) == list(range(30))


async def test_computes_in_one_thread_that_is_not_the_event_loops() -> None:
    works = Works()
    async with batching(works, max_batch=2) as batcher:
        await asyncio.gather(*(batcher.submit(n) for n in range(20)))
    assert len(works.threads) == 1
    assert threading.current_thread().name not in works.threads


async def test_takes_what_waits_when_the_device_frees() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, max_batch=4, max_ready=20, max_wait_s=0) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        rest = [asyncio.create_task(batcher.submit(n)) for n in range(1, 7)]
        await settled(lambda: batcher.ready == 6)
        works.before_compute.open()
        await asyncio.gather(first, *rest)
    assert [len(batch) for batch in works.batches] == [1, 4, 2]


async def test_a_lone_item_does_not_wait_for_company() -> None:
    works = Works()
    async with batching(works, max_wait_s=3600) as batcher:
        async with asyncio.timeout(PATIENCE_S):
            assert (await batcher.submit(1)).result == 2


class SlowZero(Works):
    """Preparing takes as long as one likes for 0, and for -1, which fails in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = Gate(shut=True)

    def prepare(self, raw: int) -> int:
        if raw <= 0:
            self.slow.pass_through()
        return super().prepare(raw)


async def test_a_short_batch_waits_for_an_item_in_preparation() -> None:
    works = SlowZero()
    async with batching(works, max_wait_s=3600, prepare_threads=2) as batcher:
        late = asyncio.create_task(batcher.submit(0))
        early = asyncio.create_task(batcher.submit(1))
        await settled(lambda: batcher.ready == 1)
        assert works.batches == []
        works.slow.open()
        await asyncio.gather(late, early)
    assert works.batches == [[1, 0]]


async def test_a_short_batch_does_not_wait_for_an_item_that_failed() -> None:
    works = SlowZero()
    async with batching(works, max_wait_s=3600, prepare_threads=2) as batcher:
        late = asyncio.create_task(batcher.submit(-1))
        early = asyncio.create_task(batcher.submit(1))
        await settled(lambda: batcher.ready == 1)
        works.slow.open()
        async with asyncio.timeout(PATIENCE_S):
            await early
        with pytest.raises(NotAnImage):
            await late


async def test_a_short_batch_waits_no_longer_than_allowed() -> None:
    works = SlowZero()
    async with batching(works, max_wait_s=0.005, prepare_threads=2) as batcher:
        late = asyncio.create_task(batcher.submit(0))
        assert (await batcher.submit(1)).result == 2
        assert works.batches == [[1]]
        works.slow.open()
        await late


async def test_full_is_full_at_once() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, queue_size=3, max_batch=1, max_ready=2, max_wait_s=0) as batcher:
        computing = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        waiting = [asyncio.create_task(batcher.submit(n)) for n in (1, 2, 3)]
        await settled(lambda: batcher.waiting == 3)
        with pytest.raises(Busy) as caught:
            await batcher.submit(4)
        assert caught.value.retry_after_s == 1.0
        works.before_compute.open()
        await asyncio.gather(computing, *waiting)
        assert (await batcher.submit(5)).result == 10
    assert 4 not in works.prepared


async def test_retry_after_follows_recent_throughput() -> None:
    clock = Clock()
    works = Works()

    def take_two_seconds() -> None:
        clock.now += 2

    works.during_compute = take_two_seconds
    async with batching(works, clock, queue_size=2, max_batch=1, max_wait_s=0) as batcher:
        await batcher.submit(1)
        await batcher.submit(2)
        works.before_compute = Gate(shut=True)
        tasks = [asyncio.create_task(batcher.submit(3))]
        await works.before_compute.arrival()
        tasks += [asyncio.create_task(batcher.submit(n)) for n in (4, 5)]
        await settled(lambda: batcher.waiting == 2)
        with pytest.raises(Busy) as caught:
            await batcher.submit(6)
        assert caught.value.retry_after_s == pytest.approx(6.0)
        works.before_compute.open()
        await asyncio.gather(*tasks)


async def test_memory_is_bounded_by_prepared_items() -> None:
    works = Works(before_compute=Gate(shut=True))
    finished = peak = 0
    prepare = works.prepare

    def finish() -> None:
        nonlocal finished
        finished += len(works.batches[-1])

    def count(raw: int) -> int:
        nonlocal peak
        done = finished
        item = prepare(raw)
        peak = max(peak, len(works.prepared) - done)
        return item

    works.prepare = count  # type: ignore[method-assign]
    works.during_compute = finish
    async with batching(works, max_batch=2, max_ready=3, prepare_threads=4) as batcher:
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(12)]
        await works.before_compute.arrival()
        await settled(lambda: len(works.prepared) == 3)
        works.before_compute.open()
        await asyncio.gather(*tasks)
    assert len(works.prepared) == 12
    assert peak == 3


async def test_a_bad_item_never_enters_a_batch() -> None:
    works = Works()
    async with batching(works) as batcher:
        results = await asyncio.gather(
            *(batcher.submit(n) for n in (1, -1, 2)), return_exceptions=True
        )
        assert isinstance(results[1], NotAnImage)
        # Its place is free again, however often it happens.
        for _ in range(50):
            with pytest.raises(NotAnImage):
                await batcher.submit(-1)
    assert sorted(n for batch in works.batches for n in batch) == [1, 2]


async def test_an_error_in_place_of_a_result_is_that_items_answer() -> None:
    works = Works()
    async with batching(works) as batcher:
        good, odd = await asyncio.gather(
            batcher.submit(1), batcher.submit(ODD), return_exceptions=True
        )
    assert isinstance(good, BatchResult)
    assert isinstance(odd, BrokenImage)


async def in_one_batch(works: Works, numbers: Sequence[int]) -> list[object]:
    """Submit items so that they are all computed in one batch."""
    async with batching(works, max_batch=8, max_ready=20, max_wait_s=0) as batcher:
        first = asyncio.create_task(batcher.submit(1000))
        await works.before_compute.arrival()
        tasks = [asyncio.create_task(batcher.submit(n)) for n in numbers]
        await settled(lambda: batcher.ready == len(numbers))
        works.before_compute.open()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_after_an_unexpected_error_each_is_tried_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    works = Works(before_compute=Gate(shut=True), faults={2: RuntimeError("out of memory")})
    results = await in_one_batch(works, (1, 2, 3))
    assert [getattr(result, "result", None) for result in results] == [2, None, 6]
    assert isinstance(results[1], InternalError)
    assert works.batches[1:] == [[1, 2, 3], [1], [2], [3]]
    assert "out of memory" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


async def test_an_engine_error_for_a_whole_batch_is_kept_as_it_is() -> None:
    works = Works(before_compute=Gate(shut=True), faults={2: BrokenImage("Broken.")})
    results = await in_one_batch(works, (1, 2))
    assert isinstance(results[0], BatchResult)
    assert results[1] is works.faults[2]


async def test_too_few_results_are_a_bug_and_not_a_mix_up() -> None:
    works = Works()
    works.compute = lambda items: [0] * (len(items) + 1)  # type: ignore[method-assign]
    async with batching(works) as batcher:
        with pytest.raises(InternalError):
            await batcher.submit(1)


async def test_a_bug_in_preparing_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    works = Works()
    works.prepare = lambda raw: 1 // raw  # type: ignore[method-assign]
    async with batching(works) as batcher:
        for _ in range(50):
            with pytest.raises(InternalError):
                await batcher.submit(0)
        assert (await batcher.submit(1)).result == 2
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_cancelled_in_the_queue_is_never_computed() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, max_batch=4, max_ready=4, queue_size=3, max_wait_s=0) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        tasks = [asyncio.create_task(batcher.submit(n)) for n in (1, 2, 3)]
        await settled(lambda: batcher.ready == 3)
        tasks[1].cancel()
        await settled(lambda: batcher.waiting == 2)
        # The place that became free is one for the next.
        tasks.append(asyncio.create_task(batcher.submit(4)))
        await settled(lambda: batcher.ready == 3)
        works.before_compute.open()
        await asyncio.gather(first, tasks[0], *tasks[2:])
        assert tasks[1].cancelled()
    assert works.batches == [[0], [1, 3, 4]]


async def test_what_is_cancelled_while_preparing_holds_its_memory_until_it_ends() -> None:
    works = Works(before_prepare=Gate(shut=True))
    async with batching(works, max_ready=1, prepare_threads=2) as batcher:
        gone = asyncio.create_task(batcher.submit(1))
        await works.before_prepare.arrival()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batcher.waiting == 0
        after = asyncio.create_task(batcher.submit(2))
        await settled(lambda: batcher.waiting == 1)
        assert works.prepared == []
        works.before_prepare.open()
        assert (await after).result == 4
    assert works.prepared == [1, 2]
    assert works.batches == [[2]]


async def test_what_is_cancelled_while_computing_disturbs_nobody() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works) as batcher:
        task = asyncio.create_task(batcher.submit(1))
        await works.before_compute.arrival()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        works.before_compute.open()
        for n in range(40):
            assert (await batcher.submit(n)).result == 2 * n


async def test_what_expired_in_the_queue_is_never_computed() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, max_wait_s=0, max_ready=3) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        late = asyncio.create_task(batcher.submit(1, deadline_s=after(0.2)))
        in_time = asyncio.create_task(batcher.submit(2, deadline_s=after(PATIENCE_S)))
        await settled(lambda: batcher.ready == 2)
        with pytest.raises(DeadlineExceeded):
            await late
        works.before_compute.open()
        await first
        assert (await in_time).result == 4
        # The place of what expired is free again.
        more = await asyncio.gather(*(batcher.submit(n) for n in (3, 4, 5, 6)))
        assert len(more) == 4
    assert works.batches[:2] == [[0], [2]]


async def test_a_caller_is_told_of_its_deadline_while_the_device_is_busy() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(1, deadline_s=after(0.001))
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(2, deadline_s=after(-1))
        works.before_compute.open()
        await first
    assert works.batches == [[0]]


async def test_tells_where_the_time_went() -> None:
    clock = Clock()
    works = Works()
    prepare = works.prepare

    def slowly(raw: int) -> int:
        clock.now += 3
        return prepare(raw)

    def compute_slowly() -> None:
        clock.now += 7

    works.prepare = slowly  # type: ignore[method-assign]
    works.during_compute = compute_slowly
    async with batching(works, clock) as batcher:
        answer = await batcher.submit(1)
    assert answer == BatchResult(2, prepare_s=3.0, queue_s=0.0, compute_s=7.0, batch=1)


async def test_time_spent_waiting_for_the_device_is_queueing() -> None:
    clock = Clock()
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, clock, max_wait_s=0) as batcher:
        first = asyncio.create_task(batcher.submit(1))
        await works.before_compute.arrival()
        second = asyncio.create_task(batcher.submit(2))
        await settled(lambda: batcher.ready == 1)
        clock.now += 5
        works.before_compute.open()
        assert (await first).queue_s == 0.0
        assert (await first).compute_s == 5.0
        assert (await second).queue_s == 5.0


async def test_closing_finishes_what_was_accepted() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, max_batch=1, max_ready=2) as batcher:
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(5)]
        await works.before_compute.arrival()
        closing = asyncio.create_task(batcher.close(limit_s=PATIENCE_S))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await batcher.submit(9)
        works.before_compute.open()
        await closing
        assert all(task.done() for task in tasks)
        assert [(await task).result for task in tasks] == [0, 2, 4, 6, 8]
        with pytest.raises(Unavailable):
            await batcher.submit(9)


async def test_closing_gives_up_after_its_limit() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, max_batch=1, max_ready=2, queue_size=9) as batcher:
        tasks = [
            asyncio.create_task(batcher.submit(n, deadline_s=after(PATIENCE_S))) for n in range(5)
        ]
        await works.before_compute.arrival()
        async with asyncio.timeout(PATIENCE_S):
            await batcher.close(limit_s=0)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 5
        works.before_compute.open()
        await batcher.close()
    assert works.batches == [[0]]


async def test_closing_that_is_cancelled_still_lets_everybody_go() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works) as batcher:
        task = asyncio.create_task(batcher.submit(1))
        await works.before_compute.arrival()
        closing = asyncio.create_task(batcher.close(limit_s=PATIENCE_S))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(Unavailable):
            await task
        await asyncio.gather(closing, return_exceptions=True)
        works.before_compute.open()


async def test_nothing_is_taken_before_it_is_opened() -> None:
    works = Works()
    batcher: Batcher[int, int, int] = Batcher(works.prepare, works.compute)
    with pytest.raises(Unavailable):
        await batcher.submit(1)
    await batcher.close()


def test_a_loop_that_ends_while_a_batch_is_computed_leaves_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    works = Works(before_compute=Gate(shut=True))
    batcher: list[Batcher[int, int, int]] = []

    async def leave_in_the_middle() -> None:
        batcher.append(Batcher(works.prepare, works.compute))
        await batcher[0].__aenter__()
        asyncio.create_task(batcher[0].submit(1))  # noqa: RUF006
        await works.before_compute.arrival()

    asyncio.run(leave_in_the_middle())
    works.before_compute.open()
    batcher[0]._thread.shutdown(wait=True)
    batcher[0]._pool.shutdown(wait=True)
    assert works.batches == [[1]]
    assert caplog.text == ""


async def test_observers_are_told_of_every_batch() -> None:
    works = Works(before_compute=Gate(shut=True))
    told: list[Batch] = []
    async with batching(works, max_batch=4, max_ready=20, max_wait_s=0) as batcher:
        batcher.observe(told.append)
        first = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        rest = [asyncio.create_task(batcher.submit(n)) for n in range(1, 4)]
        await settled(lambda: batcher.ready == 3)
        works.before_compute.open()
        answers = await asyncio.gather(first, *rest)
    assert [len(batch) for batch in told] == [1, 3]
    assert told[1].queue_s == tuple(answer.queue_s for answer in answers[1:])
    assert told[1].prepare_s == tuple(answer.prepare_s for answer in answers[1:])
    assert told[1].compute_s == answers[1].compute_s


async def test_an_observer_that_fails_is_logged_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Batch) -> None:
        raise KeyError("no such label")

    told: list[Batch] = []
    async with batching(Works()) as batcher:
        batcher.observe(fail)
        batcher.observe(told.append)
        for n in range(3):
            assert (await batcher.submit(n, deadline_s=after(PATIENCE_S))).result == 2 * n
    assert len(told) == 3
    assert "no such label" in caplog.text
    assert len(caplog.records) == 3


class Refusing(ThreadPoolExecutor):
    """A pool that cannot start its thread the first time, as where the machine has none left."""

    refusals = 1

    def submit(self, *args, **options):
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("can't start new thread")
        return super().submit(*args, **options)


async def test_a_lane_goes_on_after_a_batch_that_could_not_be_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with batching(Works(), thread=Refusing(1), max_ready=1) as batcher:
        with pytest.raises(InternalError):
            await batcher.submit(1, deadline_s=after(PATIENCE_S))
        for n in range(3):  # its place is free again
            assert (await batcher.submit(n, deadline_s=after(PATIENCE_S))).result == 2 * n
    assert "can't start new thread" in caplog.text


@dataclass
class FailingClock(Clock):
    """Fails once, where a lane reads it."""

    fails: bool = False

    def __call__(self) -> float:
        task = asyncio.current_task() if threading.current_thread().name == "MainThread" else None
        if self.fails and task is not None and task.get_name() == "engine-batching":
            self.fails = False
            raise OSError("no clock")
        return self.now


async def test_a_lane_that_ended_is_begun_anew_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FailingClock()
    async with batching(Works(), clock) as batcher:
        clock.fails = True
        with pytest.raises(InternalError):
            await batcher.submit(1, deadline_s=after(PATIENCE_S))
        assert not clock.fails
        assert (await batcher.submit(2, deadline_s=after(PATIENCE_S))).result == 4
    assert "no clock" in caplog.text


class Stop(BaseException):
    """What libraries raise that mean to end the process."""


async def test_what_is_no_exception_costs_its_own_item_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    works = Works(before_compute=Gate(shut=True), faults={2: Stop("enough")})
    results = await in_one_batch(works, (1, 2, 3))
    assert [getattr(result, "result", None) for result in results] == [2, None, 6]
    assert isinstance(results[1], InternalError)
    assert "enough" in caplog.text


@pytest.mark.parametrize("fault", [Stop("enough"), StopIteration()])
async def test_whatever_preparing_raises_gives_back_its_place(
    fault: BaseException,
) -> None:
    def prepare(raw: int) -> int:
        if raw < 0:
            raise fault
        return raw

    works = Works()
    works.prepare = prepare  # type: ignore[method-assign]
    async with batching(works, max_ready=1) as batcher:
        with pytest.raises(InternalError):
            await batcher.submit(-1, deadline_s=after(PATIENCE_S))
        assert (await batcher.submit(1, deadline_s=after(PATIENCE_S))).result == 2


async def test_tells_for_how_long_the_device_has_come_to_nothing() -> None:
    clock = Clock()
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, clock, max_batch=1) as batcher:
        assert batcher.stalled_s == 0
        first = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        second = asyncio.create_task(batcher.submit(1))
        await settled(lambda: batcher.ready == 1)
        clock.now += 30
        assert batcher.stalled_s == 30
        works.before_compute.open()
        await asyncio.gather(first, second)
        clock.now += 30
        assert batcher.stalled_s == 0


async def test_says_beforehand_whether_it_would_take_an_item() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, queue_size=1, max_batch=1) as batcher:
        batcher.admit()
        first = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        second = asyncio.create_task(batcher.submit(1))
        await settled(lambda: batcher.waiting == 1)
        with pytest.raises(Busy):
            batcher.admit()
        works.before_compute.open()
        await asyncio.gather(first, second)
    with pytest.raises(Unavailable):
        batcher.admit()


# --- Several lanes ---


async def test_lanes_compute_side_by_side_and_divide_what_waits() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, lanes=2, max_batch=8, max_ready=20, max_wait_s=0) as batcher:
        first = [asyncio.create_task(batcher.submit(n)) for n in range(2)]
        await works.before_compute.arrival()
        await works.before_compute.arrival()  # nobody gets so far with one lane
        rest = [asyncio.create_task(batcher.submit(n)) for n in range(2, 8)]
        await settled(lambda: batcher.ready == 6)
        assert batcher.waiting == 6
        works.before_compute.open()
        answers = await asyncio.gather(*first, *rest)
    assert [answer.result for answer in answers] == [2 * n for n in range(8)]
    assert [len(batch) for batch in works.batches[:2]] == [1, 1]
    assert max(len(batch) for batch in works.batches) <= 6
    assert len(works.threads) == 2


async def test_a_free_lane_leaves_half_to_the_other_that_is_free() -> None:
    works = Works(before_prepare=Gate(shut=True), before_compute=Gate(shut=True))
    async with batching(works, lanes=2, prepare_threads=6, max_wait_s=PATIENCE_S) as batcher:
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(6)]
        for _ in tasks:
            await works.before_prepare.arrival()
        works.before_prepare.open()
        await works.before_compute.arrival()
        await works.before_compute.arrival()
        assert sorted(len(batch) for batch in works.batches) == [3, 3]
        works.before_compute.open()
        await asyncio.gather(*tasks)


async def test_what_hangs_in_one_lane_is_seen_while_the_other_works() -> None:
    clock, works = Clock(), Works()
    hanging = Gate(shut=True)

    def compute(items: list[int]) -> Sequence[int | EngineError]:
        if items == [0]:
            hanging.pass_through()
        return works.compute(items)

    batcher: Batcher[int, int, int] = Batcher(
        works.prepare, compute, lanes=2, prepare_threads=1, clock=clock
    )
    async with batcher:
        first = asyncio.create_task(batcher.submit(0))
        await hanging.arrival()
        for n in range(1, 4):
            clock.now += 10
            assert (await batcher.submit(n)).result == 2 * n
        assert batcher.stalled_s == 30
        hanging.open()
        await first


# --- Errands ---


async def test_an_errand_is_accepted_once_however_full_it_becomes() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, queue_size=1, max_batch=1) as batcher:
        async with batcher.errand() as errand:
            first = asyncio.create_task(errand.submit(1))
            await works.before_compute.arrival()
            others = asyncio.create_task(batcher.submit(2))
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await batcher.submit(3)
            with pytest.raises(Busy):
                async with batcher.errand():
                    pass
            second = asyncio.create_task(errand.submit(4))
            works.before_compute.open()
            answers = await asyncio.gather(first, others, second)
        assert [answer.result for answer in answers] == [2, 4, 8]
        assert works.batches == [[1], [2], [4]]


async def test_answers_of_one_batch_share_its_number() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, max_batch=4) as batcher:
        tasks = [asyncio.create_task(batcher.submit(0))]
        await works.before_compute.arrival()
        tasks += [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
        await settled(lambda: batcher.ready == 2)
        works.before_compute.open()
        first, second, third = await asyncio.gather(*tasks)
    assert first.batch != second.batch == third.batch
    assert second.compute_s == third.compute_s


async def test_closing_waits_for_an_errand_between_its_items() -> None:
    works = Works()
    async with batching(works) as batcher:
        async with batcher.errand() as errand:
            await errand.submit(1)
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await batcher.submit(2)
            with pytest.raises(Unavailable):
                async with batcher.errand():
                    pass
            assert (await errand.submit(3)).result == 6
            assert not closing.done()
        await closing


async def test_closing_gives_up_an_errand_after_its_limit() -> None:
    works, waiting = Works(), asyncio.Event()

    async def run(batcher: Batcher[int, int, int]) -> None:
        async with batcher.errand():
            waiting.set()
            await asyncio.Event().wait()

    async with batching(works) as batcher:
        running = asyncio.create_task(run(batcher))
        await waiting.wait()
        await batcher.close(limit_s=0)
        with pytest.raises(Unavailable):
            await running


async def test_an_errand_has_one_deadline_for_all_of_its_items() -> None:
    works = Works(before_compute=Gate(shut=True))
    async with batching(works, max_batch=1) as batcher:
        held = asyncio.create_task(batcher.submit(0))
        await works.before_compute.arrival()
        with pytest.raises(DeadlineExceeded):
            async with batcher.errand(deadline_s=after(0.2)) as errand:
                await asyncio.gather(errand.submit(1), errand.submit(2))
        works.before_compute.open()
        await held
        with pytest.raises(DeadlineExceeded):
            async with batcher.errand(deadline_s=after(0)):
                await asyncio.Event().wait()
    assert works.batches == [[0]]


async def test_a_timeout_within_an_errand_is_its_own() -> None:
    async with batching(Works()) as batcher:
        with pytest.raises(TimeoutError):
            async with batcher.errand(deadline_s=after(3600)):
                raise TimeoutError
