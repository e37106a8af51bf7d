import json
import pickle
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.vision.embed.dlib_resnet29 import DlibResNet29
from tests.training.synthetic import prepared
from training.datasets import data, manifest
from training.datasets.manifest import Status


@pytest.fixture
def home(tmp_path):
    return prepared(tmp_path / "set")


def edit(home, number, **changes):
    rows = [json.loads(line) for line in (home / manifest.NAME).read_text().splitlines()]
    rows[number] |= changes
    (home / manifest.NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_manifest_becomes_faces(home):
    faces = data.load(home)
    assert faces.people == [f"Person {i}" for i in range(4)]
    assert np.bincount(faces.owner).tolist() == [6] * 4
    assert data.read_crops(faces, [0, 3], manifest.CROP).shape == (2, 224, 224, 3)


def test_the_operator_overrules(home):
    edit(home, 0, status="drop", code="copy")
    edit(home, 1, status="drop", override="keep")
    edit(home, 2, override="drop")
    edit(home, 3, override_person="Person 3")
    faces = data.load(home)
    assert np.bincount(faces.owner).tolist() == [3, 6, 6, 7]
    assert faces.dropped == {"copy": 1, "operator": 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "maybe"}, "line 2: status cannot be 'maybe'"),
        ({"override": "yes"}, "line 2: override cannot be 'yes'"),
        ({"landmarks": [[1, 2]]}, "five points"),
        ({"landmarks": [["a", "b"]] * 5}, "line 2: landmarks.0.0 cannot be 'a'"),
        ({"landmarks": [[float("nan"), 1]] * 5}, "line 2: landmarks.0.0 cannot be nan"),
        ({"person": 5}, "line 2: person cannot be 5"),
        ({"person": "\ud800"}, "line 2 is not a face's record .*hex escape"),
        ({"override_person": ["Ann"]}, r"line 2: override_person cannot be \['Ann'\]"),
        ({"override_person": ""}, "line 2: override_person cannot be ''"),
        ({"crop": 5}, "line 2: crop cannot be 5"),
        ({"group": None}, "line 2: group cannot be None"),
        ({"group": 10**30}, "line 2: group cannot be 10"),
        ({"size_px": "big"}, "line 2: size_px cannot be 'big'"),
        ({"yaw": float("nan")}, "line 2: yaw cannot be nan"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"crop": "../../elsewhere/1.png"}, "line 2: crop cannot be .* must be a file below"),
        ({"crop": "/elsewhere/1.png"}, "line 2: crop cannot be .* must be a file below"),
    ],
)
def test_a_damaged_line_is_named(home, changes, said):
    edit(home, 1, **changes)
    with pytest.raises(ValueError, match=said):
        data.load(home)


def test_a_missing_dataset_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="Give a folder with one folder per person"):
        data.load(tmp_path / "nowhere")


def test_vectors_are_computed_once(home):
    class Counting(DlibResNet29):
        count = 0

        def embed(self, crops):
            Counting.count += len(crops)
            return super().embed(crops)

    embedder = Counting(torch.device("cpu"))
    faces = data.load(home)
    first = data.vectors(faces, embedder)
    done = Counting.count
    assert done >= len(faces)
    np.testing.assert_array_equal(data.vectors(faces, embedder), first)
    assert Counting.count == done
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)


def test_vectors_of_another_length_are_made_anew(home):
    embedder = DlibResNet29(torch.device("cpu"))
    faces = data.load(home)
    first = data.vectors(faces, embedder)
    with closing(data.open_cache(home)) as cache, cache:
        cache.execute("UPDATE embeddings SET vector = x'00'")
    np.testing.assert_array_equal(data.vectors(faces, embedder), first)


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_crop_that_cannot_be_read_is_named(home, content):
    faces = data.load(home)
    path = home / faces.rows[1].crop
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(OSError, match=rf"{path.name} cannot be read .*Run prepare again"):
        data.read_crops(faces, [0, 1], manifest.CROP)


def test_a_damaged_cache_is_named(home):
    (home / data.CACHE).write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match=r"embeddings\.sqlite cannot be used.*delete that file"):
        data.vectors(data.load(home), DlibResNet29(torch.device("cpu")))


def test_of_two_large_groups_one_is_held_out(home):
    for number in range(24):
        edit(home, number, group=number // 3)
    faces = data.load(home)
    training, validation = data.split(faces, 0.2, seed=0)
    assert np.bincount(faces.owner[training]).tolist() == [3] * 4
    assert np.bincount(faces.owner[validation]).tolist() == [3] * 4


def test_no_group_is_split(home):
    for number in range(0, 24, 3):
        for k in range(2):
            edit(home, number + k, group=number)
    faces = data.load(home)
    training, validation = data.split(faces, 0.3, seed=0)
    assert sorted([*training, *validation]) == list(range(24))
    assert not set(faces.group[training]) & set(faces.group[validation])
    for part in (training, validation):
        assert set(faces.owner[part]) == {0, 1, 2, 3}
    again = data.split(faces, 0.3, seed=0)
    assert again[1].tolist() == validation.tolist()
    assert data.split(faces, 0.3, seed=1)[1].tolist() != validation.tolist()


def test_faces_of_no_group_are_no_twins(home):
    for number in range(24):
        edit(home, number, group=-1)
    faces = data.load(home)
    assert len(set(faces.group)) == 24
    assert set(faces.owner[data.split(faces, 0.3, seed=0)[1]]) == {0, 1, 2, 3}


def test_a_manifest_that_keeps_nobody_says_so(home):
    path = home / manifest.NAME
    rows = [replace(row, status=Status.DROP) for row in manifest.read(path)]
    manifest.write(path, rows)
    with pytest.raises(ValueError, match="keeps no face"):
        data.load(home)


def test_rows_can_be_looked_at_in_any_order(home):
    faces = data.load(home)
    some = faces.part(np.array([5, 0, 7]))
    assert [row.id for row in some.rows] == ["4-5", "4-0", "4-7"]
    assert [row.id for row in faces.rows[-2:]] == ["4-22", "4-23"]
    assert pickle.loads(pickle.dumps(some)).rows[0] == faces.rows[5]
    assert [row.person for row in some.rows] == [some.people[i] for i in some.owner]


def test_nobody_is_left_without_a_face_to_learn_from(home):
    # Two people whose photos are the same few pictures, as far as groups can tell.
    for number in range(12):
        edit(home, number, group=number % 2)
    faces = data.load(home)
    for seed in range(20):
        training, _ = data.split(faces, 0.6, seed)
        assert set(faces.owner[training]) == {0, 1, 2, 3}
