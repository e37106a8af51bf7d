import io

import numpy as np
from PIL import Image
from skimage import data

from engine.fingerprint import fingerprint
from engine.wire import FINGERPRINT_BYTES


def bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def test_where_it_becomes_brighter_to_the_right() -> None:
    ramp = np.tile(np.linspace(0, 255, 170), (160, 1)).astype(np.uint8)
    ramp[80:] = ramp[80:, ::-1]
    print_of = fingerprint(Image.fromarray(ramp).convert("RGB"))
    assert print_of == b"\xff" * 16 + b"\0" * 16
    assert len(print_of) == FINGERPRINT_BYTES


def test_a_copy_is_near_and_another_picture_is_not() -> None:
    photo = Image.fromarray(data.astronaut())
    file = io.BytesIO()
    photo.resize((300, 300)).save(file, "JPEG", quality=40)
    copy = fingerprint(Image.open(file).convert("RGB"))
    assert bits_apart(fingerprint(photo), copy) <= 8
    other = Image.fromarray(data.chelsea())
    assert bits_apart(fingerprint(photo), fingerprint(other)) > 80


def test_a_flat_picture_and_a_tiny_one_have_one_too() -> None:
    assert fingerprint(Image.new("RGB", (384, 384), "teal")) == bytes(FINGERPRINT_BYTES)
    assert len(fingerprint(Image.new("RGB", (1, 1)))) == FINGERPRINT_BYTES
