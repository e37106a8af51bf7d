import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.training.synthetic import prepared
from tests.training.workbench import clouds, edit, gallery, run, said
from training.datasets import data, probes
from training.fit import history
from training.measure import mapping, plots
from training.measure.verification import Curve

METRICS = """epoch,lr-AdamW,step,train_loss,val_loss,val_top_1
,0.001,0,,,
0,,9,,0.9,0.5
0,,9,1.5,,
1,,19,,0.6,0.7
1,,19,1.1,,
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    home = prepared(folder / "held", people=5)
    stem = gallery(home, folder / "mine", ("Person 0", "Person 1", "Person 2"))
    assert run("evaluate", stem, home, "--out", folder / "found").exit_code == 0
    return home, folder / "found"


@pytest.fixture
def home(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "held")


def is_picture(path):
    if path.suffix == ".svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    elif path.suffix == ".pdf":
        assert path.read_bytes().startswith(b"%PDF")
    else:
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("L"))
        assert colours.std() > 3  # something is drawn on it
    return True


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_suffix_says_what_is_written(made, tmp_path, suffix):
    out = tmp_path / f"roc{suffix}"
    result = run("plot", "roc", made[1], "--out", out, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"picture": str(out)}
    assert is_picture(out)


def test_another_suffix_is_refused_before_any_work(made, tmp_path):
    result = run("plot", "map", made[0], "--out", tmp_path / "map.bmp")
    assert result.exit_code == 1
    assert "must end in one of .png, .svg, .pdf" in said(result)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
@pytest.mark.parametrize(
    "what", [("confusion",), ("roc",), ("roc", "--det")], ids=["confusion", "roc", "det"]
)
def test_the_same_results_give_the_same_bytes(made, tmp_path, what, suffix):
    command, *options = what
    for name in ("a", "b"):
        out = tmp_path / f"{name}{suffix}"
        assert run("plot", command, made[1], *options, "--out", out).exit_code == 0
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_several_evaluations_are_compared_in_one_picture(made, tmp_path):
    out = tmp_path / "roc.svg"
    again = shutil.copytree(made[1], tmp_path / "again")
    assert run("plot", "roc", made[1], again, "--out", out).exit_code == 0
    alone = tmp_path / "alone.svg"
    assert run("plot", "roc", made[1], "--out", alone).exit_code == 0
    curves = [path.read_text().count(plots.SERIES[1]) for path in (alone, out)]
    assert curves[0] == 0
    assert curves[1] > 0


def test_what_is_no_evaluation_is_refused(tmp_path):
    (tmp_path / "evaluation.json").write_text("{}")
    result = run("plot", "roc", tmp_path, "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "is not an evaluation" in said(result)
    assert run("plot", "roc", tmp_path / "absent", "--out", tmp_path / "x.png").exit_code == 1


# --- history ---


def test_a_run_that_was_taken_up_again_is_drawn_from_its_beginning(tmp_path):
    for k, (fold, text) in enumerate(
        [
            ("fold-1", "epoch,val_loss\n0,9\n"),
            ("fold-2", "epoch,val_loss\n0,3\n1,2\n"),
            ("fold-2", "epoch,val_loss\n1,2.5\n2,1\n"),
        ]
    ):
        path = tmp_path / "run" / fold / "history" / f"version_{k}" / "metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        os.utime(path, (k, k))
    found = history.read(history.locate(str(tmp_path / "run")))
    assert found == {"val_loss": [(0, 3), (1, 2.5), (2, 1)]}
    out = tmp_path / "history.png"
    assert run("plot", "history", tmp_path / "run", "--out", out).exit_code == 0
    assert is_picture(out)


def test_columns_are_taken_as_they_come(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS)
    assert history.read([path]) == {
        "train_loss": [(0, 1.5), (1, 1.1)],
        "val_loss": [(0, 0.9), (1, 0.6)],
        "val_top_1": [(0, 0.5), (1, 0.7)],
    }
    path.write_text("step,whatever\n1,2\n1,4\n2,\nx,9\n")
    assert history.read([path]) == {"whatever": [(1, 3.0)]}


def test_a_log_that_is_no_table_is_named(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"epoch,loss\n\xff,1\n")
    with pytest.raises(ValueError, match=r"metrics\.csv is not a table"):
        history.read([path])


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "no column 'epoch' or 'step'"), ("epoch,loss\n", "no numbers yet")],
)
def test_a_log_without_numbers_says_so(tmp_path, text, message):
    (tmp_path / "metrics.csv").write_text(text)
    result = run("plot", "history", tmp_path, "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert message in said(result)


def test_a_run_that_is_not_there(tmp_path):
    result = run("plot", "history", tmp_path / "absent", "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "There is no metrics.csv" in said(result)


# --- faces ---


def test_the_same_faces_give_the_same_map(made, tmp_path):
    for name in ("a.png", "b.png"):
        assert run("plot", "map", made[0], "--out", tmp_path / name).exit_code == 0
    assert is_picture(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_people_lie_together_on_the_map():
    vectors, owner = clouds(people=6, each=20, spread=0.7)
    points = mapping.flatten(vectors, owner, seed=0)
    assert points.shape == (120, 2)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (owner[distance.argmin(axis=1)] == owner).mean() > 0.95
    np.testing.assert_array_equal(points, mapping.flatten(vectors, owner, seed=0))


def test_three_faces_make_no_map(home, tmp_path):
    for number in range(3, 30):
        edit(home, number, override="drop")
    result = run("plot", "map", home, "--out", tmp_path / "map.png")
    assert result.exit_code == 1
    assert "takes four faces" in said(result)


def test_large_datasets_are_thinned_evenly(made):
    faces = data.load(made[0])
    chosen = mapping.evenly(faces, 12)
    assert np.bincount(faces.owner[chosen]).tolist() == [2] * 5
    assert len(mapping.evenly(faces, 3)) == 3
    assert mapping.evenly(faces, 100).tolist() == list(range(30))


def test_doubts_are_marked_on_the_contact_sheet(home, tmp_path):
    edit(home, 8, status="drop", code="stray")
    edit(home, 9, status="drop", code="near_copy")
    sheet = mapping.tiles(probes.load(home), 20, 6)
    assert [tile.mark for tile in sheet["Person 1"]] == ["", "", "", "", "stray", "near_copy"]
    assert all(tile.mark == "" for tile in sheet["Person 0"])
    # With room for one person only, it is the one with doubts.
    assert list(mapping.tiles(probes.load(home), 1, 6)) == ["Person 1"]
    out = tmp_path / "samples.png"
    assert run("plot", "samples", home, "--out", out).exit_code == 0
    assert is_picture(out)


def test_names_in_any_script_and_with_any_sign_are_drawn():
    curve = Curve([0.0, 0.1, 1.0], [0.2, 0.8, 1.0], [2.0, 1.0, 0.0])
    figure = plots.roc({"宮崎 $\\frac{1}$ <b>": curve, "Ñandú & Co": curve})
    picture = plots.inline(figure)
    ElementTree.fromstring(picture)
    assert "<b>" not in picture


def test_pages_get_their_own_colours():
    curve = Curve([0.0, 0.1, 1.0], [0.2, 0.8, 1.0], [2.0, 1.0, 0.0])
    picture = plots.inline(plots.det({"one": curve}))
    assert not re.search(f"{plots.INK}|{plots.MUTED}|{plots.GRID}", picture)
