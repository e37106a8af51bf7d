"""Weights of others, to go on from."""

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from engine.errors import ConfigurationError, WeightsError
from engine.vision import networks
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from training.fit import pretrained

CPU = torch.device("cpu")


def test_the_embedders_network_is_the_embedder(tmp_path):
    crops = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), np.uint8)
    network = pretrained.embedder_network("dlib-resnet29", tmp_path).eval()
    made = networks.features(network, crops, CPU)
    torch.testing.assert_close(made, DlibResNet29(CPU).embed(crops))


def test_imagenet_weights_are_taken_but_for_the_last_layer(tmp_path):
    torch.manual_seed(1)
    whole = get_model("mobilenet_v3_small")
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = pretrained.imagenet("mobilenet_v3_small", 64, tmp_path / "weights.pth")
    torch.testing.assert_close(
        network.body.features[0][0].weight, whole.features[0][0].weight, rtol=0, atol=0
    )
    assert network.dimension == 1024


def test_another_networks_weights_are_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="Delete it"):
        pretrained.imagenet("mobilenet_v3_small", 64, tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(WeightsError, match="Delete it"):
        pretrained.imagenet("mobilenet_v3_small", 64, tmp_path / "weights.pth")


def test_an_embedder_without_a_network_cannot_be_trained(tmp_path):
    with pytest.raises(ConfigurationError, match="no network that can be trained"):
        pretrained.embedder_network("onnx:model.onnx", tmp_path)
