"""Small bundles for tests, of made-up people."""

import torch
from torch.nn.functional import normalize

from engine.bundle import save
from engine.vision.embed.dlib_resnet29 import DlibResNet29


def manifest(people, **changes):
    form = DlibResNet29.specification
    record = {
        "kind": "gallery",
        "created": "2026-01-01",
        "people": dict(enumerate(people)),
        "embedder": {
            "id": form.id,
            "weights_sha256": form.weights_sha256,
            "dimension": form.dimension,
        },
        "architecture": {"prototypes": len(people)},
        "calibration": {
            "source": "own",
            "temperature": 0.05,
            "stranger_quantiles": [0.0, 0.2, 0.4, 0.5, 0.6],
            "identification": {
                "threshold": 0.7,
                "fmr": 1e-3,
                "fmr_upper_95": 3e-3,
                "strangers": 2000,
                "stranger_people": 20,
                "genuine": 2000,
                "true_positive_rate": 0.9,
            },
            "pairs": [
                {
                    "threshold": threshold,
                    "fmr": fmr,
                    "impostor_pairs": 1000000,
                    "genuine_pairs": 1000,
                    "people": 20,
                    "true_accept_rate": 0.8,
                }
                for fmr, threshold in ((1e-2, 0.5), (1e-3, 0.6))
            ],
        },
        "metrics": {},
        "dataset": {
            "name": "made up",
            "licence": "none",
            "people": len(people),
            "photos": len(people),
            "faces": len(people),
            "dropped": {},
        },
    }
    return record | changes


def make(folder, people=("Ana", "Ben", "Carla"), vectors=None, tensors=None, **changes):
    """Write a gallery with one prototype a person; returns its path without suffix."""
    if vectors is None:
        generator = torch.Generator().manual_seed(3)
        vectors = normalize(torch.randn(len(people), 128, generator=generator), dim=1)
    parts = {
        "prototypes": vectors,
        "owner": torch.arange(len(people)),
        "centre": torch.zeros(vectors.shape[1]),
    } | (tensors or {})
    save(folder / "people", manifest(people, **changes), parts)
    return folder / "people"
