import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from skimage import data

from engine.vision.detect import (
    CANVASES,
    MAX_FACES,
    MOST_VIEWS,
    Detector,
    _Candidates,
    _collect,
    _View,
    views,
)


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="module")
def detector():
    return Detector(torch.device("cpu"))


def overlap(a, b):
    top_left, bottom_right = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def test_facenet_pytorch_still_gives_what_its_documentation_promises(astronaut):
    boxes, probabilities = MTCNN(keep_all=True).detect(astronaut)
    np.testing.assert_allclose(boxes.astype(float), [[181, 62, 268, 172]], atol=2)
    assert probabilities[0] > 0.999


def test_finds_the_face_that_facenet_pytorch_finds(astronaut, detector):
    boxes, _, points = MTCNN(keep_all=True).detect(astronaut, landmarks=True)
    points = points.astype(float)
    (found,) = detector.detect([astronaut])
    assert len(found) == 1
    assert found.probabilities[0] > 0.999
    assert overlap(found.boxes[0], boxes[0].astype(float)) > 0.85
    eyes = np.linalg.norm(points[0][0] - points[0][1])
    assert np.linalg.norm(found.landmarks[0] - points[0], axis=1).max() < 0.1 * eyes


def test_a_photo_without_a_face_is_an_empty_list_beside_one_with(astronaut, detector):
    blank = Image.new("RGB", astronaut.size, "teal")
    counts = [len(found) for found in detector.detect([blank, astronaut, blank])]
    assert counts == [0, 1, 0]


def test_sizes_mix_in_a_batch_and_change_nothing(astronaut, detector):
    photos = [
        astronaut,
        astronaut.resize((1536, 1536)),
        astronaut.crop((0, 0, 512, 300)),
        astronaut.crop((130, 0, 330, 512)),
    ]
    together = detector.detect(photos)
    for photo, found in zip(photos, together, strict=True):
        (alone,) = detector.detect([photo])
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.5 * photo.width / 512)
        assert len(found) == 1


def test_landmarks_are_in_the_documented_order(astronaut, detector):
    (found,) = detector.detect([astronaut])
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_a_small_canvas_shows_a_near_face_as_well(astronaut, detector):
    frame = astronaut.crop((60, 0, 444, 384))
    near, full = detector.detect([frame, frame], near=[True, False])
    side = full.boxes[0, 2] - full.boxes[0, 0]
    np.testing.assert_allclose(near.landmarks[0], full.landmarks[0], atol=0.04 * side)
    np.testing.assert_allclose(near.boxes[0], full.boxes[0], atol=0.1 * side)


def test_a_wall_of_faces_is_capped_largest_first(astronaut, detector):
    face = astronaut.crop((140, 20, 310, 220))
    wall = Image.new("RGB", (170 * 9, 200 * 6))
    for column in range(9):
        for row in range(6):
            wall.paste(face, (170 * column, 200 * row))
    (found,) = detector.detect([wall])
    areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1)
    assert 20 <= len(found) <= MAX_FACES
    assert (np.diff(areas) <= 0).all()


@pytest.fixture(scope="module")
def portrait(astronaut):
    """Face and neck, 150 px between hair and chin, in a square of 220."""
    return astronaut.crop((115, 5, 335, 225))


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("length", [3600, 9000, 15000])
def test_small_faces_of_a_long_photo_are_found_once_wherever_they_are(
    detector, portrait, length, upright
):
    """One face of about 120 px wherever views overlap, end, or do neither."""
    photo = Image.new("RGB", (length, 1000) if upright else (1000, length), (90, 110, 90))
    face = portrait.resize((300, 300))
    middles = [int(x) for x in np.linspace(150, length - 150, 2 * (length // 1000))]
    for k, x in enumerate(middles):
        across = (50, 350, 650)[k % 3]
        photo.paste(face, (x - 150, across) if upright else (across, x - 150))
    (found,) = detector.detect([photo])
    along = 0 if upright else 1
    np.testing.assert_allclose(
        np.sort(found.boxes[:, [along, along + 2]].mean(axis=1)), middles, atol=30
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 5000), (3501, 1000), (1000, 9000), (90000, 100)])
def test_every_part_of_a_photo_is_looked_at_on_few_canvases(size):
    parts = views(size)
    assert 1 <= len(parts) <= MOST_VIEWS
    seen = np.zeros(size, bool)
    for x1, y1, x2, y2 in parts:
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        seen[x1:x2, y1:y2] = True
    assert seen.all()


@pytest.mark.parametrize("canvas", CANVASES)
def test_a_photo_that_has_the_shape_of_a_canvas_is_looked_at_whole(canvas):
    assert views(canvas) == [(0, 0, *canvas)]


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3000, 2), (12, 12), (5000, 100)])
def test_photos_of_any_shape_are_looked_at(detector, size):
    assert len(detector.detect([Image.new("RGB", size, "grey")])[0]) == 0


def test_no_photos():
    assert Detector(torch.device("cpu")).detect([]) == []


def test_every_shape_has_a_canvas_of_similar_area():
    areas = [width * height for width, height in CANVASES]
    assert max(areas) / min(areas) < 1.3


def test_of_too_many_faces_the_most_probable_are_kept_largest_first():
    count = MAX_FACES + 8
    side = torch.arange(1.0, count + 1)[:, None]
    left = side.cumsum(0) - side
    boxes = torch.cat([left, side * 0, left + side, side], dim=1)
    scores = torch.linspace(1.0, 0.7, count)  # the smallest is the most probable
    found = _Candidates(torch.zeros(count, dtype=torch.int64), boxes, scores)
    view, size = _View((900, 50), 0, (0, 0, 900, 50)), (900, 50)
    (kept,) = _collect(found, torch.zeros(count, 5, 2), [view], [size], [size])
    assert len(kept) == MAX_FACES
    assert kept.boxes[:, 3].tolist() == list(range(MAX_FACES, 0, -1))
