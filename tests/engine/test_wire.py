import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engine import errors
from engine.errors import Busy, EngineError, InternalError
from engine.request import PhotoRequest
from engine.types import EngineInfo, Frame, Person, Track
from engine.wire import (
    PROBLEMS,
    analysis_from_json,
    analysis_to_json,
    error_from_problem,
    info_from_json,
    info_to_json,
    people_from_json,
    people_to_json,
    problem,
    track_from_json,
    track_to_json,
)
from tests.engine.logins import calibration
from tests.engine.seers import PATTERN, PEOPLE, THUMBNAIL, seer


def through_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


def test_an_analysis_comes_back_as_it_was():
    request = PhotoRequest(Image.new("RGB", (120, 80)), embed=True)
    (analysis,) = seer().analyze([request])
    record = through_json(analysis_to_json(analysis, thumbnails=True))
    restored = analysis_from_json(record)
    assert restored == analysis
    assert restored.faces[0].matches[0].thumbnail == THUMBNAIL
    np.testing.assert_array_equal(restored.faces[0].embedding, analysis.faces[0].embedding)
    assert restored.faces[0].embedding.dtype == np.float32


def test_a_pattern_comes_back_as_it_was_with_its_embedding():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), embed=True)])
    record = through_json(analysis_to_json(analysis))
    assert analysis_from_json(record).faces[0].pattern == PATTERN
    for wrong in ("", "AAAA", 5, None, "?" * 2244):
        record["faces"][0]["pattern"] = wrong
        with pytest.raises((TypeError, ValueError)):
            analysis_from_json(record)


def test_an_engine_that_tells_no_patterns_is_not_understood():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), embed=True)])
    record = through_json(analysis_to_json(analysis))
    del record["faces"][0]["pattern"]
    with pytest.raises(KeyError):
        analysis_from_json(record)


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_how_a_photo_was_turned_comes_back_as_it_was(turned):
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)))])
    record = through_json(analysis_to_json(replace(analysis, turned=turned)))
    assert record["turned"] == turned
    assert analysis_from_json(record).turned == turned


def test_an_engine_that_turns_no_photos_says_nothing_about_it():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)))])
    record = through_json(analysis_to_json(analysis, thumbnails=True))
    del record["turned"]
    assert analysis_from_json(record) == analysis


@pytest.mark.parametrize("turned", [None, True, "90", 45, -90, 360, 90.5])
def test_no_other_turn_is_taken_for_one(turned):
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)))])
    record = through_json(analysis_to_json(analysis)) | {"turned": turned}
    with pytest.raises((TypeError, ValueError)):
        analysis_from_json(record)


def a_track():
    request = PhotoRequest(Image.new("RGB", (120, 80)), top_k=0, embed=True, aligned=True)
    (analysis,) = seer().analyze([request])
    (face,) = analysis.faces
    frames = (
        Frame(0.0, face, 2),
        Frame(0.1, replace(face, embedding=None, pattern=None), 0, (1.25, 0.0)),
        Frame(0.2, None, 0),
    )
    return Track(frames, 120, 80, 0.3, "tests@0", 0.01, 0.02)


@pytest.mark.parametrize("turned", [1.0, "12", [1.0], [1.0, 2.0, 3.0], [1.0, "2"], [True, 0.0]])
def test_no_other_turn_of_a_head_is_taken_for_one(turned):
    record = through_json(track_to_json(a_track()))
    record["frames"][1]["turned_deg"] = turned
    with pytest.raises((TypeError, ValueError)):
        track_from_json(record)


def test_an_engine_that_tells_no_turns_of_heads_is_not_understood():
    record = through_json(track_to_json(a_track()))
    del record["frames"][1]["turned_deg"]
    with pytest.raises(KeyError):
        track_from_json(record)


def test_a_track_comes_back_as_it_was():
    track = a_track()
    restored = track_from_json(through_json(track_to_json(track)))
    assert restored == replace(track, frames=restored.frames)
    for frame, own in zip(restored.frames, track.frames, strict=True):
        assert (frame.time_s, frame.others) == (own.time_s, own.others)
        assert frame.turned_deg == own.turned_deg
    first, second, third = (frame.face for frame in restored.frames)
    np.testing.assert_array_equal(first.embedding, track.frames[0].face.embedding)
    assert first.box == second.box == track.frames[0].face.box
    assert math.isnan(first.pose.yaw)
    assert first.pattern == track.frames[0].face.pattern
    assert (second.embedding, second.pattern) == (None, None)
    assert third is None


@pytest.mark.parametrize(
    "change",
    [
        {"frames": {}},
        {"frames": [None]},
        {"frames": [{"time_s": 0}]},
        {"duration_s": None},
        {"duration_s": "1"},
        {"frames": [{"time_s": 0, "face": None, "others": True, "turned_deg": None}]},
        {"frames": [{"time_s": 0, "face": [], "others": 0, "turned_deg": None}]},
    ],
)
def test_what_is_no_track_is_not_taken_for_one(change):
    with pytest.raises((KeyError, TypeError, ValueError)):
        track_from_json(through_json(track_to_json(a_track())) | change)


def test_what_was_not_asked_for_is_not_there():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), aligned=True)])
    restored = analysis_from_json(through_json(analysis_to_json(analysis)))
    (face,) = restored.faces
    assert face.embedding is None
    assert face.matches[0].thumbnail is None
    assert math.isnan(face.pose.yaw)


def test_info_comes_back_as_it_was():
    info = EngineInfo("1", "tests@0", "none", 2, "cuda:0")
    assert info_from_json(through_json(info_to_json(info))) == info
    record = through_json(info_to_json(info))
    del record["login"]  # as an engine said it that knew of no login
    assert info_from_json(record) == info


def test_a_login_comes_with_the_info():
    info = EngineInfo("1", "tests@0", "none", 2, "cpu", login=calibration())
    restored = info_from_json(through_json(info_to_json(info)))
    assert restored == info
    np.testing.assert_array_equal(restored.login.centre, info.login.centre)


@pytest.mark.parametrize("people", [(), PEOPLE, (Person("Ñusta Ocllo", "PE", {"qu": "quya"}),)])
def test_people_come_back_as_they_were(people):
    assert people_from_json(through_json(people_to_json(people))) == people


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": 7},
        {"country": None},
        {"country": "mx"},
        {"country": "MEX"},
        {"country": "MX\n"},
        {"known_for": None},
        {"known_for": "painter"},
        {"known_for": ["painter"]},
        {"known_for": {"en": None}},
    ],
)
def test_what_is_no_person_is_not_taken_for_one(change):
    record = through_json(people_to_json(PEOPLE))
    record["people"][0] |= change
    with pytest.raises((KeyError, TypeError, ValueError)):
        people_from_json(record)


@pytest.mark.parametrize("people", [None, {}, "Ana", ["Ana"], [None], [{"name": "Ana"}]])
def test_what_is_no_list_of_people_is_not_taken_for_one(people):
    with pytest.raises((KeyError, TypeError, ValueError)):
        people_from_json({"people": people})


@pytest.mark.parametrize("code", PROBLEMS)
def test_a_fault_comes_back_as_it_was(code):
    kind = PROBLEMS[code].error
    error = Busy("Full: wait.", retry_after_s=1.25) if kind is Busy else kind("Do this.", code=code)
    restored = error_from_problem(through_json(problem(error)))
    assert type(restored) is type(error)
    assert (restored.code, restored.message) == (code, error.message)
    assert vars(restored) == vars(error)


def test_every_fault_of_the_tree_has_its_problem():
    def leaves(kind):
        below = kind.__subclasses__()
        return {kind} if not below else set().union(*map(leaves, below))

    # These two are the command line's: they never cross HTTP.
    at_home = {errors.UnreadableFile, errors.ComparisonError}
    ours = {kind for kind in leaves(EngineError) if kind.__module__ == errors.__name__}
    assert {kind.code for kind in ours - at_home} <= set(PROBLEMS)


def test_a_fault_that_has_no_problem_is_internal_and_an_unknown_problem_too():
    assert problem(errors.ComparisonError("Nobody there."))["code"] == "internal"
    record = problem(InternalError("Oops.")) | {"code": "from_the_future"}
    assert isinstance(error_from_problem(record), InternalError)
