"""Two photos: the same person or not.

The similarity is the cosine of the centred embeddings of each photo's largest face; the threshold
is the bundle's, for one photo against one photo. Knows nothing about files.
"""

from dataclasses import dataclass

import numpy as np
import torch

from engine.bundle import Bundle, PairRecord
from engine.errors import ComparisonError
from engine.types import Analysis, Face
from engine.vision.vectors import centred

DEFAULT_FMR = 1e-3


@dataclass(frozen=True, slots=True)
class Comparison:
    """How alike two faces are.

    Attributes:
        similarity: cosine of the centred embeddings, -1 to 1.
        same: whether it reaches the threshold.
        threshold: the similarity from which two photos are called the same person.
        fmr: the share of pairs of different people that reach it, as measured for the bundle.
    """

    similarity: float
    same: bool
    threshold: float
    fmr: float


def largest_face(analysis: Analysis, photo: str) -> Face:
    """The face that a photo is about.

    Raises:
        ComparisonError: nobody was found.
    """
    if not analysis.faces:
        raise ComparisonError(
            f"No face was found in {photo}. Use a photo that shows the face larger, upright and "
            "in better light."
        )
    return analysis.faces[0]


def pair_threshold(bundle: Bundle, fmr: float = DEFAULT_FMR) -> PairRecord:
    """The bundle's threshold at a false match rate, or at the strictest one it could measure."""
    records = sorted(bundle.calibration.pairs, key=lambda record: -record.fmr)
    return next((record for record in records if record.fmr <= fmr * 1.000001), records[-1])


def compare(face_x: Face, face_y: Face, bundle: Bundle) -> Comparison:
    """Compare two faces that carry their embeddings.

    Raises:
        ValueError: a face has no embedding.
    """
    if face_x.embedding is None or face_y.embedding is None:
        raise ValueError("both faces must carry their embeddings: analyse with embed=True")
    pair = torch.from_numpy(np.stack([face_x.embedding, face_y.embedding]))
    x, y = centred(pair, bundle.tensors["centre"])
    record = pair_threshold(bundle)
    similarity = float(x @ y)
    return Comparison(similarity, similarity >= record.threshold, record.threshold, record.fmr)
