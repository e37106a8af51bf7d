"""Photos to faces in the journal: decode, detect, cut, measure, embed.

Every photo is opened once. Threads read, decode and cut ahead of the networks; batches are written
down whole and in order, so that a run that was killed goes on to the same result. Knows nothing
about whose faces they are.
"""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine import threads
from engine.errors import ImageError
from engine.media import image
from engine.media.decoder_pool import PhotoDecoders
from engine.types import Pose
from engine.vision import align, embed
from engine.vision.align import Template
from engine.vision.detect import Detections
from engine.vision.faces import cut_faces
from training.datasets import pictures
from training.datasets.journal import GREY_PX, Journal, JournalFace, SeenPhoto
from training.datasets.manifest import CROP, Code
from training.datasets.photos import Photo
from training.tools import Tools

MOST_FACES = 6
"""Of one photo, the largest: somebody's own face is hardly the seventh."""

OTHERS = "others"
CROPS = "crops"
"""Folders of the crops: faces that nobody has chosen yet, or ever, and those of the manifest."""

_TINY_PX = 16
_JPEG_QUALITY = 95
_PHOTOS = 8
_ALIGNED = 64
_LONGEST_STEM = 150
_LONGEST_SUFFIX = 10
_GREY = Template(align.ARCFACE_SIZE, align.ARCFACE)


@dataclass(frozen=True, slots=True)
class _Opened:
    seen: SeenPhoto
    picture: Image.Image
    original_px: tuple[int, int]
    data: bytes


@dataclass(frozen=True, slots=True)
class _Cut:
    face: JournalFace
    crop: NDArray[np.uint8]


def see(
    folder: Path,
    home: Path,
    journal: Journal,
    tools: Tools,
    *,
    aligned: bool,
    advance: Callable[[int], None],
) -> None:
    """See every photo that the journal lists as pending.

    Args:
        folder: the photos' paths are relative to it.
        home: where `crops` and `others` are.
        journal: takes what is seen.
        tools: what sees.
        aligned: the files are crops on the ArcFace template already.
        advance: told how many photos are done.

    Raises:
        OSError: the crops or the journal cannot be written.
    """
    form = tools.embedder.specification
    workers = threads.usable_cores()

    def cut(opened: _Opened, found: Detections) -> list[_Cut]:
        return list(_cut(opened, found, form.template, home, aligned=aligned))

    done = 0
    # Two batches at a time: one whose faces are being cut, one whose faces are looked for.
    waiting: deque[tuple[list[_Opened | SeenPhoto | Photo], list[Future[list[_Cut]]]]] = deque()
    with (
        PhotoDecoders(workers) as decoders,
        ThreadPoolExecutor(workers, "photos") as pool,
    ):

        def open_one(photo: Photo, known: str) -> _Opened | SeenPhoto | Photo:
            return _open(folder, photo, known, decoders, aligned=aligned)

        batches = _opened(pool, open_one, journal.pending(_ALIGNED if aligned else _PHOTOS))
        try:
            for batch in batches:
                opened = [entry for entry in batch if isinstance(entry, _Opened)]
                detections = tools.find([entry.picture for entry in opened], aligned=aligned)
                cuts = [
                    pool.submit(cut, entry, found)
                    for entry, found in zip(opened, detections, strict=True)
                ]
                waiting.append((batch, cuts))
                if len(waiting) > 1:
                    done += _finish(*waiting.popleft(), tools.embedder, journal)
                    advance(done)
            while waiting:
                done += _finish(*waiting.popleft(), tools.embedder, journal)
                advance(done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _opened(
    pool: ThreadPoolExecutor,
    open_one: Callable[[Photo, str], _Opened | SeenPhoto | Photo],
    batches: Iterator[list[tuple[Photo, str]]],
) -> Iterator[list[_Opened | SeenPhoto | Photo]]:
    """The batches' photos, opened one batch ahead."""
    ahead: deque[list[Future[_Opened | SeenPhoto | Photo]]] = deque()
    for batch in batches:
        ahead.append([pool.submit(open_one, *entry) for entry in batch])
        if len(ahead) > 1:
            yield [future.result() for future in ahead.popleft()]
    while ahead:
        yield [future.result() for future in ahead.popleft()]


def _open(
    folder: Path, photo: Photo, known: str, decoders: PhotoDecoders, *, aligned: bool
) -> _Opened | SeenPhoto | Photo:
    """The decoded photo, or why there is none, or the photo itself where its bytes are known."""
    if photo.size_bytes < 0:
        return SeenPhoto(
            photo,
            "",
            Code.UNREADABLE,
            "a link that leads nowhere, or a name that is not UTF-8: mend the link or the name",
        )
    try:
        with (folder / photo.path).open("rb") as file:
            # No more of a huge file than tells that it is huge.
            data = file.read(image.LIMITS.file_bytes + 1)
    except OSError as error:
        reason = f"{error.strerror or error}".lower()
        return SeenPhoto(photo, "", Code.UNREADABLE, reason, again=True)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 == known:
        return photo
    seen = SeenPhoto(photo, sha256)
    try:
        decoded = decoders.open(data)
    except ImageError as error:
        return replace(seen, code=Code.UNREADABLE, reason=f"{error.code}: {error}")
    size = decoded.image.size
    if aligned and size[0] != size[1]:
        return replace(
            seen,
            code=Code.UNREADABLE,
            reason=f"{size[0]}x{size[1]} pixels are no square crop: prepare it without --aligned",
        )
    original_px = decoded.width_px, decoded.height_px
    return _Opened(seen, decoded.image, original_px, data if aligned else b"")


def _finish(
    batch: Sequence[_Opened | SeenPhoto | Photo],
    cuts: Sequence[Future[list[_Cut]]],
    embedder: embed.Embedder,
    journal: Journal,
) -> int:
    """Embed a batch's faces and write the batch down; returns how many photos it has."""
    faces = [future.result() for future in cuts]
    crops = [cut.crop for own in faces for cut in own]
    vectors = iter(
        embed.embed_crops(embedder, np.stack(crops)).cpu().numpy().astype(np.float32)
        if crops
        else ()
    )
    seen: list[SeenPhoto] = []
    rows: list[tuple[str, JournalFace, NDArray[np.float32]]] = []
    unchanged: list[Photo] = []
    found = iter(faces)
    for entry in batch:
        if isinstance(entry, Photo):
            unchanged.append(entry)
        elif isinstance(entry, SeenPhoto):
            seen.append(entry)
        else:
            own = next(found)
            none = replace(entry.seen, code=Code.NO_FACE, reason="no face was found in it")
            seen.append(entry.seen if own else none)
            rows += [(entry.seen.photo.path, cut.face, next(vectors)) for cut in own]
    journal.record(seen, rows, unchanged)
    return len(batch)


def _cut(
    opened: _Opened, found: Detections, template: Template, home: Path, *, aligned: bool
) -> Iterator[_Cut]:
    """Cut a photo's faces out, measure them and write their crops."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    usable = [
        k
        for k in range(len(found))
        if aligned or (sides[k].min() >= _TINY_PX and np.ptp(found.landmarks[k]) > 0)
    ][:MOST_FACES]
    photo = opened.seen.photo
    folder = photo.path.split("/", 1)[0]
    cut = cut_faces(opened.picture, found.part(usable), opened.original_px, template)
    for k, own in zip(usable, cut, strict=True):
        points = found.landmarks[k]
        if aligned:
            data, suffix = opened.data, _suffix(photo.path)
            landmarks = points
        else:
            crop = align.cut(opened.picture, points, CROP)
            data, suffix = pictures.jpeg(crop, _JPEG_QUALITY), ".jpg"
            matrix = align.similarity_transform(points, CROP.landmarks)
            landmarks = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        # Of an aligned crop the template is known, not how the face looks in it.
        facing = Pose(math.nan, math.nan) if aligned else own.pose
        face = face_id(opened.seen.sha256, k)
        name = f"{folder}/{_stem(photo.path)}-{face}{suffix}"
        # A lone face is the one; of several, one is chosen when all photos are seen.
        path = home / (CROPS if len(usable) == 1 else OTHERS) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        yield _Cut(
            JournalFace(
                number=k,
                id=face,
                crop=name,
                crop_bytes=len(data),
                landmarks=landmarks,
                area=float(sides[k].prod()),
                size_px=own.quality.size_px,
                blur=own.quality.blur,
                exposure=own.quality.exposure,
                yaw=None if math.isnan(facing.yaw) else facing.yaw,
                pitch=None if math.isnan(facing.pitch) else facing.pitch,
                grey=pictures.grey(align.cut(opened.picture, points, _GREY), GREY_PX),
            ),
            own.crop,
        )


def face_id(sha256: str, number: int | None) -> str:
    """The id of a photo's face, or of a photo without one."""
    return hashlib.sha256(f"{sha256}:{number}".encode()).hexdigest()[:16]


def _stem(path: str) -> str:
    """A file's name without suffix, short enough for a longer one."""
    stem = Path(path).stem.encode()[:_LONGEST_STEM]
    return stem.decode("utf-8", "ignore")


def _suffix(path: str) -> str:
    """A file's suffix, where it is one."""
    suffix = Path(path).suffix
    return suffix if len(suffix.encode()) <= _LONGEST_SUFFIX else ""
