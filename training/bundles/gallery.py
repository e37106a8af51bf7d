"""A prepared dataset to a gallery bundle.

Ties prototypes, calibration and thumbnails together; knows nothing about photos or the command
line. Which faces to learn from was decided when the dataset was prepared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from engine.bundle import Bundle, Calibration, save
from engine.vision import embed
from engine.vision.align import ARCFACE_TEMPLATE
from training.console import Advance, silent
from training.datasets import pictures
from training.datasets.data import Faces, read_crops
from training.datasets.people import Listed
from training.measure.calibration import Prototypes, Strangers, calibrate, scaled
from training.measure.lending import Decided
from training.vectors import Owners, Vectors, grouped, person_means, unit

CALIBRATED_FOR = "calibrated_for"
"""Key of a bundle's `architecture`: the number of people that its calibration holds for."""

_THUMBNAIL = ARCFACE_TEMPLATE
_OWN_CALIBRATION_PEOPLE = 10
_OWN_CALIBRATION_FACES = 1000
_LENT_PEOPLE = 20

NO_LOGIN = Decided(None)


@dataclass(frozen=True)
class Source:
    """What a bundle is made from, as it is written into the bundle.

    Attributes:
        dataset: the data's name.
        licence: the data's licence.
        created: the date, as in 2026-01-31.
        listed: what is said about people besides their names.
    """

    dataset: str
    licence: str
    created: str
    listed: tuple[Listed, ...] = ()

    @property
    def related(self) -> dict[str, str]:
        """A person's name to a word that blood relatives share, for those who have any listed."""
        return {person.name: person.family for person in self.listed if person.family}


def prototypes(vectors: Vectors, owner: Owners, people: int) -> tuple[Vectors, Owners]:
    """Each person's prototypes: cluster means on the sphere, more of them for more photos.

    Args:
        vectors: (n, d) centred unit vectors.
        owner: (n,) index of the person of each.
        people: how many people, each with at least one vector.

    Returns:
        (m, d) unit prototypes and their (m,) owners, in the order of the people.
    """
    made = []
    # Clusters of a hundred faces are found faster by one thread than threads are woken.
    with threadpool_limits(1):
        for members in grouped(owner, people):
            own = vectors[members]
            count = cluster_count(len(own))
            if count == 1:
                centres = own.mean(axis=0, keepdims=True)
            else:
                fitted = KMeans(count, n_init=4, random_state=0).fit(own.astype(np.float64))
                centres = fitted.cluster_centers_
            made.append(unit(np.asarray(centres, np.float32)))
    counts = [len(part) for part in made]
    return np.concatenate(made), np.repeat(np.arange(people), counts)


def cluster_count(photos: int) -> int:
    """How many prototypes a person with so many photos gets: 1, from 20 on 2, from 40 on 3."""
    return min(3, 1 + photos // 20)


@dataclass(frozen=True)
class Summarisation:
    """How people are summarised by a few directions each.

    Attributes:
        kind: of the bundle that is made so.
        prototypes: makes them.
        architecture: what the bundle says about them.
    """

    kind: str
    prototypes: Prototypes
    architecture: Mapping[str, Any]


CLUSTERS = Summarisation("gallery", prototypes, {"summary": "spherical k-means"})


def tally(
    vectors: Vectors, owner: Owners, made: Vectors, made_owner: Owners
) -> dict[str, torch.Tensor]:
    """Count the faces behind each prototype of their person, so that photos can be added later.

    Args:
        vectors: (n, d) centred unit vectors.
        owner: (n,) index of the person of each.
        made: (m, d) prototypes.
        made_owner: (m,) in the order of the people, each with at least one.

    Returns:
        A bundle's tensors "counts", (m,) int64, how many faces are closest to each prototype; and
        "lengths", (m,) float32, the mean resultant length of those (Mardia and Jupp, Directional
        Statistics, 2000): the length of their mean, 1 where all are the same.
    """
    counts = np.zeros(len(made), np.int64)
    lengths = np.zeros(len(made), np.float32)
    people = int(made_owner[-1]) + 1
    starts = np.searchsorted(made_owner, np.arange(people + 1))
    for person, members in enumerate(grouped(owner, people)):
        own = slice(starts[person], starts[person + 1])
        closest = (vectors[members] @ made[own].T).argmax(axis=1) + starts[person]
        for prototype in np.unique(closest):
            faces = vectors[members[closest == prototype]]
            counts[prototype] = len(faces)
            lengths[prototype] = np.linalg.norm(faces.mean(axis=0))
    return {"counts": torch.from_numpy(counts), "lengths": torch.from_numpy(lengths)}


def own_calibration(faces: Faces) -> bool:
    """Whether there are enough faces to measure what similarities are worth among them."""
    enough = len(faces.people) >= _OWN_CALIBRATION_PEOPLE
    return enough and len(faces) >= _OWN_CALIBRATION_FACES


def build(
    faces: Faces,
    vectors: Vectors,
    embedder: embed.Specification,
    out: Path,
    source: Source,
    *,
    thumbnails: bool,
    borrow: Bundle | None,
    summary: Summarisation = CLUSTERS,
    login: Decided = NO_LOGIN,
    strangers: Strangers | None = None,
    advance: Advance = silent,
) -> Bundle:
    """Summarise and calibrate faces, and write the bundle.

    Args:
        faces: the dataset.
        vectors: (n, d) unit embeddings of the faces.
        embedder: the one that made them.
        out: the bundle's path without suffix.
        source: what to say about the data.
        thumbnails: whether the bundle carries a small picture of each person.
        borrow: whose centre and calibration to use where these faces are too few to measure.
        summary: how people are summarised.
        login: how it decides logins.
        strangers: people outside the gallery, whom it is calibrated by; None: its own people are
            left out in turn.
        advance: told how far measuring has come; see `training.measure.calibration.rounds`.

    Raises:
        ValueError: there are too few faces to calibrate and nobody to borrow from.
    """
    owner, people = faces.owner, len(faces.people)
    borrowed = None if own_calibration(faces) else borrow
    if borrowed:
        _require_lender(borrowed, embedder)
    # A centre that the people take part in keeps them apart, as it did where the calibration was
    # measured; but the mean of a handful of people alone is no mean face.
    if borrowed and people < _OWN_CALIBRATION_PEOPLE:
        centre = _shared_centre(vectors, owner, people, borrowed)
    else:
        centre = person_means(vectors, owner, people).mean(axis=0)
    calibration, metrics = _calibration(
        faces, vectors, summary.prototypes, borrowed, strangers, advance
    )
    centred = unit(vectors - centre)
    made, made_owner = summary.prototypes(centred, owner, people)
    tensors = {
        "prototypes": torch.from_numpy(made),
        "owner": torch.from_numpy(made_owner),
        "centre": torch.from_numpy(np.asarray(centre, np.float32)),
    } | tally(centred, owner, made, made_owner)
    if thumbnails:
        tensors |= portraits(faces, vectors)
    manifest = record(summary.kind, faces, embedder, source) | {
        "architecture": {
            "prototypes": len(made),
            CALIBRATED_FOR: max(people, _measured_on(borrowed) if borrowed else 0),
        }
        | dict(summary.architecture),
        "calibration": calibration,
        **decided(login),
        "metrics": metrics,
    }
    if borrowed is None and (summary.prototypes is not prototypes or people > _LENT_PEOPLE):
        manifest["lends"] = lent(faces, vectors, strangers)
    return save(out, manifest, tensors)


def lent(faces: Faces, vectors: Vectors, strangers: Strangers | None) -> Calibration:
    """What a bundle lends to galleries that are too small to measure anything.

    Those have a few people with a few photos: cluster means, and no more than 20 people. The best
    of 500 matches is so much higher that a threshold for it would name hardly anybody of a family.

    Args:
        faces: the dataset.
        vectors: (n, d) unit embeddings of the faces.
        strangers: see `build`.
    """
    counts = np.bincount(faces.owner, minlength=len(faces.people))
    chosen = np.sort(np.argsort(-counts, kind="stable")[:_LENT_PEOPLE])
    index = np.flatnonzero(np.isin(faces.owner, chosen))
    part = replace(
        faces.part(index),
        people=[faces.people[i] for i in chosen],
        owner=np.searchsorted(chosen, faces.owner[index]),
    )
    found, _ = _calibration(part, vectors[index], prototypes, None, strangers, silent)
    return found.model_copy(update={"people": len(chosen), "floors": {}})


def _measured_on(lender: Bundle) -> int:
    """How many people the strangers of a lender's calibration were compared with."""
    theirs = lender.manifest.lends or lender.calibration
    everybody = theirs.people or len(lender.manifest.people)
    return everybody if theirs.strangers else everybody - 1


def decided(login: Decided) -> dict[str, Any]:
    """How a bundle decides logins, as its manifest has it."""
    return {"login": login.login, "login_absent": login.absent}


def record(
    kind: str, faces: Faces, embedder: embed.Specification, source: Source
) -> dict[str, Any]:
    """What every bundle made from a dataset says about itself.

    Args:
        kind: the bundle's.
        faces: the dataset.
        embedder: the one whose vectors are compared.
        source: what to say about the data.
    """
    about = {person.name: person for person in source.listed}
    return {
        "kind": kind,
        "created": source.created,
        "people": dict(enumerate(faces.people)),
        "about": {
            i: {"country": about[name].country, "known_for": about[name].known_for}
            for i, name in enumerate(faces.people)
            if name in about
        },
        "embedder": {
            "id": embedder.id,
            "weights_sha256": embedder.weights_sha256,
            "dimension": embedder.dimension,
        },
        "dataset": {
            "name": source.dataset,
            "licence": source.licence,
            "people": len(faces.people),
            "photos": len(faces) + sum(faces.dropped.values()),
            "faces": len(faces),
            "dropped": dict(faces.dropped),
        },
    }


def portraits(faces: Faces, vectors: Vectors) -> dict[str, torch.Tensor]:
    """A small picture of the most typical face of each person, as a bundle keeps them.

    Args:
        faces: the dataset; every person has a face in it.
        vectors: (n, d) unit embeddings of the faces.

    Returns:
        The tensors "thumbnails" and "thumbnail_ends".
    """
    made = []
    for members in grouped(faces.owner, len(faces.people)):
        mean = vectors[members].mean(axis=0)
        typical = int(members[(vectors[members] @ mean).argmax()])
        made.append(jpeg(read_crops(faces, [typical], _THUMBNAIL)[0]))
    return packed(made)


def jpeg(chip: NDArray[np.uint8]) -> bytes:
    """A thumbnail's bytes."""
    return pictures.jpeg(chip, quality=85)


def packed(pictures: list[bytes]) -> dict[str, torch.Tensor]:
    """One picture per person as a bundle's tensors."""
    return {
        "thumbnails": torch.frombuffer(bytearray(b"".join(pictures)), dtype=torch.uint8),
        "thumbnail_ends": torch.tensor([len(picture) for picture in pictures]).cumsum(0),
    }


def _require_lender(borrowed: Bundle, embedder: embed.Specification) -> None:
    if not borrowed.made_with(embedder.id, embedder.weights_sha256):
        theirs = borrowed.manifest.embedder
        raise ValueError(
            f"{borrowed.name} was made with the embedder {theirs.id if theirs else 'of its own'}, "
            f"these faces with {embedder.id}; give a bundle of the same embedder with "
            "--calibration-from, or at least 10 people with 1,000 photos in all"
        )
    if borrowed.manifest.calibration is None or "network" in borrowed.manifest.architecture:
        raise ValueError(
            f"{borrowed.name} does not compare the embedder's own vectors, so that its calibration "
            "holds for nobody else; give a gallery with --calibration-from"
        )
    if not borrowed.calibration.source.startswith("own"):
        raise ValueError(
            f"{borrowed.name} borrowed its own calibration from {borrowed.calibration.source}; "
            "borrow from that one with `--calibration-from`"
        )


def _shared_centre(vectors: Vectors, owner: Owners, people: int, lender: Bundle) -> Vectors:
    """The mean face of the lender's people and these together, all weighing alike."""
    means = person_means(vectors, owner, people)
    theirs = lender.tensors["centre"].numpy()
    known = len(lender.manifest.people)
    return np.asarray((known * theirs + means.sum(axis=0)) / (known + people), dtype=np.float32)


def _calibration(
    faces: Faces,
    vectors: Vectors,
    prototypes: Prototypes,
    borrowed: Bundle | None,
    strangers: Strangers | None,
    advance: Advance,
) -> tuple[Calibration, dict[str, float]]:
    people = len(faces.people)
    if borrowed is None:
        try:
            return calibrate(
                vectors,
                faces.owner,
                people,
                prototypes,
                advance,
                group=faces.group,
                strangers=strangers,
            )
        except ValueError as error:
            raise ValueError(
                f"{error}; add people or photos, or borrow a calibration with "
                "`--calibration-from BUNDLE`"
            ) from error
    # Few photos leave trained directions close to cluster means, whose threshold is the higher.
    theirs = borrowed.manifest.lends or borrowed.calibration
    own = scaled(theirs, _measured_on(borrowed), people)
    # Floors are of the lender's people.
    return own.model_copy(update={"source": borrowed.id, "floors": {}, "people": 0}), {}
