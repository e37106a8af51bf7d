"""A short run of `tests.benchmarks.chaos`: every kind of trouble, and nobody without an answer."""

import json
from pathlib import Path

from tests.chaos.plan import CALM, Pace, Trouble, draw
from tests.chaos.scene import entered

PACE = Pace(
    length_s=14,
    answer_s=12,  # a bot that starts with a backlog beside other tests takes some of it
    act_every_s=1.5,
    trouble_every_s=0.8,
    throttled_s=5,
    stall_s=4,
    quiet_s=1,
    endings_until=0.7,
    people=3,
    deck={},
)
SEED = 1


def test_the_plan_is_the_seeds_alone_and_has_every_kind_of_trouble() -> None:
    events = draw(SEED, PACE)
    assert events == draw(SEED, PACE) != draw(SEED + 1, PACE)
    json.dumps([event.fields() for event in events])
    assert {event.what for event in events} >= set(Trouble)
    assert {event.who for event in events} == {None, 0, 1, 2}
    long = draw(SEED, Pace(3600))
    last = [event.at_s for event in long if event.what in (Trouble.KILL, Trouble.STOP)]
    assert len([event for event in long if event.what == CALM]) == 11
    assert 0 < max(last) <= 0.6 * 3600


async def test_nobody_is_left_without_an_answer_whatever_goes_wrong(tmp_path: Path) -> None:
    async with entered(tmp_path, PACE, seed=SEED, mode="polling") as scene:
        result = await scene.play()
    assert not result.violations, json.dumps(result.summary, indent=1)
    assert result.summary["updates"] > 20
    assert not scene.book.waiting()
