"""A pipeline is tried before it answers: with real networks, on bundles that load and are wrong."""

import pytest
import torch

from engine import self_test
from engine.errors import BundleError
from engine.people.gallery import Gallery
from engine.pipeline import Pipeline
from engine.self_test import rehearse
from engine.settings import Settings
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from tests.engine import bundles

BATCH = 2


def pipeline(folder, **options):
    stem = bundles.make(folder, **options)
    return Pipeline.from_settings(Settings(engine_bundle=str(stem), engine_device="cpu"))


def test_a_good_bundle_passes(tmp_path):
    rehearse(pipeline(tmp_path), BATCH)


def test_people_who_look_the_same_pass(tmp_path):
    vectors = torch.zeros(3, 128)
    vectors[:, 0] = 1
    rehearse(pipeline(tmp_path, vectors=vectors), BATCH)


def test_very_many_people_look_for_themselves_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(self_test, "_SIMILARITIES", 1000)
    monkeypatch.setattr(self_test, "_PEOPLE", 10)
    many = pipeline(tmp_path, people=[f"Person {i}" for i in range(301)])
    asked = []
    similarities = Gallery.similarities

    def noting(gallery, vectors):
        asked.append(len(vectors))
        return similarities(gallery, vectors)

    monkeypatch.setattr(Gallery, "similarities", noting)
    rehearse(many, BATCH)
    assert max(asked) * 301 <= 1000
    assert sum(asked) == 10


def test_people_who_do_not_find_themselves_are_a_corrupt_bundle(tmp_path):
    # A prototype so far from the centre that float32 cannot tell where it was.
    tensors = {"centre": torch.full((128,), 1e12)}
    with pytest.raises(BundleError, match="do not find themselves") as caught:
        rehearse(pipeline(tmp_path, tensors=tensors), BATCH)
    assert caught.value.code == "bundle_corrupt"


class Broken(DlibResNet29):
    """A network whose numbers have gone."""

    def embed(self, crops):
        return super().embed(crops) * float("nan")


def test_numbers_that_are_none_are_a_corrupt_bundle(tmp_path):
    sound = pipeline(tmp_path)
    broken = Pipeline(sound.bundle, Broken(torch.device("cpu")), torch.device("cpu"))
    with pytest.raises(BundleError, match="without sense"):
        rehearse(broken, BATCH)
