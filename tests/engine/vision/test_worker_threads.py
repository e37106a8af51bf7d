import threading

import pytest
import torch

from engine.vision.worker_threads import WorkerThreads


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 17])
def test_results_come_in_the_order_of_the_items(threads, count):
    workers = WorkerThreads(threads)
    expected = [item * 10 for item in range(count)]
    assert workers.map(lambda part: [item * 10 for item in part], [1.0] * count) == expected


def test_parts_are_worked_on_side_by_side_and_take_equally_long():
    meeting = threading.Barrier(2)
    parts = []

    def work(part):
        meeting.wait(20)  # nobody gets past this alone
        parts.append(sum(costs[i] for i in part))
        return part

    costs = [9, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    WorkerThreads(2).map(work, costs)
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

    callers = [threading.Thread(target=lambda: results.append(workers.map(first, [1, 2])))]
    callers[0].start()
    meeting.wait(20)
    callers.append(threading.Thread(target=lambda: results.append(workers.map(second, [1] * 3))))
    callers[1].start()
    go_on.set()
    for caller in callers:
        caller.join(20)
    assert sorted(results) == [[0, 1], [0, 1, 2]]
    assert parts in ([[0, 1, 2]], [[0, 2], [1]]), "the second only where a thread came free first"
    workers.map(second, [1, 1])
    assert parts[-2:] in ([[0], [1]], [[1], [0]])


def test_each_thread_has_its_share_of_torchs_threads_and_the_caller_all():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        seen = WorkerThreads(4).map(lambda part: [torch.get_num_threads()] * len(part), [1] * 8)
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
        WorkerThreads(2).map(work, [1, 2, 3, 4])
