"""Work that goes on whatever becomes of one round."""

import asyncio
import logging

import pytest

from bot.rounds import log_fault, repeat


class Pauses(list[float]):
    """Waits for no time, and remembers for how much it was to be."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def test_pauses_after_faults_grow_and_a_good_round_forgets_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes: list[float | Exception | None] = [
        *[ValueError("a bug")] * 12,
        7.0,
        OSError("disk"),
        None,
    ]
    pauses = Pauses()

    async def one_round() -> float | None:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    await repeat(one_round, "the work", pauses)
    assert outcomes == []
    faults, usual, again = pauses[:12], pauses[12], pauses[13]
    assert faults == sorted(faults)
    assert (faults[1], faults[-1]) == (2 * faults[0], 3600.0)
    assert (usual, again) == (7.0, faults[0])
    assert caplog.text.count("ValueError: a bug") == 12
    assert "the work failed; the next try is in 5 s" in caplog.text


async def test_who_is_cancelled_ends() -> None:
    begun = asyncio.Event()

    async def one_round() -> float | None:
        begun.set()
        await asyncio.Event().wait()
        return 0.0

    working = asyncio.create_task(repeat(one_round, "the work"))
    await begun.wait()
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()


async def test_the_fault_of_a_task_is_logged_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks() -> None:
        raise ValueError("a bug")

    async def ends() -> None:
        pass

    caplog.set_level(logging.INFO)
    for work in (breaks, ends):
        task = asyncio.create_task(work(), name=work.__name__)
        task.add_done_callback(log_fault)
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert "breaks ended by a fault" in caplog.text
    assert "ValueError: a bug" in caplog.text
    assert "ends ended" not in caplog.text
