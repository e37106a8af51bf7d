import hashlib

import dlib
import face_recognition_models
import numpy as np
import pytest
import torch

from engine.errors import WeightsError
from engine.vision.embed.dlib_dat import read_layers
from engine.vision.embed.dlib_resnet29 import DlibResNet29, trained_network


@pytest.fixture(scope="module")
def embedder():
    return DlibResNet29(torch.device("cpu"))


@pytest.fixture(scope="module")
def chips():
    """Smooth random pictures and noise: dlib's network must agree on any pixels."""
    generator = np.random.default_rng(7)
    coarse = generator.integers(0, 256, (6, 10, 10, 3), np.uint8)
    smooth = coarse.repeat(15, axis=1).repeat(15, axis=2)
    noise = generator.integers(0, 256, (2, 150, 150, 3), np.uint8)
    return np.concatenate([smooth, noise])


def test_agrees_with_dlib(embedder, chips):
    theirs = dlib.face_recognition_model_v1(
        face_recognition_models.face_recognition_model_location()
    )
    expected = np.array([theirs.compute_face_descriptor(chip) for chip in chips])
    pixels = torch.from_numpy(chips).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        ours = trained_network()(pixels)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_vectors_are_unit_and_blind_to_mirroring(embedder, chips):
    vectors = embedder.embed(chips)
    mirrored = embedder.embed(chips[:, :, ::-1])
    assert vectors.shape == (len(chips), 128)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(chips)))
    torch.testing.assert_close(vectors, mirrored, atol=1e-5, rtol=0)


def test_no_crops_give_no_vectors(embedder):
    assert embedder.embed(np.zeros((0, 150, 150, 3), np.uint8)).shape == (0, 128)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "model.dat"
    path.write_bytes(b"not a network")
    with pytest.raises(WeightsError, match="sha256") as caught:
        DlibResNet29(torch.device("cpu"), path)
    assert caught.value.code == "weights_corrupt"
    with pytest.raises(WeightsError, match="could not be read"):
        DlibResNet29(torch.device("cpu"), tmp_path / "absent.dat")


def test_bytes_that_are_no_network_are_refused():
    with pytest.raises(ValueError, match="no layer"):
        read_layers(hashlib.sha256(b"").digest())
    with pytest.raises(ValueError, match="cut short"):
        read_layers(b"\x01\x05con_4\x01\x02\x01\x40\x01\x01\x01\x01\x01\x01" + bytes(8))
