import threading

import pytest
import torch

from engine.vision.worker_threads import WorkerThreads


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 17])
def test_results_come_in_the_order_of_the_items(threads, count):
    workers = WorkerThreads(threads)
    items = list(range(count))
    assert workers.map(lambda part: [item * 10 for item in part], items, float) == [
        item * 10 for item in items
    ]


def test_parts_are_worked_on_side_by_side_and_take_equally_long():
    meeting = threading.Barrier(2)
    parts = []

    def work(part):
        meeting.wait(20)  # nobody gets past this alone
        parts.append(sum(part))
        return part

    WorkerThreads(2).map(work, [9, 1, 1, 1, 1, 1, 1, 1, 1, 1], float)
    assert parts == [9, 9]


def test_what_comes_while_all_threads_work_waits_whole():
    workers, meeting, go_on = WorkerThreads(2), threading.Barrier(3), threading.Event()
    parts, results = [], []

    def first(part):
        meeting.wait(20)
        assert go_on.wait(20)
        return part

    def second(part):
        parts.append(list(part))
        return part

    callers = [threading.Thread(target=lambda: results.append(workers.map(first, [1, 2], float)))]
    callers[0].start()
    meeting.wait(20)
    callers.append(
        threading.Thread(target=lambda: results.append(workers.map(second, [3, 4, 5], float)))
    )
    callers[1].start()
    go_on.set()
    for caller in callers:
        caller.join(20)
    assert sorted(results) == [[1, 2], [3, 4, 5]]
    assert parts in ([[3, 4, 5]], [[3, 5], [4]]), "the second only where a thread came free first"
    workers.map(second, [6, 7], float)
    assert parts[-2:] in ([[6], [7]], [[7], [6]])


def test_each_thread_has_its_share_of_torchs_threads_and_the_caller_all():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        seen = WorkerThreads(4).map(
            lambda part: [torch.get_num_threads()] * len(part), [1] * 8, float
        )
        assert seen == [1] * 8
        assert torch.get_num_threads() == 4
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [4]
    finally:
        torch.set_num_threads(before)


def test_a_fault_in_one_part_is_the_callers():
    def work(part):
        if 3 in part:
            raise RuntimeError("broken")
        return part

    with pytest.raises(RuntimeError, match="broken"):
        WorkerThreads(2).map(work, [1, 2, 3, 4], float)


def test_a_cost_that_fails_loses_no_thread():
    def cost(item):
        raise ValueError("no size")

    workers, meeting = WorkerThreads(2), threading.Barrier(2)
    for _ in range(3):
        with pytest.raises(ValueError, match="no size"):
            workers.map(list, [1, 2], cost)

    def work(part):
        meeting.wait(20)  # nobody gets past this alone
        return part

    assert workers.map(work, [1, 2], float) == [1, 2]
