import numpy as np
import pytest

from tests.training.test_audit import made_up
from training.audit import mean_of_means, unit
from training.calibration import calibrate, scaled
from training.gallery import cluster_count, prototypes


@pytest.fixture(scope="module")
def measured():
    faces = made_up(people=12, each=30, spread=0.9)
    return calibrate(faces.vectors, faces.owner, 12, prototypes)


def test_says_what_it_rests_on(measured):
    calibration, _ = measured
    assert calibration.identification.strangers == 360
    assert calibration.identification.stranger_people == 12
    assert calibration.identification.genuine == 360
    assert calibration.pairs[0].impostor_pairs == 12 * 11 // 2 * 30 * 30
    assert calibration.pairs[0].genuine_pairs == 12 * 30 * 29 // 2


def test_no_more_strangers_than_said_reach_the_threshold(measured):
    record = measured[0].identification
    assert record.fmr <= 1 / 360
    assert record.fmr < record.fmr_upper_95 < 0.02


def test_the_threshold_holds_for_people_it_has_not_seen():
    people = 60
    faces = made_up(people=people, each=12, spread=1.5)
    calibration, _ = calibrate(faces.vectors, faces.owner, people, prototypes)
    centre = mean_of_means(faces.vectors, faces.owner, people).mean(axis=0)
    made, _ = prototypes(unit(faces.vectors - centre), faces.owner, people)
    fresh = made_up(seed=77, people=80, each=12, spread=1.5)
    best = (unit(fresh.vectors - centre) @ made.T).max(axis=1)
    record = calibration.identification
    assert (best >= record.threshold).mean() <= record.fmr_upper_95


def test_a_borrowed_calibration_is_made_for_the_borrowers_size():
    """Measured on 20 people, used for 150: strangers must not be called by name more often."""
    people, more = 20, 150
    faces = made_up(people=people, each=60, spread=1.5)
    lender, _ = calibrate(faces.vectors, faces.owner, people, prototypes)
    borrowed = scaled(lender, people - 1, more)
    large = made_up(seed=5, people=more, each=60, spread=1.5)
    centre = mean_of_means(large.vectors, large.owner, more).mean(axis=0)
    made, _ = prototypes(unit(large.vectors - centre), large.owner, more)
    fresh = made_up(seed=77, people=200, each=10, spread=1.5)
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
    faces = made_up(people=2)
    with pytest.raises(ValueError, match="three people"):
        calibrate(faces.vectors, faces.owner, 2, prototypes)


def test_one_photo_each_is_too_few():
    faces = made_up(people=5, each=1)
    with pytest.raises(ValueError, match="two photos"):
        calibrate(faces.vectors, faces.owner, 5, prototypes)


def test_more_photos_make_more_prototypes():
    assert [cluster_count(n) for n in (1, 19, 20, 39, 40, 500)] == [1, 1, 2, 2, 3, 3]
    faces = made_up(people=3, each=45)
    made, owner = prototypes(faces.vectors, faces.owner, 3)
    assert owner.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
