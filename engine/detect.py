"""Photos to faces: MTCNN (Zhang et al. 2016) over batches of photos on fixed canvases.

The three networks and their weights are facenet-pytorch's; the cascade around them is ours, so
that photos of any sizes share a batch, no photo's size reaches a network (every new shape would
make the backend build and keep new kernels), and candidates are cut out of all photos at once.
Knows nothing about whose faces they are or what becomes of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

from engine.align import ARCFACE, ARCFACE_SIZE
from engine.pyramid import CELL_PX, MOST_LEVELS, STRIDE_PX, Pyramid

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
# More crops at once fall out of a CPU's caches: 0.6 to 0.8 ms each, instead of 0.3.
_ONET_CPU_MOST = 64


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


@dataclass(frozen=True, slots=True)
class _Stack:
    """The photos of a batch that share a canvas; they lie side by side in the batch."""

    pyramid: Pyramid
    first: int  # index of its first photo in the batch
    raw: Tensor  # (n, 3, height, width) bytes
    pixels: Tensor  # the same, normalised

    def owns(self, photo: Tensor) -> Tensor:
        """Which of the indices into the batch are its own."""
        return (photo >= self.first) & (photo < self.first + len(self.raw))


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
        self._onet_most = _ONET_CPU_MOST if device.type == "cpu" else _BUCKETS[-1]

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
        small = near or [False] * len(photos)
        canvas_of = [
            _best_canvas(photo.size, small=own) for photo, own in zip(photos, small, strict=True)
        ]
        # Whatever shares a canvas side by side; from the first network on, all are one batch.
        order = sorted(range(len(photos)), key=canvas_of.__getitem__)
        if not order:
            return []
        stacks: list[_Stack] = []
        scales: list[tuple[float, float]] = []
        extents: list[tuple[int, int]] = []
        for canvas, members in groupby(order, key=canvas_of.__getitem__):
            raw, own_scales, own_extents = _letterbox(canvas, [photos[i] for i in members])
            on_device = torch.from_numpy(raw).to(self._device).permute(0, 3, 1, 2)
            pixels = _normalise(on_device).contiguous()
            stacks.append(_Stack(self._pyramid(canvas), len(scales), on_device, pixels))
            scales += own_scales
            extents += own_extents
        found = self._cascade(stacks, torch.tensor(extents).to(self._device), scales)
        place = {i: k for k, i in enumerate(order)}
        return [found[place[i]] for i in range(len(photos))]

    def _cascade(
        self, stacks: Sequence[_Stack], extents: Tensor, scales: Sequence[tuple[float, float]]
    ) -> list[Detections]:
        candidates = self._propose(stacks, extents)
        candidates = self._refine(stacks, extents, candidates)
        candidates, landmarks = self._output(stacks, extents, candidates)
        return _collect(candidates, landmarks, scales)

    def _pyramid(self, canvas: tuple[int, int]) -> Pyramid:
        if canvas not in self._pyramids:
            self._pyramids[canvas] = Pyramid(*canvas, SMALLEST_FACE_PX, self._device)
        return self._pyramids[canvas]

    def _propose(self, stacks: Sequence[_Stack], extents: Tensor) -> _Candidates:
        """P-Net over image pyramids: every window that may hold a face."""
        parts = [window for stack in stacks for window in self._windows(stack)]
        photo, level, boxes, scores, regression_all = (
            torch.cat(part) for part in zip(*parts, strict=True)
        )
        found = _Candidates(photo, boxes, scores)
        keep = batched_nms(boxes, scores, photo * MOST_LEVELS + level, 0.5)
        found, regression_all = found[keep], regression_all[keep]
        # A window over the letterbox's border has nothing of the photo in it.
        inside = (found.boxes[:, :2] < extents[found.photo]).all(dim=1)
        index = torch.nonzero(inside)[:, 0]
        found, regression_all = found[index], regression_all[index]
        keep = batched_nms(found.boxes, found.scores, found.photo, 0.7)
        keep = _strongest(found.photo[keep], keep, len(extents))
        found, regression_all = found[keep], regression_all[keep]
        size = found.boxes[:, 2:] - found.boxes[:, :2]
        found.boxes = found.boxes + regression_all * size.repeat(1, 2)
        found.boxes = _square(found.boxes)
        return found

    def _windows(self, stack: _Stack) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """P-Net's windows on each sheet: photo, level, box, score and regression."""
        pyramid = stack.pyramid
        for sheet, level_of in zip(pyramid.sheets(stack.raw), pyramid.level_of, strict=True):
            regression, probability = self._pnet(_normalise(sheet))
            likely = (probability[:, 1] >= _THRESHOLDS[0]) & (level_of >= 0)
            photo, row, column = torch.nonzero(likely, as_tuple=True)
            level = level_of[row, column]
            corner = torch.stack([column, row], dim=1) * STRIDE_PX - pyramid.origins[level]
            sides = torch.cat([corner + 1, corner + CELL_PX], dim=1)
            yield (
                photo + stack.first,
                level,
                (sides / pyramid.scales[level][:, None]).floor(),
                probability[photo, 1, row, column],
                regression[photo, :, row, column],
            )

    def _refine(self, stacks: Sequence[_Stack], extents: Tensor, found: _Candidates) -> _Candidates:
        """R-Net: rejects most windows and moves the others."""
        found, crops = _crops(stacks, extents, found, 24)
        regression, probability = _in_buckets(self._rnet, crops)
        index = torch.nonzero(probability[:, 1] > _THRESHOLDS[1])[:, 0]
        found, regression = found[index], regression[index]
        found.scores = probability[index, 1]
        keep = batched_nms(found.boxes, found.scores, found.photo, 0.7)
        keep = _strongest(found.photo[keep], keep, len(extents))
        found, regression = found[keep], regression[keep]
        found.boxes = _square(_regress(found.boxes, regression))
        return found

    def _output(
        self, stacks: Sequence[_Stack], extents: Tensor, found: _Candidates
    ) -> tuple[_Candidates, Tensor]:
        """O-Net: the last word on each window, and its landmarks."""
        found, crops = _crops(stacks, extents, found, 48)
        regression, points, probability = _in_buckets(self._onet, crops, self._onet_most)
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
) -> tuple[NDArray[np.uint8], list[tuple[float, float]], list[tuple[int, int]]]:
    """Photos scaled into the top left corner of equal canvases.

    Returns:
        (n, height, width, 3) RGB on grey, each photo's exact (x, y) scale from photo to canvas, and
        its width and height on the canvas.
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
    return stack, scales, extents


def _normalise(stack: Tensor) -> Tensor:
    """0..255 to about -1..1, as MTCNN was trained."""
    return (stack.float() - 127.5) * 0.0078125


def _crops(
    stacks: Sequence[_Stack], extents: Tensor, found: _Candidates, size: int
) -> tuple[_Candidates, Tensor]:
    """Every candidate's window, resized, in one operation for each canvas.

    A window is clipped to its photo and stretched, as facenet-pytorch does; windows with nothing
    of the photo in them are dropped.
    """
    limit = extents[found.photo].float()
    top_left = (found.boxes[:, :2] - 1).clamp(min=0)
    bottom_right = torch.minimum(found.boxes[:, 2:], limit)
    inside = (bottom_right - top_left >= 1).all(dim=1)
    kept, crops = [], []
    for stack in stacks:
        index = torch.nonzero(inside & stack.owns(found.photo))[:, 0]
        photo = (found.photo[index, None] - stack.first).float()
        rois = torch.cat([photo, top_left[index], bottom_right[index]], dim=1)
        crops.append(roi_align(stack.pixels, rois, size, sampling_ratio=2, aligned=True))
        kept.append(index)
    together = torch.cat(crops).contiguous(memory_format=torch.channels_last)
    return found[torch.cat(kept)], together


def _in_buckets(
    network: torch.nn.Module, crops: Tensor, largest: int = _BUCKETS[-1]
) -> tuple[Tensor, ...]:
    """A network over any number of crops, which sees only a few batch sizes."""
    outputs: list[tuple[Tensor, ...]] = []
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
