"""The far end of strangers' similarities, fitted to distributions that are known."""

import numpy as np
import pytest
from scipy import stats

from engine.bundle import TailRecord
from training.measure import tails
from training.measure.metrics import upper_quantile

COSINES = {
    "gumbel": stats.gumbel_r(0.3, 0.03),
    "beta": stats.beta(30, 70),
    "normal": stats.norm(0, 0.1),
}


def fitted(values, weight=None):
    return tails.fit(values, np.ones(len(values)) if weight is None else weight)


def best_of_many(count, seed, among=500):
    """Each value is the highest of as many cosines as a gallery has people."""
    share = np.random.default_rng(seed).random(count) ** (1 / among)
    return stats.norm(0.0, 0.1).ppf(share)


def level_of_best(share, among=500):
    return float(stats.norm(0.0, 0.1).isf(1 - (1 - share) ** (1 / among)))


def errors(values_of, exact, samples=80):
    drawn = [values_of(seed) for seed in range(samples)]
    levels = np.array([fitted(values).level(1e-3) for values in drawn])
    counted = np.array([upper_quantile(values, 1e-3) for values in drawn])
    return levels - exact, counted - exact


def test_few_strangers_tell_more_than_by_counting():
    """Of 1200 faces one lies beyond the level of one in a thousand: which one is chance."""
    exact = level_of_best(1e-3)
    fit, counted = errors(lambda seed: best_of_many(1200, seed), exact)
    assert np.mean(fit**2) < 0.7 * np.mean(counted**2)
    assert np.abs(fit).max() < np.abs(counted).max()


@pytest.mark.parametrize("name", COSINES)
def test_the_level_of_one_in_a_thousand_is_about_right(name):
    truth = COSINES[name]
    spread = float(truth.isf(0.01) - truth.isf(0.1))
    for count, far in ((1200, 0.9), (20_000, 0.3)):
        fit, _ = errors(lambda seed, n=count: truth.rvs(n, random_state=seed), truth.isf(1e-3), 30)
        assert np.abs(fit).max() < far * spread
        assert abs(np.median(fit)) < 0.15 * spread


@pytest.mark.parametrize("name", COSINES)
def test_the_start_is_where_a_tenth_begins(name):
    truth = COSINES[name]
    record = fitted(truth.rvs(20_000, random_state=3))
    assert truth.sf(record.start) == pytest.approx(0.1, abs=0.01)
    assert record.rate == 0.1
    assert truth.sf(record.level(0.01)) == pytest.approx(0.01, rel=0.15)
    for similarity in np.linspace(record.start, truth.isf(0.002), 7):
        assert record.share_above(similarity) == pytest.approx(truth.sf(similarity), rel=0.2)


def test_where_the_end_is_abrupt_the_level_lies_above_it():
    values = stats.uniform(-0.2, 0.7).rvs(5000, random_state=0)
    assert fitted(values).level(1e-3) > 0.5


def test_a_similarity_has_an_end():
    """No tail is heavier than exponential, whatever single wrong labels say."""
    assert fitted(stats.t(2, scale=0.1).rvs(5000, random_state=0)).shape == 0.0
    values = stats.beta(30, 70).rvs(2000, random_state=1)
    values[:3] = 0.99
    assert fitted(values).shape <= 0.0
    assert fitted(stats.uniform().rvs(5000, random_state=2)).shape == -0.5
    for seed in range(20):
        assert -0.5 <= fitted(stats.norm(0, 0.1).rvs(1500, random_state=seed)).shape <= 0


def test_too_few_values_make_no_tail():
    values = stats.norm(0.05, 0.1).rvs(1200, random_state=4)
    assert fitted(values[:900]) is None
    assert fitted(values) is not None
    assert fitted(np.full(5000, 0.25)) is None


def test_everybody_weighs_alike_however_many_photos_they_have():
    generator = np.random.default_rng(5)
    values = generator.normal(0.05, 0.1, 3000)
    often = np.where(values < 0.1, 1, 4)  # whoever resembles somebody has four times the photos
    repeated, weight = np.repeat(values, often), np.repeat(1 / often, often)
    alike, naive = fitted(repeated, weight), fitted(repeated)
    whole = fitted(values)
    for share in (0.1, 0.01, 1e-3):
        assert alike.level(share) == pytest.approx(whole.level(share), abs=2e-3)
    assert naive.start > whole.start + 0.02


def test_the_order_of_the_values_does_not_matter():
    generator = np.random.default_rng(6)
    values, weight = generator.normal(0, 0.1, 2000), generator.random(2000) + 0.1
    mixed = generator.permutation(2000)
    one, other = fitted(values, weight), fitted(values[mixed], weight[mixed])
    assert one.level(1e-3) == pytest.approx(other.level(1e-3), abs=1e-9)


# --- What a bundle says with it ---

SHAPES = (0.0, -1e-12, -1e-6, -0.05, -0.36, -0.5, -1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_levels_and_shares_are_inverse(shape):
    record = TailRecord(start=0.3, rate=0.1, shape=shape, scale=0.04)
    assert record.share_above(0.3) == pytest.approx(0.1, rel=1e-12)
    assert record.level(0.1) == pytest.approx(0.3, abs=1e-12)
    for share in (0.09, 0.05, 0.01, 1e-3, 1e-4):
        level = record.level(share)
        assert level > 0.3
        assert record.share_above(level) == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_share_falls_from_the_rate_to_nothing(shape):
    record = TailRecord(start=0.3, rate=0.1, shape=shape, scale=0.04)
    shares = [record.share_above(similarity) for similarity in np.linspace(0.3, 1.0, 701)]
    assert shares == sorted(shares, reverse=True)
    assert -np.diff(shares).min() < 0.003
    assert 0 <= shares[-1] < 1e-4


def test_nobody_is_beyond_the_end():
    record = TailRecord(start=0.3, rate=0.1, shape=-0.5, scale=0.1)
    assert record.share_above(0.4999) > 0
    assert record.share_above(0.5) == record.share_above(2.0) == 0


def test_shapes_next_to_the_exponential_one_are_like_it():
    straight = TailRecord(start=0.3, rate=0.1, shape=0.0, scale=0.04)
    bent = TailRecord(start=0.3, rate=0.1, shape=-1e-7, scale=0.04)
    for share in (0.05, 1e-3, 1e-5):
        assert bent.level(share) == pytest.approx(straight.level(share), abs=1e-5)


@pytest.mark.parametrize(
    "spoil",
    [
        {"shape": 0.1},
        {"shape": -1.1},
        {"shape": float("nan")},
        {"scale": 0.0},
        {"scale": float("inf")},
        {"rate": 0.0},
        {"rate": 1.0},
        {"start": float("nan")},
    ],
)
def test_what_is_no_tail_is_refused(spoil):
    with pytest.raises(ValueError, match=next(iter(spoil))):
        TailRecord(**({"start": 0.3, "rate": 0.1, "shape": -0.1, "scale": 0.04} | spoil))
