"""Same faces as facenet-pytorch's own `detect`: recall, false faces, photos on their side.

    uv run python -m tests.benchmarks.detect ../shared/data/photos

The reference is `MTCNN(keep_all=True).detect`, one photo at a time: with its default settings, and
with ours (the same thresholds, the same smallest face). Faces count above probability 0.9 whose
shorter side is larger than 1/16 of the photo's shorter side; a face of ours is false where neither
reference has one, at any probability. What the references take for a face and is none, by eye, is
listed below and does not count. All photos, and scikit-image's pictures without faces, stand
upright: told are those that are turned, and the time of looking at turns over that of looking once.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from skimage import data

from engine import errors
from engine.media import image
from engine.vision.detect import (
    CANVASES,
    SMALLEST_FACE_PX,
    SURE_UPRIGHT,
    THRESHOLDS,
    Detector,
    turn,
)

FACELESS = (
    *("brick", "cat", "clock", "coffee", "coins", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "moon", "page", "retina", "rocket", "text"),
)
"""Of `skimage.data`."""
NO_FACES = {"roger_federer/011.jpg": (719, 314), "roger_federer/028.jpg": (415, 82)}
"""By photo, what a reference takes for a face and is none: the middle of a collar, of a hand."""


def overlap(a, b):
    """(n, m) intersection over union of two sets of boxes."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return shared / (area_a[:, None] + area_b[None, :] - shared)


class Reference:
    """facenet-pytorch's detector, and how ours compares with it.

    Args:
        ours: whether it has our settings; else its own.
    """

    def __init__(self, *, ours):
        self.ours = ours
        self.mtcnn = MTCNN(keep_all=True, **({"thresholds": THRESHOLDS} if ours else {}))
        self.faces, self.seconds = 0, 0.0
        self.overlaps, self.landmark_errors, self.lost = [], [], []

    def compare(self, name, photo, found):
        """Look at a photo in which we found something; its boxes."""
        if self.ours:
            # Ours are found on a canvas; more than twice as large, no photo is put on one.
            scale = max(min(w / photo.width, h / photo.height) for w, h in CANVASES)
            self.mtcnn.min_face_size = SMALLEST_FACE_PX / min(scale, 2.0)
        started = time.perf_counter()
        boxes, probabilities, points = self.mtcnn.detect(photo, landmarks=True)
        self.seconds += time.perf_counter() - started
        if boxes is None:
            return np.zeros((0, 4))
        # Where the photo's edge cuts a face, ours is the part that shows.
        boxes = np.clip(boxes.astype(float), 0, np.tile(photo.size, 2))
        points = points.astype(float)
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
        matrix = overlap(boxes, found.boxes.astype(float))
        wanted = (probabilities.astype(float) > 0.9) & (sides > min(photo.size) / 16)
        if name in NO_FACES:
            x, y = NO_FACES[name]
            x1, y1, x2, y2 = boxes.T
            wanted &= ~((x1 < x) & (x < x2) & (y1 < y) & (y < y2))
        self.faces += int(wanted.sum())
        for i in np.flatnonzero(wanted):
            if not len(found) or matrix[i].max() <= 0.5:
                self.lost.append(f"{name}: {sides[i]:.0f} px, p {probabilities[i]:.3f}")
                continue
            self.overlaps.append(matrix[i].max())
            eyes = np.linalg.norm(points[i, 0] - points[i, 1])
            distances = np.linalg.norm(points[i] - found.landmarks[matrix[i].argmax()], axis=1)
            self.landmark_errors.append(distances.mean() / eyes)
        return boxes

    def told(self):
        return {
            "reference_faces": self.faces,
            "recall": len(self.overlaps) / self.faces,
            "mean_iou": float(np.mean(self.overlaps)),
            "landmark_error_of_eye_distance": float(np.mean(self.landmark_errors)),
            "lost": self.lost,
        }


def turned_wrongly(detector, pictures):
    """Names of pictures that are turned, and seconds of looking at them, without and with turns."""
    names, upright_s, turns_s = [], 0.0, 0.0
    for name, picture in pictures:
        started = time.perf_counter()
        (found,) = detector.detect([picture])
        middle = time.perf_counter()
        surest = float(found.probabilities.max(initial=0.0))
        if surest >= SURE_UPRIGHT:
            continue
        (degrees,) = detector.turns([picture])
        upright_s += middle - started
        turns_s += time.perf_counter() - middle
        if degrees:
            (again,) = detector.detect([turn(picture, degrees)])
            if float(again.probabilities.max(initial=0.0)) >= max(SURE_UPRIGHT, surest):
                names.append(f"{name}: by {degrees}")
    return names, upright_s, turns_s


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ours = Detector(torch.device("cpu"))
    references = {"default_settings": Reference(ours=False), "our_settings": Reference(ours=True)}
    photos, sure, false = [], 0, 0
    seconds_ours = 0.0
    for path in sorted(p for p in arguments.folder.rglob("*") if p.is_file()):
        try:
            photo = image.decode(path.read_bytes())
        except errors.ImageError:
            continue
        name = f"{path.parent.name}/{path.name}"
        photos.append((name, photo))
        started = time.perf_counter()
        found = ours.detect([photo])[0]
        seconds_ours += time.perf_counter() - started
        known = [r.compare(name, photo, found) for r in references.values()]
        confident = found.boxes[found.probabilities > 0.9].astype(float)
        sure += len(confident)
        nobody = overlap(np.concatenate(known), confident).max(axis=0, initial=0.0) <= 0.5
        false += int(nobody.sum())
    turned, _, _ = turned_wrongly(ours, photos)
    faceless = [(name, Image.fromarray(getattr(data, name)()).convert("RGB")) for name in FACELESS]
    turned_faceless, upright_s, turns_s = turned_wrongly(ours, faceless)
    result = {
        "photos": len(photos),
        **{name: reference.told() for name, reference in references.items()},
        "confident_faces": sure,
        "false_faces": false,
        "speed_ratio": references["default_settings"].seconds / seconds_ours,
        "turned_photos": turned,
        "turned_pictures_without_faces": turned_faceless,
        "time_of_turns_of_upright": turns_s / upright_s,
    }
    print(json.dumps(result, indent=None if arguments.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
