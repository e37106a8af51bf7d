"""How many failures and draws there may be, and what comes after them: numbers, and no database.

Two things are counted. A failure is an attempt that was judged and refused, or that nobody ended,
or a challenge by video that nobody answered. A draw is a challenge by video that was seen and not
passed, for whatever reason: whoever has clips of somebody's head gains by every draw, because the
lot may fall on what is in one of them. So a draw that was lost by a fault of ours counts as a draw,
and never as a failure: nobody can tell a fault that somebody provoked (a clip that is sent in the
last half second, one that the engine cannot finish) from one that just happened, and such a draw
must not be free. What it brings is a wait, which anybody can sit out, and never a lock.

A challenge that was let lapse is not set again with the same steps: whoever has days to make a clip
of known steps needs no luck. Draws are few instead. A clip fits 2 of the 108 challenges (its own
and its mirror image). `tests.benchmarks.shopping` plays weeks of it:

| one clip, 10,000 weeks each | before | now |
|---|---|---|
| a thief while the owner is away: draws a week | 133 | 5 |
| they succeed | 91.6 % | 9.4 % |
| a thief whose owner logs in 5 times a day: draws a week | 131 | 11 |
| they succeed | 91.7 % | 19.4 % |
| an owner alone who passes 90 % of challenges: weeks with a wait | 0.01 % | 1.35 % |
| the same: weeks with a lock | 0 | 0 |

With three clips it is 25.5 % and 48.0 %: what clips can do is what is left, and the owner is told.
Whoever has the account can keep its owner waiting (74.5 % of logins), as before by locking; the
recovery code and the operator end both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """See this module.

    Attributes:
        failures_until_delay: so many failures in a row bring a delay before the next attempt.
        first_delay_s: its seconds; every further failure doubles them,
        longest_delay_s: up to this. Doubling goes no further, or it would keep everybody from ever
            reaching the lock, and a person who comes back after days of somebody else's attempts
            out for weeks.
        failures_until_lock: so many within the window lock, passes between them or not,
        lock_window: which is this long.
        failures_until_stop: so many since the last pass lock, however long they took.
        draws_until_wait: after so many draws since the last pass by video there is a wait before
            the next draw,
        first_wait: which is this long; every further draw doubles it,
        longest_wait: up to this.
        draws_in_window: so many within the window are all there may be, passes between them or not:
            the owner's passes are not to give new draws to somebody else,
        draw_window: which is this long.
    """

    failures_until_delay: int = 5
    first_delay_s: float = 30.0
    longest_delay_s: float = 3600.0
    failures_until_lock: int = 20
    lock_window: timedelta = timedelta(hours=24)
    failures_until_stop: int = 50
    draws_until_wait: int = 4
    first_wait: timedelta = timedelta(hours=60)
    longest_wait: timedelta = timedelta(days=30)
    draws_in_window: int = 12
    draw_window: timedelta = timedelta(days=7)

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        if failures < self.failures_until_delay:
            return 0.0
        # The exponent is bounded, because a float's is.
        doublings = min(failures - self.failures_until_delay, 30)
        return min(self.first_delay_s * 2.0**doublings, self.longest_delay_s)

    def wait(self, draws: int) -> timedelta:
        """How long there is no draw after so many since the last pass by video."""
        if draws < self.draws_until_wait:
            return timedelta(0)
        doublings = min(draws - self.draws_until_wait, 16)  # a timedelta's range is bounded, too
        wait: timedelta = self.first_wait * 2**doublings
        return min(wait, self.longest_wait)

    def no_draw_until(
        self, draws: int, newest: datetime | None, of_late: Sequence[datetime]
    ) -> datetime | None:
        """Before when there is no draw, if there is such a time.

        Args:
            draws: since the last pass by video.
            newest: when the newest of them was; None where nobody knows.
            of_late: when all those within the window were, oldest first.
        """
        wait = self.wait(draws)
        ends = [newest + wait] if wait and newest is not None else []
        if len(of_late) >= self.draws_in_window:
            ends.append(of_late[-self.draws_in_window] + self.draw_window)
        return max(ends, default=None)


LIMITS = AttemptLimits()
