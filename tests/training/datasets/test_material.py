"""What an operator gives: photos, a list of people, strangers."""

from collections import Counter

import numpy as np
import pytest

from tests.training.synthetic import pictures, prepared
from training import tools
from training.datasets import material, prepare

HEADER = "folder\tdisplay_name\tcountry\tknown_for_en\tknown_for_es"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("material") / "first", people=5, each=2)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("material") / "second", people=7, each=3, seed=5)


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "people.tsv"
    lines = ["Person_0;Somebody\tAna López\tAR\ta\tb", "3 person\tBen\tES\t\t", "Gone\tCid\t\t\t"]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def read(sources, listed=None, strangers=None):
    """Prepared folders need no tools."""
    return material.read(sources, listed, strangers, None, aligned=False)


def counted(faces):
    return dict(Counter(faces.people[i] for i in faces.owner))


def test_photos_alone(home):
    given = read([home])
    assert counted(given.faces) == {f"Person {i}": 2 for i in range(5)}
    assert given.strangers is None
    assert given.listed == ()


def test_whoever_is_not_listed_is_a_stranger_of_the_same_folder(home, other, listed):
    given = read([home, other], listed, [home, other])
    assert counted(given.faces) == {"Ana López": 5, "Ben": 5}
    strangers = {f"Person {i}": 5 if i < 5 else 3 for i in (1, 2, 4, 5, 6)}
    assert counted(given.strangers) == strangers
    assert [person.name for person in given.listed] == ["Ana López", "Ben", "Cid"]
    faces = {(row.id, row.crop) for row in given.faces.rows}
    assert not faces & {(row.id, row.crop) for row in given.strangers.rows}


def test_a_listed_person_who_is_not_there_may_be_a_stranger(home, other, tmp_path):
    path = tmp_path / "people.tsv"
    path.write_text(f"{HEADER}\nPerson_1\tAna\t\t\t\nPerson_6\tZoe\t\t\t\n")
    given = read([home], path, [other])
    assert given.faces.people == ["Ana"]
    assert "Person 6" in given.strangers.people
    assert "Person 1" not in given.strangers.people


def test_strangers_without_a_list(home, other):
    assert counted(read([home], None, [other]).strangers) == {"Person 5": 3, "Person 6": 3}
    with pytest.raises(ValueError, match="Everybody among the strangers"):
        read([other], None, [home])


def test_a_folder_of_photos_is_prepared_once(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "DATASETS", tmp_path / "datasets")
    folder = pictures(tmp_path / "people", people=3, each=2)
    path = tmp_path / "people.tsv"
    path.write_text(f"{HEADER}\nPerson_1\tAna\t\t\t\n")
    given = material.read([folder], path, [folder], tools.load(), aligned=True)
    assert counted(given.faces) == {"Ana": 2}
    assert counted(given.strangers) == {"Person 0": 2, "Person 2": 2}
    assert given.strangers.name == "people"
    (made,) = (tmp_path / "datasets").glob("people-*/manifest.jsonl")
    assert {place.parent for place, _ in given.faces.by_home()} == {made.parent.parent}
    assert np.array_equal(given.strangers.owner, [0, 0, 1, 1])
