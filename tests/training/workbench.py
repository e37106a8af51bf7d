"""Small bundles over made-up people, and the command line to try them with."""

import json
from pathlib import Path

import numpy as np
import torch
from typer.testing import CliRunner

from engine import bundle
from engine.vision import networks
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from engine.vision.networks import Network
from tests.engine import bundles
from training.__main__ import app
from training.datasets import data, manifest
from training.vectors import person_means, unit


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result):
    return " ".join(result.output.split())


def edit(home, number, **changes):
    rows = [json.loads(line) for line in (home / manifest.NAME).read_text().splitlines()]
    rows[number] |= changes
    (home / manifest.NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))


def gallery(home, out, people, threshold=0.5, **changes):
    """A gallery of some of a prepared dataset's people, by their mean vectors."""
    faces = data.load(home)
    vectors = data.vectors(faces, DlibResNet29(torch.device("cpu")))
    means = person_means(vectors, faces.owner, len(faces.people))
    centre = means.mean(axis=0)
    known = [faces.people.index(person) for person in people]
    record = bundles.manifest(list(people), **changes)
    record["calibration"]["identification"]["threshold"] = threshold
    tensors = {
        "prototypes": torch.from_numpy(unit(means[known] - centre)),
        "owner": torch.arange(len(people)),
        "centre": torch.from_numpy(centre),
    }
    bundle.save(Path(out), record, tensors)
    return out


def classifier(home, out, people):
    """A classifier with an untrained network of its own."""
    torch.manual_seed(0)
    network: Network = networks.build("mobilenet_v2", 32).eval()
    directions = torch.nn.functional.normalize(torch.randn(len(people), network.dimension), dim=1)
    tensors = {
        "prototypes": directions,
        "owner": torch.arange(len(people)),
        "feature_centre": torch.zeros(network.dimension),
        "centre": torch.zeros(128),
    } | networks.state(network)
    architecture = {"recipe": "cnn"} | network.architecture()
    record = bundles.manifest(list(people), kind="classifier", architecture=architecture)
    bundle.save(Path(out), record, tensors)
    return out


def vectorizer(out):
    """A vectorizer: an untrained network."""
    torch.manual_seed(0)
    network = networks.build("mobilenet_v2", 32)
    record = bundles.manifest(
        [],
        kind="vectorizer",
        embedder=None,
        calibration=None,
        architecture=network.architecture() | {"licence": "none"},
    )
    bundle.save(Path(out), record, networks.state(network))
    return out


def clouds(people=30, each=40, spread=1.0, seed=0):
    """Vectors of people as clouds around directions, and whose they are."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), each)
    directions = unit(generator.normal(size=(people, 128)).astype(np.float32))
    noise = generator.normal(size=(len(owner), 128)) * spread / 128**0.5
    return unit((directions[owner] + noise).astype(np.float32)), owner
