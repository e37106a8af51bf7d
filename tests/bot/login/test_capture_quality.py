"""What a face must be for a login; the sentences are tried in test_enroll."""

from dataclasses import replace

import pytest

from bot.login.capture_quality import gate
from bot.telegram.incoming import Reason, Refusal
from engine.login_gates import GATES
from engine.types import Pose, Quality
from tests.bot import fakes
from tests.bot.logins import good_face


def test_a_good_face_passes() -> None:
    face = good_face()
    assert gate(fakes.analysis(face)) is face


def test_a_far_or_doubtful_second_face_is_let_be() -> None:
    face = good_face()
    far = replace(good_face(1), quality=Quality(GATES.other_share * 120 - 1, 0.2, 0.5))
    doubtful = replace(good_face(1), probability=GATES.other_probability - 0.01)
    assert gate(fakes.analysis(face, far, doubtful)) is face


@pytest.mark.parametrize(
    "broken",
    [
        replace(good_face(), pose=Pose(0.0, float("nan"))),
        replace(good_face(), quality=Quality(float("nan"), 0.2, 0.5)),
        replace(good_face(), quality=Quality(120, 0.2, float("inf"))),
        replace(good_face(), probability=float("nan")),
    ],
)
def test_what_is_no_number_does_not_pass(broken: object) -> None:
    assert gate(fakes.analysis(broken)) == Refusal(Reason.FACE_UNCLEAR)  # type: ignore[arg-type]
