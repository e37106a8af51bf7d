"""Everybody's faces in two dimensions, and contact sheets of them: what two of the plots show.

Knows vectors and crops; knows nothing about how they are drawn.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from engine.vision.align import ARCFACE_TEMPLATE
from training.datasets import data
from training.datasets.data import Faces
from training.datasets.probes import Probes
from training.measure.plots import Place, Tile
from training.vectors import Owners, Vectors, mean_face, unit

MOST_FACES = 3000
_PICTURE = ARCFACE_TEMPLATE
_COMPONENTS = 50
_PERPLEXITY = 30.0
_DOUBTED_SHARE = 3


def evenly(faces: Faces, most: int) -> Owners:
    """Sorted indices of at most so many faces: as many of everybody as possible, evenly spread.

    With more people than that, one face of every so manyth person.
    """
    counts = np.bincount(faces.owner, minlength=len(faces.people))
    each = int(counts.max())
    if counts.sum() > most:
        each = 1
        while np.minimum(counts, each + 1).sum() <= most:
            each += 1
    chosen = np.concatenate(
        [
            own[np.unique(np.linspace(0, len(own) - 1, min(len(own), each)).astype(int))]
            for own in (np.flatnonzero(faces.owner == i) for i in range(len(faces.people)))
            if len(own)
        ]
    )
    if len(chosen) > most:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]
    return np.sort(chosen)


def flatten(vectors: Vectors, owner: Owners, seed: int) -> NDArray[np.float64]:
    """(n, 2) places of faces, alike ones close to each other.

    t-SNE (van der Maaten and Hinton 2008) by cosine over the first 50 principal components; the
    same faces and seed give the same map.

    Args:
        vectors: (n, d) unit vectors, not centred.
        owner: (n,) whose they are.
        seed: of t-SNE.

    Raises:
        ValueError: there are fewer than four faces.
    """
    if len(vectors) < 4:
        raise ValueError(f"It takes four faces to draw a map; there are {len(vectors)}.")
    # One person's mean would be the centre of nothing but themselves.
    own = unit(vectors - mean_face(vectors, owner)) if len(set(owner.tolist())) > 1 else vectors
    reduced = PCA(min(_COMPONENTS, *own.shape), svd_solver="full", random_state=seed).fit_transform(
        own.astype(np.float64)
    )
    made: NDArray[np.float64] = TSNE(
        metric="cosine",
        init="random",
        perplexity=min(_PERPLEXITY, (len(own) - 1) / 3),
        random_state=seed,
    ).fit_transform(reduced)
    return made


def places(faces: Faces, points: NDArray[np.float64]) -> list[Place]:
    """Each person's points and the picture of the face in their middle.

    Args:
        faces: (n) of them.
        points: (n, 2) from `flatten`.
    """
    found = []
    for person, name in enumerate(faces.people):
        own = np.flatnonzero(faces.owner == person)
        if not len(own):
            continue
        theirs = points[own]
        distance = np.linalg.norm(theirs[:, None] - theirs[None], axis=2).sum(axis=1)
        medoid = int(distance.argmin())
        picture = data.read_crops(faces, [int(own[medoid])], _PICTURE)[0]
        found.append(Place(name, theirs, theirs[medoid], picture))
    return found


def tiles(probes: Probes, people: int, columns: int) -> dict[str, list[Tile]]:
    """Some faces of some people: of each first those that are learned from, then doubtful ones.

    Args:
        probes: the faces.
        people: how many people at most; those with most doubts first, then by name.
        columns: how many faces of each at most; a third of them for doubts where there are any.
    """
    faces = probes.faces
    marked = probes.doubted | probes.copy
    doubts = np.bincount(faces.owner, marked, minlength=len(faces.people))
    order = sorted(range(len(faces.people)), key=lambda i: (-doubts[i], faces.people[i]))[:people]
    sheet = {}
    for person in sorted(order, key=lambda i: faces.people[i]):
        own = np.flatnonzero(faces.owner == person)
        odd = own[marked[own]][: max(1, columns // _DOUBTED_SHARE)]
        fine = own[~marked[own]]
        fine = fine[np.linspace(0, len(fine) - 1, min(len(fine), columns - len(odd))).astype(int)]
        chosen = [*map(int, fine), *map(int, odd)]
        pictures = data.read_crops(faces, chosen, _PICTURE)
        sheet[faces.people[person]] = [
            Tile(picture, str(faces.rows[i].code) if marked[i] else "")
            for picture, i in zip(pictures, chosen, strict=True)
        ]
    return sheet
