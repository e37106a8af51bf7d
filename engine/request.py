"""What is asked of whoever sees: a decoded photo and what is wanted of it.

Knows nothing about queues, files or how faces are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from engine.media.image import Photo
from engine.types import Analysis, EngineInfo, Face, Person


@dataclass(frozen=True, slots=True)
class PhotoRequest:
    """A decoded photo and what is wanted of it.

    Attributes:
        image: upright, mode "RGB".
        top_k: how many people to name for each face; 0 is nobody, and nobody is looked for.
        embed: whether each face carries its embedding.
        aligned: whether the picture is a face already, cut on the ArcFace template.
        original_px: width and height of the original, where `image` is it shrunk; answers are in
            pixels of the original.
        near: whether only faces that take a good part of the picture are wanted, as in somebody's
            film of themselves: a small canvas shows them as well, at a third of the cost.
        face: the one face to look at, where it was found before, in pixels of the original; None
            looks for faces.
    """

    image: Image.Image
    top_k: int = 5
    embed: bool = False
    aligned: bool = False
    original_px: tuple[int, int] | None = None
    near: bool = False
    face: Face | None = None

    @classmethod
    def of(
        cls, photo: Photo, top_k: int = 5, *, embed: bool = False, aligned: bool = False
    ) -> "PhotoRequest":
        """A request for a photo that may have been shrunk while it was decoded."""
        return cls(photo.image, top_k, embed, aligned, (photo.width_px, photo.height_px))


class Analyzer(Protocol):
    """What sees faces, synchronously: `engine.pipeline.Pipeline`."""

    @property
    def at_once(self) -> int:
        """How many calls of `analyze` are worth making side by side."""
        ...

    def analyze(self, requests: Sequence[PhotoRequest]) -> Sequence[Analysis]:
        """One analysis for each request, in order, in pixels of the original."""
        ...

    def info(self) -> EngineInfo:
        """What it is made of."""
        ...

    def people(self) -> tuple[Person, ...]:
        """Whom it knows, in the order of the class indices."""
        ...
