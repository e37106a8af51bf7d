import contextlib
import io
import json
import math
import traceback
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from engine import errors, wire
from engine.errors import Busy, EngineError, InternalError, InvalidRequest
from engine.request import PhotoRequest
from engine.types import MAX_TOP_K, Analysis, EngineInfo, Frame, Match, Person, Track, Verdict
from engine.vision.detect import MAX_FACES
from engine.wire import (
    ANSWER_MAX_BYTES,
    PROBLEMS,
    PeopleList,
    Unreadable,
    problem,
    read_analysis,
    read_info,
    read_people,
    read_problem,
    read_track,
    write_analysis,
    write_info,
    write_people,
    write_track,
)
from tests.engine.logins import calibration
from tests.engine.seers import PATTERN, PEOPLE, THUMBNAIL, seer


def text(record):
    return json.dumps(record).encode()


def test_an_analysis_comes_back_as_it_was():
    request = PhotoRequest(Image.new("RGB", (120, 80)), embed=True)
    (analysis,) = seer().analyze([request])
    record = json.loads(write_analysis(analysis, thumbnails=True))
    restored = read_analysis(text(record))
    assert restored == analysis
    assert restored.faces[0].matches[0].thumbnail == THUMBNAIL
    np.testing.assert_array_equal(restored.faces[0].embedding, analysis.faces[0].embedding)
    assert restored.faces[0].embedding.dtype == np.float32


def test_a_pattern_comes_back_as_it_was_with_its_embedding():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), embed=True)])
    record = json.loads(write_analysis(analysis))
    assert read_analysis(text(record)).faces[0].pattern == PATTERN
    for wrong in ("", "AAAA", 5, None, "?" * 2244):
        record["faces"][0]["pattern"] = wrong
        with pytest.raises(Unreadable):
            read_analysis(text(record))


def test_a_pattern_without_its_embedding_is_no_face():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), embed=True)])
    record = json.loads(write_analysis(analysis))
    del record["faces"][0]["embedding"]
    with pytest.raises(Unreadable, match="pattern"):
        read_analysis(text(record))


def test_an_engine_that_tells_no_patterns_is_not_understood():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), embed=True)])
    record = json.loads(write_analysis(analysis))
    del record["faces"][0]["pattern"]
    with pytest.raises(Unreadable):
        read_analysis(text(record))


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_how_a_photo_was_turned_comes_back_as_it_was(turned):
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)))])
    record = json.loads(write_analysis(replace(analysis, turned=turned)))
    assert record["turned"] == turned
    assert read_analysis(text(record)).turned == turned


def test_an_engine_that_turns_no_photos_says_nothing_about_it():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)))])
    record = json.loads(write_analysis(analysis, thumbnails=True))
    del record["turned"]
    assert read_analysis(text(record)) == analysis


@pytest.mark.parametrize("turned", [None, True, "90", 45, -90, 360, 90.5])
def test_no_other_turn_is_taken_for_one(turned):
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)))])
    record = json.loads(write_analysis(analysis)) | {"turned": turned}
    with pytest.raises(Unreadable):
        read_analysis(text(record))


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
    record = json.loads(write_track(a_track()))
    record["frames"][1]["turned_deg"] = turned
    with pytest.raises(Unreadable):
        read_track(text(record))


def test_an_engine_that_tells_no_turns_of_heads_is_not_understood():
    record = json.loads(write_track(a_track()))
    del record["frames"][1]["turned_deg"]
    with pytest.raises(Unreadable):
        read_track(text(record))


def test_a_track_comes_back_as_it_was():
    track = a_track()
    restored = read_track(write_track(track))
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
    with pytest.raises(Unreadable):
        read_track(text(json.loads(write_track(a_track())) | change))


def test_what_was_not_asked_for_is_not_there():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), aligned=True)])
    restored = read_analysis(write_analysis(analysis))
    (face,) = restored.faces
    assert face.embedding is None
    assert face.matches[0].thumbnail is None
    assert math.isnan(face.pose.yaw)


def test_info_comes_back_as_it_was():
    info = EngineInfo("1", "tests@0", "none", 2, "cuda:0")
    assert read_info(write_info(info)) == info
    record = json.loads(write_info(info))
    del record["login"]  # as an engine said it that knew of no login
    assert read_info(text(record)) == info


def test_a_login_comes_with_the_info():
    info = EngineInfo("1", "tests@0", "none", 2, "cpu", login=calibration())
    restored = read_info(write_info(info))
    assert restored == info
    np.testing.assert_array_equal(restored.login.centre, info.login.centre)


@pytest.mark.parametrize("people", [(), PEOPLE, (Person("Ñusta Ocllo", "PE", {"qu": "quya"}),)])
def test_people_come_back_as_they_were(people):
    assert read_people(write_people(people)) == people


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
    record = json.loads(write_people(PEOPLE))
    record["people"][0] |= change
    with pytest.raises(Unreadable):
        read_people(text(record))


@pytest.mark.parametrize("people", [None, {}, "Ana", ["Ana"], [None], [{"name": "Ana"}]])
def test_what_is_no_list_of_people_is_not_taken_for_one(people):
    with pytest.raises(Unreadable):
        read_people(text({"people": people}))


# --- Whatever comes ---


def an_analysis():
    (analysis,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), embed=True)])
    return analysis


ANSWERS = {
    "analysis": (read_analysis, write_analysis(an_analysis(), thumbnails=True)),
    "track": (read_track, write_track(a_track())),
    "info": (
        read_info,
        write_info(EngineInfo("1", "tests@0", "none", 2, "cpu", login=calibration(4))),
    ),
    "people": (read_people, write_people(PEOPLE)),
}
MAY_LACK = {"turned", "login", "calibration", "thumbnail", "picture"}
"""What older engines do not know, and what comes when it is asked for."""


def places(value, path=()):
    """The path of every value in a record."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from places(inner, (*path, key))


def inside(record, path):
    for key in path:
        record = record[key]
    return record


@pytest.mark.parametrize("kind", ANSWERS)
def test_nothing_may_be_missing(kind):
    read, answer = ANSWERS[kind]
    read(answer)
    wanted = [
        path
        for path in places(json.loads(answer))
        if isinstance(path[-1], str) and path[-1] not in MAY_LACK and "known_for" not in path[:-1]
    ]
    assert wanted
    for path in wanted:
        record = json.loads(answer)
        del inside(record, path[:-1])[path[-1]]
        with pytest.raises(Unreadable, match=r"[Rr]equired|missing"):
            read(text(record))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400)
OTHERS = st.recursive(LEAVES, lambda of: st.lists(of) | st.dictionaries(st.text(), of))


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_none_is_refused_and_nothing_worse(data):
    read, answer = ANSWERS[data.draw(st.sampled_from(list(ANSWERS)))]
    record = json.loads(answer)
    *path, key = data.draw(st.sampled_from(list(places(record))))
    inside(record, path)[key] = data.draw(OTHERS)
    with contextlib.suppress(Unreadable):
        read(text(record))


@pytest.mark.parametrize(
    "wrong", [b"", b"[]", b"null", b"{", b"\xff", b'{"faces": NaN}', b"[" * 10**5]
)
def test_what_is_no_answer_is_refused(wrong):
    for read, _answer in ANSWERS.values():
        with pytest.raises(Unreadable):
            read(wrong)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Analysis, ("faces",)),
        (Analysis, ("faces", 0, "matches")),
        (Analysis, ("faces", 0, "embedding")),
        (Track, ("frames",)),
        (EngineInfo, ("login", "points")),
        (EngineInfo, ("login", "centre")),
        (PeopleList, ("people",)),
        (PeopleList, ("people", 0, "known_for")),
    ],
)
def test_many_faults_take_no_memory(kind, path):
    """Each is kept with what is wrong: of a whole answer that would be gigabytes."""
    answers = {Analysis: "analysis", Track: "track", EngineInfo: "info", PeopleList: "people"}
    record = json.loads(ANSWERS[answers[kind]][1])
    many = dict.fromkeys(map(str, range(99)), 1) if path[-1] == "known_for" else [None] * 99
    inside(record, path[:-1])[path[-1]] = many
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_json(text(record), strict=True)
    assert caught.value.error_count() == 1


def test_no_number_of_a_face_gets_into_a_sentence():
    record = json.loads(write_analysis(an_analysis()))
    record["faces"][0]["embedding"] = [0.123456, "0.654321"]
    with pytest.raises(Unreadable) as caught:
        read_analysis(text(record))
    said = "".join(traceback.format_exception(caught.value))
    assert "faces.0.embedding" in said
    assert "654321" not in said
    assert "123456" not in said


# --- How large an answer may be ---


def test_an_answer_that_has_no_room_is_refused(monkeypatch):
    crowd = replace(an_analysis(), faces=an_analysis().faces * 3)
    size = len(write_analysis(crowd, thumbnails=True))
    monkeypatch.setattr(wire, "ANSWER_MAX_BYTES", size)
    assert read_analysis(write_analysis(crowd, thumbnails=True)).faces == crowd.faces
    monkeypatch.setattr(wire, "ANSWER_MAX_BYTES", size - 1)
    with pytest.raises(InvalidRequest, match="top_k"):
        write_analysis(crowd, thumbnails=True)


def test_people_that_have_no_room_are_refused(monkeypatch):
    size = len(write_people(PEOPLE))
    monkeypatch.setattr(wire, "ANSWER_MAX_BYTES", size)
    assert read_people(write_people(PEOPLE)) == PEOPLE
    monkeypatch.setattr(wire, "ANSWER_MAX_BYTES", size - 1)
    with pytest.raises(InvalidRequest, match="2 people"):
        write_people(PEOPLE)


def test_a_hundred_thousand_people_fit():
    words = {"es": "ñ" * 60, "en": "x" * 60}
    assert write_people([Person("ñ" * 40, "MX", words)] * 100_000)


def test_whatever_may_be_asked_of_the_workshops_bundles_fits():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    picture = Image.fromarray(noise)
    picture.save(file, "JPEG", quality=85)  # as training.bundles.gallery makes them
    match = Match("ñ" * 40, 1 / 3, -1 / 3, 100 / 3, Verdict.STRONG, file.getvalue())
    embedding = np.full(512, -1 / 512**0.5, np.float32)
    (face,) = an_analysis().faces
    face = replace(face, matches=MAX_TOP_K * (match,), embedding=embedding)
    crowd = replace(an_analysis(), faces=MAX_FACES * (face,))
    assert len(write_analysis(crowd, thumbnails=True)) > ANSWER_MAX_BYTES / 2


# --- Faults ---


@pytest.mark.parametrize("code", PROBLEMS)
def test_a_fault_comes_back_as_it_was(code):
    kind = PROBLEMS[code].error
    error = Busy("Full: wait.", retry_after_s=1.25) if kind is Busy else kind("Do this.", code=code)
    restored = read_problem(text(problem(error)))
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
    assert isinstance(read_problem(text(record)), InternalError)
