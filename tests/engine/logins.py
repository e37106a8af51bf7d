"""A login's calibration for tests, of an embedder of so many numbers."""

from typing import Any

import numpy as np

from engine.bundle import PREPROCESSING
from engine.decision import NO_VETO, LoginCalibration, OperatingPoint
from engine.vision.embed.dlib_resnet29 import DlibResNet29


def point(level="photo", templates=3, probes=2, **changes):
    values: dict[str, Any] = {
        "threshold": 0.5,
        "template_floor": NO_VETO,
        "turn_threshold": 0.3 if level == "video" else None,
        "fmr": 0.0001,
        "fmr_upper_95": 0.0008,
        "fnmr": 0.04,
        "people": 20,
        "impostor_trials": 40_000,
        "genuine_trials": 900,
    }
    return OperatingPoint(level, templates, probes, **(values | changes))


def calibration(dimension=128, **changes):
    form = DlibResNet29.specification
    values: dict[str, Any] = {
        "embedder": form.id,
        "weights_sha256": form.weights_sha256,
        "preprocessing": PREPROCESSING,
        "centre": np.full(dimension, 0.01, np.float32),
        "points": (point(), point("video", 3, 1)),
        "agreement": 0.3,
    }
    return LoginCalibration(**(values | changes))
