"""Five landmarks to where a face looks: pure geometry.

The proxies are ratios, not angles; `engine.types.Pose` tells what they are worth in degrees.
Knows nothing about liveness or what a pose is good for.
"""

import numpy as np
from numpy.typing import ArrayLike

from engine.types import Pose


def pose(landmarks: ArrayLike) -> Pose:
    """Yaw and pitch proxies of a face.

    Yaw is the nose's offset, along the line of the eyes, from the middle between eyes and mouth,
    in eye distances: monotone in the angle, unlike the ratio of the eyes' distances to the nose,
    which turns back near 45 degrees. Pitch is how far down from eyes to mouth the nose lies.

    Args:
        landmarks: (5, 2) points, in the order of `engine.types.Landmarks`.

    Returns:
        The proxies; both NaN where eyes or mouth coincide, as on no real face.
    """
    left_eye, right_eye, nose, left_mouth, right_mouth = np.asarray(landmarks, np.float64)
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    between = right_eye - left_eye
    distance = float(np.hypot(*between))
    if distance == 0.0:
        return Pose(float("nan"), float("nan"))
    along = between / distance
    down = np.array([-along[1], along[0]])
    height = float((mouth - eyes) @ down)
    if height == 0.0:
        return Pose(float("nan"), float("nan"))
    yaw = float((nose - (eyes + mouth) / 2) @ along) / distance
    pitch = float((nose - eyes) @ down) / height
    return Pose(yaw, pitch)
