from pathlib import Path

import numpy as np
import pytest

from training.audit import audit, unit
from training.faces import Faces


def made_up(seed=0, people=4, each=20, spread=0.5):
    """People as clouds around directions, each face with a picture of its own."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), each)
    directions = unit(generator.normal(size=(people, 64)).astype(np.float32))
    noise = generator.normal(size=(len(owner), 64)) * spread / 8
    vectors = unit((directions[owner] + noise).astype(np.float32))
    signatures = unit(generator.normal(size=(len(owner), 256)).astype(np.float32))
    return Faces(
        people=[f"Person {i}" for i in range(people)],
        paths=[Path(f"person{o}/{i:03}.png") for i, o in enumerate(owner)],
        owner=owner,
        vectors=vectors,
        signatures=signatures,
        chips=[],
        rejected=[],
        everybody=[f"Person {i}" for i in range(people)],
    )


def test_keeps_everybody_where_nothing_is_wrong():
    checked = audit(made_up())
    assert len(checked.kept) == 80
    assert checked.dropped == []


def test_a_mislabel_is_reported_with_whom_it_shows():
    faces = made_up()
    faces.vectors[5] = faces.vectors[65]
    faces.vectors[5] += 0.02
    faces.vectors[5] /= np.linalg.norm(faces.vectors[5])
    (rejection,) = audit(faces).dropped
    assert rejection.path.name == "005.png"
    assert rejection.reason == "likely mislabelled: closer to Person 3"


def test_a_stray_is_dropped():
    faces = made_up()
    faces.vectors[7] = unit(np.random.default_rng(9).normal(size=(1, 64)).astype(np.float32))[0]
    assert [r.path.name for r in audit(faces).dropped] == ["007.png"]


@pytest.mark.parametrize(("twin", "suffix"), [(11, ""), (61, " under another person's name")])
def test_a_copy_is_dropped_once(twin, suffix):
    faces = made_up()
    faces.vectors[twin] = faces.vectors[10]
    faces.signatures[twin] = faces.signatures[10]
    dropped = audit(faces).dropped
    if suffix:  # of a copy across people, the one under the wrong name goes, as a mislabel
        assert [r.path.name for r in dropped] == ["061.png"]
    else:
        (rejection,) = dropped
        assert rejection.reason.startswith("copy of 01")


def test_two_alike_pictures_of_other_faces_are_no_copies():
    faces = made_up()
    faces.signatures[30] = faces.signatures[10]
    assert audit(faces).dropped == []


def test_few_photos_are_not_judged():
    faces = made_up(each=3)
    faces.vectors[0] = faces.vectors[9]
    assert [r for r in audit(faces).dropped if "mislabelled" in r.reason] == []
