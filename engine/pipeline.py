"""Photos to analyses: detect, align, measure, embed, search; synchronous and batch-first.

Knows nothing about queues, HTTP or who asks. As many threads at a time
may use it as `at_once` says.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from engine import __version__, bundle, default_bundle
from engine.bundle import AboutRecord, Bundle
from engine.errors import BundleError
from engine.people import recogniser
from engine.people.classifier import Classifier
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Face, Landmarks, Match, Person
from engine.vision import align, embed
from engine.vision.align import Template
from engine.vision.detect import SURE_UPRIGHT, Detections, Detector, turn, views, whole_crop
from engine.vision.device import choose_device
from engine.vision.fingerprint import pattern
from engine.vision.pose import pose
from engine.vision.quality import quality
from engine.vision.worker_threads import WorkerThreads

_LOG = logging.getLogger(__name__)


class Pipeline:
    """Everything that sees, for one bundle on one device.

    Args:
        bundle: who is known.
        embedder: the one that the bundle was made with.
        device: where the networks run.

    Raises:
        BundleError: the bundle was made with another embedder or other weights.
    """

    def __init__(self, bundle: Bundle, embedder: embed.Embedder, device: torch.device) -> None:
        _require_same_embedder(bundle, embedder.specification)
        self._detector = Detector(device)
        self._embedder = embedder
        self._recogniser = recogniser.load(bundle, device)
        self._bundle = bundle
        self._device = device
        # A GPU has its own crowd: what is started there from one thread overlaps already.
        self._workers = WorkerThreads(torch.get_num_threads() if device.type == "cpu" else 1)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Pipeline":
        """Load what the settings name.

        Raises:
            ConfigurationError: the device, the bundle or the weights are not as they should be.
        """
        device = choose_device(settings.engine_device)
        choice = default_bundle.choose(settings)
        if choice.reason:
            _LOG.info("%s", choice.reason)
        chosen = bundle.load(choice.stem)
        recogniser.require_people(chosen)
        embedder = embed.load(chosen.embedder.id, device, settings.face_weights_dir)
        return cls(chosen, embedder, device)

    @property
    def bundle(self) -> Bundle:
        """The bundle that answers."""
        return self._bundle

    @property
    def recogniser(self) -> recogniser.Recogniser:
        """Whoever tells its people apart."""
        return self._recogniser

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self._device

    @property
    def at_once(self) -> int:
        """Two where its parts take turns: one batch's last part leaves cores to the next batch."""
        return 2 if self._workers.several else 1

    def info(self) -> EngineInfo:
        """What this pipeline is made of."""
        return EngineInfo(
            version=__version__,
            bundle=self._bundle.id,
            embedder=self._embedder.specification.id,
            people=len(self._recogniser),
            device=str(self._device),
            login=self._bundle.manifest.login,
        )

    def people(self) -> tuple[Person, ...]:
        """Whom the bundle knows, in the order of the class indices."""
        manifest = self._bundle.manifest
        told = [
            (name, manifest.about.get(index, AboutRecord()))
            for index, name in sorted(manifest.people.items())
        ]
        return tuple(Person(name, about.country, about.known_for) for name, about in told)

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        """Analyse photos together.

        Args:
            requests: photos and what is wanted of each.

        Returns:
            One analysis per request, in order; without faces where nobody was found.
        """
        return self._workers.map(self._see, requests, _cost)

    def _see(self, asked_for: Sequence[PhotoRequest]) -> list[Analysis]:
        requests, detections, turned = self._turned(asked_for, self._detect(asked_for))
        owners = [(i, k) for i, found in enumerate(detections) for k in range(len(found))]
        crops = self._cut(requests, detections, owners, self._embedder.specification.template)
        asked = [requests[i] for i, _ in owners]
        named = [j for j, request in enumerate(asked) if request.top_k]
        # Vectors are not needed where a classifier looks at the crops itself and nobody asks.
        by_crop = isinstance(self._recogniser, Classifier)
        embedded = [
            j for j, request in enumerate(asked) if request.embed or (request.top_k and not by_crop)
        ]
        vectors = embed.embed_crops(self._embedder, crops[embedded]) if embedded else None
        kept = {} if vectors is None else dict(zip(embedded, vectors.cpu().numpy(), strict=True))
        matches = self._name(requests, detections, owners, named, embedded, vectors)
        faces: list[list[Face]] = [[] for _ in requests]
        for j, (i, k) in enumerate(owners):
            found, request = detections[i], requests[i]
            x1, y1, x2, y2 = _in_original(found.boxes[k].reshape(2, 2), request).ravel().tolist()
            points = _in_original(found.landmarks[k], request)
            faces[i].append(
                Face(
                    box=(x1, y1, x2, y2),
                    landmarks=_landmarks(points),
                    probability=float(found.probabilities[k]),
                    quality=quality((x1, y1, x2, y2), crops[j]),
                    pose=pose(points),
                    matches=matches.get(j, ())[: request.top_k],
                    embedding=kept[j] if request.embed else None,
                    pattern=pattern(request.image, found.landmarks[k]) if request.embed else None,
                )
            )
        return [
            Analysis(
                faces=tuple(own),
                width_px=_original(request)[0],
                height_px=_original(request)[1],
                bundle=self._bundle.id,
                turned=degrees,
            )
            for own, request, degrees in zip(faces, requests, turned, strict=True)
        ]

    def _detect(self, requests: Sequence[PhotoRequest]) -> list[Detections]:
        unseen = [request for request in requests if _to_be_searched(request)]
        photos = iter(
            self._detector.detect([r.image for r in unseen], near=[r.near for r in unseen])
        )
        detections = []
        for request in requests:
            if request.face is not None:
                detections.append(_found_before(request.face, request))
            elif request.aligned:
                detections.append(whole_crop(request.image.size))
            else:
                detections.append(next(photos))
        return detections

    def _turned(
        self, requests: Sequence[PhotoRequest], detections: Sequence[Detections]
    ) -> tuple[list[PhotoRequest], list[Detections], list[int]]:
        """Photos without a face that surely stands upright turned so that one shows, where it does.

        Returns:
            The requests with their photos turned, what was found in those, and by how many degrees
            each was turned clockwise.
        """
        requests, detections = list(requests), list(detections)
        turned = [0] * len(requests)
        # On its side, a face is often taken for another one, less probable and in a wrong place.
        unsure = [
            i
            for i, (request, found) in enumerate(zip(requests, detections, strict=True))
            if _to_be_searched(request) and not request.near and not _upright(found)
        ]
        if not unsure:
            return requests, detections, turned
        turns = self._detector.turns([requests[i].image for i in unsure])
        shown = {i: degrees for i, degrees in zip(unsure, turns, strict=True) if degrees}
        again = [_turned_request(requests[i], degrees) for i, degrees in shown.items()]
        found_again = self._detector.detect([request.image for request in again])
        for (i, degrees), request, found in zip(shown.items(), again, found_again, strict=True):
            # The small canvas may have shown what the full one, which is more exact, does not.
            if _upright(found):
                requests[i], detections[i], turned[i] = request, found, degrees
        return requests, detections, turned

    def _name(
        self,
        requests: Sequence[PhotoRequest],
        detections: Sequence[Detections],
        owners: Sequence[tuple[int, int]],
        named: Sequence[int],
        embedded: Sequence[int],
        vectors: torch.Tensor | None,
    ) -> dict[int, tuple[Match, ...]]:
        """Whom the faces to be `named` resemble, by the number of the face.

        Args:
            requests: what was asked.
            detections: of each request.
            owners: of each face, its request's number and its own in that.
            named: numbers of faces.
            embedded: of which faces there are `vectors`.
            vectors: their embeddings, in order.
        """
        if not named:
            return {}
        top_k = max(request.top_k for request in requests)
        if isinstance(self._recogniser, Classifier):
            of_named = [owners[j] for j in named]
            own = self._cut(requests, detections, of_named, self._recogniser.template)
            found = self._recogniser.search(own, top_k)
        else:
            assert vectors is not None
            row = {j: place for place, j in enumerate(embedded)}
            found = self._recogniser.search(vectors[[row[j] for j in named]], top_k)
        return dict(zip(named, found, strict=True))

    def _cut(
        self,
        requests: Sequence[PhotoRequest],
        detections: Sequence[Detections],
        owners: Sequence[tuple[int, int]],
        template: Template,
    ) -> NDArray[np.uint8]:
        """Crops of the faces, given as photo and number of the face in it."""
        crops = np.empty((len(owners), template.size_px, template.size_px, 3), np.uint8)
        for j, (i, k) in enumerate(owners):
            crops[j] = align.cut(requests[i].image, detections[i].landmarks[k], template)
        return crops


def _cost(request: PhotoRequest) -> float:
    """About how much work a photo is: its canvases, and reading its pixels."""
    width, height = request.image.size
    if not _to_be_searched(request):
        return 1.0
    canvases = 1.5 if request.near else 4.0 * len(views(request.image.size))
    return canvases + width * height / 1e6


def _original(request: PhotoRequest) -> tuple[int, int]:
    return request.original_px or request.image.size


def _to_be_searched(request: PhotoRequest) -> bool:
    """Whether its faces have to be found."""
    return request.face is None and not request.aligned


def _upright(found: Detections) -> bool:
    """Whether a face surely stands upright."""
    return bool((found.probabilities >= SURE_UPRIGHT).any())


def _turned_request(request: PhotoRequest, degrees: int) -> PhotoRequest:
    width, height = _original(request)
    size = (width, height) if degrees == 180 else (height, width)
    return replace(request, image=turn(request.image, degrees), original_px=size)


def _in_original(points: NDArray[np.float32], request: PhotoRequest) -> NDArray[np.float64]:
    """(n, 2) points of the decoded photo in pixels of the original."""
    # Divided last, so that the one's edge is exactly the other's.
    size = np.array(request.image.size, np.float64)
    return points.astype(np.float64) * np.array(_original(request), np.float64) / size


def _found_before(face: Face, request: PhotoRequest) -> Detections:
    """A face in pixels of the original, as if it had been found just now."""
    scale = np.array(_original(request), np.float64) / request.image.size
    return Detections(
        boxes=(np.array([face.box]) / np.tile(scale, 2)).astype(np.float32),
        landmarks=(np.array([face.landmarks]) / scale).astype(np.float32),
        probabilities=np.array([face.probability], np.float32),
    )


def _landmarks(points: NDArray[np.float64]) -> Landmarks:
    a, b, c, d, e = ((float(x), float(y)) for x, y in points)
    return a, b, c, d, e


def _require_same_embedder(bundle: Bundle, own: embed.Specification) -> None:
    if not bundle.made_with(own.id, own.weights_sha256):
        raise BundleError(
            f"{bundle.name} was made with the embedder {bundle.embedder.id} and other "
            f"weights than the ones here ({own.id}); their vectors are not comparable. Build the "
            "bundle again.",
            code="bundle_mismatch",
        )
