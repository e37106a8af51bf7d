"""Faces that were found in a photo: cut out on a template, and measured.

The one way from a photo to faces, of the engine and the workshop. Knows nothing about whom they
resemble.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.types import Box, Landmarks, Pose, Quality
from engine.vision import align
from engine.vision.align import Template
from engine.vision.detect import Detections
from engine.vision.pose import pose
from engine.vision.quality import quality


@dataclass(frozen=True, slots=True)
class CutFace:
    """One face of a photo.

    Attributes:
        box: in pixels of the original.
        landmarks: in pixels of the original.
        probability: the detector's belief that this is a face, 0 to 1.
        quality: see `Quality`.
        pose: see `Pose`.
        crop: (px, px, 3) uint8 RGB, on the template.
    """

    box: Box
    landmarks: Landmarks
    probability: float
    quality: Quality
    pose: Pose
    crop: NDArray[np.uint8]


def cut_faces(
    photo: Image.Image, found: Detections, original_px: tuple[int, int], template: Template
) -> list[CutFace]:
    """Cut faces out and measure them.

    Args:
        photo: RGB, as it was decoded.
        found: its faces, in pixels of `photo`.
        original_px: width and height of the original, of which `photo` may be a smaller version.
        template: what the crops are on.

    Returns:
        One for each face, in order.
    """
    # Divided last, so that the one's edge is exactly the other's.
    original, decoded = np.array(original_px, np.float64), np.array(photo.size, np.float64)
    boxes = found.boxes.astype(np.float64).reshape(-1, 2, 2) * original / decoded
    landmarks = found.landmarks.astype(np.float64) * original / decoded
    faces = []
    for k, probability in enumerate(found.probabilities.tolist()):
        crop = align.cut(photo, found.landmarks[k], template)
        x1, y1, x2, y2 = boxes[k].ravel().tolist()
        a, b, c, d, e = map(tuple, landmarks[k].tolist())
        faces.append(
            CutFace(
                box=(x1, y1, x2, y2),
                landmarks=(a, b, c, d, e),
                probability=probability,
                quality=quality((x1, y1, x2, y2), crop),
                pose=pose(landmarks[k]),
                crop=crop,
            )
        )
    return faces
