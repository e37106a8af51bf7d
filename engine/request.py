"""What is asked of an analyzer: a photo, as a file or decoded, and what is wanted of it.

Knows nothing about queues or how faces are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from engine.media import jpeg
from engine.media.decoder_pool import PhotoDecoders
from engine.types import Analysis, EngineInfo, Face, Person


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A picture file's bytes, and what is wanted of it: see `engine.client.Engine.analyze`."""

    data: bytes = field(repr=False)
    top_k: int = 5
    embed: bool = False
    aligned: bool = False
    picture: bool = False


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
        picture: what becomes `Analysis.picture`, before the photo is turned.
    """

    image: Image.Image
    top_k: int = 5
    embed: bool = False
    aligned: bool = False
    original_px: tuple[int, int] | None = None
    near: bool = False
    face: Face | None = None
    picture: bytes | None = field(default=None, repr=False)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the original."""
        return self.original_px or self.image.size

    @property
    def searched(self) -> bool:
        """Whether its faces have to be found."""
        return self.face is None and not self.aligned


def decode(decoders: PhotoDecoders, wanted: PhotoFile | PhotoRequest) -> PhotoRequest:
    """Decode a file in a process of its own; what is decoded already, as clips' frames, stays.

    Raises:
        ImageError: the bytes cannot become a picture.
        Unavailable: no process could be started, or the decoders were closed.
    """
    if isinstance(wanted, PhotoRequest):
        return wanted
    photo = decoders.open(wanted.data)
    return PhotoRequest(
        photo.image,
        wanted.top_k,
        wanted.embed,
        wanted.aligned,
        (photo.width_px, photo.height_px),
        picture=jpeg.encode(photo.image) if wanted.picture else None,
    )


class Analyzer(Protocol):
    """What sees faces, synchronously: `engine.pipeline.Pipeline`."""

    @property
    def at_once(self) -> int:
        """How many calls of `analyze` are worth making side by side."""
        ...

    def analyze(self, requests: Sequence[PhotoRequest]) -> Sequence[Analysis]:
        """One analysis for each request, in order, in pixels of the original.

        Each has its request's picture, turned as the photo is.
        """
        ...

    def info(self) -> EngineInfo:
        """What it is made of."""
        ...

    def people(self) -> tuple[Person, ...]:
        """Whom it knows, in the order of the class indices."""
        ...
