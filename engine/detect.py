"""Photos to faces: MTCNN (Zhang et al. 2016) over batches of photos on fixed canvases.

The three networks and their weights are facenet-pytorch's; the cascade around them is ours, so
that photos of any sizes share a batch, no photo's size reaches a network (every new shape would
make the backend build and keep new kernels), and candidates are cut out of all photos at once.
Knows nothing about whose faces they are or what becomes of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

from engine.align import ARCFACE, ARCFACE_SIZE
from engine.pyramid import CELL_PX, STRIDE_PX, Pyramid

CANVASES = ((640, 480), (480, 640), (560, 560), (800, 450), (450, 800), (1120, 320), (320, 1120))
"""(width, height) in pixels; a photo is scaled to fit the one that shows it largest."""

SMALL_CANVASES = tuple((width * 3 // 5, height * 3 // 5) for width, height in CANVASES)
"""For photos so small that a full canvas would only enlarge their pixels (smaller ones still lose
faces that facenet-pytorch finds in such photos), and for those of which only large faces count."""

_LARGEST_ENLARGEMENT = 2.0

SMALLEST_FACE_PX = 28
"""Of a face on its canvas: about 1/17 of the shorter side of a 4:3 photo."""

MAX_FACES = 32
"""Of one photo: the most probable ones are kept."""

_MAX_CANDIDATES = 256
"""Of one photo, after each network: a wall of faces must not cost more than a crowd."""

_THRESHOLDS = (0.65, 0.7, 0.7)
_BUCKETS = (1, *range(2, 17, 2), 20, 24, 32, 40, 48, *range(64, 129, 16), *range(160, 257, 32))


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces of one photo, largest first.

    Attributes:
        boxes: (n, 4) float32 x1, y1, x2, y2 in pixels of the photo; may reach past its edge.
        landmarks: (n, 5, 2) float32 x, y in pixels of the photo, in the order of
            `engine.types.Landmarks`.
        probabilities: (n,) float32, 0 to 1.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(slots=True)
class _Candidates:
    """Boxes of all photos of a batch, in canvas pixels."""

    photo: Tensor  # (n,) int64, index into the batch
    boxes: Tensor  # (n, 4)
    scores: Tensor  # (n,)

    def __getitem__(self, index: Tensor) -> "_Candidates":
        return _Candidates(self.photo[index], self.boxes[index], self.scores[index])


class Detector:
    """MTCNN with all faces kept.

    Args:
        device: where the networks run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pyramids: dict[tuple[int, int], Pyramid] = {}
        # Channels last: pooling alone is ten times faster so on a CPU.
        self._pnet = PNet().eval().to(device, memory_format=torch.channels_last)
        self._rnet = RNet().eval().to(device, memory_format=torch.channels_last)
        self._onet = ONet().eval().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def detect(
        self, photos: Sequence[Image.Image], *, near: Sequence[bool] | None = None
    ) -> list[Detections]:
        """Find the faces of every photo.

        Args:
            photos: RGB pictures of any sizes, at least 1x1.
            near: of which photos a small canvas is enough, because only large faces are wanted;
                None is of none.

        Returns:
            One `Detections` per photo, in order; empty where nobody was found.
        """
        found: list[Detections | None] = [None] * len(photos)
        small = near or [False] * len(photos)
        canvas_of = [
            _best_canvas(photo.size, small=own) for photo, own in zip(photos, small, strict=True)
        ]
        for canvas in dict.fromkeys(canvas_of):
            members = [i for i, own in enumerate(canvas_of) if own == canvas]
            for i, detections in zip(
                members, self._detect_on(canvas, [photos[i] for i in members]), strict=True
            ):
                found[i] = detections
        return [detections for detections in found if detections is not None]

    def _detect_on(
        self, canvas: tuple[int, int], photos: Sequence[Image.Image]
    ) -> list[Detections]:
        stack, scales, extents = _letterbox(canvas, photos)
        raw = torch.from_numpy(stack).to(self._device).permute(0, 3, 1, 2)
        extents = extents.to(self._device)
        candidates = self._propose(self._pyramid(canvas), raw, extents)
        pixels = _normalise(raw).contiguous()
        candidates = self._refine(pixels, extents, candidates)
        candidates, landmarks = self._output(pixels, extents, candidates)
        return _collect(candidates, landmarks, scales)

    def _pyramid(self, canvas: tuple[int, int]) -> Pyramid:
        if canvas not in self._pyramids:
            self._pyramids[canvas] = Pyramid(*canvas, SMALLEST_FACE_PX, self._device)
        return self._pyramids[canvas]

    def _propose(self, pyramid: Pyramid, stack: Tensor, extents: Tensor) -> _Candidates:
        """P-Net over an image pyramid: every window that may hold a face."""
        photos, corners, levels, scores, regressions = [], [], [], [], []
        for sheet, level_of in zip(pyramid.sheets(stack), pyramid.level_of, strict=True):
            regression, probability = self._pnet(_normalise(sheet))
            likely = (probability[:, 1] >= _THRESHOLDS[0]) & (level_of >= 0)
            photo, row, column = torch.nonzero(likely, as_tuple=True)
            photos.append(photo)
            corners.append(torch.stack([column, row], dim=1) * STRIDE_PX)
            levels.append(level_of[row, column])
            scores.append(probability[photo, 1, row, column])
            regressions.append(regression[photo, :, row, column])
        level, regression_all = torch.cat(levels), torch.cat(regressions)
        scale = pyramid.scales[level][:, None]
        corner = torch.cat(corners) - pyramid.origins[level]
        boxes = torch.cat(
            [((corner + 1) / scale).floor(), ((corner + CELL_PX) / scale).floor()], dim=1
        )
        found = _Candidates(torch.cat(photos), boxes, torch.cat(scores))
        keep = batched_nms(boxes, found.scores, found.photo * len(pyramid.scales) + level, 0.5)
        found, regression_all = found[keep], regression_all[keep]
        # A window over the letterbox's border has nothing of the photo in it.
        inside = (found.boxes[:, :2] < extents[found.photo]).all(dim=1)
        index = torch.nonzero(inside)[:, 0]
        found, regression_all = found[index], regression_all[index]
        keep = batched_nms(found.boxes, found.scores, found.photo, 0.7)
        keep = _strongest(found.photo[keep], keep, len(stack))
        found, regression_all = found[keep], regression_all[keep]
        size = found.boxes[:, 2:] - found.boxes[:, :2]
        found.boxes = found.boxes + regression_all * size.repeat(1, 2)
        found.boxes = _square(found.boxes)
        return found

    def _refine(self, pixels: Tensor, extents: Tensor, found: _Candidates) -> _Candidates:
        """R-Net: rejects most windows and moves the others."""
        found, crops = _crops(pixels, extents, found, 24)
        regression, probability = _in_buckets(self._rnet, crops)
        index = torch.nonzero(probability[:, 1] > _THRESHOLDS[1])[:, 0]
        found, regression = found[index], regression[index]
        found.scores = probability[index, 1]
        keep = batched_nms(found.boxes, found.scores, found.photo, 0.7)
        keep = _strongest(found.photo[keep], keep, len(pixels))
        found, regression = found[keep], regression[keep]
        found.boxes = _square(_regress(found.boxes, regression))
        return found

    def _output(
        self, pixels: Tensor, extents: Tensor, found: _Candidates
    ) -> tuple[_Candidates, Tensor]:
        """O-Net: the last word on each window, and its landmarks."""
        found, crops = _crops(pixels, extents, found, 48)
        regression, points, probability = _in_buckets(self._onet, crops)
        index = torch.nonzero(probability[:, 1] > _THRESHOLDS[2])[:, 0]
        found, regression, points = found[index], regression[index], points[index]
        found.scores = probability[index, 1]
        size = found.boxes[:, 2:] - found.boxes[:, :2] + 1
        corner = found.boxes[:, :2]
        x = corner[:, :1] + size[:, :1] * points[:, :5] - 1
        y = corner[:, 1:] + size[:, 1:] * points[:, 5:] - 1
        landmarks = torch.stack([x, y], dim=2)
        found.boxes = _regress(found.boxes, regression)
        keep = _suppress_nested(found)
        return found[keep], landmarks[keep]


def whole_crop(size: tuple[int, int]) -> Detections:
    """The one face of a crop that is aligned to the ArcFace template already.

    Args:
        size: the crop's width and height in pixels.
    """
    scale = np.array(size, np.float32) / ARCFACE_SIZE
    return Detections(
        boxes=np.array([[0, 0, *size]], np.float32),
        landmarks=(ARCFACE * scale).astype(np.float32)[None],
        probabilities=np.ones(1, np.float32),
    )


def _best_canvas(size: tuple[int, int], *, small: bool) -> tuple[int, int]:
    def scale(canvas: tuple[int, int]) -> float:
        return min(canvas[0] / size[0], canvas[1] / size[1])

    best = max(CANVASES, key=scale)
    if small or scale(best) > _LARGEST_ENLARGEMENT:
        return max(SMALL_CANVASES, key=scale)
    return best


def _letterbox(
    canvas: tuple[int, int], photos: Sequence[Image.Image]
) -> tuple[NDArray[np.uint8], list[tuple[float, float]], Tensor]:
    """Photos scaled into the top left corner of equal canvases.

    Returns:
        (n, height, width, 3) RGB on grey, each photo's exact (x, y) scale from photo to canvas, and
        (n, 2) its width and height on the canvas.
    """
    width, height = canvas
    stack = np.full((len(photos), height, width, 3), 127, np.uint8)
    scales: list[tuple[float, float]] = []
    extents: list[tuple[int, int]] = []
    for i, photo in enumerate(photos):
        scale = min(width / photo.width, height / photo.height)
        fitted = (
            max(1, min(width, round(photo.width * scale))),
            max(1, min(height, round(photo.height * scale))),
        )
        small = photo.resize(fitted, Image.Resampling.BILINEAR, reducing_gap=1.0)
        stack[i, : fitted[1], : fitted[0]] = np.asarray(small)
        scales.append((fitted[0] / photo.width, fitted[1] / photo.height))
        extents.append(fitted)
    return stack, scales, torch.tensor(extents)


def _normalise(stack: Tensor) -> Tensor:
    """0..255 to about -1..1, as MTCNN was trained."""
    return (stack.float() - 127.5) * 0.0078125


def _crops(
    pixels: Tensor, extents: Tensor, found: _Candidates, size: int
) -> tuple[_Candidates, Tensor]:
    """Every candidate's window, resized, in one operation.

    A window is clipped to its photo and stretched, as facenet-pytorch does; windows with nothing
    of the photo in them are dropped.
    """
    limit = extents[found.photo].float()
    top_left = (found.boxes[:, :2] - 1).clamp(min=0)
    bottom_right = torch.minimum(found.boxes[:, 2:], limit)
    index = torch.nonzero((bottom_right - top_left >= 1).all(dim=1))[:, 0]
    rois = torch.cat([found.photo[:, None].float(), top_left, bottom_right], dim=1)[index]
    crops = roi_align(pixels, rois, size, sampling_ratio=2, aligned=True)
    return found[index], crops.contiguous(memory_format=torch.channels_last)


def _in_buckets(network: torch.nn.Module, crops: Tensor) -> tuple[Tensor, ...]:
    """A network over any number of crops, which sees only a few batch sizes."""
    outputs: list[tuple[Tensor, ...]] = []
    largest = _BUCKETS[-1]
    for start in range(0, max(1, len(crops)), largest):
        part = crops[start : start + largest]
        bucket = next(size for size in _BUCKETS if size >= len(part))
        padded = torch.cat([part, part.new_zeros(bucket - len(part), *part.shape[1:])])
        padded = padded.contiguous(memory_format=torch.channels_last)
        outputs.append(tuple(output[: len(part)] for output in network(padded)))
    return tuple(torch.cat(tensors) for tensors in zip(*outputs, strict=True))


def _strongest(photo: Tensor, keep: Tensor, photos: int) -> Tensor:
    """Of indices sorted by score, at most `_MAX_CANDIDATES` per photo."""
    if len(keep) <= _MAX_CANDIDATES:
        return keep
    return torch.cat([keep[torch.nonzero(photo == i)[:_MAX_CANDIDATES, 0]] for i in range(photos)])


def _square(boxes: Tensor) -> Tensor:
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.amax(dim=1, keepdim=True)
    corner = boxes[:, :2] + (size - side) / 2
    return torch.cat([corner, corner + side], dim=1)


def _regress(boxes: Tensor, regression: Tensor) -> Tensor:
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + regression * size.repeat(1, 2)


def _suppress_nested(found: _Candidates) -> Tensor:
    """Non-maximum suppression by intersection over the smaller box, 0.7, within each photo."""
    boxes = found.boxes
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1)
    top_left = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (bottom_right - top_left + 1).clamp(min=0).prod(dim=2)
    overlaps = shared / torch.minimum(area[:, None], area[None, :]) > 0.7
    overlaps &= found.photo[:, None] == found.photo[None, :]
    conflicts = overlaps.cpu().numpy()
    kept: list[int] = []
    for i in found.scores.argsort(descending=True, stable=True).tolist():
        if not conflicts[i, kept].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def _collect(
    found: _Candidates, landmarks: Tensor, scales: Sequence[tuple[float, float]]
) -> list[Detections]:
    photo = found.photo.cpu().numpy()
    boxes = found.boxes.cpu().numpy()
    points = landmarks.cpu().numpy()
    scores = found.scores.cpu().numpy()
    collected = []
    for i, (x_scale, y_scale) in enumerate(scales):
        own = np.flatnonzero(photo == i)[:MAX_FACES]  # strongest first
        scale = np.array([x_scale, y_scale], np.float32)
        own_boxes = (boxes[own] / np.tile(scale, 2)).astype(np.float32)
        sides = own_boxes[:, 2:] - own_boxes[:, :2]
        order = np.argsort(-sides.prod(axis=1), kind="stable")
        collected.append(
            Detections(
                own_boxes[order],
                (points[own] / scale).astype(np.float32)[order],
                scores[own][order],
            )
        )
    return collected
