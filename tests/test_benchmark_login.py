"""The login's benchmark on made-up people: what it prints, and what it does with poor folders."""

import json
import sys

import pytest

from tests.benchmarks import login as benchmark
from tests.engine import bundles
from tests.engine.logins import calibration, point
from tests.training.synthetic import prepared
from tests.training.workbench import edit

KEYS = {"people", "genuine", "impostor", "fnmr", "fmr", "fmr_upper95", "threshold"}


@pytest.fixture(scope="module")
def lender(tmp_path_factory):
    points = [point(templates=k, probes=m, threshold=0.4) for k in (1, 3) for m in (1, 2)]
    login = calibration(points=tuple(points), captures=3, probes=2)
    return bundles.make(tmp_path_factory.mktemp("lender"), login=login)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("people"), people=7, each=9, seed=21)


@pytest.fixture
def play(monkeypatch, capsys, lender):
    def run(*arguments):
        command = ["login", *map(str, arguments), "--bundle", str(lender), "--json"]
        monkeypatch.setattr(sys, "argv", command)
        benchmark.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_it_prints_what_was_tried_and_what_came_of_it(play, people, tmp_path):
    found = play(people, "--det", tmp_path / "det.png")
    assert found.keys() >= KEYS
    assert (found["people"], found["threshold"]) == (7, 0.4)
    assert (found["templates"], found["probes"]) == (3, 2)
    assert found["genuine"] > found["genuine_distinct"] > 0
    assert 0 <= found["fmr"] <= found["fmr_upper95"] <= 1
    assert found["impostor_distinct"] == 7 * 6 * 3 * 4
    by = {(row["templates"], row["probes"]): row for row in found["by_photos"]}
    assert set(by) == {(1, 1), (1, 2), (3, 1), (3, 2)}
    # The decision itself and the cosines behind it, on other draws of the same photos.
    assert by[3, 2]["fnmr"] == pytest.approx(found["fnmr"], abs=0.05)
    assert by[3, 2]["fmr"] == pytest.approx(found["fmr"], abs=0.02)
    assert (tmp_path / "det.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_person_in_two_folders_is_no_stranger(play, people, tmp_path):
    again = prepared(tmp_path / "again", people=7, each=4, seed=21)
    found = play(people, again)
    assert found["people"] == 7


def test_poor_photos_count_where_there_are_no_others_and_it_says_so(play, tmp_path):
    poor = prepared(tmp_path / "poor", people=6, each=6)
    for number in range(36):
        edit(poor, number, yaw=0.3)
    found = play(poor)
    assert found["gates"] == "none"
    assert found["people_verified"] == 6
    assert any("pass the bot's gates" in note for note in found["notes"])


def test_people_with_one_photo_are_strangers_only(play, tmp_path):
    few = prepared(tmp_path / "few", people=3, each=1)
    found = play(few)
    assert (found["people"], found["genuine"], found["impostor"]) == (0, 0, 0)
    assert found["fnmr"] is found["fmr"] is found["fmr_upper95"] is None
    assert found["by_photos"] == []


def test_people_of_the_bundle_are_told(play, tmp_path):
    known = prepared(tmp_path / "known", people=6, each=8)
    for number in range(8):
        edit(known, number, person="Ana")
    found = play(known)
    assert found["calibrated_on_some_of_them"]
    assert any("--crossfit" in note for note in found["notes"])
