"""What waits in an engine's queue, and how each becomes a request for whoever sees.

A photo file has to be decoded first, by a process of its own; a clip's frames come as pictures.
Preparing happens in threads. Knows nothing about queues or how faces are seen.
"""

from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from engine.media import jpeg as picture
from engine.media.decoder_pool import PhotoDecoders
from engine.request import PhotoRequest
from engine.types import Face


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, and what about its photo is known without seeing faces.

    Attributes:
        request: for whoever sees.
        picture: see `Analysis.picture`, where it is wanted.
    """

    request: PhotoRequest
    picture: bytes | None = None


class Submission(Protocol):
    """What waits in the queue."""

    def prepare(self, decoders: PhotoDecoders) -> Prepared:
        """Make a request of it; an `EngineError` that it raises is the answer."""
        ...


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A picture file's bytes, and what is wanted of it: see `engine.client.Engine.analyze`."""

    data: bytes = field(repr=False)
    top_k: int
    embed: bool
    aligned: bool
    picture: bool

    def prepare(self, decoders: PhotoDecoders) -> Prepared:
        """Decode it.

        Raises:
            ImageError: the bytes cannot become a picture.
        """
        photo = decoders.open(self.data)
        return Prepared(
            PhotoRequest.of(photo, self.top_k, embed=self.embed, aligned=self.aligned),
            picture.encode(photo.image) if self.picture else None,
        )


@dataclass(frozen=True, slots=True)
class FrameToSearch:
    """A frame of a clip in which faces are looked for, and nobody's name."""

    image: Image.Image
    original_px: tuple[int, int]

    def prepare(self, _decoders: PhotoDecoders) -> Prepared:
        """There is nothing to be done."""
        return Prepared(PhotoRequest(self.image, top_k=0, original_px=self.original_px, near=True))


@dataclass(frozen=True, slots=True)
class FaceToEmbed:
    """A face that was found in a frame before, to be embedded."""

    image: Image.Image
    original_px: tuple[int, int]
    face: Face

    def prepare(self, _decoders: PhotoDecoders) -> Prepared:
        """There is nothing to be done."""
        return Prepared(
            PhotoRequest(
                self.image, top_k=0, embed=True, original_px=self.original_px, face=self.face
            )
        )
