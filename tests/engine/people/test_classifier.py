"""Classifier bundles of both kinds, served."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from engine import bundle
from engine.errors import BundleError
from engine.people import recogniser
from engine.people.classifier import Classifier
from engine.people.gallery import Gallery
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.vision import networks
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from tests.engine.bundles import make, manifest

CPU = torch.device("cpu")
PEOPLE = ("Ana", "Ben", "Carla")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return networks.build("mobilenet_v3_small").eval()


def crops(count):
    return np.random.default_rng(0).integers(0, 256, (count, 112, 112, 3), np.uint8)


def write(folder, network, **tensors):
    """A classifier that knows the first three of `crops` by heart."""
    known = networks.features(network, crops(3), CPU)
    parts = {
        "prototypes": normalize(known - known.mean(dim=0), dim=1),
        "owner": torch.arange(3),
        "feature_centre": known.mean(dim=0),
        "centre": torch.zeros(128),
    }
    record = manifest(PEOPLE, kind="classifier", architecture=network.architecture())
    bundle.save(folder / "own", record, parts | networks.state(network) | tensors)
    return bundle.load(folder / "own")


def test_a_network_of_its_own_answers(tmp_path, network):
    known = recogniser.load(write(tmp_path, network), CPU)
    assert isinstance(known, Classifier)
    assert known.template.size_px == 112
    names = [matches[0].name for matches in known.search(crops(3), 2)]
    assert names == list(PEOPLE)
    assert known.search(crops(0), 2) == []
    assert known.similarities(crops(20)).shape == (20, 3)


def test_photos_are_analysed_with_it(tmp_path, network):
    pipeline = Pipeline(write(tmp_path, network), DlibResNet29(CPU), CPU)
    photo = Image.fromarray(crops(2)[1])
    plain, asked = pipeline.analyze(
        [
            PhotoRequest(photo, aligned=True, top_k=1),
            PhotoRequest(photo, aligned=True, top_k=3, embed=True),
        ]
    )
    assert [match.name for match in plain.faces[0].matches] == ["Ben"]
    assert len(asked.faces[0].matches) == 3
    # The embedding is the embedder's, whoever classifies: stored templates stay comparable.
    assert plain.faces[0].embedding is None
    assert asked.faces[0].embedding.shape == (128,)
    (alone,) = pipeline.analyze([PhotoRequest(photo, aligned=True)])
    assert alone.faces[0].embedding is None
    assert alone.faces[0].matches[0].name == "Ben"


def test_a_head_is_searched_like_a_gallery(tmp_path):
    stem = make(tmp_path, kind="classifier", architecture={"recipe": "head"})
    assert isinstance(recogniser.load(bundle.load(stem), CPU), Gallery)


@pytest.mark.parametrize(
    "tensors",
    [
        {"feature_centre": torch.zeros(3)},
        {"prototypes": torch.eye(3, 128)},
        {"network.body.features.0.0.weight": torch.zeros(2)},
        {"network.surplus": torch.zeros(2)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, network, tensors):
    with pytest.raises(BundleError, match="Build the bundle again"):
        recogniser.load(write(tmp_path, network, **tensors), CPU)


def test_a_vectorizer_knows_nobody(tmp_path, network):
    record = manifest((), kind="vectorizer", calibration=None)
    bundle.save(tmp_path / "v", record, networks.state(network))
    with pytest.raises(BundleError, match="knows nobody") as caught:
        recogniser.load(bundle.load(tmp_path / "v"), CPU)
    assert caught.value.code == "bundle_mismatch"
