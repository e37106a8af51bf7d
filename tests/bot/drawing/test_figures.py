"""Shares and rarities are rounded to what is true, and add up; phrases say no more than they do."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.drawing import figures
from bot.texts import LANGUAGES
from engine.types import Match, Verdict


def match(probability: float, percentile: float = 80.0, verdict: Verdict = Verdict.GOOD) -> Match:
    return Match("Ana", probability, 0.4, percentile, verdict)


def percents(*shares: float, people: int | None = None) -> tuple[tuple[int, ...], int]:
    return figures.percents([match(share) for share in shares], people)


@pytest.mark.parametrize(
    ("shares", "named", "rest"),
    [
        ((0.402, 0.201, 0.106, 0.031, 0.004), (40, 20, 11, 3, 0), 26),
        ((1.0,), (100,), 0),
        # Not everything, as long as the others have anything that a decimal would show.
        ((0.9991, 0.0005), (99, 0), 1),
        ((0.9994,), (99,), 1),
        ((0.9996,), (100,), 0),
        # Nor nothing: somebody is the nearest.
        ((0.0018,) * 5, (1, 0, 0, 0, 0), 99),
        ((0.00001,), (1,), 99),
        # Rounded to the nearest, these would be 102 together.
        ((0.206, 0.206, 0.206, 0.196, 0.186), (21, 21, 21, 19, 18), 0),
        # And here nothing would be left for the others, who have 1.3.
        ((0.206, 0.206, 0.206, 0.186, 0.183), (21, 21, 21, 18, 18), 1),
        ((), (), 100),
        # Nothing that an engine says, and no reason to break.
        ((0.6, 0.6), (50, 50), 0),
        ((-1.0, 0.5), (1, 50), 49),
    ],
)
def test_shares_make_a_hundred(
    shares: tuple[float, ...], named: tuple[int, ...], rest: int
) -> None:
    assert percents(*shares) == (named, rest)


distributions = st.lists(st.floats(0, 1), min_size=2, max_size=60).filter(lambda x: sum(x) > 0)


@given(distributions, st.integers(1, 50))
def test_every_share_is_true_to_one_per_cent(weights: list[float], count: int) -> None:
    everybody = sorted((weight / sum(weights) for weight in weights), reverse=True)
    shown, others = everybody[:count], everybody[count:]
    named, rest = percents(*shown)
    assert sum(named) + rest == 100
    assert all(abs(one - 100 * share) < 1 for one, share in zip(named, shown, strict=True))
    assert rest > 100 * sum(others) - 1
    assert all(a >= b for a, b in itertools.pairwise(named))


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ((1 / 3, 1 / 3, 1 / 3), (34, 33, 33)),
        ((0.334, 0.333, 0.333), (34, 33, 33)),
        ((0.995, 0.005), (99, 1)),
        ((0.998, 0.001, 0.001), (99, 1, 0)),
        ((0.125,) * 8, (13, 13, 13, 13, 12, 12, 12, 12)),
        ((1.0,), (100,)),
        ((0.0,), (100,)),
        ((0.0, 0.0), (50, 50)),
    ],
)
def test_where_there_is_nobody_else_the_named_make_a_hundred(
    shares: tuple[float, ...], named: tuple[int, ...]
) -> None:
    assert percents(*shares, people=len(shares)) == (named, 0)


@given(distributions)
def test_shares_of_everybody_are_true_to_one_per_cent(weights: list[float]) -> None:
    everybody = sorted((weight / sum(weights) for weight in weights), reverse=True)
    named, rest = percents(*everybody, people=len(everybody))
    assert (sum(named), rest) == (100, 0)
    assert all(abs(one - 100 * share) < 1 for one, share in zip(named, everybody, strict=True))
    assert all(a >= b for a, b in itertools.pairwise(named))


@pytest.mark.parametrize(
    ("percent", "spanish", "english"),
    [
        (0, "menos de 1 %", "less than 1%"),
        (1, "1 %", "1%"),
        (99, "99 %", "99%"),
        (100, "100 %", "100%"),
    ],
)
def test_a_share_is_never_nothing(percent: int, spanish: str, english: str) -> None:
    said = {language: figures.spell(percent, language) for language in LANGUAGES}
    assert {key: words.replace("\u00a0", " ") for key, words in said.items()} == {
        "es": spanish,
        "en": english,
    }
    # A line never breaks between a number and its sign.
    assert not any(" %" in words for words in said.values())


@pytest.mark.parametrize(
    ("percentile", "number"),
    [
        (60.0, None),
        (66.6, None),
        (66.7, 3),
        (75.0, 4),
        (80.0, 5),
        (94.9, 15),
        (95.0, 20),
        (97.3, 30),
        (99.0, 100),
        (99.9, 1000),
        (99.99, 1000),
        (100.0, 1000),
    ],
)
def test_one_of_how_many(percentile: float, number: int | None) -> None:
    assert figures.one_in(match(0.3, percentile)) == number


@given(st.floats(0, 100), st.sampled_from(Verdict))
def test_a_likeness_is_rather_rarer_than_said(percentile: float, verdict: Verdict) -> None:
    number = figures.one_in(match(0.3, percentile, verdict))
    if verdict in (Verdict.SOME, Verdict.FAINT):
        assert number is None
    elif number is not None:
        assert 3 <= number <= 1000
        assert 100 - percentile <= 100 / number


STRENGTHS = [
    (Verdict.IS, 99.95, "It is hard to tell the difference"),
    (Verdict.STRONG, 97.3, "Only 1 person in 30 looks this much like a celebrity"),
    (Verdict.GOOD, 90.0, "Only 1 person in 10 looks this much like a celebrity"),
    (Verdict.GOOD, 89.9, "1 person in 9 gets a match this good"),
    (Verdict.GOOD, 66.7, "1 person in 3 gets a match this good"),
    (Verdict.GOOD, 66.6, "A better match than most people get"),
    (Verdict.SOME, 33.0, "An everyday likeness: almost anybody has one like it"),
    (Verdict.FAINT, 3.0, "A face that is hard to mistake for another"),
]


@pytest.mark.parametrize(("verdict", "percentile", "phrase"), STRENGTHS)
def test_a_likeness_is_told_in_figures_only_where_they_impress(
    verdict: Verdict, percentile: float, phrase: str
) -> None:
    said = figures.strength(match(0.3, percentile, verdict), "en")
    assert said.replace("\u00a0", " ") == phrase
    spanish = figures.strength(match(0.3, percentile, verdict), "es")
    assert numbers(spanish) == numbers(phrase)
    assert spanish.startswith("Solo ") == phrase.startswith("Only ")


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)
