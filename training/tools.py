"""The engine's eyes for the workshop: device, detector and embedder, by the engine's settings.

Knows how to load them; knows nothing about what they are used for.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL.Image import Image

from engine import settings
from engine.vision import embed
from engine.vision.detect import Detections, Detector, whole_crop
from engine.vision.device import choose_device


@dataclass(frozen=True)
class Tools:
    """What sees faces.

    Attributes:
        device: where the networks run.
        embedder: turns aligned crops into vectors.
    """

    device: torch.device
    embedder: embed.Embedder

    @cached_property
    def detector(self) -> Detector:
        """Finds faces; loaded when first used, because prepared crops need none."""
        return Detector(self.device)

    def find(self, photos: Sequence[Image], *, aligned: bool) -> list[Detections]:
        """The faces of each photo; of one that is a crop on the ArcFace template, the whole."""
        if aligned:
            return [whole_crop(photo.size) for photo in photos]
        return self.detector.detect(photos)


def load(embedder_id: str = embed.DEFAULT) -> Tools:
    """The tools as the environment (ENGINE_DEVICE, FACE_WEIGHTS_DIR) wants them.

    Raises:
        ConfigurationError: a setting, the device or the embedder's weights are not as they should
            be.
    """
    chosen = settings.load(os.environ)
    device = choose_device(chosen.engine_device)
    return Tools(device, embed.load(embedder_id, device, chosen.face_weights_dir))
