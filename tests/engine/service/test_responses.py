import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engine.errors import InvalidRequest, NotAnImage
from engine.request import PhotoRequest
from engine.service.responses import encode, encode_each, encode_people, join
from engine.types import MAX_TOP_K, Match, Person, Verdict
from engine.vision.detect import MAX_FACES
from engine.wire import ANSWER_MAX_BYTES, analysis_to_json, people_to_json, problem
from tests.engine.seers import PEOPLE, seer


def analysis(faces):
    (seen,) = seer().analyze([PhotoRequest(Image.new("RGB", (120, 80)), embed=True)])
    return replace(seen, faces=faces * seen.faces)


@pytest.mark.parametrize("thumbnails", [True, False])
@pytest.mark.parametrize("faces", [0, 1, 3])
def test_an_answer_is_the_json_of_its_analysis(faces, thumbnails):
    seen = analysis(faces)
    written = encode(seen, thumbnails=thumbnails)
    assert json.loads(written) == analysis_to_json(seen, thumbnails=thumbnails)


def test_an_answer_that_has_no_room_is_refused():
    size = len(encode(analysis(2), thumbnails=True))
    assert encode(analysis(2), thumbnails=True, room_bytes=size + 1)
    with pytest.raises(InvalidRequest, match="top_k"):
        encode(analysis(2), thumbnails=True, room_bytes=size - 1)


def test_of_a_form_comes_what_there_is_room_for():
    fault = NotAnImage("No picture: send another file.")
    results = [analysis(2), fault, analysis(3), analysis(0)]
    whole = encode(results[0], thumbnails=True)
    room_bytes = len(whole) + len(encode(analysis(1), thumbnails=True))
    encoded = encode_each(results, thumbnails=True, room_bytes=room_bytes)
    first, second, third, fourth = json.loads(join(encoded))["results"]
    assert first == json.loads(whole)
    assert second == {"error": problem(fault)}
    assert third["error"]["code"] == "invalid_request"
    assert fourth["faces"] == []


@pytest.mark.parametrize("people", [(), PEOPLE[:1], PEOPLE])
def test_the_people_are_the_json_of_theirs(people):
    assert json.loads(encode_people(people)) == people_to_json(people)


def test_people_that_have_no_room_are_refused():
    size = len(encode_people(PEOPLE))
    assert encode_people(PEOPLE, room_bytes=size + 1)
    with pytest.raises(InvalidRequest, match="2 people"):
        encode_people(PEOPLE, room_bytes=size - 1)


def test_a_hundred_thousand_people_fit():
    words = {"es": "ñ" * 60, "en": "x" * 60}
    people = [Person("ñ" * 40, "MX", words)] * 100_000
    assert len(encode_people(people)) <= ANSWER_MAX_BYTES


def test_whatever_may_be_asked_of_the_workshops_bundles_fits():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    Image.fromarray(noise).save(
        file, "JPEG", quality=85
    )  # as training.bundles.gallery makes pictures
    match = Match("ñ" * 40, 1 / 3, -1 / 3, 100 / 3, Verdict.STRONG, file.getvalue())
    embedding = np.full(512, -1 / 512**0.5, np.float32)
    (face,) = analysis(1).faces
    face = replace(face, matches=MAX_TOP_K * (match,), embedding=embedding)
    crowd = replace(analysis(0), faces=MAX_FACES * (face,))
    written = encode(crowd, thumbnails=True)
    assert ANSWER_MAX_BYTES / 2 < len(written) <= ANSWER_MAX_BYTES
