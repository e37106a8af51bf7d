from dataclasses import dataclass

import numpy as np
import pytest

from training.bundles.gallery import cluster_count, prototypes
from training.measure import calibration
from training.measure.calibration import calibrate, rounds, scaled
from training.vectors import person_means, unit


@dataclass(frozen=True)
class Cloud:
    vectors: np.ndarray
    owner: np.ndarray


def cloud(people=4, each=20, spread=0.5, seed=0):
    """People as clouds around directions."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), each)
    directions = unit(generator.normal(size=(people, 64)).astype(np.float32))
    noise = generator.normal(size=(len(owner), 64)) * spread / 8
    return Cloud(unit((directions[owner] + noise).astype(np.float32)), owner)


@pytest.fixture(scope="module")
def measured():
    faces = cloud(people=12, each=30, spread=0.9)
    return calibrate(faces.vectors, faces.owner, 12, prototypes)


def test_says_what_it_rests_on(measured):
    figures, _ = measured
    assert figures.identification.strangers == 360
    assert figures.identification.stranger_people == 12
    assert figures.identification.genuine == 360
    assert figures.pairs[0].impostor_pairs == 12 * 11 // 2 * 30 * 30
    assert figures.pairs[0].genuine_pairs == 12 * 30 * 29 // 2


def test_no_more_strangers_than_said_reach_the_threshold(measured):
    record = measured[0].identification
    assert record.fmr <= 1 / 360
    assert record.fmr < record.fmr_upper_95 < 0.02


def test_the_threshold_holds_for_people_it_has_not_seen():
    people = 60
    faces = cloud(people=people, each=12, spread=1.5)
    figures, _ = calibrate(faces.vectors, faces.owner, people, prototypes)
    centre = person_means(faces.vectors, faces.owner, people).mean(axis=0)
    made, _ = prototypes(unit(faces.vectors - centre), faces.owner, people)
    fresh = cloud(seed=77, people=80, each=12, spread=1.5)
    best = (unit(fresh.vectors - centre) @ made.T).max(axis=1)
    record = figures.identification
    assert (best >= record.threshold).mean() <= record.fmr_upper_95


def test_a_borrowed_calibration_is_made_for_the_borrowers_size():
    """Measured on 20 people, used for 150: strangers must not be called by name more often."""
    people, more = 20, 150
    faces = cloud(people=people, each=60, spread=1.5)
    lender, _ = calibrate(faces.vectors, faces.owner, people, prototypes)
    borrowed = scaled(lender, people - 1, more)
    large = cloud(seed=5, people=more, each=60, spread=1.5)
    centre = person_means(large.vectors, large.owner, more).mean(axis=0)
    made, _ = prototypes(unit(large.vectors - centre), large.owner, more)
    fresh = cloud(seed=77, people=200, each=10, spread=1.5)
    best = (unit(fresh.vectors - centre) @ made.T).max(axis=1)
    unscaled = (best >= lender.identification.threshold).mean()
    kept = (best >= borrowed.identification.threshold).mean()
    assert unscaled > 3 * lender.identification.fmr
    assert kept < unscaled / 3
    assert kept <= borrowed.identification.fmr_upper_95
    # Half of the strangers are below the median that they are told.
    assert (best < np.median(borrowed.stranger_quantiles)).mean() == pytest.approx(0.5, abs=0.15)


def test_fewer_people_keep_the_lenders_figures(measured):
    assert scaled(measured[0], 11, 5) == measured[0]


def test_quantiles_rise(measured):
    quantiles = measured[0].stranger_quantiles
    assert len(quantiles) == 1001
    assert quantiles == sorted(quantiles)


def test_pair_thresholds_rise_and_stop_where_errors_are_too_few(measured):
    pairs = measured[0].pairs
    assert [record.fmr for record in pairs] == [1e-2, 1e-3]  # 1e-4 would rest on 6 errors
    assert pairs[0].threshold < pairs[1].threshold


def test_clear_people_are_told_apart(measured):
    _, metrics = measured
    assert metrics["top_1"] == 1.0
    assert metrics["top_5"] == 1.0


def test_two_people_are_too_few():
    faces = cloud(people=2)
    with pytest.raises(ValueError, match="three people"):
        calibrate(faces.vectors, faces.owner, 2, prototypes)


def test_one_photo_each_is_too_few():
    faces = cloud(people=5, each=1)
    with pytest.raises(ValueError, match="two photos"):
        calibrate(faces.vectors, faces.owner, 5, prototypes)


def test_more_photos_make_more_prototypes():
    assert [cluster_count(n) for n in (1, 19, 20, 39, 40, 500)] == [1, 1, 2, 2, 3, 3]
    faces = cloud(people=3, each=45)
    made, owner = prototypes(faces.vectors, faces.owner, 3)
    assert owner.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


def test_many_people_are_left_out_in_groups_and_give_the_same_figures():
    """A tenth at a time, carried over to everybody: as one by one, within what chance allows."""
    people = 210
    faces = cloud(people=people, each=8, spread=1.2)
    done = []
    grouped_out, _ = calibrate(faces.vectors, faces.owner, people, prototypes, done.append)
    assert done == list(range(1, 16)) == list(range(1, rounds(people) + 1))
    assert grouped_out.identification.stranger_people == people
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_MOST_ALONE", people)
        alone, _ = calibrate(faces.vectors, faces.owner, people, prototypes)
    assert grouped_out.temperature == alone.temperature
    assert grouped_out.pairs == alone.pairs
    np.testing.assert_allclose(
        grouped_out.stranger_quantiles[50:950], alone.stranger_quantiles[50:950], atol=0.01
    )
    ours, theirs = grouped_out.identification, alone.identification
    assert ours.threshold == pytest.approx(theirs.threshold, abs=0.03)
    assert ours.true_positive_rate == pytest.approx(theirs.true_positive_rate, abs=0.03)
    assert ours.fmr < ours.fmr_upper_95


def test_bounds_on_memory_change_nothing(monkeypatch):
    faces = cloud(people=12, each=30, spread=0.9)
    whole = calibrate(faces.vectors, faces.owner, 12, prototypes)
    # A few queries, a few people and a few resamples at a time.
    monkeypatch.setattr(calibration, "_MOST_SCORES", 12 * 5 * 80)
    monkeypatch.setattr(calibration, "_BLOCK", 70)
    assert calibrate(faces.vectors, faces.owner, 12, prototypes) == whole


def test_more_faces_than_are_looked_up_are_thinned_evenly(monkeypatch):
    faces = cloud(people=12, each=30, spread=0.9)
    monkeypatch.setattr(calibration, "_MOST_QUERIES", 120)
    thinned, metrics = calibrate(faces.vectors, faces.owner, 12, prototypes)
    assert thinned.identification.strangers == 120
    assert thinned.identification.stranger_people == 12
    assert thinned.identification.genuine == 120
    assert metrics["top_1"] == 1.0


def test_pairs_of_many_people_are_those_of_some(monkeypatch):
    faces = cloud(people=30, each=10, spread=0.9)
    monkeypatch.setattr(calibration, "_MOST_COMPARED", 12)
    records = calibration.pairs(faces.vectors, faces.owner, 30)
    assert records[0].people == 12
    assert records[0].impostor_pairs == 12 * 11 // 2 * 10 * 10


def test_near_duplicates_are_held_out_together():
    """Faces that resemble nothing but their own copies must not be found by them."""
    people, moments, copies = 6, 5, 4
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(people * moments), copies)
    moment = generator.normal(size=(people * moments, 64))[group]
    vectors = unit((moment + 0.01 * generator.normal(size=moment.shape)).astype(np.float32))
    owner = group // moments
    record, metrics = calibrate(vectors, owner, people, prototypes, group=group)
    _, copied = calibrate(vectors, owner, people, prototypes)
    assert metrics["top_1"] < 0.5 < copied["top_1"]
    assert record.identification.genuine == len(owner)
    # Nor do they count as two photos of one person.
    assert record.pairs[0].genuine_pairs == people * 10 * copies**2


def test_people_with_near_duplicates_only_are_not_held_out():
    faces = cloud(people=5, each=4)
    with pytest.raises(ValueError, match="two photos"):
        calibrate(faces.vectors, faces.owner, 5, prototypes, group=faces.owner)


def test_strangers_who_met_fewer_people_count_for_more(measured):
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(20), 100)
    scores = generator.normal(0, 0.1, (2000, 20)).astype(np.float32)
    scores[np.arange(2000), truth] += 0.35
    best, stranger = generator.normal(0.2, 0.05, 5000), np.repeat(np.arange(50), 100)
    pairs = measured[0].pairs
    few, _ = calibration.assemble(scores, truth, best, stranger, pairs)
    many, _ = calibration.assemble(scores, truth, best, stranger, pairs, power=20 / 5)
    assert many.identification.threshold > few.identification.threshold
    assert many.identification.true_positive_rate < few.identification.true_positive_rate
    assert many.stranger_quantiles[500] > few.stranger_quantiles[500]
