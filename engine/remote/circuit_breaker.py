"""A circuit breaker (M. Nygard, "Release It!", 2007): who did not answer is not asked.

After some failures in a row the circuit is open: callers are turned away at once. When it has
rested, one caller at a time is let through as a probe; its success closes the circuit. Knows
nothing about what is called or what a failure is.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Open(Exception):
    """The circuit is open; nothing was called. `wait_s`: until a probe may be made."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"open for {wait_s:.1f} s")
        self.wait_s = wait_s


@dataclass(slots=True)
class Trial:
    """One call; whoever makes it sets `answered`. None, as after a cancellation, tells nothing."""

    answered: bool | None = None


class Breaker:
    """Counts failures in a row.

    Args:
        failures_max: after how many the circuit opens.
        rest_s: for how long.
        clock: tells seconds.
    """

    def __init__(
        self,
        *,
        failures_max: int = 5,
        rest_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures_max = failures_max
        self._rest_s = rest_s
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0
        self._probe: Trial | None = None

    @property
    def open(self) -> bool:
        """Whether calls are turned away, but for probes."""
        return self._failures >= self._failures_max

    @contextmanager
    def trial(self) -> Iterator[Trial]:
        """Make a call in this block and say on the trial how it went.

        Raises:
            Open: there must be no call now.
        """
        trial = Trial()
        if self.open:
            wait_s = self._probe_at - self._clock()
            if wait_s > 0 or self._probe is not None:
                raise Open(max(0.0, wait_s))
            self._probe = trial
        try:
            yield trial
        finally:
            if self._probe is trial:
                self._probe = None
            if trial.answered:
                self._failures = 0
            elif trial.answered is not None:
                self._failures += 1
                self._probe_at = self._clock() + self._rest_s
