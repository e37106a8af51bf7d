import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from engine.decision import PHOTO, VIDEO, LoginCalibration, agree, decide, to_json
from tests.engine.logins import calibration, point

DIMENSION = 4
ZERO = calibration(DIMENSION, centre=np.zeros(DIMENSION, np.float32))


def at(*degrees):
    """Unit vectors in a plane, by their angles."""
    turned = np.radians(np.array(degrees, float))
    rows = np.zeros((len(degrees), DIMENSION), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(turned), np.sin(turned)
    return rows


def with_points(*points):
    return replace(ZERO, points=points)


def test_means_are_compared_and_not_single_photos():
    # Each probe is 70 degrees from each template (.34), but the means are 0 degrees apart.
    templates, probes = at(-35, 35, 0), at(-50, 50)
    assert decide(ZERO, PHOTO, templates, probes).reason == "match"
    assert decide(ZERO, PHOTO, templates, at(50, 90)).reason == "no_match"


def test_the_threshold_itself_is_let_in_and_a_bit_less_is_not():
    templates, probes = at(0, 0, 0), at(60, 60)
    score = float(templates[0] @ probes[0])
    assert decide(with_points(point(threshold=score)), PHOTO, templates, probes).accepted
    higher = with_points(point(threshold=float(np.nextafter(np.float32(score), np.float32(1)))))
    assert not decide(higher, PHOTO, templates, probes).accepted


def test_every_template_can_have_a_veto():
    strict = with_points(point(template_floor=0.2))
    assert decide(strict, PHOTO, at(0, 0, 70), at(0, 0)).accepted
    assert decide(strict, PHOTO, at(0, 0, 85), at(0, 0)).reason == "template_veto"


def test_everything_is_centred_first():
    centre = np.array([1.0, 0, 0, 0], np.float32)
    shifted = replace(ZERO, centre=centre)
    templates, probes = at(10, 10, 10), at(-10, -10)
    assert decide(ZERO, PHOTO, templates, probes).accepted
    assert not decide(shifted, PHOTO, templates, probes).accepted


def test_every_turn_must_show_the_person():
    templates, neutral = at(0, 0, 0), at(5, -5)
    assert decide(ZERO, VIDEO, templates, neutral, [at(60), at(-60, 60)]).accepted
    assert decide(ZERO, VIDEO, templates, neutral).reason == "turn_mismatch"
    spliced = decide(ZERO, VIDEO, templates, neutral, [at(60), at(120)])
    assert spliced.reason == "turn_mismatch"
    assert not spliced.accepted


def test_no_more_photos_count_than_were_measured():
    templates, probes = at(0, 0, 0, 180, 180), at(0, 0, 180, 180)
    assert decide(ZERO, PHOTO, templates, probes).accepted
    assert decide(ZERO, PHOTO, templates, probes[::-1]).reason == "no_match"


def test_all_frames_of_a_clip_count():
    assert decide(ZERO, VIDEO, at(0, 0, 0), at(0, 0, 90), [at(0)]).accepted
    assert not decide(ZERO, VIDEO, at(0, 0, 0), at(0, 100, 100, 100), [at(0)]).accepted


@pytest.mark.parametrize(("templates", "probes"), [(2, 2), (3, 1), (0, 2), (3, 0)])
def test_fewer_photos_than_were_measured_are_no_question(templates, probes):
    with pytest.raises(ValueError, match="no login by photo was measured"):
        decide(ZERO, PHOTO, at(*[0] * templates).reshape(-1, 4), at(*[0] * probes).reshape(-1, 4))


def test_the_largest_measured_number_is_taken():
    many = with_points(*(point(templates=k, probes=m) for k in (1, 3, 5) for m in (1, 3)))
    found = [many.point(PHOTO, k, m) for k, m in ((1, 1), (4, 2), (9, 9))]
    assert [(one.templates, one.probes) for one in found] == [(1, 1), (3, 1), (5, 3)]


def test_vectors_of_another_length_say_to_enroll_again():
    with pytest.raises(ValueError, match="enroll again"):
        decide(ZERO, PHOTO, np.ones((3, 5), np.float32), at(0, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 3e38])
@pytest.mark.parametrize("where", ["templates", "probes", "turns"])
def test_numbers_that_are_none_let_nobody_in(value, where):
    given_vectors = {"templates": at(0, 0, 0), "probes": at(0, 0), "turns": at(0, 0)}
    given_vectors[where] = given_vectors[where].copy()
    given_vectors[where][1] = value
    turns = [given_vectors["turns"]]
    found = decide(ZERO, VIDEO, given_vectors["templates"], given_vectors["probes"], turns)
    assert not found.accepted


def test_opposites_and_the_mean_face_itself_have_no_direction():
    assert decide(ZERO, PHOTO, at(0, 0, 0), at(0, 180)).reason == "not_comparable"
    shifted = replace(ZERO, centre=at(0)[0])
    assert decide(shifted, PHOTO, at(0, 0, 0), at(0, 0)).reason == "not_comparable"
    assert not agree(shifted, at(0, 0))


def test_an_empty_turn_is_a_mismatch():
    empty = np.zeros((0, DIMENSION), np.float32)
    assert not decide(ZERO, VIDEO, at(0, 0, 0), at(0), [at(0), empty]).accepted


def test_the_log_gets_a_bucket_and_no_score():
    buckets = [decide(ZERO, PHOTO, at(0, 0, 0), at(a, a)).bucket for a in (0, 30, 61, 84, 100)]
    assert buckets == [9, 8, 4, 1, 0]


def test_captures_agree_two_by_two():
    assert agree(ZERO, at(0, 30, 60))
    assert not agree(ZERO, at(0, 40, 80))
    assert agree(ZERO, at(0))
    spoilt = at(0, 30)
    spoilt[1, 0] = np.nan
    assert not agree(ZERO, spoilt)


@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=8, max_size=8),
    st.sampled_from([PHOTO, VIDEO]),
)
def test_whatever_the_vectors_hold_it_is_a_decision(values, level):
    rows = np.array(values, np.float32).reshape(2, DIMENSION)
    found = decide(ZERO, level, at(0, 0, 0), rows, [rows])
    assert 0 <= found.bucket <= 9
    assert found.accepted == (found.reason == "match")


def from_json(record):
    """As a bundle's description is read."""
    return TypeAdapter(LoginCalibration).validate_python(record)


def test_a_calibration_comes_back_as_it_was():
    made = calibration(centre=np.random.default_rng(0).normal(size=128).astype(np.float32))
    read = from_json(json.loads(json.dumps(to_json(made), allow_nan=False)))
    assert read == made
    assert read.version == made.version
    np.testing.assert_array_equal(read.centre, made.centre)
    assert read.centre.dtype == np.float32


def test_the_version_tells_everything_that_decides():
    made = calibration()
    others = [
        replace(made, centre=made.centre + np.float32(1e-6)),
        replace(made, points=(point(threshold=0.5001),)),
        replace(made, weights_sha256="0" * 64),
        replace(made, preprocessing=2),
        replace(made, agreement=0.31),
    ]
    assert len({one.version for one in (made, *others)}) == 6
    assert replace(made, source="celebrities@01234567").version == made.version


@pytest.mark.parametrize(
    "spoil",
    [
        {"centre": []},
        {"centre": [0.1, None]},
        {"centre": [0.1, float("nan")]},
        {"points": []},
        {"points": [{}]},
        {"agreement": 2.0},
        {"captures": 0},
        {"captures": 2.5},
        {"embedder": 7},
    ],
)
def test_what_is_no_calibration_is_refused(spoil):
    with pytest.raises(ValidationError):
        from_json(to_json(calibration()) | spoil)


@pytest.mark.parametrize(
    "spoil",
    [{"threshold": 0.0}, {"threshold": -1.0}, {"threshold": float("nan")}, {"fmr": 2}],
)
def test_a_threshold_that_lets_anybody_in_is_refused(spoil):
    record = to_json(calibration())
    record["points"][0] |= spoil
    with pytest.raises(ValidationError):
        from_json(record)


@pytest.mark.parametrize("rate", ["fmr", "fmr_upper_95", "fnmr"])
@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, np.inf])
def test_a_rate_that_is_none_is_refused(rate, value):
    with pytest.raises(ValueError, match="rates must be numbers from 0 to 1"):
        with_points(point(), point("video", 3, 1, **{rate: value}))
    assert with_points(point(**{rate: 1.0}), point(**{rate: 0.0})).points


def test_deciding_needs_no_torch():
    code = "import sys, engine.decision; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
