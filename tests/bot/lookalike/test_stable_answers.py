from dataclasses import replace

import pytest

from bot.lookalike.stable_answers import steady
from engine.types import Face, Match, Pose, Quality, Verdict


def face(similarities, verdict=Verdict.SOME):
    matches = tuple(
        Match(name, 0.1, similarity, 50.0, verdict) for name, similarity in similarities.items()
    )
    points = ((1.0, 1.0),) * 5
    return Face((0, 0, 9, 9), points, 0.99, Quality(90, 0.1, 0.5), Pose(0, 0.5), matches)


BEFORE = {"Ana": 0.40, "Ben": 0.39, "Cleo": 0.35, "Dan": 0.33, "Eva": 0.31, "Fay": 0.30}


def test_the_same_photo_saved_again_gets_the_same_name_and_verdict():
    now = {"Ben": 0.405, "Ana": 0.395, "Cleo": 0.35, "Dan": 0.32, "Gus": 0.31, "Eva": 0.30}
    before = face(BEFORE, Verdict.GOOD)
    (found,) = steady([face(now)], [before])
    assert found.matches == before.matches


@pytest.mark.parametrize(
    "now",
    [
        pytest.param({name: s + 0.1 for name, s in BEFORE.items()}, id="much more alike"),
        pytest.param(
            {"Ana": 0.4, "Ben": 0.39, "X": 0.3, "Y": 0.3, "Z": 0.3, "W": 0.3}, id="others"
        ),
        pytest.param(dict(list(BEFORE.items())[:2]), id="too few to tell"),
    ],
)
def test_another_face_keeps_its_own_answer(now):
    fresh = face(now)
    assert steady([fresh], [face(BEFORE)]) == (fresh,)


def test_two_faces_alike_each_get_their_own_answer_again():
    first = face(BEFORE, Verdict.GOOD)
    second = face({name: s + 0.03 for name, s in BEFORE.items()}, Verdict.STRONG)
    again = [replace(second, probability=0.98), replace(first, probability=0.97)]
    found = steady(again, [first, second])
    assert [seen.matches for seen in found] == [second.matches, first.matches]


def test_one_earlier_answer_is_not_given_for_two_faces():
    near = face({name: s + 0.01 for name, s in BEFORE.items()})
    farther = face({name: s + 0.05 for name, s in BEFORE.items()})
    before = face(BEFORE, Verdict.GOOD)
    first, second = steady([farther, near], [before])
    assert first == farther
    assert second.matches == before.matches


def test_each_face_of_a_group_is_told_by_itself_and_keeps_its_place():
    other = {name.upper(): s for name, s in BEFORE.items()}
    before = face(BEFORE, Verdict.GOOD)
    fresh = face(other)
    first, second = steady([fresh, replace(face(BEFORE), box=(1, 2, 3, 4))], [before])
    assert first == fresh
    assert second.matches == before.matches
    assert second.box == (1, 2, 3, 4)


def test_the_newest_answer_counts():
    old, new = face(BEFORE, Verdict.SOME), face(BEFORE, Verdict.GOOD)
    assert steady([face(BEFORE)], [new, old])[0].matches[0].verdict is Verdict.GOOD
