"""A bundle's own eyes: faces to the vectors it compares and to the people it answers.

One door for every kind of bundle, so that whoever measures need not know which it is. Knows nothing
about what the answers are worth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from engine.bundle import Bundle
from engine.errors import ImageError
from engine.media import image
from engine.people import recogniser
from engine.people.gallery import Gallery
from engine.people.recogniser import Recogniser
from engine.vision import embed
from engine.vision.faces import cut_faces
from training import tools
from training.console import Advance, silent
from training.datasets import data
from training.datasets.data import Faces
from training.measure.metrics import Scores
from training.tools import Tools
from training.vectors import Flags, Numbers, Vectors

_BATCH = 64
_PHOTOS = 8


@dataclass(frozen=True)
class FaceScores:
    """What a bundle says about faces.

    Attributes:
        person: (n,) number of the most similar person.
        best: (n,) the similarity to them.
        confidence: (n,) the probability given to them.
        own: (n,) the similarity to the right person; -inf for a stranger.
        rank: (n,) how many people are more similar than the right one; -1 for a stranger.
    """

    person: Numbers
    best: Scores
    confidence: Scores
    own: Scores
    rank: Numbers

    def part(self, index: Numbers) -> "FaceScores":
        """Those about some of the faces."""
        return FaceScores(*(getattr(self, entry.name)[index] for entry in fields(self)))


class FaceScorer:
    """What one bundle sees.

    Args:
        bundle: of any kind.
        tools: with the embedder that `for_bundle` chose.

    Raises:
        BundleError: the bundle was made with another embedder, or its parts do not fit together.
    """

    def __init__(self, bundle: Bundle, tools: Tools) -> None:
        self.bundle = bundle
        self.tools = tools
        self._recogniser: Recogniser | None = None
        if bundle.manifest.kind == "vectorizer":
            return
        form = tools.embedder.specification
        bundle.require_made_with(form.id, form.weights_sha256)
        self._recogniser = recogniser.load(bundle, tools.device)

    @property
    def knows_people(self) -> bool:
        """Whether the bundle names anybody; a vectorizer does not."""
        return self._recogniser is not None

    @property
    def centre(self) -> Vectors | None:
        """(d) the mean face from which vectors are compared; None for a vectorizer, without any."""
        return self.bundle.tensors["centre"].numpy() if self.knows_people else None

    def vectors(self, faces: Faces, advance: Advance = silent) -> Vectors:
        """(n, d) unit vectors of the bundle's embedder, not centred; kept between runs."""
        return data.vectors(faces, self.tools.embedder, advance)

    def similarities(self, faces: Faces, vectors: Vectors) -> Iterator[Tensor]:
        """How alike faces and the bundle's people are, as the engine sees it, a batch at a time.

        Args:
            faces: (n) of them.
            vectors: (n, d) theirs, from `vectors`.

        Yields:
            (k, people) cosines on the bundle's device; at least once, if without a row.

        Raises:
            BundleError: the bundle knows nobody.
        """
        recogniser.require_people(self.bundle)
        assert self._recogniser is not None
        for start in range(0, max(1, len(vectors)), _BATCH):
            part = range(start, min(start + _BATCH, len(vectors)))
            if isinstance(self._recogniser, Gallery):
                own = torch.from_numpy(vectors[part.start : part.stop])
                yield self._recogniser.similarities(own.to(self.tools.device))
            else:
                crops = data.read_crops(faces, part, self._recogniser.template)
                yield self._recogniser.similarities(crops)

    def answers(self, faces: Faces, vectors: Vectors, truth: Numbers) -> FaceScores:
        """Whom the faces resemble, as the engine would say.

        Args:
            faces: (n) of them.
            vectors: (n, d) theirs, from `vectors`.
            truth: (n,) number of the right person in the bundle, -1 for a stranger.

        Raises:
            BundleError: the bundle knows nobody.
        """
        parts = []
        done = 0
        for similarity in self.similarities(faces, vectors):
            assert self._recogniser is not None
            probability = self._recogniser.scorer.probabilities(similarity)
            parts.append(_answers(similarity, probability, truth[done : done + len(similarity)]))
            done += len(similarity)
        return FaceScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def look(
        self, paths: Sequence[Path], *, aligned: bool, advance: Advance = silent
    ) -> tuple[Vectors, Flags]:
        """The largest face of each photo, as `engine compare` takes it.

        Returns:
            (n, d) unit vectors, and (n,) whether a face was found; rows without one are zero.

        Raises:
            OSError, ImageError: a file is missing or cannot be read; the message names it.
        """
        template = self.tools.embedder.specification.template
        found = np.zeros(len(paths), bool)
        vectors: list[Vectors] = []
        for start, photos in self._photos(paths):
            detections = self.tools.find(photos, aligned=aligned)
            crops = [
                cut_faces(photo, detected.part([0]), photo.size, template)[0].crop
                for photo, detected in zip(photos, detections, strict=True)
                if len(detected)
            ]
            found[start : start + len(photos)] = [len(detected) > 0 for detected in detections]
            if crops:
                vectors.append(
                    embed.embed_crops(self.tools.embedder, np.stack(crops)).cpu().numpy()
                )
            advance(start + len(photos))
        if not vectors:
            raise ValueError("No face was found in any of the photos. Are they photos of faces?")
        seen = np.concatenate(vectors)
        whole = np.zeros((len(paths), seen.shape[1]), np.float32)
        whole[found] = seen
        return whole, found

    @staticmethod
    def _photos(paths: Sequence[Path]) -> Iterator[tuple[int, list[Image]]]:
        for start in range(0, len(paths), _PHOTOS):
            photos = []
            for path in paths[start : start + _PHOTOS]:
                try:
                    photos.append(image.open_photo(path.read_bytes()).image)
                except ImageError as error:
                    raise ValueError(f"{path}: {error}") from error
            yield start, photos


def _answers(
    similarity: Tensor, probability: Tensor, truth: Numbers
) -> tuple[Numbers, Scores, Scores, Scores, Numbers]:
    """The columns of `FaceScores`, from (n, people) similarities and probabilities."""
    right = torch.from_numpy(truth).to(similarity.device)
    known = right >= 0
    own = similarity.gather(1, right.clamp(min=0)[:, None])
    best, person = similarity.max(dim=1)
    columns = (
        person,
        best,
        probability.gather(1, person[:, None])[:, 0],
        torch.where(known, own[:, 0], -torch.inf),
        torch.where(known, (similarity > own).sum(dim=1), -1),
    )
    a, b, c, d, e = (column.cpu().numpy() for column in columns)
    return a, b, c, d, e


def for_bundle(bundle: Bundle, name: str) -> FaceScorer:
    """A bundle's eyes, as the environment (ENGINE_DEVICE, FACE_WEIGHTS_DIR) wants them.

    Args:
        bundle: of any kind.
        name: its name or path; by it a vectorizer is loaded, which is an embedder itself.

    Raises:
        ConfigurationError: the embedder that the bundle was made with is not here.
    """
    own = bundle.manifest.kind == "vectorizer"
    return FaceScorer(bundle, tools.load(f"trained:{name}" if own else bundle.embedder.id))
