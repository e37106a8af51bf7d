import errno
import inspect
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import unicodedata
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as pictures_of
from typer.testing import CliRunner

from tests.training.synthetic import pictures
from training import tools
from training.__main__ import app
from training.commands.prepare import prepare as prepare_command
from training.datasets import data, doubts, journal, manifest, photos, prepare, seeing
from training.datasets.audit import FaceLimits
from training.datasets.manifest import Status


@pytest.fixture(scope="module")
def seeing_tools():
    return tools.load()


@pytest.fixture
def people(tmp_path):
    return pictures(tmp_path / "people", people=3, each=5)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def rows(home):
    return {row.path: row for row in manifest.read(home / manifest.NAME)}


def overrule(home, path, **words):
    lines = [json.loads(line) for line in (home / manifest.NAME).read_text().splitlines()]
    for line in lines:
        if line["path"] == path:
            line |= words
    (home / manifest.NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))


def content(home):
    """Everything that `prepare` promises."""
    with closing(sqlite3.connect(home / data.CACHE)) as cache:
        vectors = cache.execute("SELECT * FROM embeddings ORDER BY embedder, face").fetchall()
    files = {
        str(path.relative_to(home)): path.read_bytes()
        for kind in (seeing.CROPS, seeing.OTHERS)
        for path in (home / kind).rglob("*")
        if path.is_file()
    }
    return (home / manifest.NAME).read_bytes(), files, vectors


def test_a_folder_becomes_a_dataset(people, out, seeing_tools):
    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    faces = data.load(out)
    assert summary.kept == len(faces) == 15
    assert faces.people == ["Person 0", "Person 1", "Person 2"]
    row = faces.rows[0]
    # Its own bytes, and where the template says.
    assert (out / row.crop).read_bytes() == (people / row.path).read_bytes()
    assert row.landmarks[0] == [38.29, 51.7]
    # The vectors are there already, and are what the crop gives.
    cached = data.vectors(faces, seeing_tools.embedder)
    (out / data.CACHE).unlink()
    np.testing.assert_allclose(cached, data.vectors(faces, seeing_tools.embedder), atol=1e-5)


def test_photos_become_crops_on_the_template(tmp_path, out, seeing_tools):
    home = tmp_path / "photos" / "Eileen_Collins"
    home.mkdir(parents=True)
    Image.fromarray(pictures_of.astronaut()).save(home / "a portrait.png")
    prepare.prepare(tmp_path / "photos", out, seeing_tools)
    (row,) = rows(out).values()
    assert (row.person, row.path) == ("Eileen Collins", "Eileen_Collins/a portrait.png")
    assert row.crop == f"crops/Eileen_Collins/a portrait-{row.id}.jpg"
    with Image.open(out / row.crop) as crop:
        assert crop.size == (224, 224)
    assert np.abs(np.array(row.landmarks) - manifest.CROP.landmarks).max() < 12
    assert 70 < row.size_px < 140
    assert abs(row.yaw) < 0.2


def test_of_several_faces_the_own_one_is_taken_unless_overruled(tmp_path, out, seeing_tools):
    astronaut = Image.fromarray(pictures_of.astronaut())
    face = astronaut.crop((130, 0, 330, 230))
    # Squeezed and recoloured, the same face becomes another's.
    pixels = np.asarray(face.resize((200, 300)).crop((0, 40, 200, 270)), float)
    stranger = Image.fromarray((255 * (pixels / 255) ** 2.2).astype(np.uint8))
    both = Image.new("RGB", (900, 560))
    both.paste(stranger.resize((440, 506)), (10, 10))
    both.paste(face, (600, 150))
    home = tmp_path / "photos" / "Eileen"
    home.mkdir(parents=True)
    astronaut.save(home / "0.png")
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(home / "1.png")
    both.save(home / "2.png")
    prepare.prepare(tmp_path / "photos", out, seeing_tools)
    row = rows(out)["Eileen/2.png"]
    assert row.faces == 2
    assert row.size_px < 150
    (other,) = (out / seeing.OTHERS / "Eileen").iterdir()
    page = doubts.write(out, "photos").read_text()
    other_id = other.stem.rpartition("-")[2]
    assert f"not chosen: {other_id}" in page

    overrule(out, row.path, override_face=other_id)
    summary = prepare.prepare(tmp_path / "photos", out, seeing_tools)
    assert summary.seen == 0
    larger = rows(out)["Eileen/2.png"]
    assert larger.id == larger.override_face == other_id
    assert larger.size_px > 200
    assert (out / larger.crop).exists()
    assert [path.name for path in (out / seeing.OTHERS / "Eileen").iterdir()] == [
        Path(row.crop).name
    ]

    overrule(out, row.path, override_face="nobody")
    with pytest.raises(ValueError, match="override_face is 'nobody', which is none of its faces"):
        prepare.prepare(tmp_path / "photos", out, seeing_tools)


def test_copies_are_found_and_overrules_survive(people, out, seeing_tools):
    shutil.copyfile(people / "Person_0/1.png", people / "Person_0/copy.png")
    with Image.open(people / "Person_1/1.png") as picture:
        picture.save(people / "Person_1/again.jpg", quality=80)
    prepare.prepare(people, out, seeing_tools, aligned=True)
    dropped = {row.code: row for row in rows(out).values() if row.status is Status.DROP}
    assert dropped.keys() == {"copy", "near_copy"}
    assert {dropped["copy"].path, dropped["copy"].twin} == {
        "Person_0/1.png",
        "Person_0/copy.png",
    }
    assert "nearly the same picture as Person_1/" in dropped["near_copy"].reason

    overrule(out, dropped["copy"].path, override="keep")
    overrule(out, "Person_2/0.png", override="drop", override_person="Person 1")
    for _ in range(2):
        prepare.prepare(people, out, seeing_tools, aligned=True)
        now = rows(out)
        assert now[dropped["copy"].path].kept
        # The other of the two goes in its place.
        assert now[dropped["copy"].twin].twin == dropped["copy"].path
        assert now["Person_2/0.png"].override_person == "Person 1"
        assert not now["Person_2/0.png"].kept

    # A word goes with its photo to another name, and is lost with other bytes.
    (people / "Person_2/0.png").rename(people / "Person_2/renamed.png")
    assert prepare.prepare(people, out, seeing_tools, aligned=True).lost == []
    assert rows(out)["Person_2/renamed.png"].override is Status.DROP
    Image.new("RGB", (112, 112), "red").save(people / "Person_2/renamed.png")
    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    assert summary.lost == ["Person_2/renamed.png"]
    assert rows(out)["Person_2/renamed.png"].override is None


def test_only_what_has_changed_is_seen_again(people, out, seeing_tools):
    prepare.prepare(people, out, seeing_tools, aligned=True)
    before = rows(out)
    os.utime(people / "Person_0/0.png", ns=(1, 1))  # another date, the same bytes
    shutil.copyfile(people / "Person_1/0.png", people / "Person_0/1.png")
    (people / "Person_0/2.png").unlink()
    (people / "Person_3").mkdir()
    shutil.copyfile(people / "Person_2/3.png", people / "Person_3/x.png")
    assert prepare.prepare(people, out, seeing_tools, aligned=True).seen == 3
    after = rows(out)
    assert after["Person_0/0.png"].id == before["Person_0/0.png"].id
    assert after["Person_0/1.png"].id == before["Person_1/0.png"].id
    assert "Person_0/2.png" not in after
    assert not (out / before["Person_0/2.png"].crop).exists()
    assert after["Person_3/x.png"].person == "Person 3"
    # A crop that is lost is cut again.
    (out / after["Person_2/0.png"].crop).unlink()
    assert prepare.prepare(people, out, seeing_tools, aligned=True).seen == 1
    assert (out / after["Person_2/0.png"].crop).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from engine import threads
threads.configure()
from training.datasets import seeing
from training import tools
from training.datasets.journal import Journal
from training.datasets.prepare import prepare

seeing._ALIGNED = 4
record = Journal.record
left = int(sys.argv[3])

def counted(*arguments):
    global left
    record(*arguments)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.record = counted
prepare(Path(sys.argv[1]), Path(sys.argv[2]), tools.load(), aligned=True)
"""


def test_killed_and_resumed_equals_undisturbed(people, tmp_path, seeing_tools, monkeypatch):
    monkeypatch.setattr(seeing, "_ALIGNED", 4)
    prepare.prepare(people, tmp_path / "calm", seeing_tools, aligned=True)
    home = tmp_path / "hunted"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(people), str(home), "2"], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (home / manifest.NAME).exists()
    assert prepare.prepare(people, home, seeing_tools, aligned=True).seen == 7
    assert content(home) == content(tmp_path / "calm")


def test_hostile_files_and_names(people, out, seeing_tools):
    home = people / "Person_0"
    (home / "empty.jpg").write_bytes(b"")
    (home / "cut.png").write_bytes((home / "0.png").read_bytes()[:900])
    (home / "notes.txt").write_text("not a picture")
    Image.new("RGB", (200, 100)).save(home / "wide.png")
    (home / "nowhere.png").symlink_to("absent.png")
    (home / "linked.png").symlink_to(people / "Person_1" / "0.png")
    (home / "circle").symlink_to(home)
    os.mkfifo(home / "pipe.png")
    (home / ".hidden.png").write_bytes(b"x")
    with (home / "huge.png").open("wb") as file:
        file.truncate(21 * 2**20)
    Path(os.fsdecode(os.fsencode(home) + b"/caf\xe9.png")).write_bytes(b"x")
    names = ["né <b>&'\".png", "x" * 240 + ".png", "new\nline.png", "-rf.png"]
    for i, name in enumerate(names):
        Image.new("RGB", (112, 112), (9 * i, 99, 200 - 9 * i)).save(home / name)
    (people / "Nobody").mkdir()

    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    found = rows(out)
    codes = {path.removeprefix("Person_0/"): row.code for path, row in found.items()}
    for name in ("empty.jpg", "cut.png", "notes.txt", "wide.png", "nowhere.png", "huge.png"):
        assert codes[name] == "unreadable", name
    assert codes[r"caf\xe9.png"] == "unreadable"
    assert "no square crop" in found["Person_0/wide.png"].reason
    assert "file_too_large" in found["Person_0/huge.png"].reason
    assert not {"circle", "pipe.png", ".hidden.png"} & codes.keys()
    assert found["Person_0/linked.png"].id == found["Person_1/0.png"].id
    for name in names:
        assert (out / found[f"Person_0/{name}"].crop).exists()
    assert summary.photos == len(found)
    page = doubts.write(out, "<script>").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("spelled", "person"),
    [
        ((unicodedata.normalize("NFC", "Zoé"), unicodedata.normalize("NFD", "Zoé")), "Zoé"),
        (("Ada_Lovelace", "ada lovelace"), "Ada Lovelace"),
        (("Jose Marti", "José Martí"), "Jose Marti"),
    ],
    ids=["forms", "case", "accents"],
)
def test_folders_of_one_name_in_two_spellings_are_one_persons(
    people, out, seeing_tools, capfd, spelled, person
):
    for name, own in zip(spelled, ("Person_0", "Person_1"), strict=True):
        (people / own).rename(people / name)
    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    assert dict(summary.people) == {"Person 2": 5, person: 10}
    (said,) = summary.folders
    assert f"count as one person's, '{person}'" in said
    assert said in capfd.readouterr().err
    # The first spelling is gone: the other one is the person's.
    first = sorted(spelled)[0]
    shutil.rmtree(people / first)
    (left,) = set(spelled) - {first}
    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    assert dict(summary.people) == {"Person 2": 5, photos.person_of(left): 5}


@pytest.mark.parametrize("goal", ["Person_1", "Person_1/inner", ".", ".."])
def test_a_link_to_photos_that_another_folder_has_doubles_none(people, out, seeing_tools, goal):
    (people / "Person_1" / "inner").mkdir()
    (people / "Person_1" / "0.png").rename(people / "Person_1" / "inner" / "0.png")
    (people / "A link").symlink_to(goal)
    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    assert (summary.photos, summary.kept) == (15, 15)
    assert list(summary.people) == ["Person 0", "Person 1", "Person 2"]
    (said,) = summary.folders
    assert "A link is a link to photos that" in said


def test_a_link_to_a_folder_elsewhere_is_a_persons_once(people, out, tmp_path, seeing_tools):
    elsewhere = (people / "Person_1").rename(tmp_path / "elsewhere")
    for name in ("Person_1", "Person_9"):
        (people / name).symlink_to(elsewhere)
    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    assert dict(summary.people) == {"Person 0": 5, "Person 1": 5, "Person 2": 5}
    (said,) = summary.folders
    assert "Person_9 is a link to photos that" in said


def test_a_folder_without_photos_is_told(people, out):
    (people / "Nobody").mkdir()
    (people / "Gone").symlink_to("absent")
    result = command(people, "--out", out, "--aligned", "--json")
    assert json.loads(result.stdout)["folders"] == [
        f"{people / 'Gone'} is a link that leads nowhere and is left out. Mend or delete it.",
        f"{people / 'Nobody'} has no photos and is left out. Put photos in it, or delete it.",
    ]
    assert "Nobody has no photos" in result.stderr


def test_a_persons_name_is_one_line():
    assert photos.person_of("Zoe\u0301_\n\x1b[1m  Ann ") == "Zoé [1m Ann"
    assert photos.person_of("\u200fمحمد\u202e_علي\u2028x") == "محمد علي x"


def test_an_unreadable_photo_is_tried_again(people, out, seeing_tools, monkeypatch):
    opened = Path.open

    def denied(path, *arguments, **options):
        if path.name == "2.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", denied)
        summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    assert summary.codes["unreadable"] == 3
    assert rows(out)["Person_0/2.png"].reason == "permission denied"
    summary = prepare.prepare(people, out, seeing_tools, aligned=True)
    assert (summary.seen, summary.kept) == (3, 15)


def test_a_full_disk_says_that_the_command_goes_on(people, out, seeing_tools, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"is full\. Make room; the same command then goes on"):
            prepare.prepare(people, out, seeing_tools, aligned=True)
    assert prepare.prepare(people, out, seeing_tools, aligned=True).kept == 15


def test_another_use_of_a_prepared_folder_is_refused(people, out, tmp_path, seeing_tools):
    prepare.prepare(people, out, seeing_tools, aligned=True)
    with pytest.raises(ValueError, match="was prepared with --aligned"):
        prepare.prepare(people, out, seeing_tools)
    other = pictures(tmp_path / "other", people=1, each=2)
    with pytest.raises(ValueError, match=r"was prepared from .*people"):
        prepare.prepare(other, out, seeing_tools, aligned=True)
    with pytest.raises(ValueError, match="lie in each other"):
        prepare.prepare(people, people / "out", seeing_tools, aligned=True)
    # Moved, it is the same.
    people.rename(tmp_path / "moved")
    assert prepare.prepare(tmp_path / "moved", out, seeing_tools, aligned=True).seen == 0


def test_a_dataset_is_prepared_where_it_is_not(people, tmp_path, seeing_tools, monkeypatch):
    monkeypatch.setattr(prepare, "DATASETS", tmp_path / "datasets")
    faces = prepare.dataset(people, seeing_tools, aligned=True)
    assert (faces.name, len(faces)) == ("people", 15)
    (home,) = (tmp_path / "datasets").iterdir()
    for source in (home, home / manifest.NAME):
        assert len(prepare.dataset(source, seeing_tools)) == 15


def command(*arguments):
    return CliRunner().invoke(app, ["prepare", *(str(argument) for argument in arguments)])


def test_the_command_tells_what_it_did(people, out):
    (people / "Person_0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (people / "stray.png").write_bytes(b"x")
    result = command(people, "--out", out, "--aligned", "--json", "--report")
    record = json.loads(result.stdout)
    assert (record["photos"], record["kept"], record["outside"]) == (16, 15, 1)
    assert record["codes"] == {"ok": 15, "unreadable": 1}
    page = Path(record["report"]).read_text()
    assert "Person_0/broken.png" in page
    assert "http" not in page.replace("https://", "http")
    result = command(people, "--out", out, "--aligned")
    assert "15 of 16 photos kept, of 3 people (0 photos new or changed)" in result.output
    assert "1 files lie beside" in result.output


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "absent", "is not a folder"),
        (lambda folder: folder, "one folder per person"),
    ],
)
def test_a_folder_without_people_is_refused(tmp_path, make, said):
    (tmp_path / "in").mkdir()
    result = command(make(tmp_path / "in"), "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_an_out_that_cannot_be_written_is_named(people, tmp_path):
    (tmp_path / "file").write_text("")
    result = command(people, "--out", tmp_path / "file", "--aligned")
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.output.replace("\n", "")


def test_a_damaged_journal_says_what_to_do(people, out, seeing_tools):
    out.mkdir()
    (out / journal.NAME).write_bytes(b"nonsense" * 1000)
    with pytest.raises(ValueError, match=r"journal.sqlite cannot be used .* run prepare again"):
        prepare.prepare(people, out, seeing_tools, aligned=True)


def test_ctrl_c_says_that_it_goes_on(people, out, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "record", interrupted)
    result = command(people, "--out", out, "--aligned")
    assert result.exit_code == 130
    assert "The same command goes on from here" in result.output


def test_the_commands_defaults_are_the_limits():
    defaults = inspect.signature(prepare_command).parameters
    assert FaceLimits() == FaceLimits(defaults["min_size"].default, defaults["max_blur"].default)
