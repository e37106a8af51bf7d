"""What is asked of whoever sees: a decoded photo and what is wanted of it.

Knows nothing about queues, files or how faces are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from engine.image import Photo
from engine.types import Analysis, EngineInfo


@dataclass(frozen=True, slots=True)
class PhotoRequest:
    """A decoded photo and what is wanted of it.

    Attributes:
        image: upright, mode "RGB".
        top_k: how many people to name for each face, at least 1.
        embed: whether each face carries its embedding.
        aligned: whether the picture is a face already, cut on the ArcFace template.
        original_px: width and height of the original, where `image` is it shrunk; answers are in
            pixels of the original.
    """

    image: Image.Image
    top_k: int = 5
    embed: bool = False
    aligned: bool = False
    original_px: tuple[int, int] | None = None

    @classmethod
    def of(
        cls, photo: Photo, top_k: int = 5, *, embed: bool = False, aligned: bool = False
    ) -> "PhotoRequest":
        """A request for a photo that may have been shrunk while it was decoded."""
        return cls(photo.image, top_k, embed, aligned, (photo.width_px, photo.height_px))


class Analyzer(Protocol):
    """What sees faces, synchronously: `engine.pipeline.Pipeline`."""

    def analyze(self, requests: Sequence[PhotoRequest]) -> Sequence[Analysis]:
        """One analysis for each request, in order, in pixels of the original."""
        ...

    def info(self) -> EngineInfo:
        """What it is made of."""
        ...
