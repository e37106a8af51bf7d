"""A folder per person to a gallery bundle.

Ties reading, audit, prototypes and calibration together; knows nothing about the command line.
"""

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans

from engine import embed
from engine.bundle import Bundle, Calibration, save
from training.audit import audit, mean_of_means, unit
from training.calibration import Owners, Vectors, calibrate, scaled
from training.faces import Faces, Rejection

_THUMBNAIL_PX = 112
_OWN_CALIBRATION_PEOPLE = 10
_OWN_CALIBRATION_FACES = 1000


@dataclass(frozen=True)
class Report:
    """What became of the photos.

    Attributes:
        bundle: the bundle that was written.
        rejected: files that could not be used.
        dropped: faces that were left out, with reasons.
        people: faces kept per person.
        missing: people without a face that could be kept, so not in the bundle.
    """

    bundle: Bundle
    rejected: list[Rejection]
    dropped: list[Rejection]
    people: Mapping[str, int]
    missing: list[str]


def prototypes(vectors: Vectors, owner: Owners, people: int) -> tuple[Vectors, Owners]:
    """Each person's prototypes: cluster means on the sphere, more of them for more photos.

    Args:
        vectors: (n, d) centred unit vectors.
        owner: (n,) index of the person of each.
        people: how many people.

    Returns:
        (m, d) unit prototypes and their (m,) owners, in the order of the people.
    """
    made, made_owner = [], []
    for person in range(people):
        own = vectors[owner == person]
        count = cluster_count(len(own))
        if count == 1:
            centres = own.mean(axis=0, keepdims=True)
        else:
            fitted = KMeans(count, n_init=4, random_state=0).fit(own.astype(np.float64))
            centres = fitted.cluster_centers_
        made.append(unit(np.asarray(centres, np.float32)))
        made_owner.append(np.full(len(made[-1]), person, np.int64))
    return np.concatenate(made), np.concatenate(made_owner)


def cluster_count(photos: int) -> int:
    """How many prototypes a person with so many photos gets: 1, from 20 on 2, from 40 on 3."""
    return min(3, 1 + photos // 20)


def build(
    faces: Faces,
    embedder: embed.Specification,
    out: Path,
    *,
    created: str,
    dataset: str,
    licence: str,
    thumbnails: bool,
    borrow: Bundle | None,
) -> Report:
    """Audit, summarise and calibrate the faces, and write the bundle.

    Args:
        faces: from `training.faces.read`.
        embedder: the one that made their vectors.
        out: the bundle's path without suffix.
        created: the date to write into it.
        dataset: the data's name.
        licence: the data's licence.
        thumbnails: whether the bundle carries a small picture of each person.
        borrow: whose centre and calibration to use where these faces are too few to measure.

    Raises:
        ValueError: there is nobody with a usable face, or too few faces to calibrate and nobody
            to borrow from.
    """
    if not len(faces.owner):
        raise ValueError("no face was found in any photo; nothing was written")
    own = _enough(faces)
    borrowed = None if own or borrow is None else borrow
    if borrowed and not borrowed.made_with(embedder.id, embedder.weights_sha256):
        raise ValueError(
            f"{borrowed.name} was made with the embedder {borrowed.embedder.id}, these "
            f"faces with {embedder.id}; give a bundle of the same embedder with "
            "--calibration-from, or at least 10 people with 1,000 photos in all"
        )
    # A centre that the people take part in keeps them apart, as it did where the calibration was
    # measured; but the mean of a handful of people alone is no mean face.
    few = len(np.unique(faces.owner)) < _OWN_CALIBRATION_PEOPLE
    centre = _shared_centre(faces, borrowed) if borrowed and few else None
    checked = audit(faces, centre)
    vectors, owner = faces.vectors[checked.kept], faces.owner[checked.kept]
    names, owner = _without_gaps(faces.people, owner)
    calibration, metrics = _calibration(vectors, owner, len(names), borrowed)
    if centre is None:
        centre = mean_of_means(vectors, owner, len(names)).mean(axis=0)
    made, made_owner = prototypes(unit(vectors - centre), owner, len(names))
    tensors = {
        "prototypes": torch.from_numpy(made),
        "owner": torch.from_numpy(made_owner),
        "centre": torch.from_numpy(np.asarray(centre, np.float32)),
    }
    if thumbnails:
        tensors |= _thumbnails(faces, checked.kept, vectors, owner, len(names))
    manifest: dict[str, Any] = {
        "kind": "gallery",
        "created": created,
        "people": dict(enumerate(names)),
        "embedder": {
            "id": embedder.id,
            "weights_sha256": embedder.weights_sha256,
            "dimension": embedder.dimension,
        },
        "architecture": {"prototypes": len(made), "summary": "spherical k-means"},
        "calibration": calibration,
        "metrics": metrics,
        "dataset": {
            "name": dataset,
            "licence": licence,
            "people": len(names),
            "photos": len(faces.paths) + len(faces.rejected),
            "faces": len(vectors),
            "dropped": _counted([*faces.rejected, *checked.dropped]),
        },
    }
    counts = np.bincount(owner, minlength=len(names))
    return Report(
        bundle=save(out, manifest, tensors),
        rejected=faces.rejected,
        dropped=checked.dropped,
        people={name: int(count) for name, count in zip(names, counts, strict=True)},
        missing=[name for name in faces.everybody if name not in set(names)],
    )


def _shared_centre(faces: Faces, lender: Bundle) -> Vectors:
    """The mean face of the lender's people and these together, all weighing alike."""
    present, owner = np.unique(faces.owner, return_inverse=True)
    means = mean_of_means(faces.vectors, owner.astype(np.int64), len(present))
    theirs = lender.tensors["centre"].numpy()
    known = len(lender.manifest.people)
    return np.asarray(
        (known * theirs + means.sum(axis=0)) / (known + len(present)), dtype=np.float32
    )


def _enough(faces: Faces) -> bool:
    people = len(np.unique(faces.owner))
    return people >= _OWN_CALIBRATION_PEOPLE and len(faces.owner) >= _OWN_CALIBRATION_FACES


def _calibration(
    vectors: Vectors, owner: Owners, people: int, borrowed: Bundle | None
) -> tuple[Calibration, dict[str, float]]:
    if borrowed is None:
        try:
            return calibrate(vectors, owner, people, prototypes)
        except ValueError as error:
            raise ValueError(
                f"{error}; add people or photos, or borrow a calibration with "
                "`--calibration-from BUNDLE`"
            ) from error
    theirs = borrowed.calibration
    if theirs.source != "own":
        raise ValueError(
            f"{borrowed.name} borrowed its own calibration from {theirs.source}; borrow from that "
            "one with `--calibration-from`"
        )
    own = scaled(theirs, len(borrowed.manifest.people) - 1, people)
    return own.model_copy(update={"source": borrowed.id}), {}


def _without_gaps(people: list[str], owner: Owners) -> tuple[list[str], Owners]:
    present, renumbered = np.unique(owner, return_inverse=True)
    return [people[i] for i in present], renumbered.astype(np.int64)


def _thumbnails(
    faces: Faces, kept: Owners, vectors: Vectors, owner: Owners, people: int
) -> dict[str, torch.Tensor]:
    """The most typical face of each person, as JPEG bytes."""
    means = unit(mean_of_means(vectors, owner, people))
    data, ends = b"", []
    for person in range(people):
        members = np.flatnonzero(owner == person)
        typical = members[int((vectors[members] @ means[person]).argmax())]
        buffer = io.BytesIO()
        chip = Image.fromarray(faces.chips[kept[typical]])
        chip.resize((_THUMBNAIL_PX, _THUMBNAIL_PX)).save(buffer, "JPEG", quality=85)
        data += buffer.getvalue()
        ends.append(len(data))
    return {
        "thumbnails": torch.frombuffer(bytearray(data), dtype=torch.uint8),
        "thumbnail_ends": torch.tensor(ends),
    }


def _counted(rejections: list[Rejection]) -> dict[str, int]:
    """How many files were left out, by kind of reason."""
    kinds = Counter(
        "copy"
        if rejection.reason.startswith("copy")
        else rejection.reason.split(":")[0].split(" (")[0]
        for rejection in rejections
    )
    return dict(sorted(kinds.items()))
