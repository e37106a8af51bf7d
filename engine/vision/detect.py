"""Photos to faces: MTCNN (Zhang et al. 2016) over batches of photos on fixed canvases.

The networks' weights are facenet-pytorch's; the cascade around them is ours, so that photos of any
sizes share a batch, no photo's size reaches a network (every new shape would make the backend build
and keep new kernels), and candidates are cut out of all photos at once.
Knows nothing about whose faces they are or what becomes of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from engine.vision.align import ARCFACE, ARCFACE_SIZE
from engine.vision.mtcnn import batched_nms, o_net, p_net, r_net, roi_align
from engine.vision.pyramid import CELL_PX, MOST_LEVELS, STRIDE_PX, Pyramid

CANVASES = ((640, 480), (480, 640), (560, 560), (800, 450), (450, 800), (1120, 320), (320, 1120))
"""(width, height) in pixels; a photo is scaled to fit the one that shows it largest."""

MOST_VIEWS = 6
"""Canvases of one photo: one, unless it is longer than all of them; see `views`."""

_LONGEST = max(max(canvas) / min(canvas) for canvas in CANVASES)

SMALL_CANVASES = tuple((width * 3 // 5, height * 3 // 5) for width, height in CANVASES)
"""For photos so small that a full canvas would only enlarge their pixels (smaller ones still lose
faces that facenet-pytorch finds in such photos), and for those of which only large faces count."""

_LARGEST_ENLARGEMENT = 2.0

SMALLEST_FACE_PX = 28
"""Of a face on its canvas: about 1/17 of the shorter side of a 4:3 photo."""

MAX_FACES = 32
"""Of one photo: the most probable ones are kept."""

_MAX_CANDIDATES = 512
"""Of one view, after each network: a wall of faces must not cost more than a crowd."""

TURNS = {
    90: Image.Transpose.ROTATE_270,  # Pillow turns the other way
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}
"""Degrees clockwise, and what Pillow calls it."""

SURE_UPRIGHT = 0.999
"""Probability of a face that surely stands upright. Of 153 photos on their side or upside down,
56 had a face for the networks, but none that was as probable as this."""

_SURE_OF_TURN = 0.99
"""On the small canvas, which is less exact."""

_TURNED_PX = max(max(canvas) for canvas in SMALL_CANVASES)

THRESHOLDS = (0.65, 0.7, 0.7)
"""Of the three networks' probabilities."""

_BUCKETS = (1, *range(2, 17, 2), 20, 24, 32, 40, 48, *range(64, 129, 16), *range(160, 257, 32))
# More crops at once fall out of a CPU's caches: 0.6 to 0.8 ms each, instead of 0.3.
_ONET_CPU_MOST = 64


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces of one photo, largest first.

    Attributes:
        boxes: (n, 4) float32 x1, y1, x2, y2 in pixels of the photo, within it and never empty: of
            a face that the photo's edge cuts, the part that shows.
        landmarks: (n, 5, 2) float32 x, y in pixels of the photo, in the order of
            `engine.types.Landmarks`; they may lie past its edge.
        probabilities: (n,) float32, 0 to 1.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.probabilities)

    def part(self, index: Sequence[int]) -> "Detections":
        """Some of them."""
        numbers = list(index)
        return Detections(self.boxes[numbers], self.landmarks[numbers], self.probabilities[numbers])


@dataclass(slots=True)
class _Candidates:
    """Boxes in all views of a batch, in canvas pixels."""

    view: Tensor  # (n,) int64, index into the batch's views
    boxes: Tensor  # (n, 4)
    scores: Tensor  # (n,)

    def __getitem__(self, index: Tensor) -> "_Candidates":
        return _Candidates(self.view[index], self.boxes[index], self.scores[index])


@dataclass(frozen=True, order=True, slots=True)
class _View:
    """A part of a photo, on a canvas of its own; views are sorted by canvas."""

    canvas: tuple[int, int]
    photo: int  # index into the batch's photos
    area: tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of the photo


@dataclass(frozen=True, slots=True)
class _Stack:
    """The views of a batch that share a canvas; they lie side by side in the batch."""

    pyramid: Pyramid
    first: int  # index of its first view in the batch
    raw: Tensor  # (n, 3, height, width) bytes
    pixels: Tensor  # the same, normalised

    def owns(self, view: Tensor) -> Tensor:
        """Which of the indices into the batch's views are its own."""
        return (view >= self.first) & (view < self.first + len(self.raw))


class Detector:
    """MTCNN with all faces kept.

    Args:
        device: where the networks run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pyramids: dict[tuple[int, int], Pyramid] = {}
        # Channels last: pooling alone is ten times faster so on a CPU.
        self._pnet, self._rnet, self._onet = (
            build().to(device).to(memory_format=torch.channels_last)
            for build in (p_net, r_net, o_net)
        )
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
        looked_at = sorted(
            _View(_best_canvas((x2 - x1, y2 - y1), small=own), i, (x1, y1, x2, y2))
            for i, (photo, own) in enumerate(zip(photos, small, strict=True))
            for x1, y1, x2, y2 in ([(0, 0, *photo.size)] if own else views(photo.size))
        )
        if not looked_at:
            return []
        # Whatever shares a canvas side by side; from the first network on, all are one batch.
        stacks: list[_Stack] = []
        sides: list[tuple[int, int]] = []
        for canvas, members in groupby(looked_at, key=lambda view: view.canvas):
            raw, own_sides = _letterbox(canvas, [(photos[v.photo], v.area) for v in members])
            on_device = torch.from_numpy(raw).to(self._device).permute(0, 3, 1, 2)
            pixels = _normalise(on_device).contiguous()
            stacks.append(_Stack(self._pyramid(canvas), len(sides), on_device, pixels))
            sides += own_sides
        extents = torch.tensor(sides).to(self._device)
        candidates = self._propose(stacks, extents)
        candidates = self._refine(stacks, extents, candidates)
        candidates, landmarks = self._output(stacks, extents, candidates)
        return _collect(candidates, landmarks, looked_at, sides, [photo.size for photo in photos])

    def turns(self, photos: Sequence[Image.Image]) -> list[int]:
        """How each photo has to be turned so that a face shows in it.

        All turns of all photos are looked at together, on small canvases.

        Args:
            photos: as for `detect`; those in which no face is as probable as `SURE_UPRIGHT`.

        Returns:
            Degrees clockwise, one of `TURNS`, for each photo, that show the most probable face;
            0 where none shows one that is probable enough.
        """
        small = []
        for photo in photos:
            shrunk = photo.copy()
            shrunk.thumbnail((_TURNED_PX, _TURNED_PX), Image.Resampling.BILINEAR, reducing_gap=1.0)
            small.append(shrunk)
        turned = [turn(photo, degrees) for photo in small for degrees in TURNS]
        found = iter(self.detect(turned, near=[True] * len(turned)))
        told = []
        for _ in photos:
            best, degrees = max(
                (float(next(found).probabilities.max(initial=0.0)), degrees) for degrees in TURNS
            )
            told.append(degrees if best >= _SURE_OF_TURN else 0)
        return told

    def _pyramid(self, canvas: tuple[int, int]) -> Pyramid:
        if canvas not in self._pyramids:
            self._pyramids[canvas] = Pyramid(*canvas, SMALLEST_FACE_PX, self._device)
        return self._pyramids[canvas]

    def _propose(self, stacks: Sequence[_Stack], extents: Tensor) -> _Candidates:
        """P-Net over image pyramids: every window that may hold a face."""
        parts = [window for stack in stacks for window in self._windows(stack)]
        view, level, boxes, scores, regression_all = (
            torch.cat(part) for part in zip(*parts, strict=True)
        )
        found = _Candidates(view, boxes, scores)
        keep = batched_nms(boxes, scores, view * MOST_LEVELS + level, 0.5)
        found, regression_all = found[keep], regression_all[keep]
        # A window over the letterbox's border has nothing of the photo in it.
        inside = (found.boxes[:, :2] < extents[found.view]).all(dim=1)
        index = torch.nonzero(inside)[:, 0]
        found, regression_all = found[index], regression_all[index]
        keep = batched_nms(found.boxes, found.scores, found.view, 0.7)
        keep = _strongest(found.view[keep], keep, len(extents))
        found, regression_all = found[keep], regression_all[keep]
        size = found.boxes[:, 2:] - found.boxes[:, :2]
        found.boxes = found.boxes + regression_all * size.repeat(1, 2)
        found.boxes = _square(found.boxes)
        return found

    def _windows(self, stack: _Stack) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """P-Net's windows on each sheet: view, level, box, score and regression."""
        pyramid = stack.pyramid
        for sheet, level_of in zip(pyramid.sheets(stack.raw), pyramid.level_of, strict=True):
            regression, probability = self._pnet(_normalise(sheet))
            likely = (probability[:, 1] >= THRESHOLDS[0]) & (level_of >= 0)
            view, row, column = torch.nonzero(likely, as_tuple=True)
            level = level_of[row, column]
            corner = torch.stack([column, row], dim=1) * STRIDE_PX - pyramid.origins[level]
            sides = torch.cat([corner + 1, corner + CELL_PX], dim=1)
            yield (
                view + stack.first,
                level,
                (sides / pyramid.scales[level][:, None]).floor(),
                probability[view, 1, row, column],
                regression[view, :, row, column],
            )

    def _refine(self, stacks: Sequence[_Stack], extents: Tensor, found: _Candidates) -> _Candidates:
        """R-Net: rejects most windows and moves the others."""
        found, crops = _crops(stacks, extents, found, 24)
        regression, probability = _in_buckets(self._rnet, crops)
        index = torch.nonzero(probability[:, 1] > THRESHOLDS[1])[:, 0]
        found, regression = found[index], regression[index]
        found.scores = probability[index, 1]
        keep = batched_nms(found.boxes, found.scores, found.view, 0.7)
        keep = _strongest(found.view[keep], keep, len(extents))
        found, regression = found[keep], regression[keep]
        found.boxes = _square(_regress(found.boxes, regression))
        return found

    def _output(
        self, stacks: Sequence[_Stack], extents: Tensor, found: _Candidates
    ) -> tuple[_Candidates, Tensor]:
        """O-Net: the last word on each window, and its landmarks."""
        found, crops = _crops(stacks, extents, found, 48)
        regression, points, probability = _in_buckets(self._onet, crops, self._onet_most)
        index = torch.nonzero(probability[:, 1] > THRESHOLDS[2])[:, 0]
        found, regression, points = found[index], regression[index], points[index]
        found.scores = probability[index, 1]
        size = found.boxes[:, 2:] - found.boxes[:, :2] + 1
        corner = found.boxes[:, :2]
        x = corner[:, :1] + size[:, :1] * points[:, :5] - 1
        y = corner[:, 1:] + size[:, 1:] * points[:, 5:] - 1
        landmarks = torch.stack([x, y], dim=2)
        found.boxes = _regress(found.boxes, regression)
        return found, landmarks


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


def turn(photo: Image.Image, degrees: int) -> Image.Image:
    """A photo turned clockwise by 0 degrees or one of `TURNS`."""
    return photo if not degrees else photo.transpose(TURNS[degrees])


def views(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """The parts in which a photo is looked at.

    A photo that is longer than the longest canvas is divided along its long side, so that a face
    of about a twelfth of its short side still has `SMALLEST_FACE_PX`. Neighbours share a square, in
    which every face that the end of one cuts is whole in the other. Of photos more than
    16 times as long as wide, the views are longer than the canvas, and larger faces are lost.

    Args:
        size: the photo's width and height in pixels.

    Returns:
        x1, y1, x2, y2 of each, at most `MOST_VIEWS`.
    """
    long, short = max(size), min(size)
    count = min(MOST_VIEWS, max(1, math.ceil((long - short) / (short * (_LONGEST - 1)))))
    length = math.ceil((long + (count - 1) * short) / count)
    starts = [round(k * (long - length) / max(1, count - 1)) for k in range(count)]
    if size[0] == long:
        return [(start, 0, start + length, short) for start in starts]
    return [(0, start, short, start + length) for start in starts]


def _best_canvas(size: tuple[int, int], *, small: bool) -> tuple[int, int]:
    def scale(canvas: tuple[int, int]) -> float:
        return min(canvas[0] / size[0], canvas[1] / size[1])

    best = max(CANVASES, key=scale)
    if small or scale(best) > _LARGEST_ENLARGEMENT:
        return max(SMALL_CANVASES, key=scale)
    return best


def _letterbox(
    canvas: tuple[int, int], parts: Sequence[tuple[Image.Image, tuple[int, int, int, int]]]
) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
    """Parts of photos, scaled into the top left corner of equal canvases.

    Returns:
        (n, height, width, 3) RGB on grey, and each part's width and height on the canvas.
    """
    width, height = canvas
    stack = np.full((len(parts), height, width, 3), 127, np.uint8)
    extents: list[tuple[int, int]] = []
    for i, (photo, area) in enumerate(parts):
        own_width, own_height = area[2] - area[0], area[3] - area[1]
        scale = min(width / own_width, height / own_height)
        fitted = (
            max(1, min(width, round(own_width * scale))),
            max(1, min(height, round(own_height * scale))),
        )
        small = photo.resize(fitted, Image.Resampling.BILINEAR, box=area, reducing_gap=1.0)
        stack[i, : fitted[1], : fitted[0]] = np.asarray(small)
        extents.append(fitted)
    return stack, extents


def _normalise(stack: Tensor) -> Tensor:
    """0..255 to about -1..1, as MTCNN was trained."""
    return (stack.float() - 127.5) * 0.0078125


def _crops(
    stacks: Sequence[_Stack], extents: Tensor, found: _Candidates, size: int
) -> tuple[_Candidates, Tensor]:
    """Every candidate's window, resized, in one operation for each canvas.

    A window is clipped to its view and stretched, as facenet-pytorch does; windows with nothing
    of the view in them are dropped.
    """
    limit = extents[found.view].float()
    top_left = (found.boxes[:, :2] - 1).clamp(min=0)
    bottom_right = torch.minimum(found.boxes[:, 2:], limit)
    inside = (bottom_right - top_left >= 1).all(dim=1)
    kept, crops = [], []
    for stack in stacks:
        index = torch.nonzero(inside & stack.owns(found.view))[:, 0]
        view = (found.view[index, None] - stack.first).float()
        rois = torch.cat([view, top_left[index], bottom_right[index]], dim=1)
        crops.append(roi_align(stack.pixels, rois, size))
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


def _strongest(view: Tensor, keep: Tensor, views: int) -> Tensor:
    """Of indices sorted by score, at most `_MAX_CANDIDATES` per view."""
    if len(keep) <= _MAX_CANDIDATES:
        return keep
    return torch.cat([keep[torch.nonzero(view == i)[:_MAX_CANDIDATES, 0]] for i in range(views)])


def _square(boxes: Tensor) -> Tensor:
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.amax(dim=1, keepdim=True)
    corner = boxes[:, :2] + (size - side) / 2
    return torch.cat([corner, corner + side], dim=1)


def _regress(boxes: Tensor, regression: Tensor) -> Tensor:
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + regression * size.repeat(1, 2)


def _collect(
    found: _Candidates,
    landmarks: Tensor,
    views: Sequence[_View],
    extents: Sequence[tuple[int, int]],
    sizes: Sequence[tuple[int, int]],
) -> list[Detections]:
    """Each photo's faces, of all its views together.

    Args:
        found: in pixels of the views' canvases.
        landmarks: (n, 5, 2) likewise.
        views: of all photos.
        extents: width and height of each view on its canvas.
        sizes: width and height of each photo.
    """
    view = found.view.cpu().numpy()
    scores = found.scores.cpu().numpy()
    photo = np.array([own.photo for own in views])[view]
    area = np.array([own.area for own in views], np.float64)[view]
    scale = np.array(extents, np.float64)[view] / (area[:, 2:] - area[:, :2])
    boxes = found.boxes.cpu().numpy() / np.tile(scale, 2) + np.tile(area[:, :2], 2)
    points = landmarks.cpu().numpy() / scale[:, None] + area[:, None, :2]
    edges = np.tile(np.array(sizes, np.float64)[photo], 2)
    # A face that is cut where a view ends within the photo is whole in the next view.
    before = (boxes < area) & (area > 0)
    behind = (boxes > area) & (area < edges)
    whole = ~(before[:, :2].any(axis=1) | behind[:, 2:].any(axis=1))
    shown = np.clip(boxes, 0, edges)
    there = (shown[:, 2:] > shown[:, :2]).all(axis=1)
    collected = []
    for i in range(len(sizes)):
        own = np.flatnonzero((photo == i) & whole & there)
        own = own[np.argsort(-scores[own], kind="stable")]
        own = own[_not_nested(boxes[own])][:MAX_FACES]
        largest_first = np.argsort(-(shown[own, 2:] - shown[own, :2]).prod(axis=1), kind="stable")
        own = own[largest_first]
        collected.append(
            Detections(shown[own].astype(np.float32), points[own].astype(np.float32), scores[own])
        )
    return collected


def _not_nested(boxes: NDArray[np.float64]) -> list[int]:
    """Non-maximum suppression by intersection over the smaller box, 0.7; strongest first."""
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    top_left = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(bottom_right - top_left + 1, 0, None).prod(axis=2)
    nested = shared / np.minimum(area[:, None], area[None, :]) > 0.7
    kept: list[int] = []
    for i in range(len(boxes)):
        if not nested[i, kept].any():
            kept.append(i)
    return kept
