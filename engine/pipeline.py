"""Photos to analyses: detect, align, measure, embed, search; synchronous and batch-first.

Knows nothing about queues, HTTP or who asks. One thread at a time may use it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engine import __version__, align, bundle, embed, recogniser
from engine.align import Template
from engine.bundle import Bundle
from engine.classify import Classifier
from engine.detect import Detections, Detector, whole_crop
from engine.device import choose_device
from engine.errors import BundleError
from engine.pose import pose
from engine.quality import quality
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Face, Landmarks


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

    @classmethod
    def from_settings(cls, settings: Settings) -> "Pipeline":
        """Load what the settings name.

        Raises:
            ConfigurationError: the device, the bundle or the weights are not as they should be.
        """
        device = choose_device(settings.engine_device)
        chosen = bundle.load(settings.engine_bundle)
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

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        """Analyse photos together.

        Args:
            requests: photos and what is wanted of each.

        Returns:
            One analysis per request, in order; without faces where nobody was found.
        """
        detections = self._detect(requests)
        owners = [(i, k) for i, found in enumerate(detections) for k in range(len(found))]
        crops = self._cut(requests, detections, owners, self._embedder.specification.template)
        top_k = max((request.top_k for request in requests), default=1)
        # Vectors are not needed where a classifier looks at the crops itself and nobody asks.
        wanted = any(request.embed for request in requests)
        vectors = None
        if wanted or not isinstance(self._recogniser, Classifier):
            vectors = embed.embed_crops(self._embedder, crops)
        if isinstance(self._recogniser, Classifier):
            own = self._cut(requests, detections, owners, self._recogniser.template)
            matches = self._recogniser.search(own, top_k)
        else:
            assert vectors is not None
            matches = self._recogniser.search(vectors, top_k)
        kept = None if vectors is None else vectors.cpu().numpy()
        faces: list[list[Face]] = [[] for _ in requests]
        for j, (i, k) in enumerate(owners):
            found, request = detections[i], requests[i]
            scale = _scale(request)
            x1, y1, x2, y2 = (found.boxes[k] * np.tile(scale, 2)).tolist()
            points = found.landmarks[k] * scale
            faces[i].append(
                Face(
                    box=(x1, y1, x2, y2),
                    landmarks=_landmarks(points),
                    probability=float(found.probabilities[k]),
                    quality=quality((x1, y1, x2, y2), crops[j]),
                    pose=pose(points),
                    matches=matches[j][: request.top_k],
                    embedding=kept[j] if request.embed and kept is not None else None,
                )
            )
        return [
            Analysis(
                faces=tuple(own),
                width_px=_original(request)[0],
                height_px=_original(request)[1],
                bundle=self._bundle.id,
            )
            for own, request in zip(faces, requests, strict=True)
        ]

    def _detect(self, requests: Sequence[PhotoRequest]) -> list[Detections]:
        photos = iter(self._detector.detect([r.image for r in requests if not r.aligned]))
        return [
            whole_crop(request.image.size) if request.aligned else next(photos)
            for request in requests
        ]

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


def _original(request: PhotoRequest) -> tuple[int, int]:
    return request.original_px or request.image.size


def _scale(request: PhotoRequest) -> NDArray[np.float64]:
    """(2,) x and y: pixels of the original in one of the decoded photo's."""
    return np.array(_original(request), np.float64) / request.image.size


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
