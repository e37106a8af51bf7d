"""Whoever tells people apart: a gallery or a classifier, by what the bundle says.

Knows which bundle wants which; knows nothing about how either works.
"""

import torch

from engine.bundle import Bundle
from engine.errors import BundleError
from engine.people.classifier import Classifier
from engine.people.gallery import Gallery

Recogniser = Gallery | Classifier
"""A `Gallery` works on the embedder's vectors (its `template` is None), a `Classifier` on crops
that are cut on its own template."""


def load(bundle: Bundle, device: torch.device) -> Recogniser:
    """The people of a bundle, ready to be searched.

    Raises:
        BundleError: it knows nobody (a vectorizer), or its tensors do not fit together.
    """
    require_people(bundle)
    if bundle.manifest.kind == "classifier" and "network" in bundle.manifest.architecture:
        return Classifier(bundle, device)
    return Gallery(bundle, device)


def require_people(bundle: Bundle) -> None:
    """Raise BundleError where a bundle knows nobody, because it is a vectorizer."""
    if bundle.manifest.kind == "vectorizer":
        raise BundleError(
            f"{bundle.name} is a vectorizer: it turns faces into vectors and knows nobody. Build a "
            f"gallery with it: `python -m training gallery DIR --embedder trained:{bundle.name} "
            "--out run/models/NAME`.",
            code="bundle_mismatch",
        )
