import threading

import pytest
import torch

from engine.crew import Crew


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 17])
def test_results_come_in_the_order_of_the_items(threads, count):
    crew = Crew(threads)
    items = list(range(count))
    assert crew.map(lambda part: [item * 10 for item in part], items, float) == [
        item * 10 for item in items
    ]


def test_parts_are_worked_on_side_by_side_and_take_equally_long():
    meeting = threading.Barrier(2)
    parts = []

    def work(part):
        meeting.wait(20)  # nobody gets past this alone
        parts.append(sum(part))
        return part

    Crew(2).map(work, [9, 1, 1, 1, 1, 1, 1, 1, 1, 1], float)
    assert parts == [9, 9]


def test_each_thread_has_its_share_of_torchs_threads_and_the_caller_all():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        seen = Crew(4).map(lambda part: [torch.get_num_threads()] * len(part), [1] * 8, float)
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
        Crew(2).map(work, [1, 2, 3, 4], float)
