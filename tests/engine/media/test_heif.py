"""What is read from a HEIF file's boxes before a decoder sees it."""

import io
from pathlib import Path

import pillow_heif
import pytest
import skimage.data
from PIL import Image

from engine.errors import BrokenImage, ImageTooDemanding
from engine.media import heif
from tests.engine.heifs import box, grid

HOSTILE = Path(__file__).parents[4] / "shared" / "data" / "field" / "hostile"
PIXELS = 25_000_000


def test_a_grid_of_its_own_tiles_is_modest() -> None:
    header = heif.read(grid([2, 3, 4, 5]), PIXELS)
    assert header == heif.Header(turned=False, exif=b"")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(grid([2] * 256, tile_px=4096), "same tile", id="one tile 256 times"),
        pytest.param(grid([2, 3, 4], tile_px=6000), "far more pixels", id="tiles of 36 megapixels"),
        pytest.param(
            grid([2], nested=[(2, 3), (3, 4), (4, 5)]), "nested", id="grids of grids of grids"
        ),
        pytest.param(grid([2], nested=[(2, 1)]), "nested", id="a grid of itself"),
        pytest.param(grid([2], extents=[(0, 300)] * 9), "overlap", id="overlapping pieces"),
        pytest.param(grid([2], extents=[(0, 0)] * 9000), "pieces", id="thousands of pieces"),
        pytest.param(grid([2], items=2500), "items", id="thousands of items"),
        pytest.param(grid(range(2, 1500)), "references", id="thousands of references"),
        pytest.param(
            box(b"ftyp", b"heic") + box(b"free") * 20_000, "boxes", id="thousands of boxes"
        ),
    ],
)
def test_what_no_camera_writes_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ImageTooDemanding, match=why):
        heif.read(data, PIXELS)


def test_a_file_that_ends_within_a_box_is_broken() -> None:
    whole = grid([2, 3])
    cut = whole[: whole.index(b"iloc") + 10]
    with pytest.raises(BrokenImage, match="container"):
        heif.read(cut, PIXELS)


def test_a_file_without_boxes_about_pictures_says_nothing() -> None:
    assert heif.read(box(b"ftyp", b"avis") + box(b"moov"), PIXELS) is None


@pytest.mark.skipif(not HOSTILE.exists(), reason="needs ../shared/data/field")
@pytest.mark.parametrize("name", ["grid16.heic", "gridsmall.heic"])
def test_files_that_stopped_the_service_are_refused(name: str) -> None:
    with pytest.raises(ImageTooDemanding):
        heif.read((HOSTILE / name).read_bytes(), PIXELS)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_what_ordinary_encoders_write_is_read(kind: str) -> None:
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x010E] = "a description"
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, kind, exif=exif.tobytes())
    header = heif.read(file.getvalue(), PIXELS)
    assert header is not None
    assert not header.turned
    assert b"a description" in header.exif
    assert header.exif[:2] in (b"II", b"MM")
