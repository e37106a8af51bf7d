"""Photos to analyses: detect, align, measure, embed, search; synchronous and batch-first.

Knows nothing about queues, HTTP or who asks. As many threads at a time
may use it as `at_once` says.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine import __version__, bundle, default_bundle
from engine.bundle import AboutRecord, Bundle
from engine.media import jpeg
from engine.people import recogniser
from engine.people.classifier import Classifier
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Face, Match, Person
from engine.vision import align, embed
from engine.vision.align import Template
from engine.vision.detect import SURE_UPRIGHT, Detections, Detector, turn, views, whole_crop
from engine.vision.device import choose_device
from engine.vision.faces import cut_faces
from engine.vision.fingerprint import pattern
from engine.vision.worker_threads import WorkerThreads

_LOG = logging.getLogger(__name__)

_Number = tuple[int, int]
"""Of a face: its request's number, and its own in that photo."""


class Pipeline:
    """Everything that sees, for one bundle on one device.

    Args:
        bundle: who is known.
        embedder: the one that the bundle was made with.
        device: where the networks run.

    Attributes:
        bundle: the one that answers.
        recogniser: tells its people apart.
        device: where the networks run.

    Raises:
        BundleError: the bundle was made with another embedder or other weights.
    """

    def __init__(self, bundle: Bundle, embedder: embed.Embedder, device: torch.device) -> None:
        own = embedder.specification
        bundle.require_made_with(own.id, own.weights_sha256)
        self._detector = Detector(device)
        self._embedder = embedder
        self.recogniser = recogniser.load(bundle, device)
        self.bundle = bundle
        self.device = device
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
    def at_once(self) -> int:
        """Two where its parts take turns: one batch's last part leaves cores to the next batch."""
        return 2 if self._workers.several else 1

    def info(self) -> EngineInfo:
        """What this pipeline is made of."""
        return EngineInfo(
            version=__version__,
            bundle=self.bundle.id,
            embedder=self._embedder.specification.id,
            people=len(self.recogniser),
            device=str(self.device),
            login=self.bundle.manifest.login,
        )

    def people(self) -> tuple[Person, ...]:
        """Whom the bundle knows, in the order of the class indices."""
        manifest = self.bundle.manifest
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

        def see(share: Sequence[int]) -> list[Analysis]:
            return self._see([requests[i] for i in share])

        return self._workers.map(see, [_cost(request) for request in requests])

    def _see(self, asked: Sequence[PhotoRequest]) -> list[Analysis]:
        requests, detections, turned = self._find(asked)
        template = self._embedder.specification.template
        cut = [
            cut_faces(request.image, found, request.size_px, template)
            for request, found in zip(requests, detections, strict=True)
        ]
        owners = [(i, k) for i, faces in enumerate(cut) for k in range(len(faces))]
        # Vectors are not needed where a classifier looks at the crops itself and nobody asks.
        by_crop = isinstance(self.recogniser, Classifier)
        embedded = [
            (i, k) for i, k in owners if requests[i].embed or (requests[i].top_k and not by_crop)
        ]
        crops = [cut[i][k].crop for i, k in embedded]
        vectors = embed.embed_crops(self._embedder, np.stack(crops)) if crops else None
        kept = {} if vectors is None else dict(zip(embedded, vectors.cpu().numpy(), strict=True))
        named = [(i, k) for i, k in owners if requests[i].top_k]

        def crops_on(template: Template) -> NDArray[np.uint8]:
            cuts = ((requests[i].image, detections[i].landmarks[k]) for i, k in named)
            return np.stack([align.cut(image, points, template) for image, points in cuts])

        top_k = max((request.top_k for request in requests), default=0)
        matches = self._name(named, top_k, embedded, vectors, crops_on)
        faces: list[list[Face]] = [[] for _ in requests]
        for i, k in owners:
            own, request = cut[i][k], requests[i]
            points = detections[i].landmarks[k]
            faces[i].append(
                Face(
                    box=own.box,
                    landmarks=own.landmarks,
                    probability=own.probability,
                    quality=own.quality,
                    pose=own.pose,
                    matches=matches.get((i, k), ())[: request.top_k],
                    embedding=kept[i, k] if request.embed else None,
                    pattern=pattern(request.image, points) if request.embed else None,
                )
            )
        return [
            Analysis(
                faces=tuple(seen),
                width_px=request.size_px[0],
                height_px=request.size_px[1],
                bundle=self.bundle.id,
                turned=degrees,
                picture=request.picture,
            )
            for seen, request, degrees in zip(faces, requests, turned, strict=True)
        ]

    def _find(
        self, asked: Sequence[PhotoRequest]
    ) -> tuple[list[PhotoRequest], list[Detections], list[int]]:
        """Find faces; photos are turned where no face surely stands upright and a turn shows one.

        Returns:
            The requests, those with their photos turned among them, what was found in each, and by
            how many degrees each was turned clockwise.
        """
        requests, turned = list(asked), [0] * len(asked)
        unseen = [request for request in requests if request.searched]
        found = iter(
            self._detector.detect([r.image for r in unseen], near=[r.near for r in unseen])
        )
        detections = [
            next(found)
            if request.searched
            else whole_crop(request.image.size)
            if request.face is None
            else _found_before(request.face, request)
            for request in requests
        ]
        # On its side, a face is often taken for another one, less probable and in a wrong place.
        unsure = [
            i
            for i, request in enumerate(requests)
            if request.searched and not request.near and not _upright(detections[i])
        ]
        if not unsure:
            return requests, detections, turned
        turns = self._detector.turns([requests[i].image for i in unsure])
        shown = {
            i: (turn(requests[i].image, degrees), degrees)
            for i, degrees in zip(unsure, turns, strict=True)
            if degrees
        }
        again = self._detector.detect([image for image, _ in shown.values()])
        for (i, (image, degrees)), seen in zip(shown.items(), again, strict=True):
            # The small canvas may have shown what the full one, which is more exact, does not.
            if _upright(seen):
                requests[i] = _turned(requests[i], image, degrees)
                detections[i], turned[i] = seen, degrees
        return requests, detections, turned

    def _name(
        self,
        named: Sequence[_Number],
        top_k: int,
        embedded: Sequence[_Number],
        vectors: torch.Tensor | None,
        crops_on: Callable[[Template], NDArray[np.uint8]],
    ) -> dict[_Number, tuple[Match, ...]]:
        """Whom faces resemble.

        Args:
            named: the faces' numbers.
            top_k: how many people to name for each.
            embedded: of which faces there are `vectors`.
            vectors: their embeddings, in order.
            crops_on: cuts the faces out on a template.
        """
        if not named:
            return {}
        if isinstance(self.recogniser, Classifier):
            found = self.recogniser.search(crops_on(self.recogniser.template), top_k)
        else:
            assert vectors is not None
            row = {number: place for place, number in enumerate(embedded)}
            found = self.recogniser.search(vectors[[row[number] for number in named]], top_k)
        return dict(zip(named, found, strict=True))


def _cost(request: PhotoRequest) -> float:
    """About how much work a photo is: its canvases, and reading its pixels."""
    width, height = request.image.size
    if not request.searched:
        return 1.0
    canvases = 1.5 if request.near else 4.0 * len(views(request.image.size))
    return canvases + width * height / 1e6


def _upright(found: Detections) -> bool:
    """Whether a face surely stands upright."""
    return bool((found.probabilities >= SURE_UPRIGHT).any())


def _turned(request: PhotoRequest, image: Image.Image, degrees: int) -> PhotoRequest:
    width, height = request.size_px
    size = (width, height) if degrees == 180 else (height, width)
    shown = None if request.picture is None else jpeg.turned(request.picture, degrees)
    return replace(request, image=image, original_px=size, picture=shown)


def _found_before(face: Face, request: PhotoRequest) -> Detections:
    """A face in pixels of the original, as if it had been found just now."""
    scale = np.array(request.size_px, np.float64) / request.image.size
    return Detections(
        boxes=(np.array([face.box]) / np.tile(scale, 2)).astype(np.float32),
        landmarks=(np.array([face.landmarks]) / scale).astype(np.float32),
        probabilities=np.array([face.probability], np.float32),
    )
