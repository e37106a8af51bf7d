"""Whose photos a login is measured by, and what is said where it cannot be."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from engine.vision.embed.dlib_resnet29 import DlibResNet29
from tests.engine.logins import calibration
from tests.training.workbench import clouds
from training.datasets import data
from training.datasets.manifest import Row, Status
from training.measure import login
from training.vectors import person_means

FORM = DlibResNet29.specification
GOOD = {"size_px": 120.0, "blur": 0.3, "exposure": 0.5}


def crowd_of(vectors, owner, *, turned=0):
    """Everybody looks ahead but for the first few faces of each."""
    place = np.concatenate([np.arange(count) for count in np.bincount(owner)])
    aside = place < turned
    return login.LoginFaces(vectors, owner, np.arange(len(owner)), ~aside, aside)


def with_few_photos(few=6, frontal=3, turned=5):
    """Sixteen people with many photos, and some who have no more than they enrol with."""
    vectors, owner = clouds(people=16 + few, each=44, spread=1.1, seed=1)
    place = np.arange(len(owner)) % 44
    poor = owner >= 16
    kept = ~poor | (place < frontal + turned)
    aside = np.where(poor, place >= frontal, place < 3)[kept]
    return login.LoginFaces(vectors[kept], owner[kept], np.arange(kept.sum()), ~aside, aside)


@pytest.mark.parametrize("frontal", [0, 1, 3])
def test_people_with_no_photo_to_spare_make_no_rate_undefined(frontal):
    """They enrol with all photos that they have, and have none to be let in or refused by."""
    found = login.measure(with_few_photos(frontal=frontal), FORM, grid=[(3, 1)])
    assert [point.level for point in found.points] == ["photo", "video"]
    for point in found.points:
        assert 0 <= point.fnmr < 0.1
        assert 0 <= point.fmr <= point.fmr_upper_95 <= login.FMR
    assert 0 <= found.agreement < 1
    # Those others measure what they would measure alone.
    alone = login.measure(with_few_photos(few=0), FORM, grid=[(3, 1)])
    video = found.point("video", 3, 1)
    assert video.fnmr == pytest.approx(alone.point("video", 3, 1).fnmr, abs=0.02)


def test_nobody_with_a_photo_to_spare_supports_nothing():
    vectors, owner = clouds(people=20, each=8)
    aside = np.arange(len(owner)) % 8 >= 3
    none = np.zeros(len(owner), bool)
    groups = np.arange(len(owner))
    only = login.LoginFaces(vectors, owner, groups, ~aside, aside)
    assert login.measure(only, FORM, grid=[(3, 1), (3, 2)]) is None
    assert login.measure(login.LoginFaces(vectors, owner, groups, none, ~none), FORM) is None


def test_of_very_many_people_those_with_the_most_photos_are_taken(monkeypatch):
    """Whoever has two photos cannot enrol with three and be tried with a fourth."""
    monkeypatch.setattr(login, "_MOST_PEOPLE", 14)
    vectors, owner = clouds(people=60, each=32, spread=1.0, seed=3)
    rich = owner % 4 == 1  # fifteen of them
    place = np.arange(len(owner)) % 32
    kept = rich | (place < 5)
    # Of photos that look aside, and of copies, a login has nothing.
    aside = ~rich & (owner % 4 == 2)
    copies = np.where(owner == 5, -1, np.arange(len(owner)))
    many = login.LoginFaces(vectors[kept], owner[kept], copies[kept], ~aside[kept], aside[kept])
    found = login.measure(many, FORM, grid=[(3, 1)])
    (point,) = found.points
    assert point.people == 14
    assert point.genuine_trials == 14 * 10 * 29
    # The mean face is everybody's all the same.
    middle = person_means(many.vectors, many.owner, many.people).mean(axis=0)
    np.testing.assert_allclose(found.centre, middle, atol=1e-6)


# --- Families ---


@pytest.fixture(scope="module")
def sisters():
    """People of whom the first two are as alike as two photos of one of them."""
    vectors, owner = clouds(people=14, each=30, spread=1.0, seed=6)
    first, second = owner == 0, owner == 1
    vectors[second] = (vectors[first] + 0.1 * vectors[second]) / 1.2
    return crowd_of(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), owner, turned=3)


RELATED = np.array([0, 0, *range(1, 13)])


def test_relatives_are_no_strangers_to_each_other(sisters):
    known = login.LoginSimulation(replace(sisters, family=RELATED), [(3, 2)]).play()[0]
    strange = login.LoginSimulation(sisters, [(3, 2)]).play()[0]
    both = {(0, 1), (1, 0)}
    pairs = set(zip(strange.victim.tolist(), strange.impostor.tolist(), strict=True))
    met = set(zip(known.victim.tolist(), known.impostor.tolist(), strict=True))
    assert pairs - met == both
    assert len(pairs) == 14 * 13
    # Everybody else tries to be each of them, and they are let in themselves.
    np.testing.assert_array_equal(known.genuine, strange.genuine)
    kept = ~((strange.victim < 2) & (strange.impostor < 2))
    np.testing.assert_array_equal(known.stranger, strange.stranger[kept])


def test_turned_faces_of_relatives_are_no_strangers_either(sisters):
    known = login.LoginSimulation(replace(sisters, family=RELATED), [(3, 2)]).turns(3)
    strange = login.LoginSimulation(sisters, [(3, 2)]).turns(3)
    assert len(strange.stranger) - len(known.stranger) == 2 * 3
    assert known.stranger.max() < 0.5 < strange.stranger.max()
    np.testing.assert_array_equal(known.genuine, strange.genuine)


def test_sisters_do_not_make_a_login_stricter_for_everybody(sisters):
    known = login.measure(replace(sisters, family=RELATED), FORM, grid=[(3, 2)])
    strange = login.measure(sisters, FORM, grid=[(3, 2)])
    assert known.points[0].threshold < 0.7
    assert strange.points[0].threshold > known.points[0].threshold + 0.1
    # Each has 9 sets of 3 templates and 2 rows of attempts; what was not tried does not count.
    assert strange.points[0].impostor_trials == 14 * 13 * 9 * 2
    assert known.points[0].impostor_trials == (14 * 13 - 2) * 9 * 2


def test_a_part_of_a_crowd_keeps_its_families():
    part = replace(crowd_of(*clouds(people=14, each=2)), family=RELATED).part([1, 4, 0])
    assert part.families.tolist() == [0, 3, 0]
    assert crowd_of(*clouds(people=3, each=2)).families.tolist() == [0, 1, 2]


# --- Measured, or lent, or why not ---


def dataset(name, vectors, owner, *, ahead, turned=0, pose=True):
    """Faces whose poses are known: of each person so many look ahead, then so many are turned."""
    place = np.concatenate([np.arange(count) for count in np.bincount(owner)])
    yaw = np.where(place < ahead, 0.0, np.where(place < ahead + turned, 0.4, 0.2))
    rows = [
        Row(
            f"{name}-{i}",
            f"{i}.png",
            name,
            Status.KEEP,
            crop=f"{i}.png",
            yaw=float(yaw[i]) if pose else None,
            pitch=0.56 if pose else None,
            **GOOD,
        )
        for i in range(len(owner))
    ]
    people = [f"{name} {i:02}" for i in range(int(owner.max()) + 1)]
    return data.Faces(None, name, people, owner, np.arange(len(owner)), rows, {}), vectors


class Unseeing:
    """All poses are known, so that nobody needs to look."""

    def detect(self, photos):
        raise AssertionError("the manifest tells where faces look")


@dataclass(frozen=True)
class Eyes:
    embedder: type[DlibResNet29]
    detector: Unseeing


EYES = Eyes(DlibResNet29, Unseeing())


@pytest.fixture
def few_are_enough(monkeypatch):
    monkeypatch.setattr(login, "own_calibration", lambda faces: True)
    measure = login.measure
    monkeypatch.setattr(
        login, "measure", lambda crowd, form, advance: measure(crowd, form, grid=[(3, 1)])
    )


def lent():
    return calibration(source="celebrities@01234567")


def test_too_few_faces_borrow_or_say_why_not():
    faces, vectors = dataset("few", *clouds(people=12, each=20), ahead=20)
    decided = login.own_or_lent(faces, vectors, EYES, None)
    assert decided.login is None
    assert "too few people or photos" in decided.absent
    borrowed = login.own_or_lent(faces, vectors, EYES, lent())
    assert borrowed.login.source == "celebrities@01234567"
    assert borrowed.absent == ""


def test_faces_of_which_too_few_look_ahead_borrow_or_say_why_not():
    faces, vectors = dataset("aside", *clouds(people=12, each=90), ahead=2, turned=88)
    decided = login.own_or_lent(faces, vectors, EYES, None)
    assert decided.login is None
    assert "enough photos of a face that looks ahead" in decided.absent
    assert login.own_or_lent(faces, vectors, EYES, lent()).login == lent()
    nobody, vectors = dataset("nobody", *clouds(people=12, each=90), ahead=0)
    assert login.own_or_lent(nobody, vectors, EYES, None).absent == decided.absent


def test_whom_the_embedder_learned_from_is_told(monkeypatch):
    faces, vectors = dataset("set", *clouds(people=12, each=90), ahead=90)
    monkeypatch.setattr(login, "learned_from", lambda embedder_id, data: data.name == "set")
    decided = login.own_or_lent(faces, vectors, EYES, None)
    assert decided.login is None
    assert decided.absent == f"{FORM.id} was trained on these people."


def test_strangers_take_part(few_are_enough):
    vectors, owner = clouds(people=20, each=40, spread=1.1, seed=9)
    inside = owner < 8
    faces, own = dataset("set", vectors[inside], owner[inside], ahead=30, turned=5)
    others = dataset("others", vectors[~inside], owner[~inside] - 8, ahead=30, turned=5)
    assert login.own_or_lent(faces, own, EYES, None).login is None
    decided = login.own_or_lent(faces, own, EYES, None, others)
    assert decided.absent == ""
    assert decided.login.source == "own"
    assert {point.people for point in decided.login.points} == {20}
    middle = person_means(vectors, owner, 20).mean(axis=0)
    np.testing.assert_allclose(decided.login.centre, middle, atol=1e-5)


def test_relatives_are_named_by_the_list_of_people(few_are_enough, sisters):
    faces, vectors = dataset("set", sisters.vectors, sisters.owner, ahead=30)
    related = {"set 00": "smith", "set 01": "smith", "set 02": "jones"}
    found = login.own_or_lent(faces, vectors, EYES, None, related=related)
    assert found.login.points[0].threshold < 0.7
    strange = login.own_or_lent(faces, vectors, EYES, None).login
    assert strange.points[0].threshold > found.login.points[0].threshold + 0.1


def test_nobody_looks_where_people_with_few_photos_look(monkeypatch, few_are_enough):
    """Of thousands of strangers most have one photo, and looking for a pose takes a detector."""
    monkeypatch.setattr(login, "_MOST_LOOKED_AT", 14)
    faces, vectors = dataset("set", *clouds(people=14, each=30, seed=5), ahead=30)
    others = dataset("others", *clouds(people=200, each=2, seed=6), ahead=2, pose=False)
    with_them = login.own_or_lent(faces, vectors, EYES, None, others).login
    assert with_them == login.own_or_lent(faces, vectors, EYES, None).login
    assert with_them.points[0].people == 14
