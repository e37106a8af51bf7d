"""Which faces of a photo are shown, and in which order."""

from dataclasses import replace

import pytest

from bot.lookalike.face_choice import BLUR_APART, CLEAR_BLUR, LEAST_PROBABILITY, LeftOut, choose
from bot.telegram.incoming import Reason, Refusal
from engine.types import Face
from tests.bot.fakes import face


def believed(face: Face, probability: float) -> Face:
    return replace(face, probability=probability)


@pytest.mark.parametrize(
    ("faces", "refusal"),
    [
        ((), Refusal(Reason.NO_FACE)),
        ((face(size_px=39), face(size_px=20)), Refusal(Reason.TOO_SMALL, {"pixels": 40})),
        ((face(blur=0.9),), Refusal(Reason.BLURRED)),
        # What is hardly a face is not shown in place of one.
        (
            (believed(face(90), 0.75), face(size_px=35)),
            Refusal(Reason.TOO_SMALL, {"pixels": 40}),
        ),
    ],
)
def test_a_photo_without_a_face_to_show_is_refused(
    faces: tuple[Face, ...], refusal: Refusal
) -> None:
    assert choose(faces, 12) == refusal


@pytest.mark.parametrize("blur", [0.0, CLEAR_BLUR + 0.01, 0.78])
@pytest.mark.parametrize("probability", [0.7, LEAST_PROBABILITY, 1.0])
def test_a_single_face_is_shown(blur: float, probability: float) -> None:
    seen = (believed(face(blur=blur), probability),)
    assert choose(seen, 12) == (seen, LeftOut())


def test_faces_out_of_focus_are_counted_and_not_shown() -> None:
    player, spectators = face(150, size_px=85, blur=0.5), [face(0, size_px=63, blur=0.72)] * 3
    assert choose((player, *spectators), 12) == ((player,), LeftOut(unclear=3))


def test_faces_too_small_are_counted_and_not_shown() -> None:
    one, small = face(150), face(0, size_px=39)
    assert choose((one, small), 12) == ((one,), LeftOut(unclear=1))


def test_of_a_blurred_photo_all_are_shown() -> None:
    blurred = CLEAR_BLUR + 0.05
    seen = (face(0, blur=blurred), face(100, blur=blurred + BLUR_APART - 0.01))
    assert choose(seen, 12) == (seen, LeftOut())


def test_what_is_hardly_a_face_is_neither_shown_nor_counted() -> None:
    sleeve, one = believed(face(0), LEAST_PROBABILITY - 0.01), face(150)
    assert choose((sleeve, one), 12) == ((one,), LeftOut())


def test_of_faces_that_are_all_doubtful_the_least_doubtful_is_shown() -> None:
    first, second = believed(face(0), 0.75), believed(face(150), 0.9)
    assert choose((first, second), 12) == ((second,), LeftOut())


def test_the_largest_are_shown_from_left_to_right() -> None:
    large, medium, small = face(150, size_px=90), face(50, size_px=80), face(0, size_px=70)
    assert choose((large, medium, small), 2) == ((medium, large), LeftOut(smaller=1))
