"""Somebody who sees a face on every photo, when it is let; and photos to show."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import skimage.data
from PIL import Image

from engine.media.image import Photo
from engine.request import PhotoRequest
from engine.types import Analysis, EngineInfo, Face, Match, Person, Pose, Quality, Verdict
from engine.vision.fingerprint import PATTERN_BYTES

PATIENCE_S = 60.0
INFO = EngineInfo("1", "tests@0", "none", 2, "cpu")
PEOPLE = (Person("Ana", "MX", {"es": "pintora", "en": "painter"}), Person("Ben"))
THUMBNAIL = b"\xff\xd8 a very small picture"
PATTERN = bytes(range(256)) * 6 + bytes(PATTERN_BYTES - 6 * 256)


@dataclass
class Seer:
    """Sees one face in the middle of every original, when it is let."""

    bundle: str = INFO.bundle
    known: tuple[Person, ...] = PEOPLE
    seen: list[list[PhotoRequest]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    fault: Exception | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    at_once = 1

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        self.seen.append(list(requests))
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return [self._analysis(request) for request in requests]

    def info(self) -> EngineInfo:
        return replace(INFO, bundle=self.bundle)

    def people(self) -> tuple[Person, ...]:
        return self.known

    def _analysis(self, request: PhotoRequest) -> Analysis:
        width, height = request.original_px or request.image.size
        x, y = width / 2, height / 2
        people = (
            Match("Ana", 0.9, 0.8, 99.5, Verdict.IS, THUMBNAIL),
            Match("Ben", 0.1, 0.2, 30.0, Verdict.SOME, None),
        )
        if request.face is not None:
            x1, y1, x2, y2 = request.face.box
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
        face = Face(
            box=(x - 10, y - 10, x + 10, y + 10),
            landmarks=((x - 5, y - 5), (x + 5, y - 5), (x, y), (x - 5, y + 5), (x + 5, y + 5)),
            probability=1.0,
            quality=Quality(20, 0, 0.5),
            pose=Pose(float("nan") if request.aligned else 0, 0.5),
            matches=people[: request.top_k],
            embedding=np.array([0.6, 0.8], np.float32) if request.embed else None,
            pattern=PATTERN if request.embed else None,
        )
        return Analysis((face,), width, height, self.bundle, picture=request.picture)


def seer(bundle: str = INFO.bundle, known: tuple[Person, ...] = PEOPLE) -> Seer:
    """One that sees at once."""
    willing = Seer(bundle, known)
    willing.go_on.set()
    return willing


def request_of(
    photo: Photo, top_k: int = 5, *, embed: bool = False, aligned: bool = False
) -> PhotoRequest:
    """A request for a photo that may have been shrunk while it was decoded."""
    original_px = photo.width_px, photo.height_px
    return PhotoRequest(photo.image, top_k, embed, aligned, original_px)


def after(seconds: float) -> float:
    """The event loop's time that many seconds from now."""
    return asyncio.get_running_loop().time() + seconds


def until(state: Callable[[], bool]) -> None:
    """Wait for a state of other threads and processes."""
    end = time.monotonic() + PATIENCE_S
    while not state():
        assert time.monotonic() < end
        time.sleep(0.01)


def photo(width: int = 120, height: int = 80, **exif: int) -> bytes:
    image = Image.fromarray(skimage.data.astronaut()).resize((width, height))
    file = io.BytesIO()
    tags = Image.Exif()
    tags[0x0112] = exif.get("orientation", 1)
    image.save(file, "JPEG", exif=tags)
    return file.getvalue()
