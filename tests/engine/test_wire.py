import json
import math

import numpy as np
import pytest
from PIL import Image

from engine import errors
from engine.errors import Busy, EngineError, InternalError
from engine.request import PhotoRequest
from engine.types import EngineInfo
from engine.wire import (
    PROBLEMS,
    analysis_from_json,
    analysis_to_json,
    error_from_problem,
    info_from_json,
    info_to_json,
    problem,
)
from tests.engine.seers import THUMBNAIL, seer


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
