"""Networks with the weights that others trained, to go on from.

Knows where weights come from; knows nothing about what is learned with them.
"""

import pickle
from pathlib import Path

import torch

from engine import bundle
from engine.errors import ConfigurationError, WeightsError
from engine.vision import networks, weights
from engine.vision.embed import dlib_resnet29, facenet_vggface2
from engine.vision.networks import Network


def embedder_network(embedder_id: str, weights_folder: Path) -> Network:
    """An embedder's own network, ready to be trained on.

    Args:
        embedder_id: "dlib-resnet29", "facenet-vggface2", or "trained:NAME" of a vectorizer with a
            network of its own.
        weights_folder: where downloaded weights are looked for, and put.

    Raises:
        ConfigurationError: the embedder has no network that can be trained.
        WeightsError: its weights cannot be had.
    """
    if embedder_id == "dlib-resnet29":
        return dlib_resnet29.trained_network()
    if embedder_id == "facenet-vggface2":
        file = weights.fetch(facenet_vggface2.WEIGHTS, weights_folder)
        return facenet_vggface2.trained_network(file)
    if embedder_id.startswith("trained:"):
        trained = bundle.load(embedder_id.removeprefix("trained:"))
        if "network" in trained.manifest.architecture:
            return networks.restore(trained.manifest.architecture, trained.tensors)
    raise ConfigurationError(
        f"{embedder_id} has no network that can be trained further. Use dlib-resnet29, "
        "facenet-vggface2 or a vectorizer with a network of its own."
    )


def imagenet(name: str, input_px: int | None, file: Path) -> Network:
    """One of torchvision's networks with its ImageNet weights.

    Args:
        name: the network's.
        input_px: side of its crops.
        file: the weights, from `training.datasets.fetch.imagenet`.

    Raises:
        ConfigurationError: there is no such network.
        WeightsError: the file is damaged.
    """
    network = networks.build(name, input_px)
    own = network.body.state_dict()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        # The last layer, which told ImageNet's classes apart, is not there any more.
        network.body.load_state_dict({key: state[key] for key in own})
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{file} does not hold the weights of {name}. Delete it, and it will be fetched anew.",
            code="weights_corrupt",
        ) from error
    return network
