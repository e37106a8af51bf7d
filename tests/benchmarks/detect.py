"""Same faces as facenet-pytorch's own `detect`: recall, mean IoU and landmark error.

    uv run python -m tests.benchmarks.detect ../shared/data/photos

The reference is `MTCNN(keep_all=True).detect` with default settings, one photo at a time, on its
faces above probability 0.9 whose shorter side is larger than 1/16 of the photo's shorter side.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN

from engine import errors, image
from engine.detect import Detector


def overlap(a, b):
    """(n, m) intersection over union of two sets of boxes."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return shared / (area_a[:, None] + area_b[None, :] - shared)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ours, theirs = Detector(torch.device("cpu")), MTCNN(keep_all=True)
    photos = faces = recalled = extra = sure = 0
    overlaps, errors_of_landmarks, lost = [], [], []
    seconds_ours = seconds_theirs = 0.0
    for path in sorted(p for p in arguments.folder.rglob("*") if p.is_file()):
        try:
            photo = image.decode(path.read_bytes())
        except errors.ImageError:
            continue
        photos += 1
        started = time.perf_counter()
        reference, probabilities, points = theirs.detect(photo, landmarks=True)
        seconds_theirs += time.perf_counter() - started
        started = time.perf_counter()
        found = ours.detect([photo])[0]
        seconds_ours += time.perf_counter() - started
        if reference is None:
            reference, probabilities = np.zeros((0, 4)), np.zeros(0)
            points = np.zeros((0, 5, 2))
        probabilities = probabilities.astype(float)
        reference, points = reference.astype(float), points.astype(float)
        sides = (reference[:, 2:] - reference[:, :2]).min(axis=1)
        wanted = (probabilities > 0.9) & (sides > min(photo.size) / 16)
        matrix = overlap(reference, found.boxes.astype(float))
        for i in np.flatnonzero(wanted):
            faces += 1
            best = matrix[i].max() if len(found) else 0.0
            if best > 0.5:
                recalled += 1
                j = int(matrix[i].argmax())
                overlaps.append(best)
                eyes = np.linalg.norm(points[i, 0] - points[i, 1])
                distance = np.linalg.norm(points[i] - found.landmarks[j], axis=1).mean()
                errors_of_landmarks.append(distance / eyes)
            else:
                lost.append(f"{path.name}: {sides[i]:.0f} px, p {probabilities[i]:.3f}")
        if len(found):
            confident = found.probabilities > 0.9
            sure += int(confident.sum())
            nobody = np.ones(len(found), bool) if not len(reference) else matrix.max(axis=0) <= 0.5
            extra += int((confident & nobody).sum())
    result = {
        "photos": photos,
        "reference_faces": faces,
        "recall": recalled / faces,
        "mean_iou": float(np.mean(overlaps)),
        "landmark_error_of_eye_distance": float(np.mean(errors_of_landmarks)),
        "confident_faces": sure,
        "confident_faces_unknown_to_reference": extra,
        "speed_ratio": seconds_theirs / seconds_ours,
        "lost": lost,
    }
    print(json.dumps(result, indent=None if arguments.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
