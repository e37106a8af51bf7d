"""A match as people read it: its share in whole per cent, and how strong a likeness it is.

Pure functions. Knows nothing about cards or captions, nor about where a number is shown.
"""

import math
from collections.abc import Sequence
from typing import Final

from bot.texts import say
from engine.types import Match, Verdict

_ROUND: Final = (
    *(3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 75),
    *(100, 150, 200, 300, 400, 500, 750, 1000),
)
"""What "one of how many" is rounded down to. Beyond a thousand no bundle has strangers enough."""
_RARE: Final = 10
"""From one of so many on, "only" is said of a likeness."""
_ALL: Final = 0.9995
"""From this share on somebody has everything: 100.0 %, with a decimal."""


def percents(shown: Sequence[Match], people: int | None) -> tuple[tuple[int, ...], int]:
    """Shares of belief in whole per cent, which make a hundred: each match's, and everybody else's.

    Each match's is rounded to the nearest, and everybody else's is the rest. Where that would be
    less than they have, or there is nobody else, the numbers that rounding changed most go to their
    other neighbour; of more alike people they are never the smaller ones. The first has 1 % at
    least, and 99 % at most as long as the others have anything that a decimal would show. No number
    is further than 1 % from the truth.

    Args:
        shown: the most similar people of one face, best first.
        people: how many people there are; None where that is not known.

    Returns:
        A number for each of `shown`, and everybody else's.
    """
    shares = [max(0.0, match.probability) for match in shown]
    nobody_else = people is not None and people <= len(shown)
    # More than one altogether is nothing that an engine says; it is divided all the same.
    whole = math.fsum(shares) if nobody_else else max(1.0, math.fsum(shares))
    exact = [100 * share / (whole or 1.0) for share in shares]
    rounded = [math.floor(share + 0.5) for share in exact]

    def gained(place: int) -> tuple[float, int]:
        # Without what floats add by a hair; of equals the least alike gained most.
        return round(rounded[place] - exact[place], 9), place

    least = math.floor(max(0.0, round(100 - math.fsum(exact), 9)))
    while sum(rounded) > 100 - least:
        rounded[max(range(len(exact)), key=gained)] -= 1
    while rounded and nobody_else and sum(rounded) < 100:
        rounded[min(range(len(exact)), key=gained)] += 1
    if rounded and rounded[0] < 1:
        rounded[0] = 1
    alone = nobody_else and len(rounded) == 1
    if rounded and rounded[0] > 99 and exact[0] < 100 * _ALL and not alone:
        rounded[0] = 99
        if nobody_else:
            rounded[1] += 1
    return tuple(rounded), 100 - sum(rounded)


def spell(percent: int, language: str) -> str:
    """A share in words, of which none is nothing; `percent` is 0 to 100, as `percents` rounds."""
    if percent < 1:
        return say(language, "figures.tiny")
    return say(language, "figures.percent", percent=percent)


def rest(people: int | None, shown: int, language: str) -> str:
    """What all who are not shown are called, in the last line of the shares.

    Args:
        people: how many people the bundle knows; None where that is not known.
        shown: how many of them have a line of their own.
        language: a key of `bot.texts.LANGUAGES`.
    """
    if people is None or people <= shown:
        return say(language, "figures.rest_all")
    return say(language, "figures.rest", count=people - shown)


def shared(people: int | None, language: str) -> str:
    """What the shares divide and among how many people, as a heading."""
    if people is None:
        return say(language, "figures.shared_all")
    return say(language, "figures.shared", count=people)


def strength(match: Match, language: str) -> str:
    """How strong a likeness is, in one phrase without a full stop; with a number where it is rare.

    What is said of `GOOD` and `STRONG` without a number holds from percentile 50 up.
    """
    if match.verdict in (Verdict.IS, Verdict.SOME, Verdict.FAINT):
        return say(language, f"figures.strength_{match.verdict}")
    number = one_in(match)
    if number is None:
        return say(language, "figures.strength_better")
    key = "figures.strength_rare" if number >= _RARE else "figures.strength_number"
    return say(language, key, count=number)


def one_in(match: Match) -> int | None:
    """Of how many people only one is as much like anybody of the gallery as this face is.

    A percentile of 95 is that 5 % of strangers are as similar to their best match: one of 20. The
    number is rounded down, so that the likeness is rather rarer than said.

    Returns:
        3 to 1000; None where it would impress nobody: for verdicts below `GOOD`, and where more
        than one of three strangers is as similar.
    """
    if match.verdict in (Verdict.SOME, Verdict.FAINT):
        return None
    as_similar = max(100 - match.percentile, 100 / _ROUND[-1])
    return max((number for number in _ROUND if number * as_similar <= 100), default=None)
