from dataclasses import dataclass

import pytest

from engine.remote.circuit_breaker import Breaker, Open


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures_max=3, rest_s=2, clock=clock)


def call(breaker: Breaker, answered: bool | None) -> None:
    with breaker.trial() as trial:
        trial.answered = answered


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    for answered in (False, False, True, False, False, None):
        call(breaker, answered)
    assert not breaker.open
    call(breaker, False)
    assert breaker.open
    with pytest.raises(Open) as caught, breaker.trial():
        pass
    assert caught.value.wait_s == 2


def test_a_failed_probe_lets_it_rest_again(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3):
        call(breaker, False)
    clock.now += 2
    call(breaker, False)
    clock.now += 1
    with pytest.raises(Open) as caught, breaker.trial():
        pass
    assert caught.value.wait_s == 1


def test_there_is_one_probe_at_a_time(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3):
        call(breaker, False)
    clock.now += 2
    with breaker.trial() as probe:
        with pytest.raises(Open), breaker.trial():
            pass
        probe.answered = True
    assert not breaker.open
    call(breaker, True)


def test_a_probe_that_broke_off_makes_way_for_the_next(breaker: Breaker, clock: Clock) -> None:
    for _ in range(3):
        call(breaker, False)
    clock.now += 2
    with pytest.raises(KeyError), breaker.trial():
        raise KeyError
    assert breaker.open
    call(breaker, True)
    assert not breaker.open


def test_what_began_before_it_opened_counts_too(breaker: Breaker) -> None:
    with breaker.trial() as early:
        for _ in range(3):
            call(breaker, False)
        early.answered = True
    assert not breaker.open
