"""The engine's values as plain JSON values. Knows nothing about who reads them."""

import math
from typing import Any

from engine.errors import EngineError
from engine.types import Face


def face_to_json(face: Face) -> dict[str, Any]:
    """A face as the command line and the service print it; thumbnails are left out."""
    record: dict[str, Any] = {
        "box": [round(value, 2) for value in face.box],
        "landmarks": [[round(x, 2), round(y, 2)] for x, y in face.landmarks],
        "probability": face.probability,
        "quality": {
            "size_px": face.quality.size_px,
            "blur": face.quality.blur,
            "exposure": face.quality.exposure,
        },
        "pose": {"yaw": _finite(face.pose.yaw), "pitch": _finite(face.pose.pitch)},
        "matches": [
            {
                "name": match.name,
                "probability": match.probability,
                "similarity": match.similarity,
                "percentile": match.percentile,
                "verdict": match.verdict.value,
            }
            for match in face.matches
        ],
    }
    if face.embedding is not None:
        record["embedding"] = face.embedding.tolist()
    return record


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def error_to_json(error: EngineError) -> dict[str, str]:
    """A fault as the command line and the service print it."""
    return {"code": error.code, "message": error.message}
