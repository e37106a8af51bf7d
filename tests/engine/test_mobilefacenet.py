from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from engine.errors import WeightsError
from engine.vision import embed
from engine.vision.align import ARCFACE
from engine.vision.embed.mobilefacenet import WEIGHTS, MobileFaceNet, locate, open_batch
from tests.engine import mobilefacenets

CPU = torch.device("cpu")
COMMAND = "uv run python -m training fetch mobilefacenet"


def crops(count, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), np.uint8)


def one_at_a_time(content, pictures):
    """What the file as it is published gives: BGR, (x - 127) / 128, the mean of both sides."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    vectors = []
    for picture in pictures:
        both = np.stack([picture, picture[:, ::-1]])[..., ::-1].astype(np.float32)
        pixels = np.ascontiguousarray(((both - 127) / 128).transpose(0, 3, 1, 2))
        vectors.append(sum(session.run(None, {"input": side[None]})[0][0] for side in pixels))
    return torch.nn.functional.normalize(torch.from_numpy(np.stack(vectors)), dim=1)


def require_the_same_in_any_batch(embedder, content):
    pictures = crops(16)
    wanted = one_at_a_time(content, pictures)
    for count in (1, 2, 7, 16):
        given = embedder.embed(pictures[:count])
        torch.testing.assert_close(given, wanted[:count], atol=1e-5, rtol=0)
    assert embedder.embed(pictures[:0]).shape == (0, 512)


def test_the_real_file_gives_the_same_in_any_batch():
    folder = mobilefacenets.real_folder()
    embedder = embed.load("mobilefacenet", CPU, folder)
    require_the_same_in_any_batch(embedder, locate(folder).read_bytes())
    form = embedder.specification
    assert (form.id, form.input_px, form.dimension) == ("mobilefacenet", 112, 512)
    assert form.weights_sha256 == WEIGHTS.sha256
    assert "not documented" in form.licence
    np.testing.assert_array_equal(form.reference, ARCFACE)


def test_a_small_file_gives_the_same_in_any_batch(tmp_path):
    content = mobilefacenets.small()
    file = mobilefacenets.put(tmp_path, content)
    embedder = MobileFaceNet(CPU, tmp_path, file)
    require_the_same_in_any_batch(embedder, content)
    assert embedder.specification.weights_sha256 == file.sha256


@pytest.mark.parametrize("real", [True, False], ids=["real", "small"])
def test_onnxruntime_takes_the_opened_model_without_a_warning(tmp_path, real, capfd):
    folder = mobilefacenets.real_folder() if real else tmp_path
    if not real:
        mobilefacenets.put(folder, mobilefacenets.small())
    path = folder / WEIGHTS.name
    content = path.read_bytes()
    model = open_batch(content, path)
    assert len(model) == len(content)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # warnings, and what is worse
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert not isinstance(given.shape[0], int)
    assert given.shape[1:] == [3, 112, 112]
    for count in (1, 3):
        pixels = np.zeros((count, 3, 112, 112), np.float32)
        assert session.run(None, {"input": pixels})[0].shape == (count, 512)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("changes", [{"batch": "n"}, {"batch": 2}, {"shape": [-1, 512]}])
def test_a_model_of_another_shape_is_not_edited(tmp_path, changes):
    file = mobilefacenets.put(tmp_path, mobilefacenets.small(**changes))
    with pytest.raises(WeightsError, match="not the model that this version") as caught:
        MobileFaceNet(CPU, tmp_path, file)
    assert caught.value.code == "weights_corrupt"


def test_missing_weights_say_which_command_and_which_file(tmp_path):
    with pytest.raises(WeightsError) as caught:
        embed.load("mobilefacenet", CPU, tmp_path)
    assert caught.value.code == "weights_missing"
    for words in (COMMAND, "mobilefacenet.onnx", WEIGHTS.sha256, "FACE_WEIGHTS_DIR"):
        assert words in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place_is_refused(tmp_path):
    file = mobilefacenets.put(tmp_path, mobilefacenets.small())
    for other in (replace(file, sha256="0" * 64), replace(file, size_bytes=5), WEIGHTS):
        with pytest.raises(WeightsError, match=COMMAND) as caught:
            MobileFaceNet(CPU, tmp_path, other)
        assert caught.value.code == "weights_corrupt"


def test_it_is_an_embedder_among_the_others():
    assert "mobilefacenet" in embed.EMBEDDERS
    assert embed.is_known("mobilefacenet")
    assert WEIGHTS.size_bytes == 4_884_269
    assert WEIGHTS.sha256.startswith("87aacdfe57510db2af90c0251df680e8")
