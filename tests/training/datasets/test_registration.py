"""One picture told from two shots, on a photo and what becomes of it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from skimage import data as pictures_of

from training import tools
from training.datasets import manifest, prepare, registration
from training.datasets.manifest import Code

FIELD = Path(__file__).parents[4] / "shared" / "data" / "field" / "near_copy"


def face():
    """The astronaut's face, about where a template has it."""
    return Image.fromarray(pictures_of.astronaut()).crop((150, 30, 300, 180))


def encoded(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def moved(picture, degrees, scale, shift):
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC, translate=shift)
    side = round(picture.width * scale)
    return turned.resize((side, side)).crop((0, 0, *picture.size))


def likeness(one, other):
    return registration.likeness(
        *(registration.grey(np.asarray(each.resize((112, 112)))) for each in (one, other))
    )


def frowning(picture):
    """Another expression: the mouth is squeezed."""
    changed = picture.copy()
    box = (45, 75, 105, 120)
    mouth = picture.crop(box)
    changed.paste(mouth.resize((60, 25)), box[:2])
    return changed


@pytest.mark.parametrize(
    "copy",
    [
        lambda picture: picture,
        lambda picture: encoded(picture, 30),
        lambda picture: picture.resize((48, 48)).resize(picture.size),
        lambda picture: moved(picture, 3, 1.06, (4, -3)),
        lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
        lambda picture: ImageEnhance.Contrast(ImageOps.grayscale(picture).convert("RGB")).enhance(
            0.7
        ),
    ],
    ids=["itself", "JPEG 30", "smaller", "aligned otherwise", "brighter", "grey"],
)
def test_one_picture_is_known(copy):
    assert likeness(face(), copy(face())) >= registration.SAME


@pytest.mark.parametrize(
    "shot",
    [
        frowning,
        ImageOps.mirror,
        lambda picture: Image.new("RGB", picture.size, "grey"),
        lambda picture: Image.new("RGB", picture.size),
    ],
    ids=["another expression", "mirrored", "flat", "black"],
)
def test_another_picture_is_not(shot):
    assert likeness(face(), shot(face())) < registration.SAME


def test_the_same_pictures_give_the_same_answer_from_both_sides():
    one, other = face(), moved(face(), 2, 1.03, (2, 2))
    assert likeness(one, other) == likeness(one, other)
    assert likeness(one, other) == pytest.approx(likeness(other, one), abs=0.02)


@pytest.mark.skipif(not FIELD.exists(), reason="../shared/data/field is not there")
def test_different_shots_of_one_person_are_kept(tmp_path):
    prepare.prepare(FIELD, tmp_path / "out", tools.load())
    rows = list(manifest.read(tmp_path / "out" / manifest.NAME))
    assert [row.code for row in rows if row.code == Code.NEAR_COPY] == []
    assert sum(row.kept for row in rows) == 4
