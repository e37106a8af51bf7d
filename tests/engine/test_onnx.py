import hashlib
import json
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from engine.errors import ConfigurationError, WeightsError
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.vision import embed
from engine.vision.embed.onnx_graph import first_operations
from tests.training.synthetic import prepared
from training.bundles import gallery
from training.datasets import data

CPU = torch.device("cpu")
DIMENSION = 64


class Net(nn.Module):
    """An ArcFace-style network, small: convolutions, PReLU, a linear layer, batch normalisation."""

    def __init__(self, side=112):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 7, 4, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 16, 7, 4, 3)
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * (side // 16) ** 2, DIMENSION), nn.BatchNorm1d(DIMENSION)
        )

    def forward(self, x):
        return self.head(self.body(x))


class NormalisesItself(Net):
    def forward(self, x):
        return super().forward((x - 127.5) * 0.0078125)


class ChannelsLast(Net):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2))


class TwoOutputs(Net):
    def forward(self, x):
        return super().forward(x), x.mean()


def network(kind=Net, side=112):
    torch.manual_seed(7)
    return kind(side).eval()


@pytest.fixture
def export():
    # The exporter that needs no further package says on every call that there is a newer one.
    def write(path, net, example, fixed=False):
        axes = None if fixed else {"pixels": {0: "n"}, "vectors": {0: "n"}}
        with pytest.deprecated_call():
            torch.onnx.export(
                net,
                example,
                path,
                dynamo=False,
                input_names=["pixels"],
                output_names=["vectors"],
                dynamic_axes=axes,
            )
        return path

    return write


@pytest.fixture
def model(tmp_path, export):
    return export(tmp_path / "small.onnx", network(), torch.zeros(2, 3, 112, 112))


def crops(count=5, side=112, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@torch.inference_mode()
def expected(net, pictures, mean=127.5, scale=127.5):
    pixels = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - mean) / scale
    return torch.nn.functional.normalize(net(pixels) + net(pixels.flip(3)), dim=1)


def close(embedder, pictures, wanted):
    torch.testing.assert_close(embedder.embed(pictures), wanted, atol=2e-5, rtol=0)


def test_gives_what_the_network_gives(model, tmp_path):
    embedder = embed.load("onnx:small.onnx", CPU, tmp_path)
    close(embedder, crops(), expected(network(), crops()))
    form = embedder.specification
    assert (form.id, form.input_px, form.dimension) == ("onnx:small.onnx", 112, DIMENSION)
    assert form.weights_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert embedder.embed(crops(0)).shape == (0, DIMENSION)
    assert embed.is_known(form.id)


def test_a_path_names_a_file_elsewhere(model, tmp_path):
    embedder = embed.load(f"onnx:{model}", CPU, tmp_path / "nowhere")
    assert embedder.specification.id == f"onnx:{model}"


def test_a_batch_of_fixed_size(tmp_path, export):
    export(tmp_path / "b.onnx", network(), torch.zeros(3, 3, 112, 112), fixed=True)
    close(embed.load("onnx:b.onnx", CPU, tmp_path), crops(), expected(network(), crops()))


def test_channels_last_and_another_size(tmp_path, export):
    export(tmp_path / "l.onnx", network(ChannelsLast, 96), torch.zeros(2, 96, 96, 3))
    embedder = embed.load("onnx:l.onnx", CPU, tmp_path)
    assert embedder.specification.input_px == 96
    close(embedder, crops(side=96), expected(network(Net, 96), crops(side=96)))


def test_a_network_that_normalises_itself_gets_raw_pixels(tmp_path, export):
    path = export(tmp_path / "m.onnx", network(NormalisesItself), torch.zeros(2, 3, 112, 112))
    assert first_operations(path.read_bytes(), "pixels")[:2] == ["Sub", "Mul"]
    wanted = expected(network(), crops(), 127.5, 128)
    close(embed.load("onnx:m.onnx", CPU, tmp_path), crops(), wanted)


def test_a_sidecar_overrules_the_convention(model, tmp_path):
    plain = embed.load("onnx:small.onnx", CPU, tmp_path).specification
    beside = tmp_path / "small.onnx.json"
    beside.write_text(json.dumps({"licence": "MIT"}))
    licensed = embed.load("onnx:small.onnx", CPU, tmp_path).specification
    assert licensed.licence == "MIT"
    assert licensed.weights_sha256 == plain.weights_sha256
    beside.write_text(json.dumps({"mean": 100, "scale": 50, "channels": "BGR"}))
    embedder = embed.load("onnx:small.onnx", CPU, tmp_path)
    close(embedder, crops(), expected(network(), crops()[..., ::-1].copy(), 100, 50))
    # Its vectors must not meet those made without it.
    assert embedder.specification.weights_sha256 != plain.weights_sha256


@pytest.mark.parametrize("content", ["{", '{"colour": 1}', '{"scale": 0}', "[]"])
def test_a_broken_sidecar_is_refused(model, tmp_path, content):
    (tmp_path / "small.onnx.json").write_text(content)
    with pytest.raises(WeightsError, match=r"small\.onnx\.json does not describe"):
        embed.load("onnx:small.onnx", CPU, tmp_path)


def built(path, shape, nodes=(("Flatten", ["x"], ["y"]),), kind=TensorProto.FLOAT, extra=()):
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "g",
        [helper.make_tensor_value_info("x", kind, shape), *extra],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), "not an ONNX model"),
        (lambda path: path.write_bytes(b"\x89PNG no model"), "not an ONNX model"),
        (lambda path: built(path, ["n", 1, 112, 112]), "not that of RGB pictures"),
        (lambda path: built(path, ["n", 512]), "not that of RGB pictures"),
        (lambda path: built(path, ["n", 3, 112, 96]), "not square"),
        (lambda path: built(path, ["n", 3, 8192, 8192]), "8192 pixels"),
        (lambda path: built(path, ["n", 3, 112, 112], kind=TensorProto.INT64), "int64"),
        (
            lambda path: built(
                path,
                ["n", 3, 112, 112],
                extra=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
            ),
            "2 inputs",
        ),
        # All pictures are alike to it; it gives one vector for all; a number for each.
        (
            lambda path: built(path, ["n", 3, 112, 112], [("Sub", ["x", "x"], ["y"])]),
            "does not tell|numbers a picture",
        ),
        (
            lambda path: built(path, ["n", 3, 32, 32], [("ReduceSum", ["x"], ["y"])]),
            "vectors for|numbers a picture",
        ),
    ],
)
def test_an_unfit_file_is_refused(tmp_path, make, said):
    make(tmp_path / "bad.onnx")
    with pytest.raises(WeightsError, match=said) as caught:
        embed.load("onnx:bad.onnx", CPU, tmp_path)
    assert caught.value.code == "weights_corrupt"


def test_two_outputs_are_refused(tmp_path, export):
    path = tmp_path / "two.onnx"
    with pytest.deprecated_call():
        inputs = (torch.zeros(1, 3, 112, 112),)
        torch.onnx.export(network(TwoOutputs), inputs, path, dynamo=False)
    with pytest.raises(WeightsError, match="2 outputs"):
        embed.load("onnx:two.onnx", CPU, tmp_path)


def test_truncated_and_bent_files_are_refused_or_run(model, tmp_path):
    """Whatever the bytes, the answer is a sentence."""
    content = model.read_bytes()
    generator = np.random.default_rng(3)
    for k in range(12):
        bent = bytearray(content[: len(content) * (k + 1) // 12])
        bent[int(generator.integers(min(len(bent), 2000)))] ^= 255
        (tmp_path / "bent.onnx").write_bytes(bent)
        try:
            embed.load("onnx:bent.onnx", CPU, tmp_path)
        except WeightsError as error:
            assert error.message.endswith(".")  # noqa: PT017


def test_weights_in_other_files_are_refused(model, tmp_path, monkeypatch):
    """They are not read from wherever the engine happens to run."""
    loaded = onnx.load(model)
    for tensor in loaded.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(
        loaded,
        tmp_path / "parts.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="in other files"):
        embed.load("onnx:parts.onnx", CPU, tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [("onnx:absent.onnx", r"as in onnx:\./absent"), ("onnx:no/where.onnx", "mend the path")],
)
def test_a_missing_file_is_named(tmp_path, name, said):
    with pytest.raises(WeightsError, match=said) as caught:
        embed.load(name, CPU, tmp_path)
    assert caught.value.code == "weights_missing"


def test_no_file_named(tmp_path):
    with pytest.raises(ConfigurationError, match="needs a file"):
        embed.load("onnx:", CPU, tmp_path)


def test_without_onnxruntime_it_says_how_to_get_it(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match="Run `uv sync`"):
        embed.load("onnx:small.onnx", CPU, tmp_path)


def test_a_gallery_is_built_and_served_with_it(model, tmp_path):
    home = prepared(tmp_path / "set")
    out = tmp_path / "mine"
    embedder = embed.load("onnx:small.onnx", CPU, tmp_path)
    faces = data.load(home)
    vectors = data.vectors(faces, embedder)
    source = gallery.Source("made up", "none", "2026-01-01")
    gallery.build(
        faces, vectors, embedder.specification, out, source, thumbnails=False, borrow=None
    )
    settings = Settings(engine_bundle=str(out), engine_device="cpu", face_weights_dir=tmp_path)
    photo = Image.open(home / "crops" / "Person_2" / "0.png").convert("RGB")
    (analysis,) = Pipeline.from_settings(settings).analyze([PhotoRequest(photo, aligned=True)])
    assert analysis.faces[0].matches[0].name == "Person 2"
    # Another file under the same name is another embedder.
    model.write_bytes(model.read_bytes() + b"\x1a\x00")
    with pytest.raises(ConfigurationError, match="not comparable"):
        Pipeline.from_settings(settings)
