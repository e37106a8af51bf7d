"""MobileFaceNets for tests: the real file where it is, and one of the same shape but small."""

import hashlib
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine import settings
from engine.errors import WeightsError
from engine.vision import weights
from engine.vision.embed import mobilefacenet


def real_folder():
    """The folder that has the real weights; skips the test where they are not here."""
    folder = settings.load(os.environ).face_weights_dir
    try:
        mobilefacenet.locate(folder)
    except WeightsError as error:
        if error.code != "weights_missing":
            raise
        pytest.skip(f"the real weights are not here: {error.message}")
    return folder


def small(seed=3, **changes):
    """As the real file ends: one picture at a time, and a constant that says so."""
    generator = np.random.default_rng(seed)
    filters = generator.normal(0, 0.1, (2, 3, 7, 7)).astype(np.float32)
    shape = np.array(changes.get("shape", [1, -1]), np.int64)
    batch = changes.get("batch", 1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "filters"], ["665"], strides=[7, 7]),
            helper.make_node("Reshape", ["665", "703"], ["output"]),
        ],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 512])],
        [numpy_helper.from_array(filters, "filters"), numpy_helper.from_array(shape, "703")],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def put(folder, content):
    """Put a file's content where the weights lie; returns what describes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mobilefacenet.WEIGHTS.name).write_bytes(content)
    assert onnx.load_from_string(content).graph.node
    return weights.WeightsFile(
        name=mobilefacenet.WEIGHTS.name,
        url="pkg:npm/made-up@1.0.0",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="none",
    )
