"""Crops decoded once."""

import numpy as np
import pytest

from engine.vision.align import ARCFACE, Template
from tests.training.synthetic import prepared
from training.datasets import data, pixels

TEMPLATE = Template(112, ARCFACE)


@pytest.fixture
def faces(tmp_path):
    return data.load(prepared(tmp_path / "set"))


def test_crops_are_what_reading_gives_and_are_kept(faces):
    told = []
    first = pixels.mapped(faces, TEMPLATE, told.append)
    np.testing.assert_array_equal(first, data.read_crops(faces, range(len(faces)), TEMPLATE))
    assert told[-1] == len(faces)
    for row in faces.rows:
        (faces.home / row.crop).unlink()
    np.testing.assert_array_equal(pixels.mapped(faces, TEMPLATE), first)
    assert not list(faces.home.glob("*.part"))


def test_other_faces_are_another_file(faces):
    pixels.mapped(faces, TEMPLATE)
    some = faces.part(np.arange(5))
    assert pixels.mapped(some, TEMPLATE).shape == (5, 112, 112, 3)


def test_a_damaged_crop_is_named(faces):
    (faces.home / faces.rows[7].crop).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="Run prepare again"):
        pixels.mapped(faces, TEMPLATE)
    assert not list(faces.home.glob("pixels*"))
