"""Whose faces several datasets hold, and who is a stranger to a gallery."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.vision.align import ARCFACE, ARCFACE_TEMPLATE
from engine.vision.detect import Detections
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from engine.vision.pose import pose
from tests.training.synthetic import prepared
from tests.training.workbench import edit
from training.datasets import data, facing, people, pixels
from training.datasets.data import Faces
from training.datasets.manifest import Row, Status
from training.datasets.people import Listed

HEADER = "folder\tdisplay_name\tcountry\tknown_for_en\tknown_for_es"


# --- Names ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Choi_Sung-hong", "Sung Hong Choi"),
        ("José Pérez", "JOSE PEREZ"),
        ("José", "Jose\u0301"),
        ("George_W_Bush", "Bush, George W."),
        ("Straße", "STRASSE"),
        ("Ştefan", "stefan"),
    ],
)
def test_spellings_of_one_name(one, other):
    assert people.key(one) == people.key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ana Ruiz", "Ana"),
        ("George W Bush", "George H W Bush"),
        ("Ana Ana", "Ana"),
        ("李 明", "李 华"),
        ("Person 1", "Person 11"),
    ],
)
def test_names_of_two_people(one, other):
    assert people.key(one) != people.key(other)


# --- The list ---


def listed(folder, *lines, header=HEADER):
    path = folder / "people.tsv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_list_is_read(tmp_path):
    path = listed(
        tmp_path,
        "Lopez_Ana; Ana\tAna López\tAR\tsinger\tcantante\ta.jpg;b.jpg\tlopez",
        'Ben\tBen "Big" Oe\t\t\tjugador\t\t',
        header=f"{HEADER}\twithout\tfamily",
    )
    assert people.read(path) == [
        Listed(
            ("Lopez_Ana", "Ana"),
            "Ana López",
            "AR",
            {"en": "singer", "es": "cantante"},
            frozenset({"a.jpg", "b.jpg"}),
            "lopez",
        ),
        Listed(("Ben",), 'Ben "Big" Oe', "", {"es": "jugador"}),
    ]


def test_a_list_may_lack_and_have_further_columns(tmp_path):
    path = listed(tmp_path, "Ana\tAna\tAR\ta\tb\tactor", header=f"{HEADER}\tkind")
    assert people.read(path) == [Listed(("Ana",), "Ana", "AR", {"en": "a", "es": "b"})]


def test_a_list_may_come_from_a_spreadsheet(tmp_path):
    path = tmp_path / "people.tsv"
    path.write_bytes(f"\ufeff{HEADER}\r\nAna\tAna Ñ\tAR\ta\tb\r\n".encode())
    assert people.read(path) == [Listed(("Ana",), "Ana Ñ", "AR", {"en": "a", "es": "b"})]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "lacks the column folder"),
        (["Ana\tAna\tAR\ta\tb", "\tBen\tAR\ta\tb"], "line 3: a folder and a display_name"),
        (["Ana\t \tAR\ta\tb"], "line 2: a folder and a display_name"),
        (["Ana"], "line 2: a folder and a display_name"),
        (["Ana\tAna\tArgentina\ta\tb"], "line 2: 'Argentina' is no ISO 3166-1"),
        (["Ana\tAna\tar\ta\tb"], "line 2: 'ar' is no ISO 3166-1"),
        (["A\tAna\t\ta\tb", "B\tAna\t\ta\tb"], "display_name 'Ana' twice"),
        (["Ana_Ruiz\tAna\t\ta\tb", "B;Ruiz Ana\tBea\t\ta\tb"], "folder 'ana ruiz' twice"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path, lines, said):
    with pytest.raises(ValueError, match=said) as caught:
        people.read(listed(tmp_path, *lines))
    assert "people.tsv" in str(caught.value)


def test_every_missing_column_is_named(tmp_path):
    path = listed(tmp_path, "Ana\tAna", header="folder\tdisplay_name")
    with pytest.raises(ValueError, match="lacks the column country, known_for_en, known_for_es"):
        people.read(path)


# --- Datasets ---


def source(name, photos, group=None, dropped=None):
    """A dataset: a folder's name to its photos."""
    names = sorted(photos)
    entries = [(who, photo) for who in names for photo in photos[who]]
    rows = [
        Row(f"{name}/{who}/{photo}", f"{who}/{photo}", who, Status.KEEP, crop=f"{who}/{photo}")
        for who, photo in entries
    ]
    owner = np.array([names.index(who) for who, _ in entries], np.int64)
    groups = np.arange(len(rows)) if group is None else np.array(group)
    return Faces(Path(name), name, names, owner, groups, rows, dropped or {})


def photos_of(faces):
    """Each person's photos, as (source, path)."""
    found = {name: set() for name in faces.people}
    for i, owner in enumerate(faces.owner):
        home = faces.homes[faces.home_of[i]]
        found[faces.people[owner]].add((str(home), faces.rows[i].path))
    return found


def test_whoever_has_one_name_in_two_sources_is_one_person():
    first = source("a", {"Ana Ruiz": ["1.jpg"], "Ben": ["1.jpg"]}, dropped={"blurred": 2})
    second = source("b", {"RUIZ Ana": ["1.jpg"], "Cid": ["1.jpg"]}, dropped={"blurred": 1})
    both = people.merged([first, second])
    assert both.people == ["Ana Ruiz", "Ben", "Cid"]
    assert photos_of(both) == {
        "Ana Ruiz": {("a", "Ana Ruiz/1.jpg"), ("b", "RUIZ Ana/1.jpg")},
        "Ben": {("a", "Ben/1.jpg")},
        "Cid": {("b", "Cid/1.jpg")},
    }
    assert both.name == "a and b"
    assert both.dropped == {"blurred": 3}


def test_one_dataset_without_a_list_stays_as_it_is():
    alone = source("a", {"Ana": ["1.jpg"], "Ben": ["2.jpg"]})
    assert people.merged([alone]) is alone


def test_spellings_of_one_name_in_one_dataset_are_one_person():
    """As an operator's `override_person` may have it."""
    alone = people.merged([source("a", {"ANA": ["1.jpg"], "Aná": ["2.jpg"], "!!": ["3.jpg"]})])
    assert photos_of(alone) == {
        "ANA": {("a", "ANA/1.jpg"), ("a", "Aná/2.jpg")},
        "!!": {("a", "!!/3.jpg")},
    }
    assert people.key("!!") != people.key("??")


def test_only_listed_people_stay_under_their_listed_names():
    first = source("a", {"Ana": ["1.jpg"], "Ben": ["1.jpg"]})
    second = source("b", {"Lopez_Ana": ["2.jpg"], "Cid": ["1.jpg"]})
    chosen = [Listed(("ana", "Ana Lopez"), "Ana López"), Listed(("Dan",), "Dan")]
    both = people.merged([first, second], chosen)
    assert photos_of(both) == {"Ana López": {("a", "Ana/1.jpg"), ("b", "Lopez_Ana/2.jpg")}}
    assert photos_of(people.merged([first], chosen)) == {"Ana López": {("a", "Ana/1.jpg")}}


def test_nobody_of_the_list_is_told():
    with pytest.raises(ValueError, match="Nobody of the list"):
        people.merged([source("a", {"Ana": ["1.jpg"]})], [Listed(("Ben",), "Ben")])


def test_photos_are_left_out_of_their_own_person_only():
    """Files have the same names in everybody's folder."""
    faces = source("a", {"Ana": ["1.jpg", "2.jpg"], "Ben": ["1.jpg", "2.jpg"]})
    chosen = [
        Listed(("Ana",), "Ana", without=frozenset({"1.jpg"})),
        Listed(("Ben",), "Ben", without=frozenset({"2.jpg"})),
    ]
    assert photos_of(people.merged([faces], chosen)) == {
        "Ana": {("a", "Ana/2.jpg")},
        "Ben": {("a", "Ben/1.jpg")},
    }


def test_whoever_has_no_other_photo_than_those_left_out_is_not_there():
    faces = source("a", {"Ana": ["1.jpg"], "Ben": ["1.jpg"]})
    chosen = [Listed(("Ana",), "Ana", without=frozenset({"1.jpg"})), Listed(("Ben",), "Ben")]
    both = people.merged([faces], chosen)
    assert both.people == ["Ben"]
    assert both.owner.tolist() == [0]


def test_groups_of_two_sources_never_meet():
    three = {"Ana": ["1.jpg", "2.jpg"], "Ben": ["1.jpg"]}
    sources = [
        source("a", three, group=[0, 0, 7]),
        source("b", three, group=[7, -1, 0]),
        source("c", three, group=[-1, 7, 7]),
        source("d", three, group=[0, -3, -3]),
    ]
    both = people.merged(sources)
    own = np.concatenate([part.group for part in sources])
    whence = np.repeat(np.arange(4), 3)
    together = (own[:, None] == own) & (whence[:, None] == whence)
    np.testing.assert_array_equal(both.group[:, None] == both.group, together)
    np.testing.assert_array_equal(both.group < 0, own < 0)


def test_a_face_that_is_in_two_sources_counts_once():
    """Learned from and held out at the same time, it would be found by itself."""
    faces = source("a", {"Ana": ["1.jpg", "2.jpg"], "Ben": ["1.jpg"]})
    twice = people.merged([faces, faces])
    assert photos_of(twice) == photos_of(people.merged([faces], [Listed(("Ana",), "Ana")])) | {
        "Ben": {("a", "Ben/1.jpg")}
    }
    assert len(twice) == 3


def test_a_part_of_merged_faces_still_lies_where_it_did():
    both = people.merged([source("a", {"Ana": ["1.jpg"]}), source("b", {"Ana": ["2.jpg"]})])
    assert [both.place(i) for i in range(2)] == [Path("a/Ana/1.jpg"), Path("b/Ana/2.jpg")]
    (last,) = [both.part(np.array([1]))]
    assert last.place(0) == Path("b/Ana/2.jpg")
    assert [(str(home), index.tolist()) for home, index in last.by_home()] == [("b", [0])]


# --- Strangers ---


def test_nobody_of_the_gallery_is_a_stranger_under_any_spelling():
    first = source("a", {"Ana_Ruiz": ["1.jpg"], "Ben": ["1.jpg", "2.jpg"], "Zoe": ["1.jpg"]})
    second = source("b", {"ruiz ana": ["1.jpg"], "Núñez Zoé": ["1.jpg"], "BEN": ["3.jpg"]})
    outside = people.strangers([first, second], ["Ana Ruiz", "Zoe Nunez"])
    assert outside.people == ["Ben", "Zoe"]
    assert np.bincount(outside.owner).tolist() == [3, 1]
    assert {row.person for row in outside.rows} == {"Ben", "BEN", "Zoe"}
    alone = people.strangers([first], ["ben"])
    assert alone.people == ["Ana_Ruiz", "Zoe"]
    assert alone.owner.tolist() == [0, 1]


def test_a_gallery_of_everybody_has_no_strangers():
    with pytest.raises(ValueError, match="Everybody among the strangers is in the gallery"):
        people.strangers([source("a", {"Ana": ["1.jpg"]})], ["ANA", "Ben"])


# --- Files ---


@pytest.fixture
def homes(tmp_path):
    """Two prepared datasets; of half of the faces nobody knows where they look."""
    found = [prepared(tmp_path / f"set{seed}", people=2, each=2, seed=seed) for seed in (7, 8)]
    for home in found:
        edit(home, 1, yaw=None, pitch=None)
        edit(home, 2, yaw=None, pitch=None)
    return found


class Counting(DlibResNet29):
    count = 0

    def embed(self, crops):
        self.count += len(crops)
        return super().embed(crops)


class Bright:
    """Says that a face looks the more aside the brighter its picture is."""

    def __init__(self):
        self.count = 0

    def detect(self, photos):
        found = []
        for photo in photos:
            self.count += 1
            points = (ARCFACE * 160 / 112 + 80).astype(np.float32)
            points[2, 0] += np.asarray(photo, float).mean() / 16
            box = np.array([[80, 80, 240, 240]], np.float32)
            found.append(Detections(box, points[None], np.ones(1, np.float32)))
        return found


def test_each_sources_crops_and_cached_vectors_are_found(homes):
    parts = [data.load(home) for home in homes]
    both, told = people.merged(parts), []
    made = data.vectors(both, DlibResNet29(torch.device("cpu")), told.append)
    assert told[-1] == len(both) == 8
    again = Counting(torch.device("cpu"))
    for k, part in enumerate(parts):
        np.testing.assert_array_equal(data.vectors(part, again), made[both.home_of == k])
    assert again.count == 0, "they lie in each source's own cache"
    some = np.array([6, 1, 3])
    np.testing.assert_array_equal(data.vectors(both.part(some), again), made[some])
    # In another order, and each vector is that of its own crop.
    turned = people.merged(parts[::-1])
    (alone,) = np.flatnonzero([row.id == "8-3" for row in turned.rows])
    (same,) = np.flatnonzero([row.id == "8-3" for row in both.rows])
    np.testing.assert_array_equal(data.vectors(turned, again)[alone], made[same])


def test_where_merged_faces_look_is_what_each_source_says(homes):
    both = people.merged([data.load(home) for home in homes])
    looks, told = Bright(), []
    found = facing.poses(both, looks, told.append)
    assert looks.count == 4
    assert told[-1] == 8
    assert np.isfinite(found).all()
    assert len(np.unique(found[[1, 2, 5, 6], 0])) == 4
    for k, home in enumerate(homes):
        alone = facing.poses(data.load(home), looks)
        np.testing.assert_array_equal(alone, found[both.home_of == k])
    assert looks.count == 4, "they lie in each source's own cache"
    level = pose(ARCFACE.astype(np.float32))
    assert found[0].tolist() == [0.0, 0.56]  # as the manifest says
    assert found[1, 0] != pytest.approx(level.yaw)


def test_crops_of_merged_faces_are_mapped_as_they_are(homes):
    parts = [data.load(home) for home in homes]
    crops = pixels.mapped(people.merged(parts), ARCFACE_TEMPLATE)
    alone = [data.read_crops(part, range(4), ARCFACE_TEMPLATE) for part in parts]
    np.testing.assert_array_equal(crops, np.concatenate(alone))
