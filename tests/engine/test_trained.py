"""`trained:NAME`: vectorizer bundles as embedders."""

import hashlib
import json
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from engine import bundle, doctor
from engine.errors import BundleError
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.vision import adapter, align, embed, networks
from engine.vision.adapter import Adapter, Form
from engine.vision.align import ARCFACE
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from tests.engine import bundles

CPU = torch.device("cpu")
DLIB = DlibResNet29.specification


def crops(count, px):
    return np.random.default_rng(0).integers(0, 256, (count, px, px, 3), np.uint8)


def save(stem, trunk, base=None, **architecture):
    """A vectorizer bundle; returns its embedder id."""
    is_adapter = isinstance(trunk, Adapter)
    record = bundles.manifest([], kind="vectorizer", calibration=None) | {
        "embedder": base,
        "architecture": trunk.architecture() | architecture,
    }
    tensors = adapter.state(trunk) if is_adapter else networks.state(trunk)
    bundle.save(stem, record, tensors)
    return f"trained:{stem}"


def record(form):
    return {"id": form.id, "weights_sha256": form.weights_sha256, "dimension": form.dimension}


def random_adapter(dimension=128, form=Form.MLP, seed=0):
    torch.manual_seed(seed)
    made = Adapter(form, dimension).eval()
    for tensor in made.state_dict().values():
        tensor.copy_(torch.randn_like(tensor) * 0.05)
    return made


@pytest.fixture(scope="module")
def dlib():
    return DlibResNet29(CPU)


@pytest.fixture
def adapted(tmp_path):
    return save(tmp_path / "night", random_adapter(), record(DLIB), licence="mine")


def test_a_network_is_served_as_it_was_trained(tmp_path):
    torch.manual_seed(0)
    network = networks.build("resnet18", 64).eval()
    served = embed.load(save(tmp_path / "own", network), CPU, tmp_path)
    form = served.specification
    pictures = crops(3, 64)
    assert (form.id, form.dimension, form.input_px) == (f"trained:{tmp_path}/own", 512, 64)
    assert form.weights_sha256 == bundle.load(tmp_path / "own").manifest.pth_sha256
    expected = networks.features(network, pictures, CPU)
    torch.testing.assert_close(embed.embed_crops(served, pictures), expected)
    assert served.embed(pictures[:0]).shape == (0, 512)


@pytest.mark.parametrize("form", Form)
def test_an_adapter_is_served_as_it_was_trained(tmp_path, dlib, form):
    made = random_adapter(form=form)
    served = embed.load(save(tmp_path / "night", made, record(DLIB)), CPU, tmp_path)
    pictures = crops(2, DLIB.input_px)
    vectors = served.embed(pictures)
    with torch.inference_mode():
        torch.testing.assert_close(vectors, made(dlib.embed(pictures)))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert served.specification.template.size_px == DLIB.input_px


@pytest.mark.parametrize("form", Form)
def test_an_untrained_adapter_changes_no_cosine(form):
    vectors = torch.nn.functional.normalize(torch.randn(4, 32), dim=1)
    torch.testing.assert_close(Adapter(form, 32)(vectors), vectors)


def test_adapters_sit_on_trained_embedders(tmp_path, dlib, adapted):
    first = embed.load(adapted, CPU, tmp_path)
    second = random_adapter(seed=1)
    upper = save(tmp_path / "later", second, record(first.specification))
    pictures = crops(2, DLIB.input_px)
    with torch.inference_mode():
        expected = second(first.embed(pictures))
    torch.testing.assert_close(embed.load(upper, CPU, tmp_path).embed(pictures), expected)


def test_the_licence_is_the_bundles(tmp_path, adapted):
    assert embed.load(adapted, CPU, tmp_path).specification.licence == "mine"


def test_other_weights_below_are_refused(tmp_path):
    other = record(DLIB) | {"weights_sha256": "0" * 64}
    with pytest.raises(BundleError, match="trained on top of dlib-resnet29"):
        embed.load(save(tmp_path / "night", random_adapter(), other), CPU, tmp_path)


def test_an_adapter_of_another_size_is_refused(tmp_path):
    with pytest.raises(BundleError, match="adapts vectors of 64"):
        embed.load(save(tmp_path / "night", random_adapter(64), record(DLIB)), CPU, tmp_path)


def test_an_adapter_that_names_no_embedder_is_refused(tmp_path):
    with pytest.raises(BundleError, match="does not say which"):
        embed.load(save(tmp_path / "night", random_adapter()), CPU, tmp_path)


def test_tensors_of_another_adapter_are_refused(tmp_path):
    stem = tmp_path / "night"
    embedder = save(stem, random_adapter(), record(DLIB), adapter="linear")
    with pytest.raises(BundleError, match="does not fit its description"):
        embed.load(embedder, CPU, tmp_path)


def test_a_circle_of_adapters_is_refused(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    save(one, random_adapter(), record(DLIB))
    save(two, random_adapter(seed=1), record(DLIB))
    for here, there in ((one, two), (two, one)):
        path = here.with_suffix(".json")
        content = json.loads(path.read_text())
        content["embedder"]["id"] = f"trained:{there}"
        path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="sits on it in turn"):
        embed.load(f"trained:{one}", CPU, tmp_path)


def test_a_gallery_is_no_embedder(tmp_path):
    with pytest.raises(BundleError, match="is a gallery"):
        embed.load(f"trained:{bundles.make(tmp_path)}", CPU, tmp_path)


def test_a_missing_bundle_says_so(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle .*nowhere"):
        embed.load(f"trained:{tmp_path}/nowhere", CPU, tmp_path)


def test_a_crafted_pickle_does_not_run(tmp_path, adapted):
    class Crafted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    data = pickle.dumps({"adapter.centre": Crafted()})
    (tmp_path / "night.pth").write_bytes(data)
    description = tmp_path / "night.json"
    content = json.loads(description.read_text())
    content["pth_sha256"] = hashlib.sha256(data).hexdigest()
    description.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="something else than tensors"):
        embed.load(adapted, CPU, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_gallery_of_trained_vectors_answers(tmp_path, adapted):
    embedder = embed.load(adapted, CPU, tmp_path)
    generator = np.random.default_rng(1)
    people = [
        Image.fromarray(generator.integers(0, 256, (7, 7, 3), np.uint8)).resize((112, 112))
        for _ in range(3)
    ]
    pictures = np.stack([align.cut(p, ARCFACE, embedder.specification.template) for p in people])
    vectors = embedder.embed(pictures)
    folder = tmp_path / "gallery"
    stem = bundles.make(folder, vectors=vectors, embedder=record(embedder.specification))
    pipeline = Pipeline.from_settings(Settings(engine_bundle=str(stem), engine_device="cpu"))
    assert pipeline.info().embedder == adapted
    answers = pipeline.analyze([PhotoRequest(p, aligned=True) for p in people])
    names = [answer.faces[0].matches[0].name for answer in answers]
    assert names == ["Ana", "Ben", "Carla"]


def test_the_doctor_looks_below_a_gallery(tmp_path, adapted, monkeypatch):
    form = embed.load(adapted, CPU, tmp_path).specification
    vectors = torch.eye(3, 128)
    stem = bundles.make(tmp_path / "gallery", vectors=vectors, embedder=record(form))
    settings = Settings(engine_bundle=str(stem), engine_device="cpu")
    # The project's own bundles are not this test's business.
    monkeypatch.setattr(bundle, "FOLDER", tmp_path / "models")

    def finding():
        return next(f for f in doctor.examine(settings) if "(in use)" in f.subject)

    assert not finding().fix
    save(tmp_path / "night", random_adapter(seed=5), record(DLIB))
    assert "trained anew" in finding().fix
