import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from training.measure import metrics, verification
from training.measure.verification import Pairs
from training.vectors import unit


def made_up_pairs(seed=0, genuine=400, impostor=6000, people=40, step=None):
    """Pairs of numbered people; `step` rounds the scores, so that many are equal."""
    generator = np.random.default_rng(seed)
    same = np.arange(genuine + impostor) < genuine
    score = generator.normal(size=len(same)) + 2.0 * same
    if step:
        score = np.round(score / step) * step
    first = generator.integers(0, people, len(same))
    second = (first + generator.integers(1, people, len(same))) % people
    return Pairs(score.astype(np.float32), same, first, np.where(same, first, second))


# --- verification ---


@given(seed=st.integers(0, 10_000), step=st.sampled_from([None, 0.05, 0.5]))
@settings(max_examples=25, deadline=None)
def test_tar_at_fmr_is_what_scikit_learn_finds(seed, step):
    pairs = made_up_pairs(seed, step=step)
    fmr, tar, _ = roc_curve(pairs.same, pairs.score, drop_intermediate=False)
    for point in verification.tar_at_fmr(pairs, (1e-1, 1e-2)):
        assert point.tar == pytest.approx(tar[fmr <= point.fmr].max(), abs=1e-12)
        # The threshold does what is said of it.
        assert (pairs.impostor >= np.float32(point.threshold)).mean() <= point.fmr
        accepted = (pairs.genuine >= np.float32(point.threshold)).mean()
        assert accepted == pytest.approx(point.tar, abs=1e-12)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 4), shift=st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_rates_depend_on_the_order_of_scores_only(seed, scale, shift):
    pairs = made_up_pairs(seed, step=0.01)
    moved = Pairs(
        (pairs.score * scale + shift).astype(np.float32), pairs.same, pairs.first, pairs.second
    )
    assert verification.area(moved) == pytest.approx(verification.area(pairs), abs=1e-9)
    assert verification.equal_error_rate(moved) == pytest.approx(
        verification.equal_error_rate(pairs), abs=1e-9
    )
    before, after = (verification.tar_at_fmr(one, (1e-2,))[0] for one in (pairs, moved))
    assert after.tar == pytest.approx(before.tar, abs=1e-12)


def test_area_and_equal_error_rate():
    pairs = made_up_pairs()
    assert verification.area(pairs) == pytest.approx(roc_auc_score(pairs.same, pairs.score))
    rate = verification.equal_error_rate(pairs)
    threshold = np.quantile(pairs.impostor, 1 - rate)
    assert (pairs.genuine < threshold).mean() == pytest.approx(rate, abs=0.005)


def test_no_rate_is_quoted_that_the_pairs_cannot_support():
    firm, weak, missing = verification.tar_at_fmr(made_up_pairs(impostor=6000), (1e-2, 1e-3, 1e-4))
    assert (firm.warning, firm.errors) == ("", 60)
    assert weak.tar is not None
    assert "6 errors only" in weak.warning
    assert missing.tar is missing.threshold is None
    assert "30,000 at the least" in missing.warning


def brute_force(pairs, rate, seed, resamples):
    """Resampled people, written down pair by pair."""
    people = int(max(pairs.first.max(), pairs.second.max())) + 1
    rates = []
    for times in metrics.multiplicities(people, seed, resamples):
        weight = np.where(pairs.same, times[pairs.first], times[pairs.first] * times[pairs.second])
        scores = np.repeat(pairs.score, weight)
        same = np.repeat(pairs.same, weight)
        fmr, tar, _ = roc_curve(same, scores, drop_intermediate=False)
        rates.append(tar[fmr <= rate + 1e-12].max())
    return rates


@pytest.mark.parametrize("rate", [1e-1, 1e-2])
def test_the_bootstrap_weighs_pairs_as_if_they_were_written_down(rate):
    pairs = made_up_pairs(genuine=200, impostor=3000, people=12)
    (drawn,) = verification.resampled_tars(pairs, (rate,), 5, 60)
    np.testing.assert_allclose(drawn, brute_force(pairs, rate, 5, 60), atol=1e-9)
    (point,) = verification.tar_at_fmr(pairs, (rate,), seed=5)
    (whole,) = verification.resampled_tars(pairs, (rate,), 5)
    assert [point.lower_95, point.upper_95] == np.quantile(whole, [0.025, 0.975]).tolist()


def test_the_bootstrap_looks_past_the_tail_where_a_few_people_fill_it(monkeypatch):
    """Two people make all the false matches: a sample with both twice needs more than the tail."""
    monkeypatch.setattr(verification, "_TAIL", 0.0)
    pairs = made_up_pairs(genuine=200, impostor=20_000, people=6, step=None)
    high = ~pairs.same & (np.minimum(pairs.first, pairs.second) == 0)
    pairs.score[high] += 3
    (drawn,) = verification.resampled_tars(pairs, (0.3,), 1, 40)
    np.testing.assert_allclose(drawn, brute_force(pairs, 0.3, 1, 40), atol=1e-9)


def test_a_threshold_from_elsewhere():
    pairs = made_up_pairs()
    found = verification.at_threshold(pairs, 2.0, 1e-2)
    assert found.errors == (pairs.impostor >= 2.0).sum()
    assert found.fmr < found.fmr_upper_95 < 2 * found.fmr
    strict = verification.at_threshold(pairs, 99.0, 1e-4)
    assert (strict.fmr, strict.fmr_upper_95, strict.tar) == (0.0, None, 0.0)


def people(count=8, each=6, spread=0.6, seed=0):
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(count), each)
    directions = unit(generator.normal(size=(count, 32)).astype(np.float32))
    noise = generator.normal(size=(len(owner), 32)) * spread / 32**0.5
    return unit((directions[owner] + noise + 1).astype(np.float32)), owner


def test_every_face_meets_every_other_once():
    vectors, owner = people()
    pairs = verification.all_pairs(vectors, owner, vectors.mean(axis=0))
    assert len(pairs) == 48 * 47 // 2
    assert len(pairs.genuine) == 8 * 15
    assert pairs.people == 8


def test_without_a_centre_that_of_the_other_people_is_taken():
    vectors, owner = people()
    pairs = verification.all_pairs(vectors, owner, None)
    first, second = np.triu_indices(len(owner), 1)
    for k in (0, 7, 100, 900):
        out = {owner[first[k]], owner[second[k]]}
        means = [vectors[owner == i].mean(axis=0) for i in range(8) if i not in out]
        x, y = unit(vectors[[first[k], second[k]]] - np.mean(means, axis=0))
        assert pairs.score[k] == pytest.approx(float(x @ y), abs=1e-5)


def test_two_people_have_no_mean_face():
    vectors, owner = people(count=2)
    with pytest.raises(ValueError, match="at least three people"):
        verification.all_pairs(vectors, owner, None)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(20, 4000))
@settings(max_examples=40, deadline=None)
def test_thinning_keeps_people_even_and_pairs_bounded(counts, most_pairs):
    owner = np.repeat(np.arange(len(counts)), counts)
    chosen = verification.thinned(owner, most_pairs, seed=0)
    assert len(chosen) ** 2 / 2 <= most_pairs or len(chosen) == len(owner)
    assert len(set(chosen.tolist())) == len(chosen)
    kept = np.bincount(owner[chosen], minlength=len(counts))
    present = np.flatnonzero(kept)
    if len(present) == len(counts):
        # Nobody has two faces more than somebody else who has faces left.
        left = kept < np.array(counts)
        assert not left.any() or kept.max() <= kept[left].min() + 1


def test_files_called_the_same_are_one_person():
    owner = verification.people_of(
        np.array([0, 1, 3]), np.array([1, 2, 4]), np.array([True, True, False]), 5
    )
    assert owner[0] == owner[1] == owner[2]
    assert len({owner[0], owner[3], owner[4]}) == 3


def test_ten_folds_each_at_the_others_threshold():
    """The last fold's scores are shifted: only a threshold from the others can fail there."""
    generator = np.random.default_rng(0)
    fold = np.repeat(np.arange(10), 100)
    same = np.tile(np.arange(100) < 50, 10)
    score = np.where(same, 1.0, 0.0) + generator.uniform(0, 0.4, 1000)
    score[fold == 9] += 5
    found = verification.folded_accuracy(score.astype(np.float32), same, fold)
    assert found.folds == [1.0] * 9 + [0.5]
    assert found.mean == pytest.approx(0.95)
    assert found.standard_error == pytest.approx(np.std(found.folds, ddof=1) / 10**0.5)


def test_a_pair_that_was_not_compared_is_answered_different():
    same = np.tile([True, True, False, False], 4)
    score = np.where(same, 0.9, 0.1).astype(np.float32)
    score[0] = score[2] = -np.inf
    found = verification.folded_accuracy(score, same, np.repeat(np.arange(4), 4))
    assert found.folds == [0.75, 1.0, 1.0, 1.0]


# --- names ---


def test_a_rate_knows_that_faces_of_one_person_are_alike():
    subject = np.repeat(np.arange(10), 50)
    clustered = metrics.rate(subject < 2, subject)
    spread = metrics.rate(np.arange(500) % 5 == 0, subject)
    assert clustered.value == spread.value == 0.2
    assert clustered.upper_95 - clustered.lower_95 > 3 * (spread.upper_95 - spread.lower_95)


def test_no_error_is_not_no_rate():
    found = metrics.rate(np.zeros(100, bool), np.arange(100) % 7)
    assert found.value == found.lower_95 == 0
    assert found.upper_95 == pytest.approx(0.0362, abs=1e-3)  # Clopper and Pearson's
    assert metrics.rate(np.zeros(0, bool), np.zeros(0, int)) is None


@given(st.integers(0, 200), st.integers(1, 200))
def test_the_exact_interval_holds_the_rate(hits, count):
    hits = min(hits, count)
    lower, upper = metrics.clopper_pearson(hits, count)
    assert 0 <= lower <= hits / count <= upper <= 1


def test_who_is_taken_for_whom():
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    answer = np.array([0, 1, 1, 2, 1, 1, 1])
    named = np.array([True, True, False, False, True, False, True])
    worst, second, best = metrics.per_person(truth, answer, named, "abcd")
    assert (worst.person, worst.top_1, worst.misnamed, worst.taken_for) == ("c", 0, 1, "b")
    assert (second.person, second.top_1, second.named, second.misnamed) == ("a", 0.25, 0.25, 0.25)
    assert (best.person, best.top_1, best.named, best.taken_for) == ("b", 1, 0.5, None)
    first, *others = metrics.most_confused(truth, answer, 10, "abcd")
    assert (first.person, first.taken_for, first.faces, first.share) == ("a", "b", 2, 0.5)
    assert len(others) == 2
    assert metrics.confusion_matrix(truth, answer, [0, 1, 2]).tolist() == [
        [1, 2, 1],
        [0, 2, 0],
        [0, 1, 0],
    ]


def test_nobody_is_confused_where_all_is_right():
    truth = np.array([0, 1])
    assert metrics.most_confused(truth, truth, 5, "ab") == []


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=200))
def test_reliability_counts_every_answer_once(answers):
    confidence = np.array([value for value, _ in answers], np.float32)
    right = np.array([flag for _, flag in answers])
    bins = metrics.reliability(confidence, right)
    assert sum(one.count for one in bins) == len(answers)
    assert 0 <= metrics.expected_calibration_error(bins) <= 1
    total = sum(one.count * one.accuracy for one in bins)
    assert total == pytest.approx(right.sum())


def test_calibration_error_of_known_cases():
    half = np.full(1000, 0.5, np.float32)
    right = np.arange(1000) % 2 == 0
    assert metrics.expected_calibration_error(metrics.reliability(half, right)) < 1e-6
    sure = np.ones(1000, np.float32)
    assert metrics.expected_calibration_error(metrics.reliability(sure, right)) == 0.5


def test_open_set_rates_are_counted_as_they_are_defined():
    generator = np.random.default_rng(0)
    mated = generator.normal(2, 1, 500).astype(np.float32)
    mated[:20] = -np.inf  # somebody else came first
    strangers = generator.normal(0, 1, 2000).astype(np.float32)
    for point in metrics.open_set(mated, strangers):
        assert point.fpir == pytest.approx((strangers >= np.float32(point.threshold)).mean())
        assert point.fnir == pytest.approx((mated < np.float32(point.threshold)).mean())
    loose, firm, weak = metrics.open_set_rates(mated, strangers, (0.1, 0.02, 1e-3))
    assert loose.fnir < firm.fnir
    assert (strangers >= np.float32(firm.threshold)).mean() <= 0.02
    assert weak.fnir is None
    assert "3,000 at the least" in weak.warning
