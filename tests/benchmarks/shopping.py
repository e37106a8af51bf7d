"""A week of somebody who has the account and clips of its owner's head, and asks until one fits.

    uv run python -m tests.benchmarks.shopping

They draw challenges by video as fast as the rules allow, answer only what one of their clips fits,
let all others lapse, and never do what would lock. Each clip fits 2 of the 108 challenges: its own
and its mirror image. The owner is away, or logs in a few times a day as usual, which forgives
failures. Beside that, weeks of an owner alone, who fails and lets challenges lapse now and then:
how often the rules keep them waiting, or lock.

The rules are `bot.store.limits`, with the numbers of now and those of before; weeks of the thief on
a real database (`--real-weeks`) must come to as many draws.
"""

import argparse
import asyncio
import math
import random
import tempfile
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bot.store import Barred
from bot.store.limits import LIMITS, AttemptLimits
from tests.bot.store.places import ANA, Place, challenged, enroll

NEVER = 10**9
BEFORE = AttemptLimits(failures_until_stop=NEVER, draws_until_wait=NEVER, draws_in_window=NEVER)
START = datetime(2026, 11, 20, tzinfo=UTC)
WEEK = timedelta(days=7)
CHALLENGES = 108
ANSWERING = timedelta(seconds=20)
LAPSING = timedelta(seconds=91)


@dataclass
class Counts:
    """What `bot.store.attempts` counts of one person by video, without a database."""

    limits: AttemptLimits
    failures: deque = field(default_factory=deque)
    in_a_row: int = 0
    newest: datetime | None = None

    def waits_until(self, now):
        """From when on there may be a draw; None where it is locked."""
        if self.is_locked(now):
            return None
        delay = timedelta(seconds=self.limits.delay_s(self.in_a_row))
        until = now if self.newest is None else max(now, self.newest + delay)
        of_late = [each for each in self.failures if each > now - self.limits.draw_window]
        draw = self.limits.no_draw_until(self.in_a_row, self.newest, of_late)
        return until if draw is None else max(until, draw)

    def fail(self, now):
        """A challenge was refused or let lapse."""
        self.failures.append(now)
        self.in_a_row += 1
        self.newest = now
        while self.failures[0] <= now - self.limits.draw_window:
            self.failures.popleft()

    def succeed(self):
        """It was passed."""
        self.in_a_row, self.newest = 0, None

    def is_locked(self, now, *, more=0):
        """Whether it is, or would be after so many failures more."""
        of_late = sum(each > now - self.limits.lock_window for each in self.failures) + more
        stop = self.in_a_row + more >= self.limits.failures_until_stop
        return stop or of_late >= self.limits.failures_until_lock


def thief_week(limits, chance, lot, logins=0, failing=0.0):
    """(draws, whether one fitted) of a thief, and of the owner how many logins had to wait.

    Where the owner logs in, the thief leaves them one draw in a row, so that their passes go on
    forgiving what the thief did.

    Args:
        limits: the rules.
        chance: that a challenge fits a clip.
        lot: draws.
        logins: of the owner, in a week.
        failing: share of the owner's challenges that are not passed.
    """
    counts, now, draws, waited = Counts(limits), START, 0, 0
    owner = deque(sorted(START + lot.random() * WEEK for _ in range(logins)))
    while now < START + WEEK:
        due = counts.waits_until(now)
        # A thief who would lock waits until the oldest failure counts no more.
        while due is not None and counts.is_locked(due, more=1):
            oldest = [each for each in counts.failures if each > due - limits.lock_window]
            due = oldest[0] + limits.lock_window + ANSWERING if oldest else START + WEEK
        due = START + WEEK if due is None else max(due, now)
        if owner and counts.in_a_row >= limits.draws_until_wait - 1:
            due = max(due, owner[0])
        if owner and owner[0] <= due:
            now = owner.popleft()
            now, late = login(counts, now, lot, failing)
            waited += late
            continue
        now = due
        if now >= START + WEEK:
            break
        draws += 1
        if lot.random() < chance:
            return draws, True, waited
        counts.fail(now)
        now += timedelta(seconds=1)  # the next challenge makes this one lapse
    return draws, False, waited


def login(counts, now, lot, failing):
    """The owner logs in, trying again where it fails; (when it was done, whether they waited)."""
    while True:
        due = counts.waits_until(now)
        if due is None or due > now:
            return now, True
        if lot.random() >= failing:
            counts.succeed()
            return now + ANSWERING, False
        counts.fail(now)
        now += ANSWERING if lot.random() < 0.5 else LAPSING


def owner_week(limits, logins, failing, lot):
    """(whether any login had to wait, whether it was locked) of an owner alone.

    The weeks begin after a week of the same, so that the window is as full as it usually is.
    """
    counts, waits, locked = Counts(limits), False, False
    moments = sorted(lot.random() * 2 * WEEK for _ in range(2 * logins))
    for moment in moments:
        _, late = login(counts, START + moment, lot, failing)
        if moment >= WEEK:
            waits |= late
            locked |= counts.is_locked(START + moment)
    return waits, locked


async def real_weeks(number):
    """Draws of thieves whose clips fit nothing, by the real store."""
    found = []
    for _ in range(number):
        with tempfile.TemporaryDirectory(prefix="face-matcher-") as folder:
            place = Place(Path(folder), Path(folder) / "bot.db")
            async with place.store() as store:
                await enroll(store)
                end, draws = place.clock.now + WEEK, 0
                while place.clock.now < end:
                    bar = await store.barred(ANA, drawing=True)
                    if bar is None:
                        await challenged(store)
                        draws += 1
                        place.clock.advance(seconds=1)
                        continue
                    assert isinstance(bar, Barred)
                    if bar.until is None:
                        break
                    place.clock.now = min(bar.until, end)
                found.append(draws)
    return found


def bound(hits, trials):
    """Upper 95 % bound of a share (Wilson)."""
    z, share = 1.645, hits / trials
    middle = share + z * z / (2 * trials)
    return (middle + z * math.sqrt((share * (1 - share) + z * z / (4 * trials)) / trials)) / (
        1 + z * z / trials
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--weeks", type=int, default=10_000)
    parser.add_argument("--fits", type=int, default=2, help="challenges that a clip fits, of 108")
    parser.add_argument("--logins", type=int, default=35, help="of the owner, in a week")
    parser.add_argument("--fails", type=float, default=0.05, help="share of refused challenges")
    parser.add_argument("--lapses", type=float, default=0.05, help="share of unanswered ones")
    parser.add_argument("--real-weeks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    console = Console()
    failing = arguments.fails + arguments.lapses
    real = asyncio.run(real_weeks(arguments.real_weeks))
    played = thief_week(LIMITS, 0, random.Random(arguments.seed))[0]
    console.print(f"draws in a week on a database: {real}; played: {played}")
    if set(real) - {played}:
        raise SystemExit("the rules that were played are not those of the store")
    thieves = Table("thief", "clips", "rules", "draws a day", "succeed in a week", "owner waits")
    for clips in (1, 3, 10):
        chance = clips * arguments.fits / CHALLENGES
        for logins in (0, arguments.logins):
            for name, limits in (("before", BEFORE), ("now", LIMITS)):
                lot = random.Random(arguments.seed)
                weeks = [
                    thief_week(limits, chance, lot, logins, failing)
                    for _ in track(
                        range(arguments.weeks), f"{clips} clips, {name}", console=console
                    )
                ]
                lot = random.Random(arguments.seed)
                # How often one draws who never succeeds.
                draws = [thief_week(limits, 0, lot, logins, failing)[0] for _ in range(200)]
                hits = sum(hit for _, hit, _ in weeks)
                waited = sum(late for _, _, late in weeks) / max(1, logins * len(weeks))
                thieves.add_row(
                    "owner active" if logins else "owner away",
                    str(clips),
                    name,
                    f"{sum(draws) / len(draws) / 7:.2f}",
                    f"{hits / len(weeks):.1%} (up to {bound(hits, len(weeks)):.1%})",
                    f"{waited:.1%} of logins" if logins else "",
                )
    console.print(thieves)
    owners = Table("owner alone", "rules", "weeks with a wait", "weeks with a lock")
    for share in (failing, 2 * failing):
        for name, limits in (("before", BEFORE), ("now", LIMITS)):
            lot = random.Random(arguments.seed)
            weeks = [
                owner_week(limits, arguments.logins, share, lot) for _ in range(arguments.weeks)
            ]
            waits, locks = (sum(column) for column in zip(*weeks, strict=True))
            owners.add_row(
                f"{share:.0%} not passed",
                name,
                f"{waits / len(weeks):.2%}",
                f"{locks} of {len(weeks)}",
            )
    console.print(owners)


if __name__ == "__main__":
    main()
