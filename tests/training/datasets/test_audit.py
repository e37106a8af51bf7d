import numpy as np
import pytest

from training.datasets.audit import FaceLimits, Overrides, Photos, decide
from training.datasets.manifest import Code
from training.vectors import unit

GREY = (16, 16)


def made_up(people=12, each=20, spread=0.5, seed=0):
    """People as clouds around directions, each photo with one face and a picture of its own."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), each)
    count = len(owner)
    directions = unit(generator.normal(size=(people, 64)).astype(np.float32))
    noise = generator.normal(size=(count, 64)) * spread / 8
    return Photos(
        people=people,
        owner=owner,
        first=np.arange(count + 1),
        vectors=unit((directions[owner] + noise).astype(np.float32)),
        grey=generator.integers(0, 256, (count, *GREY), np.uint8),
        area=np.ones(count, np.float32),
        size_px=np.full(count, 100, np.float32),
        blur=np.full(count, 0.3, np.float32),
        identity=np.arange(count),
        word=Overrides(
            kept=np.zeros(count, bool),
            dropped=np.zeros(count, bool),
            named=np.zeros(count, bool),
            face=np.full(count, -1),
        ),
    )


def one_picture(one, other):
    return True


def flagged(decided):
    return {i: str(code) for i, code in enumerate(decided.code) if code}


def copy(photos, goal, source):
    photos.vectors[goal] = photos.vectors[source]
    photos.grey[goal] = photos.grey[source]


def test_keeps_everybody_where_nothing_is_wrong():
    decided = decide(made_up(), FaceLimits(), one_picture)
    assert flagged(decided) == {}
    assert decided.group.tolist() == list(range(240))


def test_a_mislabel_is_reported_with_whom_it_shows():
    photos = made_up()
    photos.vectors[5] = unit(photos.vectors[65:66] + 0.02)[0]
    decided = decide(photos, FaceLimits(), one_picture)
    assert flagged(decided) == {5: "mislabel"}
    assert decided.other[5] == 3


def test_a_stray_is_dropped():
    photos = made_up()
    photos.vectors[7] = unit(np.random.default_rng(9).normal(size=(1, 64)).astype(np.float32))[0]
    assert flagged(decide(photos, FaceLimits(), one_picture)) == {7: "stray"}


@pytest.mark.parametrize(("exact", "code"), [(True, Code.COPY), (False, Code.NEAR_COPY)])
def test_a_copy_is_dropped_once_and_never_split(exact, code):
    photos = made_up()
    for goal in (11, 12):
        copy(photos, goal, 10)
        photos.grey[goal, 0, 0] += not exact
    if exact:
        photos.identity[[11, 12]] = 10
    decided = decide(photos, FaceLimits(), one_picture)
    dropped = flagged(decided)
    (stays,) = {10, 11, 12} - dropped.keys()
    assert set(dropped.values()) == {str(code)}
    assert {int(decided.other[i]) for i in dropped} == {stays}
    assert len(set(decided.group[10:13])) == 1
    assert np.unique(decided.group).tolist() == list(range(238))


def test_two_shots_of_one_moment_stay_and_are_never_split():
    photos = made_up()
    copy(photos, 11, 10)
    decided = decide(photos, FaceLimits(), lambda one, other: False)
    assert flagged(decided) == {}
    assert decided.group[10] == decided.group[11]


def test_a_long_burst_is_compared_no_more_than_a_few_times_a_photo():
    photos = made_up()
    for goal in range(1, 20):
        copy(photos, goal, 0)
    asked = []

    def unlike(one, other):
        asked.append((one, other))
        return False

    decide(photos, FaceLimits(), unlike)
    assert len(set(asked)) == len(asked) <= 20 * 8


def test_of_a_copy_across_people_the_one_under_the_wrong_name_goes():
    photos = made_up()
    copy(photos, 61, 10)
    photos.identity[61] = 10
    decided = decide(photos, FaceLimits(), one_picture)
    assert flagged(decided) == {61: "mislabel"}
    assert decided.group[61] == decided.group[10]


def test_the_copy_that_an_operator_keeps_stays():
    for kept in (10, 11):
        photos = made_up()
        copy(photos, 11, 10)
        photos.word.kept[kept] = True
        decided = decide(photos, FaceLimits(), one_picture)
        assert flagged(decided) == {kept: "operator", 21 - kept: "near_copy"}


def test_the_copy_of_a_photo_that_an_operator_drops_stays():
    for dropped in (10, 11):
        photos = made_up()
        copy(photos, 11, 10)
        photos.word.dropped[dropped] = True
        assert flagged(decide(photos, FaceLimits(), one_picture)) == {dropped: "operator"}


def test_two_alike_pictures_of_other_faces_are_no_copies():
    photos = made_up()
    photos.grey[30] = photos.grey[10]
    decided = decide(photos, FaceLimits(), one_picture)
    assert flagged(decided) == {}
    assert decided.group[30] != decided.group[10]


def test_few_photos_are_not_judged():
    photos = made_up(each=3)
    photos.vectors[0] = photos.vectors[9]
    assert flagged(decide(photos, FaceLimits(), one_picture)) == {}


def test_an_operators_name_is_the_truth():
    photos = made_up()
    photos.vectors[5] = unit(photos.vectors[65:66] + 0.02)[0]
    photos.word.named[5] = True
    assert flagged(decide(photos, FaceLimits(), one_picture)) == {}


def test_small_and_blurred_faces_teach_nothing():
    photos = made_up()
    photos.size_px[3] = 10
    photos.blur[4] = 0.9
    assert flagged(decide(photos, FaceLimits(), one_picture)) == {3: "small", 4: "blurred"}
    assert flagged(decide(photos, FaceLimits(size_px=5, blur=0.95), one_picture)) == {}


def pair(photos, number, stranger, area):
    """Photo `number` shows a second face."""
    at = number + 1

    def put(values, value):
        return np.insert(values, at, value, axis=0)

    count = len(photos.owner)
    return Photos(
        people=photos.people,
        owner=photos.owner,
        first=np.arange(count + 1) + (np.arange(count + 1) > number),
        vectors=put(photos.vectors, photos.vectors[stranger]),
        grey=put(photos.grey, np.arange(256, dtype=np.uint8).reshape(GREY)),
        area=put(photos.area, area),
        size_px=put(photos.size_px, 100),
        blur=put(photos.blur, 0.3),
        identity=np.arange(count + 1),
        word=photos.word,
    )


@pytest.mark.parametrize("area", [0.1, 9.0])
def test_the_face_that_agrees_with_the_other_photos_is_chosen(area):
    photos = pair(made_up(), 5, 65, area)
    decided = decide(photos, FaceLimits(), one_picture)
    assert decided.chosen[5] == 5
    assert flagged(decided) == {5: "several_faces"}


def test_the_operator_chooses_another_face():
    photos = pair(made_up(), 5, 65, 0.1)
    photos.word.face[5] = 6
    decided = decide(photos, FaceLimits(), one_picture)
    assert decided.chosen[5] == 6
    assert flagged(decided) == {5: "mislabel"}


def test_many_twins_of_one_picture_share_a_group():
    photos = made_up(people=12, each=60)
    for i in range(101, 160):
        copy(photos, i, 100)
        photos.grey[i, 0, 0] = i
    decided = decide(photos, FaceLimits(), one_picture)
    # Those of the second half are of another person: called mislabels, and in the group still.
    assert len(set(decided.group[100:160])) == 1
    assert sum(decided.code[i] == "" for i in range(100, 120)) == 1
