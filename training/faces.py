"""A folder per person to one embedded face per photo.

Knows nothing about what the faces are for. Photos are decoded once and never kept.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine import align, embed, image
from engine.detect import Detector, whole_crop
from engine.errors import ImageError

_BATCH = 8
_TINY_PX = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """One file of one person."""

    person: str
    path: Path


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file that was not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Faces:
    """The faces of all people, one per photo.

    Attributes:
        people: names, sorted; `owner` indexes them.
        paths: (n) the photo of each face.
        owner: (n,) int64.
        vectors: (n, d) unit float32 embeddings.
        signatures: (n, 256) unit float32: a tiny grey picture of the face, without brightness and
            contrast, by which copies are told.
        chips: (n) 112-pixel RGB crops on the ArcFace template.
        rejected: the files without a usable face.
        everybody: names of all people who were read, also of those without a usable face.
    """

    people: list[str]
    paths: list[Path]
    owner: NDArray[np.int64]
    vectors: NDArray[np.float32]
    signatures: NDArray[np.float32]
    chips: list[NDArray[np.uint8]]
    rejected: list[Rejection]
    everybody: list[str]


@dataclass(frozen=True, slots=True)
class _Candidate:
    vector: NDArray[np.float32]
    chip: NDArray[np.uint8]
    area: float


def walk(folder: Path) -> list[Sample]:
    """Every file of a folder per person, sorted; hidden files and folders are left out.

    Raises:
        ValueError: the folder is missing, has no person in it, or one person twice.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Give a folder with one folder per person.")
    homes: dict[str, Path] = {}
    samples: list[Sample] = []
    for home in sorted(folder.iterdir()):
        if not home.is_dir() or home.name.startswith("."):
            continue
        # Some file systems spell an accent as a letter of its own.
        person = unicodedata.normalize("NFC", home.name).replace("_", " ").strip()
        if homes.setdefault(person, home) != home:
            raise ValueError(
                f"{homes[person]} and {home} are both '{person}'. Rename one, or put the photos "
                "of one person into one folder."
            )
        inside = (path for path in sorted(home.rglob("*")) if not path.name.startswith("."))
        samples += [Sample(person, path) for path in inside if path.is_file()]
    if not samples:
        raise ValueError(
            f"{folder} has no photos in folders. Make one folder per person in it, named after "
            "the person, with their photos inside."
        )
    return samples


def read(
    samples: Sequence[Sample],
    detector: Detector,
    embedder: embed.Embedder,
    *,
    aligned: bool,
    progress: Callable[[int], None],
) -> Faces:
    """Detect and embed every photo, and choose the person's own face where it shows several.

    The right face is the one that agrees with the person's other photos, not the largest.

    Args:
        samples: what to read.
        detector: finds the faces.
        embedder: embeds them.
        aligned: the files are crops on the ArcFace template already.
        progress: told how many files are done.
    """
    rejected: list[Rejection] = []
    kept: list[Sample] = []
    candidates: list[list[_Candidate]] = []
    done = 0
    for batch in _batches(samples):
        opened: list[tuple[Sample, Image.Image]] = []
        for sample in batch:
            try:
                opened.append((sample, image.open_photo(sample.path.read_bytes()).image))
            except ImageError as error:
                rejected.append(Rejection(sample.path, f"unreadable ({error.code})"))
            except OSError as error:
                rejected.append(Rejection(sample.path, f"unreadable ({error.strerror})"))
        for (sample, _), found in zip(
            opened, _embed(opened, detector, embedder, aligned=aligned), strict=True
        ):
            if found:
                kept.append(sample)
                candidates.append(found)
            else:
                rejected.append(Rejection(sample.path, "no face"))
        done += len(batch)
        progress(done)
    chosen = _choose(kept, candidates, rejected, embedder.specification.dimension)
    return replace(chosen, everybody=sorted({sample.person for sample in samples}))


def _batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), _BATCH):
        yield samples[start : start + _BATCH]


def _embed(
    opened: Sequence[tuple[Sample, Image.Image]],
    detector: Detector,
    embedder: embed.Embedder,
    *,
    aligned: bool,
) -> list[list[_Candidate]]:
    photos = [photo for _, photo in opened]
    detections = (
        [whole_crop(photo.size) for photo in photos] if aligned else detector.detect(photos)
    )
    form = embedder.specification
    crops, chips, areas, counts = [], [], [], []
    for photo, found in zip(photos, detections, strict=True):
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        usable = [k for k in range(len(found)) if aligned or sides[k].min() >= _TINY_PX]
        counts.append(len(usable))
        for k in usable:
            points = found.landmarks[k]
            crops.append(align.crop(photo, points, form.reference, form.input_px))
            chips.append(align.crop(photo, points, align.ARCFACE, align.ARCFACE_SIZE))
            areas.append(float(sides[k].prod()))
    if not crops:
        return [[] for _ in photos]
    vectors = embed.embed_crops(embedder, np.stack(crops)).cpu().numpy()
    flat = [_Candidate(*parts) for parts in zip(vectors, chips, areas, strict=True)]
    ends = np.cumsum(counts)
    return [flat[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _choose(
    samples: Sequence[Sample],
    candidates: Sequence[Sequence[_Candidate]],
    rejected: list[Rejection],
    dimension: int,
) -> Faces:
    people = sorted({sample.person for sample in samples})
    index = {name: i for i, name in enumerate(people)}
    owner = np.array([index[sample.person] for sample in samples], np.int64)
    chosen = [max(range(len(own)), key=lambda k: own[k].area) for own in candidates]
    for person in range(len(people)):
        own = np.flatnonzero(owner == person).tolist()
        # Photos with one face tell who the person is; without any, all the largest faces do.
        clear = [i for i in own if len(candidates[i]) == 1] or own
        for _ in range(3):
            mean = np.mean([candidates[i][chosen[i]].vector for i in clear], axis=0)
            for i in own:
                chosen[i] = int(np.argmax([face.vector @ mean for face in candidates[i]]))
            clear = own
    faces = [own[k] for own, k in zip(candidates, chosen, strict=True)]
    vectors = np.array([face.vector for face in faces], np.float32).reshape(-1, dimension)
    return Faces(
        people=people,
        paths=[sample.path for sample in samples],
        owner=owner,
        vectors=vectors,
        signatures=np.array([signature(face.chip) for face in faces], np.float32),
        chips=[face.chip for face in faces],
        rejected=rejected,
        everybody=people,
    )


def signature(chip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(256,) unit float32 of an RGB face: see `Faces.signatures`."""
    grey = Image.fromarray(chip).convert("L").resize((16, 16), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32).ravel()
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    return values / norm if norm else values
