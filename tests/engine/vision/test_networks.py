"""Networks by name: built, kept in a bundle, restored."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import BundleError, ConfigurationError
from engine.vision import networks
from engine.vision.embed.dlib_dat import read_layers
from engine.vision.embed.dlib_resnet29 import DlibResNet29, read_weights

CPU = torch.device("cpu")


def crops(count, px):
    return np.random.default_rng(0).integers(0, 256, (count, px, px, 3), np.uint8)


def test_the_network_gives_what_the_embedder_gives():
    network: Any = networks.build("dlib-resnet29").eval()
    network.body.read(read_layers(read_weights()))
    pictures = crops(3, network.template.size_px)
    expected = DlibResNet29(CPU).embed(pictures)
    torch.testing.assert_close(networks.features(network, pictures, CPU), expected)


@pytest.mark.parametrize("name", ["dlib-resnet29", "mobilenet_v2", "resnet18"])
def test_a_network_comes_back_from_its_tensors(name):
    torch.manual_seed(0)
    network = networks.build(name).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    again = networks.restore(network.architecture(), networks.state(network))
    pictures = crops(2, network.template.size_px)
    made = networks.features(network, pictures, CPU)
    assert made.shape == (2, network.dimension)
    torch.testing.assert_close(networks.features(again, pictures, CPU), made)


@pytest.mark.parametrize("name", ["dlib-resnet29", "facenet-vggface2", "mobilenet_v2", "resnet18"])
def test_stages_hold_every_parameter_once(name):
    network = networks.build(name)
    staged = [id(parameter) for stage in network.stages() for parameter in stage]
    assert sorted(staged) == sorted(id(parameter) for parameter in network.parameters())
    assert len(network.stages()) > 5


def test_tensors_of_another_network_are_refused():
    other = networks.state(networks.build("resnet18"))
    with pytest.raises(BundleError, match="does not fit"):
        networks.restore(networks.build("mobilenet_v2").architecture(), other)
    with pytest.raises(BundleError, match="does not fit"):
        networks.restore({"network": "os.system"}, {})
    with pytest.raises(BundleError, match="does not fit"):
        networks.restore({"network": "resnet18", "input_px": float("inf")}, {})


@pytest.mark.parametrize("arguments", [("resnet1000",), ("dlib-resnet29", 112), ("vit_b_16", 112)])
def test_networks_that_cannot_be_built_say_so(arguments):
    with pytest.raises(ConfigurationError):
        networks.build(*arguments)
