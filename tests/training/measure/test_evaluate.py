import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_curve

from engine import bundle
from engine.people.classifier import Classifier
from engine.vision.vectors import centred
from tests.training.synthetic import prepared
from tests.training.workbench import classifier, edit, gallery, run, said, vectorizer
from training.datasets import data, probes
from training.measure import evaluation, pairs, sight

KNOWN = ("Person 0", "Person 1", "Person 2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared dataset of six people and a gallery of three of them."""
    folder = tmp_path_factory.mktemp("made")
    home = prepared(folder / "held", people=6)
    return home, gallery(home, folder / "mine", KNOWN)


@pytest.fixture
def home(made, tmp_path):
    """A dataset of one's own, with the vectors that were computed already."""
    return shutil.copytree(made[0], tmp_path / "held")


@pytest.fixture(scope="module")
def report(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    result = run("evaluate", made[1], made[0], "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "evaluation.json").read_text())
    return evaluation.read(out), (out / "report.html").read_text()


def evaluated(out, *arguments):
    result = run("evaluate", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    return evaluation.read(out)


def test_known_people_and_strangers_are_told_apart_by_name(report):
    found, _ = report
    assert (found.data.known_faces, found.data.known_people) == (18, 3)
    assert (found.data.stranger_faces, found.data.stranger_people) == (18, 3)
    assert found.recognition.identification.top_1.value == 1.0
    assert {row.person for row in found.recognition.people} == set(KNOWN)
    assert "does not know 3 of the data's people (Person 3, Person 4, Person 5)" in " ".join(
        found.notes
    )


def test_the_page_tells_of_strangers_who_are_named_again_and_again(report):
    found, page = report
    repeated = found.recognition.open_set.repeated
    assert repeated.people == 3
    assert f"Of {repeated.people} of them with five photos or more" in page


def test_tar_at_fmr_is_scikit_learns_on_the_same_scores(made, report):
    home, stem = made
    own = bundle.load(stem)
    faces = data.load(home)
    vectors = data.vectors(faces, sight.for_bundle(own, str(stem)).tools.embedder)
    spread = centred(torch.from_numpy(vectors), own.tensors["centre"]).numpy()
    first, second = np.triu_indices(len(faces), 1)
    score = (spread @ spread.T)[first, second]
    fmr, tar, _ = roc_curve(
        faces.owner[first] == faces.owner[second], score, drop_intermediate=False
    )
    point, *unsupported = report[0].verification.tar
    assert point.tar == pytest.approx(tar[fmr <= point.fmr].max(), abs=1e-12)
    assert [one.tar for one in unsupported] == [None, None]


def test_the_page_needs_nothing_beside_it_and_its_pictures_are_sound(report):
    _, page = report
    assert not re.findall(r'(?:src|href)="(?!#)(?!data:)', page)
    assert "<script" not in page
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) >= 4
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert "var(--ink)" in pictures[0]
    assert "of 100" in page


def test_a_name_is_never_markup(home, tmp_path):
    """A person called <script>: in the manifest, so in the bundle, the page and its pictures."""
    hostile = "<script>alert(1)</script>"
    for number in range(12):
        edit(home, number, override_person=f"{hostile}{number // 6} $x_1$")
    people = (f"{hostile}0 $x_1$", f"{hostile}1 $x_1$")
    stem = gallery(home, tmp_path / "mine", people)
    edit(home, 0, override_person=people[1])  # a mistake, so that the table of mistakes is there
    out = tmp_path / "out"
    found = evaluated(out, stem, home)
    assert found.recognition.mixups[0].person == people[1]
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert run("plot", "confusion", out, "--out", tmp_path / "c.svg").exit_code == 0
    assert "<script" not in (tmp_path / "c.svg").read_text()


def test_doubted_faces_count_and_the_figures_without_stand_beside(home, made, tmp_path):
    # The operator says of nobody's face that it is somebody's; prepare had doubted it.
    edit(home, 0, person="Person 1", status="drop", code="mislabel")
    edit(home, 7, status="drop", code="stray", override="keep")
    edit(home, 13, override="drop")
    edit(home, 14, status="drop", code="near_copy")
    found = evaluated(tmp_path / "out", made[1], home)
    assert found.data.doubts == {"mislabel": 1}
    assert found.data.copies == 1
    assert found.data.left_out == {"operator": 1}
    assert found.data.known_faces == 16
    assert found.recognition.identification.top_1.value == pytest.approx(15 / 16)
    assert found.recognition.identification_undoubted.top_1.value == 1.0
    assert found.recognition.identification_undoubted.top_1.count == 15
    assert found.verification_undoubted.faces == found.verification.faces - 1
    (mixup,) = found.recognition.mixups
    assert (mixup.person, mixup.taken_for) == ("Person 1", "Person 0")


def test_an_open_set_adds_strangers_but_nobody_whom_the_bundle_knows(made, home, tmp_path):
    other = prepared(tmp_path / "others", people=4, seed=9)
    edit(other, 0, override_person="Nobody")
    found = evaluated(tmp_path / "out", made[1], home, "--openset", other)
    # Persons 0 to 2 of the others have names that the bundle knows; Person 3 and Nobody stay.
    assert found.data.stranger_faces == 18 + 6 + 1
    assert found.data.stranger_people == 4  # Person 3 is in both
    assert "of the open set left out" in " ".join(found.notes)
    assert found.recognition.open_set.false_is.count == 25


def test_nobody_known_is_said_plainly(home, tmp_path):
    stem = gallery(home, tmp_path / "mine", KNOWN)
    for number in range(36):
        edit(home, number, override_person=f"Other {number // 6}")
    found = evaluated(tmp_path / "out", stem, home)
    assert found.recognition.identification is None
    assert found.recognition.people == []
    assert found.data.stranger_faces == 36
    assert "nobody whom the bundle knows" in " ".join(found.notes)
    assert run("plot", "confusion", tmp_path / "out", "--out", tmp_path / "c.png").exit_code == 1


@pytest.mark.parametrize("faces", [1, 6])
def test_one_person_or_one_face_is_measured_as_far_as_it_goes(made, home, tmp_path, faces):
    for number in range(faces, 36):
        edit(home, number, override="drop")
    found = evaluated(tmp_path / "out", made[1], home)
    assert found.data.faces == faces
    assert found.recognition.identification.top_1.count == faces
    assert found.verification is None
    assert "it takes two people" in " ".join(found.notes)


def test_an_embedder_that_is_not_here_is_named(home, tmp_path):
    stem = gallery(home, tmp_path / "mine", KNOWN)
    text = (tmp_path / "mine.json").read_text()
    (tmp_path / "mine.json").write_text(text.replace("dlib-resnet29", "lost-embedder"))
    result = run("evaluate", stem, home, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "There is no embedder 'lost-embedder'" in said(result)
    record = json.loads(text)
    record["embedder"]["weights_sha256"] = "0" * 64
    (tmp_path / "mine.json").write_text(json.dumps(record))
    result = run("evaluate", stem, home, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "other weights of dlib-resnet29" in said(result)


def test_a_classifier_is_looked_at_through_its_own_network(made, tmp_path):
    home, _ = made
    stem = classifier(home, tmp_path / "cnn", KNOWN)
    found = evaluated(tmp_path / "out", stem, home)
    own = bundle.load(stem)
    faces = data.load(home)
    known = Classifier(own, torch.device("cpu"))
    index = np.flatnonzero(faces.owner < 3)
    best = known.similarities(data.read_crops(faces, index, known.template)).argmax(dim=1)
    right = float((best.numpy() == faces.owner[index]).mean())
    assert found.recognition.identification.top_1.value == pytest.approx(right)
    # Two faces are compared by the embedder's vectors, as `engine compare` does.
    assert found.verification.auc > 0.8


def test_a_vectorizer_compares_faces_and_knows_nobody(made, tmp_path):
    found = evaluated(tmp_path / "out", vectorizer(tmp_path / "mine"), made[0])
    assert found.recognition is None
    assert found.bundle.kind == "vectorizer"
    assert found.verification.people == 6
    assert found.verification.own == []
    page = (tmp_path / "out" / "report.html").read_text()
    assert "For a login" in page
    assert "For a bot" not in page


def test_a_vectorizer_with_two_people_has_nothing_to_measure(home, tmp_path):
    for number in range(12, 36):
        edit(home, number, override="drop")
    result = run("evaluate", vectorizer(tmp_path / "mine"), home, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "nothing to measure" in said(result)
    assert not (tmp_path / "out").exists()


# --- pairs ---


def write_pairs(home, path, label="same", words=("1", "0")):
    lines = [f"file_x,file_y,{label}"]
    crops = sorted((home / "crops").rglob("*.png"))
    for k in range(0, 36, 2):
        lines.append(f"{crops[k]},{crops[k + 1]},{words[0]}")
        lines.append(f"{crops[k]},{crops[(k + 7) % 36]},{words[1]}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("label", "words"), [("same", ("1", "0")), ("Decision", ("Yes", "No"))])
def test_listed_pairs_are_compared(made, tmp_path, label, words):
    home, stem = made
    table = write_pairs(home, tmp_path / "pairs.csv", label, words)
    found = evaluated(tmp_path / "out", stem, home, "--pairs", table, "--aligned")
    listed = found.pairs.verification
    assert (listed.genuine_pairs, listed.impostor_pairs) == (18, 18)
    assert found.pairs.not_compared == 0
    assert listed.auc > 0.8
    assert [own.promised_fmr for own in listed.own] == [1e-2, 1e-3]
    assert listed.tar[0].tar is None  # 18 impostor pairs cannot support 1 in 100


def test_pairs_without_a_face_are_counted_not_dropped(made, tmp_path):
    home, stem = made
    table = write_pairs(home, tmp_path / "pairs.csv")
    Image.new("RGB", (200, 200)).save(tmp_path / "wall.png")
    crop = next((home / "crops").rglob("*.png"))
    with table.open("a") as file:
        file.write(f"{crop},wall.png,0\n")
    given = pairs.read_csv(table)
    assert given.files[-1] == tmp_path / "wall.png"
    # Made-up patterns are no faces for the detector either: without --aligned nothing is seen.
    result = run("evaluate", stem, home, "--pairs", table, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "No face was found in any of the photos" in said(result)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,same\n", "needs the columns file_x, file_y and same"),
        ("file_x,file_y\n", "needs the columns"),
        ("file_x,file_y,same\nx.png,x.png,perhaps\n", "line 2: same is 'perhaps'"),
        ("file_x,file_y,same\nabsent.png,x.png,1\n", "line 2: there is no file"),
        ("file_x,file_y,same\nx.png\n", "line 2"),
        ("file_x,file_y,same\n", "has no pairs"),
    ],
)
def test_a_table_that_is_not_understood(tmp_path, text, message):
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        pairs.read_csv(tmp_path / "pairs.csv")


@pytest.mark.parametrize("content", ["file_x,file_y,same".encode("utf-16"), b"a," + b"x" * 200_000])
def test_what_is_no_table_is_named(tmp_path, content):
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"pairs\.csv is not a table in UTF-8"):
        pairs.read_csv(tmp_path / "pairs.csv")


def lfw_home(tmp_path, folds=2, each=3):
    """A dataset with LFW's names, and pairs.txt beside its manifest."""
    home = prepared(tmp_path / "lfw", people=6)
    rows = [json.loads(line) for line in (home / "manifest.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        person = row["person"].replace(" ", "_")
        row["path"] = f"{person}/{person}_{number % 6 + 1:04d}.jpg"
    (home / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{folds}\t{each}"]
    for fold in range(folds):
        lines += [f"Person_{k}\t{fold + 1}\t{fold + 2}" for k in range(each)]
        lines += [f"Person_{k}\t1\tPerson_{k + 3}\t{fold + 1}" for k in range(each)]
    (home / "pairs.txt").write_text("\n".join(lines) + "\n")
    return home


def test_lfws_folds_are_found_beside_its_photos(made, tmp_path):
    home = lfw_home(tmp_path)
    found = evaluated(tmp_path / "out", made[1], home)
    assert found.lfw.accuracy.pairs == 12
    assert len(found.lfw.accuracy.folds) == 2
    assert found.lfw.accuracy.mean > 0.9
    assert found.lfw.not_compared == 0
    edit(home, 0, crop=None, code="no_face", status="drop")  # Person_0's first photo
    found = evaluated(tmp_path / "out", made[1], home, "--pairs", home / "pairs.txt")
    assert found.lfw.not_compared == 3


def test_lfws_protocol_wants_its_photos(made, home, tmp_path):
    listed = lfw_home(tmp_path) / "pairs.txt"
    found = evaluated(tmp_path / "out", made[1], home, "--pairs", listed)
    assert found.lfw is None
    assert "only 0 of its 12 pairs" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "not in LFW's format"),
        ("", "not in LFW's format"),
        ("300\n", "one fold only"),
        ("2\t1\nA\t1\t2\nA\t1\tB\t2\n", "announces 4 pairs and has 2"),
        ("2\t1\nA\tone\t2\n", "line 2 is not a pair"),
    ],
)
def test_a_file_that_is_not_lfws(tmp_path, text, message):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        pairs.read_lfw(tmp_path / "pairs.txt")


def test_a_gallery_name_with_accents_is_the_folder_without_them_in_any_order():
    numbers = probes.number_of(
        ["Recep_Tayyip_Erdogan", "Hung_Sung_Choi"],
        {
            0: "Choi Sung-hung",
            1: "Recep Tayyip Erdoğan",
        },
    )
    assert numbers.tolist() == [1, 0]


def test_names_are_matched_as_folders_spell_them():
    numbers = probes.number_of(
        ["Ju\u0308rgen_Klopp", "ana lee", "Nobody"], {0: "Ana Lee", 1: "J\u00fcrgen Klopp"}
    )
    assert numbers.tolist() == [1, 0, -1]
