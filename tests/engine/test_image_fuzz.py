"""Whatever bytes arrive, `engine.media.image` gives a picture or an ImageError, soon and small."""

import functools
import io
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pillow_heif
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import ImageError
from engine.media.image import ImageLimits, decode_scaled
from tests.engine import mutations

ROOT = Path(__file__).parents[2]
# Mutated headers may claim any size: a low limit keeps honest decoding of large sizes out of this.
LIMITS = ImageLimits(file_bytes=2**20, pixels=1_000_000)
KINDS = ("JPEG", "progressive", "CMYK", "MPO", "PNG", "palette", "APNG", "WEBP", "GIF", "HEIF")
AVIF = ("AVIF",)
CODES = {kind.code for kind in ImageError.__subclasses__()}


@functools.cache
def original(kind: str) -> bytes:
    """A real photo of each format, with an EXIF block and a profile where the format has them."""
    pillow_heif.register_heif_opener()
    image = Image.fromarray(skimage.data.astronaut()).resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, object] = {"exif": exif.tobytes(), "icc_profile": b"profile" * 9}
    container = kind
    if kind == "progressive":
        container, options["progressive"] = "JPEG", True
    elif kind == "CMYK":
        container, image = "JPEG", image.convert("CMYK")
    elif kind == "palette":
        container, image = "PNG", image.quantize(16)
        options["transparency"] = 3
    elif kind in ("MPO", "APNG"):
        container = kind.removeprefix("A")
        options |= {
            "save_all": True,
            "append_images": [image.transpose(Image.Transpose.ROTATE_180)],
        }
    elif kind in ("WEBP", "AVIF"):
        image = image.convert("RGBA")
        image.putalpha(200)
    file = io.BytesIO()
    image.save(file, container, **options)
    return file.getvalue()


@st.composite
def mutated(draw: st.DrawFn, kinds: tuple[str, ...]) -> bytes:
    """A real file with bytes changed, cut out, repeated, inserted or cut off."""
    data = bytearray(original(draw(st.sampled_from(kinds))))
    # Headers deserve more attention than compressed pixels, so most positions are near the front.
    place = st.one_of(st.integers(0, 64), st.integers(0, 400), st.integers(0, len(data)))
    for _ in range(draw(st.integers(1, 6))):
        at = min(draw(place), len(data) - 1)
        match draw(st.sampled_from(("change", "change", "drop", "repeat", "insert", "cut"))):
            case "change":
                values = st.one_of(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)), st.integers(0, 255))
                data[at] = draw(values)
            case "drop":
                del data[at : at + draw(st.integers(1, 32))]
            case "repeat":
                length = draw(st.integers(1, 64))
                data[at:at] = data[at : at + length] * draw(st.integers(1, 8))
            case "insert":
                data[at:at] = draw(st.binary(max_size=16))
            case "cut":
                del data[max(at, 4) :]
        if not data:
            break
    return bytes(data)


def judge(data: bytes) -> None:
    try:
        photo = decode_scaled(data, at_least_px=32, limits=LIMITS)
    except ImageError as refusal:
        outcome = refusal.code
        photo = None
    if photo is None:
        assert outcome in CODES
        return
    assert photo.image.mode == "RGB"
    assert photo.width_px * photo.height_px <= LIMITS.pixels
    assert 1 <= photo.image.width <= photo.width_px
    assert 1 <= photo.image.height <= photo.height_px
    assert len(photo.image.tobytes()) == photo.image.width * photo.image.height * 3


@pytest.mark.parametrize("kind", KINDS + AVIF)
def test_the_originals_are_pictures(kind: str) -> None:
    assert decode_scaled(original(kind), at_least_px=32, limits=LIMITS).image.mode == "RGB"


@settings(max_examples=1000, deadline=timedelta(seconds=10))
@given(mutated(KINDS))
def test_mutated_pictures(data: bytes) -> None:
    judge(data)


@settings(max_examples=60, deadline=timedelta(seconds=40))
@given(mutated(AVIF))
def test_mutated_avif(data: bytes) -> None:
    judge(data)


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_files_whose_structure_is_wrong(kind: str) -> None:
    """More of them, and what they cost, in `tests.benchmarks.hostile`."""
    lot = random.Random(f"1 {kind}")
    for _ in range(200):
        judge(mutations.mutated(kind, lot))


@settings(max_examples=300, deadline=timedelta(seconds=10))
@given(
    st.sampled_from(
        (
            b"",
            b"\xff\xd8\xff",
            b"\xff\xd8\xff\xc0\0\x11\x08",
            b"\x89PNG\r\n\x1a\n",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
            b"RIFF\0\0\0\0WEBPVP8X",
            b"GIF89a\x01\0\x01\0",
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0",
            b"<?xml ",
        )
    ),
    st.binary(max_size=2000),
)
def test_noise_behind_a_magic_number(magic: bytes, noise: bytes) -> None:
    judge(magic + noise)


_MANY = """
import random, resource, sys
from tests.engine.test_image_fuzz import KINDS, judge, original

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for kind in KINDS:
    judge(original(kind))
before = peak_mb()
chance = random.Random(20250101)
for number in range(3000):
    data = bytearray(original(KINDS[number % len(KINDS)]))
    for _ in range(chance.randint(1, 12)):
        data[int(len(data) * chance.random() ** 3)] = chance.randrange(256)
    judge(bytes(data))
print(peak_mb() - before)
"""


def test_thousands_of_mutations_need_little_memory() -> None:
    """The peak stays within a few copies of the largest picture allowed, whatever headers say."""
    child = subprocess.run(
        [sys.executable, "-c", _MANY], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    one_picture_mb = LIMITS.pixels * 4 / 2**20
    assert float(child.stdout) < 10 * one_picture_mb + 32
