import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from engine import errors
from engine.media import photo_decoder
from engine.media.decoder_pool import PROGRAM
from engine.media.image import LIMITS, ImageLimits, decode, decode_scaled, upright

ROOT = Path(__file__).parents[3]
SIZE = (96, 64)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A small landscape photo with different corners, so that no rotation goes unseen."""
    return Image.fromarray(skimage.data.astronaut()).resize(SIZE)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.mode == b.mode == "RGB"
    assert a.size == b.size
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def patch_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    at = next(data.find(sof) for sof in (b"\xff\xc0", b"\xff\xc2") if sof in data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


# --- What is accepted ---


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
        ("PNG", {}, 0),
        ("WEBP", {"quality": 95}, 6),
        ("WEBP", {"lossless": True}, 0),
        ("HEIF", {"quality": 95}, 6),
        ("AVIF", {"quality": 95}, 6),
        ("GIF", {}, 12),
    ],
)
def test_reads_every_accepted_format(
    photo: Image.Image, kind: str, options: dict[str, object], tolerance: float
) -> None:
    assert difference(decode(encode(photo, kind, **options)), photo) <= tolerance


def test_reads_only_the_first_frame_of_an_animation(photo: Image.Image) -> None:
    black = Image.new("RGB", SIZE)
    for kind in ("GIF", "WEBP", "PNG"):
        data = encode(photo, kind, save_all=True, append_images=[black, black])
        assert difference(decode(data), photo) < 12


def test_reads_the_main_picture_of_a_phones_mpo(photo: Image.Image) -> None:
    data = encode(photo, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    assert difference(decode(data), photo) < 8


def test_ignores_what_follows_a_jpeg(photo: Image.Image) -> None:
    data = encode(photo, "JPEG", quality=95) + b"\0\0\0\x18ftypmp42 a motion photo's video"
    assert difference(decode(data), photo) < 4


def test_result_has_nothing_of_the_file(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    data = encode(photo, "JPEG", exif=exif, icc_profile=b"profile", comment=b"a comment")
    image = decode(data)
    assert image.info == {}
    assert type(image) is Image.Image or getattr(image, "fp", None) is None
    for kind in ("JPEG", "PNG"):
        again = encode(image, kind)
        assert b"where I live" not in again
        assert b"profile" not in again


# --- Upright ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_applies_the_orientation(photo: Image.Image, kind: str, orientation: int) -> None:
    # How a camera held that way stores the upright photo: the inverse of what undoes it.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](photo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, kind, exif=exif.tobytes(), quality=95)
    assert difference(decode(data), photo) < 8
    scaled = decode_scaled(data, at_least_px=48)
    assert (scaled.width_px, scaled.height_px) == SIZE
    assert scaled.image.size == (48, 32)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x02\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\xff\x7f\x1b\x01",
        b"Exif\0\0" + bytes(range(256)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_spoil_the_picture(photo: Image.Image, kind: str, exif: bytes) -> None:
    assert difference(decode(encode(photo, kind, exif=exif, quality=95)), photo) < 8


# --- Colours ---


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIF"])
def test_transparency_becomes_white(photo: Image.Image, kind: str) -> None:
    image = photo.convert("RGBA")
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, 48:] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels = np.asarray(decode(encode(image, kind, quality=95)), np.int16)
    assert pixels[:, :44].min() > 250
    assert np.abs(pixels[:, 52:] - np.asarray(photo, np.int16)[:, 52:]).mean() < 8


def test_transparency_in_gray_palette_and_gif_becomes_white() -> None:
    gray = Image.new("LA", SIZE, (10, 0))
    palette = Image.new("P", SIZE, 3)
    palette.putpalette([0, 0, 0] * 16)
    for data in (
        encode(gray, "PNG"),
        encode(palette, "PNG", transparency=3),
        encode(palette, "PNG", transparency=bytes([255, 255, 255, 0])),
        encode(palette, "GIF", transparency=3),
        encode(Image.new("L", SIZE, 7), "PNG", transparency=7),
        encode(Image.new("RGB", SIZE, (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    ):
        assert np.asarray(decode(data)).min() == 255


def test_half_transparency_mixes_with_white() -> None:
    assert decode(encode(Image.new("RGBA", SIZE, (0, 0, 0, 128)), "PNG")).getpixel((0, 0)) == (
        127,
        127,
        127,
    )


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "P"])
def test_converts_other_modes(photo: Image.Image, mode: str) -> None:
    image = photo.convert(mode)
    kind = "PNG" if mode in ("1", "P") else "JPEG"
    assert difference(decode(encode(image, kind, quality=95)), image.convert("RGB")) < 8


def test_16_bit_gray_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(">u2")
    rows = b"".join(b"\0" + ramp.tobytes() for _ in range(4))
    assert np.asarray(decode(png(256, 4, 16, 0, rows)))[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_is_scaled(color: int, channels: int) -> None:
    pixels = np.full((4, 8, channels), 0x8040, ">u2")
    if channels != 3:
        pixels[..., -1] = 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    # A transparent colour in 16 bits is nothing that 8-bit pixels could be compared with.
    extra = chunk(b"tRNS", b"\x80\x40" * 3) if color == 2 else b""
    assert decode(png(8, 4, 16, color, rows, extra)).getpixel((3, 3)) == (0x80, 0x80, 0x80)


# --- Shrinking ---


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF"])
@pytest.mark.parametrize(
    ("at_least_px", "expected"),
    [(None, 1), (1001, 1), (501, 1), (500, 2), (251, 2), (250, 4), (125, 8), (10, 8)],
)
def test_shrinks_to_no_less_than_asked(kind: str, at_least_px: int | None, expected: int) -> None:
    original = Image.fromarray(skimage.data.astronaut()).resize((601, 1001))
    photo = decode_scaled(encode(original, kind), at_least_px=at_least_px)
    assert (photo.width_px, photo.height_px) == (601, 1001)
    assert photo.image.size == (-(-601 // expected), -(-1001 // expected))
    assert at_least_px is None or max(photo.image.size) >= at_least_px
    assert difference(photo.image, original.reduce(expected)) < 6


def test_shrinks_a_strip_that_is_thinner_than_the_factor() -> None:
    for kind in ("JPEG", "PNG"):
        photo = decode_scaled(encode(Image.new("RGB", (4000, 3)), kind), at_least_px=500)
        assert (photo.width_px, photo.height_px) == (4000, 3)
        assert 500 <= photo.image.width <= 4000
        assert photo.image.height >= 1


# --- Refusals ---


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> errors.ImageError:
    with pytest.raises(errors.ImageError) as caught:
        decode(data, limits=limits)
    assert caught.value.message.endswith(".")
    return caught.value


def test_nothing() -> None:
    assert refusal(b"").code == "empty_image"


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"hello",
        b"BMW is a car",
        b"<html><body>not <b>found</b>",
        b"PK\x03\x04 a zip archive",
        b"\x1f\x8b an animated sticker",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        bytes(4096),
    ],
)
def test_not_an_image(data: bytes) -> None:
    assert refusal(data).code == "not_an_image"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<svg/>", "SVG"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"8BPS\0\x01", "Photoshop"),
    ],
)
def test_known_formats_that_are_not_accepted(data: bytes, named: str) -> None:
    error = refusal(data)
    assert error.code == "unsupported_format"
    assert named in error.message
    assert "JPEG, PNG" in error.message


def test_formats_that_pillow_could_read_are_not_accepted_either(photo: Image.Image) -> None:
    for kind in ("BMP", "TIFF", "ICO", "JPEG2000"):
        assert refusal(encode(photo, kind)).code == "unsupported_format"
    for kind in ("PPM", "TGA", "PCX", "SGI"):
        assert refusal(encode(photo, kind)).code == "not_an_image"


def test_12_bit_jpeg_is_a_variant_that_is_not_accepted(photo: Image.Image) -> None:
    data = encode(photo, "JPEG")
    at = data.find(b"\xff\xc0")
    assert refusal(data[: at + 4] + b"\x0c" + data[at + 5 :]).code == "unsupported_format"


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_alone_turns_a_picture_whose_container_does_not(
    photo: Image.Image, kind: str, orientation: int
) -> None:
    data = by_exif_alone(photo, kind, orientation)
    straight, turned = decode(by_exif_alone(photo, kind, 1)), decode(data)
    assert difference(turned, upright(straight, orientation)) == 0


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_what_container_and_exif_both_turn_is_turned_once(photo: Image.Image, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0213] = 6
    data = encode(photo, kind, exif=exif.tobytes())
    assert b"irot" in data
    told = data.replace(b"\x02\x13", b"\x01\x12").replace(b"\x13\x02", b"\x12\x01")
    assert told != data
    expected = upright(decode(by_exif_alone(photo, kind, 1)), 6)
    assert difference(decode(told), expected) < 4


def by_exif_alone(photo: Image.Image, kind: str, orientation: int) -> bytes:
    """A file whose EXIF says how it is turned, and whose container says nothing."""
    exif = Image.Exif()
    exif[0x0213] = orientation  # where chroma lies, which no encoder makes a turn of
    data = encode(photo, kind, exif=exif.tobytes())
    assert b"irot" not in data
    told = data.replace(b"\x02\x13", b"\x01\x12").replace(b"\x13\x02", b"\x12\x01")
    assert told != data
    return told


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(photo: Image.Image, kind: str, share: float) -> None:
    data = encode(photo, kind)
    assert refusal(data[: int(len(data) * share)]).code == "broken_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_magic_number_alone(photo: Image.Image, kind: str) -> None:
    assert refusal(encode(photo, kind)[:32]).code == "broken_image"


def test_damaged_png_checksum(photo: Image.Image) -> None:
    data = bytearray(encode(photo, "PNG"))
    data[20] ^= 1
    assert refusal(bytes(data)).code == "broken_image"


def test_too_many_bytes(photo: Image.Image) -> None:
    data = encode(photo, "PNG")
    assert decode(data, limits=ImageLimits(file_bytes=len(data))).size == SIZE
    error = refusal(data, ImageLimits(file_bytes=len(data) - 1))
    assert error.code == "file_too_large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_too_many_pixels(photo: Image.Image, kind: str) -> None:
    data = encode(photo, kind)
    assert decode(data, limits=ImageLimits(pixels=96 * 64)).size == SIZE
    error = refusal(data, ImageLimits(pixels=96 * 64 - 1))
    assert error.code == "too_many_pixels"
    assert "96 x 64" in error.message


# --- Bombs ---


def zeros(megabytes: int) -> bytes:
    """A zlib stream of so many megabytes of zeros, made by repeating one compressed block."""
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (megabytes - 1) + packer.flush()


def bomb_png() -> bytes:
    """A megabyte and a half that decodes to 1.4 GB."""
    whole = png(22_000, 22_000, 8, 2, b"")
    return whole.replace(chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", zeros(1400)))


def bomb_gif_canvas() -> bytes:
    return b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;"


def bomb_gif_frame() -> bytes:
    """A canvas of 1 x 1 with a frame of 10,000 x 10,000: where Pillow itself only warns."""
    return b"GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0\x10\x27\x10\x27\0\x02\x02\x44\x01\0;"


def bomb_jpeg_size() -> bytes:
    return patch_jpeg_size(encode(Image.new("RGB", (8, 8)), "JPEG"), 65_500, 65_500)


def bomb_jpeg_two_sizes() -> bytes:
    """The decoder's frame is large, the last one before the picture (which Pillow reads) small."""
    small = encode(Image.new("RGB", (8, 8)), "JPEG", progressive=True)
    at = small.find(b"\xff\xc2")
    frame = small[at : at + 2 + int.from_bytes(small[at + 2 : at + 4], "big")]
    large = frame[:5] + struct.pack(">HH", 65_500, 65_500) + frame[9:]
    return small[:at] + large + small[at:]


def bomb_jpeg_scans() -> bytes:
    """20,000 more passes over four million pixels, in a few hundred kilobytes."""
    data = encode(Image.new("RGB", (2000, 2000), "gray"), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * 20_000 + b"\xff\xd9"


def bomb_webp_canvas() -> bytes:
    data = encode(Image.new("RGBA", (16, 16), (1, 2, 3, 4)), "WEBP")
    assert data[12:16] == b"VP8X"
    return data[:24] + b"\xfe\x3f\0\xfe\x3f\0" + data[30:]


def bomb_webp_frame() -> bytes:
    """A canvas of 8 x 8 around a frame of 32 million pixels."""
    image = Image.new("RGBA", (8000, 4000), (1, 2, 3, 255))
    data = encode(image, "WEBP", lossless=True, method=0)
    body = data[12:]
    if body[:4] == b"VP8X":
        body = body[18:]
    body = b"VP8X" + struct.pack("<II", 10, 0x10) + b"\x07\0\0\x07\0\0" + body
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def lying_ispe(kind: str) -> bytes:
    """A header that claims 100 x 100 for a stream of 4000 x 4000."""
    data = encode(Image.new("RGB", (4000, 4000), (200, 30, 30)), kind, quality=20)
    old = b"ispe" + struct.pack(">III", 0, 4000, 4000)
    assert old in data
    return data.replace(old, b"ispe" + struct.pack(">III", 0, 100, 100))


def gif(before: bytes) -> bytes:
    """A GIF with something between its header and its picture."""
    data = encode(Image.new("P", (8, 8)), "GIF")
    assert data[10] & 0x80
    start = 13 + (3 << ((data[10] & 7) + 1))
    return data[:start] + before + data[start:]


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "png": (bomb_png, "too_many_pixels"),
    "gif canvas": (bomb_gif_canvas, "too_many_pixels"),
    "gif frame": (bomb_gif_frame, "too_many_pixels"),
    "jpeg size": (bomb_jpeg_size, "too_many_pixels"),
    "jpeg two sizes": (bomb_jpeg_two_sizes, "broken_image"),
    "jpeg scans": (bomb_jpeg_scans, "too_many_pixels"),
    "webp canvas": (bomb_webp_canvas, "too_many_pixels"),
    "webp frame": (bomb_webp_frame, "broken_image"),
    "heic": (lambda: lying_ispe("HEIF"), "broken_image"),
    "png chunks": (
        lambda: png(1, 1, 8, 0, b"\0\0", *[chunk(b"IDAT", b"")] * 1_000_000),
        "image_too_demanding",
    ),
    "gif comments": (lambda: gif(b"!\xfe\x01x\0" * 3_000_000), "image_too_demanding"),
    "gif with a long comment": (lambda: gif(b"!\xfe" + b"\x01x" * 9_000_000 + b"\0"), "fine"),
    "png texts": (
        lambda: png(
            1,
            1,
            8,
            0,
            b"\0\0",
            *(chunk(b"zTXt", b"k%d\0\0" % i + zeros(1)) for i in range(500)),
        ),
        "fine",
    ),
    "png international texts": (
        lambda: png(
            1,
            1,
            8,
            0,
            b"\0\0",
            *(
                chunk(
                    b"iTXt",
                    b"k%d\0\x01\0\0\0" % i + zlib.compress("\U0001f600".encode() + b" " * 10**6, 9),
                )
                for i in range(60)
            ),
        ),
        "fine",
    ),
    "png profile": (
        lambda: png(1, 1, 8, 0, b"\0\0", chunk(b"iCCP", b"p\0\0" + zeros(500))),
        "fine",
    ),
    "jpeg profile": (
        lambda: (
            b"\xff\xd8"
            + b"".join(
                segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 255]) + bytes(65_000))
                for i in range(1, 256)
            )
            + encode(Image.new("RGB", (8, 8)), "JPEG")[2:]
        ),
        "fine",
    ),
}

_MEASURE = """
import resource, sys, time
from pathlib import Path
from engine.errors import ImageError
from engine.media.image import decode

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

files = sorted(Path(sys.argv[1]).iterdir())
for warm_up in (f for f in files if f.name.startswith("0")):
    decode(warm_up.read_bytes())
for file in (f for f in files if not f.name.startswith("0")):
    data = file.read_bytes()
    before, started = peak_mb(), time.process_time()
    try:
        decode(data)
        outcome = "fine"
    except ImageError as error:
        outcome = error.code
    print(file.name, outcome, peak_mb() - before, time.process_time() - started, sep="|")
"""


def test_bombs_cost_nothing(photo: Image.Image, tmp_path: Path) -> None:
    """Each bomb gets its answer in little time and memory."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"):
        (tmp_path / f"0{kind}").write_bytes(encode(photo, kind))
    for name, (make, _) in BOMBS.items():
        data = make()
        assert len(data) < LIMITS.file_bytes, name
        (tmp_path / name).write_bytes(data)
    child = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = {}
    for line in child.stdout.splitlines():
        name, outcome, memory_mb, seconds = line.split("|")
        seen[name] = outcome
        assert float(memory_mb) < 48, line
        assert float(seconds) < 2, line
    assert seen == {name: outcome for name, (_, outcome) in BOMBS.items()}


def test_peak_memory_of_the_largest_accepted_picture(tmp_path: Path) -> None:
    """Decoding needs a small multiple of the pixels (4 bytes each in Pillow), in any format."""
    largest = Image.fromarray(skimage.data.astronaut()).resize((2000, 1500))
    alpha = largest.convert("RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image, kind in (
        ("1jpeg", largest, "JPEG"),
        ("2png", alpha, "PNG"),
        ("3webp", alpha, "WEBP"),
        ("4heic", largest, "HEIF"),
        ("5avif", largest, "AVIF"),
    ):
        options = {"speed": 10} if kind == "AVIF" else {}
        (tmp_path / name).write_bytes(encode(image, kind, exif=exif.tobytes(), **options))
    (tmp_path / "0").write_bytes(encode(Image.new("RGB", (8, 8)), "HEIF"))
    child = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    pixels_mb = 2000 * 1500 * 4 / 2**20
    growth = [float(line.split("|")[2]) for line in child.stdout.splitlines()]
    assert len(growth) == 5
    assert sum(growth) < 8 * pixels_mb + 32


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_decoding_leaves_the_processs_warnings_alone(photo: Image.Image, kind: str) -> None:
    before = list(warnings.filters)
    decode(encode(photo, kind))
    assert warnings.filters == before


def test_nothing_is_printed_about_strangers_files(photo: Image.Image) -> None:
    """Where they are decoded, everything that is printed goes into a pipe that nobody reads."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\xff\x7f\x1b\x01"
    whole = Image.Exif()
    whole[0x010E] = "x" * len(exif)
    avif = encode(photo, "AVIF", exif=whole.tobytes())
    tiff = whole.tobytes().removeprefix(b"Exif\0\0")
    assert tiff in avif
    avif = avif.replace(tiff, exif.removeprefix(b"Exif\0\0").ljust(len(tiff), b"\xff"))
    files = [avif, encode(photo, "JPEG", exif=exif), *(make() for make, _ in BOMBS.values())]
    child = subprocess.run(
        [sys.executable, "-W", "always", *PROGRAM[1:], *photo_decoder.arguments(LIMITS)],
        input=b"".join(photo_decoder.REQUEST.pack(len(file), 0) + file for file in files),
        capture_output=True,
        check=True,
    )
    assert child.stderr == b""
    sink = io.BytesIO(child.stdout)
    assert sink.readline().startswith(photo_decoder.READY)
    answers = 0
    while head := sink.read(photo_decoder.REPLY.size):
        kind, size = photo_decoder.REPLY.unpack(head)
        if kind == photo_decoder.DECODED:
            picture = sink.read(photo_decoder.PICTURE.size)
            width, height, *_ = photo_decoder.PICTURE.unpack(picture)
            size = 3 * width * height
        assert len(sink.read(size)) == size
        answers += 1
    assert answers == len(files)


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, engine.media.image; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_pixels_as_arrays(photo: Image.Image) -> None:
    pixels: NDArray[np.uint8] = np.asarray(decode(encode(photo, "PNG")))
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == np.uint8


_HEADS = """
from engine.errors import ImageError
from engine.media.image import decode

pieces = [b"<!-- -->", b"<!--", b"<?xml ", b"<!DOCTYPE svg", b" ", b"<svg", b"<", b"<!"]
for piece in pieces:
    for head in (b"", b"<!-- -->", b"<?xml "):
        try:
            decode(head + piece * 400)
        except ImageError:
            continue
        raise AssertionError(piece)
"""


def test_no_head_takes_for_ever_to_tell() -> None:
    """In a process of its own: a pattern that repeats repetitions would outlast the suite."""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", _HEADS], cwd=root, check=True, timeout=60)


@pytest.mark.parametrize(
    "head",
    [b"<svg ", b"\n<svg>", b"<?xml version='1.0'?><!-- by hand --><svg ", b"<!DOCTYPE svg><svg "],
)
def test_svg_is_told(head: bytes) -> None:
    with pytest.raises(errors.UnsupportedFormat, match="SVG"):
        decode(head + b"xmlns='http://www.w3.org/2000/svg'></svg>")


def test_a_jpeg_of_millions_of_parts_is_refused() -> None:
    with pytest.raises(errors.BrokenImage, match="parts"):
        decode(b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1_000_000)
