import numpy as np
from PIL import Image

from engine.vision.align import ARCFACE
from engine.vision.fingerprint import PATTERN_BYTES, SIDE_PX, pattern

POINTS = ARCFACE * 2 + 150


def test_where_it_is_brighter_than_around() -> None:
    pixels = np.full((300, 300, 3), 90, np.uint8)
    pixels[140:160, 140:160] = 200
    found = np.frombuffer(pattern(Image.fromarray(pixels), POINTS), np.int8)
    assert len(found) == PATTERN_BYTES
    rows = found.reshape(SIDE_PX, SIDE_PX)
    y, x = np.unravel_index(np.argmax(rows), rows.shape)
    assert abs(x - SIDE_PX // 2) <= 1
    assert rows[y, x] == 127
    assert rows[y, x + 6] < 0


def test_a_flat_picture_has_none() -> None:
    flat = pattern(Image.new("RGB", (500, 500), "teal"), POINTS)
    assert flat == bytes(PATTERN_BYTES)


def test_what_lies_outside_the_face_does_not_matter() -> None:
    lot = np.random.default_rng(0)
    one, other = lot.integers(0, 255, (2, 500, 500, 3), np.uint8)
    other[60:440, 60:440] = one[60:440, 60:440]
    first, second = (pattern(Image.fromarray(pixels), POINTS) for pixels in (one, other))
    assert first == second


def test_a_mirror_image_has_the_mirrored_pattern() -> None:
    rough = np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
    image = Image.fromarray(rough).resize((500, 500), Image.Resampling.BICUBIC)
    flipped = (POINTS * (-1, 1) + (500, 0))[[1, 0, 2, 4, 3]]
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    own, seen = (
        np.frombuffer(each, np.int8).reshape(SIDE_PX, SIDE_PX).astype(int)
        for each in (pattern(image, POINTS), pattern(mirror, flipped))
    )
    assert np.abs(own - seen[:, ::-1]).max() <= 8
