"""Trying a pipeline before it answers anybody: every canvas once, and inputs of known outcome.

Networks are slow the first time that they see a shape, so they see them here. Then the bundle's
own people must find themselves, and a made-up face must come through every stage with numbers
that mean something. Knows nothing about when a pipeline is replaced.
"""

import math

import numpy as np
from PIL import Image

from engine.errors import BundleError
from engine.people.gallery import Gallery
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.types import Analysis
from engine.vision.align import ARCFACE_SIZE
from engine.vision.detect import CANVASES

_PEOPLE = 256
"""Of a bundle's people, how many must find themselves: evenly chosen, so that it takes no time."""

_SIMILARITIES = 2**24
"""Computed at a time (64 MB), however many people there are."""

_CLOSE = 1e-3


def rehearse(pipeline: Pipeline, max_batch: int) -> None:
    """Warm a pipeline up and hold it to what it must answer.

    Args:
        pipeline: as it was built.
        max_batch: how many photos it will be given together at most.

    Raises:
        BundleError: it gives wrong answers (bundle_corrupt).
    """
    _warm_up(pipeline, max_batch)
    _require_people_find_themselves(pipeline)
    _require_sense(pipeline)


def _warm_up(pipeline: Pipeline, max_batch: int) -> None:
    for canvas in CANVASES:
        pipeline.analyze([PhotoRequest(_pattern(canvas))])
    # The shape of most photos, at the sizes that batches have under load.
    for count in sorted({2, max_batch}):
        pipeline.analyze([PhotoRequest(_pattern(CANVASES[0]))] * count)
        pipeline.analyze([_crop()] * count)


def _require_people_find_themselves(pipeline: Pipeline) -> None:
    recogniser = pipeline.recogniser
    if not isinstance(recogniser, Gallery):
        return  # a classifier's people are directions in a space that only its network reaches
    tensors = pipeline.bundle.tensors
    step = math.ceil(len(tensors["prototypes"]) / _PEOPLE)
    prototypes, owner = tensors["prototypes"][::step], tensors["owner"][::step]
    vectors = (prototypes + tensors["centre"]).to(pipeline.device)
    count = max(1, _SIMILARITIES // len(recogniser))
    for start in range(0, len(vectors), count):
        part = slice(start, start + count)
        similarity = recogniser.similarities(vectors[part]).cpu()
        own = similarity.gather(1, owner[part, None])[:, 0]
        if not bool((own > 1 - _CLOSE).all() and (own >= similarity.amax(dim=1) - _CLOSE).all()):
            raise _malformed(pipeline, "its own people do not find themselves")


def _require_sense(pipeline: Pipeline) -> None:
    alone, again = pipeline.analyze([_crop()])[0], pipeline.analyze([_crop(), _crop()])[1]
    if not (_makes_sense(alone, pipeline) and _makes_sense(again, pipeline)):
        raise _malformed(pipeline, "a made-up face got an answer without sense")
    first, second = (face.faces[0].embedding for face in (alone, again))
    assert first is not None
    assert second is not None
    if float(first @ second) < 1 - _CLOSE:
        raise _malformed(pipeline, "the same face got two different embeddings")


def _makes_sense(analysis: Analysis, pipeline: Pipeline) -> bool:
    if len(analysis.faces) != 1 or analysis.bundle != pipeline.bundle.id:
        return False
    (face,) = analysis.faces
    embedding, matches = face.embedding, face.matches
    similarities = [match.similarity for match in matches]
    return (
        embedding is not None
        and abs(float(np.linalg.norm(embedding)) - 1) < _CLOSE  # false for NaN, too
        and len(matches) == min(5, pipeline.info().people)
        and similarities == sorted(similarities, reverse=True)
        and all(-1 - _CLOSE <= value <= 1 + _CLOSE for value in similarities)
        and all(0 <= match.probability <= 1 + _CLOSE for match in matches)
        and all(0 <= match.percentile <= 100 for match in matches)
    )


def _crop() -> PhotoRequest:
    image = _pattern((ARCFACE_SIZE, ARCFACE_SIZE))
    return PhotoRequest(image, top_k=5, embed=True, aligned=True)


def _pattern(size: tuple[int, int]) -> Image.Image:
    """A picture that is the same everywhere and always, and no flat colour."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [128 + 100 * np.sin(x / a) * np.cos(y / b) for a, b in ((9, 17), (13, 11), (23, 7))]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def _malformed(pipeline: Pipeline, what: str) -> BundleError:
    return BundleError(
        f"{pipeline.bundle.name} was loaded and tried, and {what}. Build the bundle again.",
        code="bundle_corrupt",
    )
