import hashlib
import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from telegram import Bot, Message

from bot.sandbox import Person
from bot.sandbox.errors import UserError
from bot.sandbox.files import FileStore
from tests.bot.sandbox.pictures import picture


async def received(bot: Bot) -> Message:
    message = (await bot.get_updates(offset=-1, timeout=10))[-1].message
    assert message is not None
    return message


async def download(bot: Bot, file_id: str) -> bytes:
    return bytes(await (await bot.get_file(file_id)).download_as_bytearray())


@pytest.mark.parametrize(
    ("width", "height", "sizes"),
    [
        (2000, 1000, [(90, 45), (320, 160), (800, 400), (1280, 640)]),
        (600, 1280, [(42, 90), (150, 320), (375, 800), (600, 1280)]),
        (512, 512, [(90, 90), (320, 320), (512, 512)]),
        (60, 40, [(60, 40)]),
    ],
)
async def test_photo_sizes(
    bot: Bot, ana: Person, width: int, height: int, sizes: list[tuple[int, int]]
):
    await ana.send_photo(picture(width, height))
    message = await received(bot)
    assert [(one.width, one.height) for one in message.photo] == sizes
    for one in message.photo:
        image = Image.open(io.BytesIO(await download(bot, one.file_id)))
        assert image.format == "JPEG"
        assert image.size == (one.width, one.height)


async def test_every_upload_has_ids_of_its_own(bot: Bot, ana: Person):
    messages = []
    for _ in range(2):
        await ana.send_photo(picture(400, 300))
        messages.append(await received(bot))
    ids = [{one.file_id for one in message.photo} for message in messages]
    unique = [{one.file_unique_id for one in message.photo} for message in messages]
    assert [len(one) for one in (*ids, *unique)] == [3, 3, 3, 3]
    assert not ids[0] & ids[1]
    assert not unique[0] & unique[1]
    data = [await download(bot, message.photo[-1].file_id) for message in messages]
    assert data[0] == data[1]


async def test_photos_lose_exif_and_keep_its_rotation(bot: Bot, ana: Person):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    exif[0x010F] = "A camera with a serial number"
    original = picture(400, 200, exif=exif)
    await ana.send_photo(original)
    message = await received(bot)
    data = await download(bot, message.photo[-1].file_id)
    image = Image.open(io.BytesIO(data))
    assert image.size == (200, 400)
    assert not image.getexif()
    assert b"serial number" in original
    assert b"serial number" not in data
    upright = np.asarray(Image.open(io.BytesIO(original)).rotate(-90, expand=True), np.int16)
    assert np.abs(np.asarray(image, np.int16) - upright).mean() < 4


async def test_documents_keep_every_byte(bot: Bot, ana: Person):
    exif = Image.Exif()
    exif[0x010F] = "kept"
    original = picture(900, 700, exif=exif)
    await ana.send_document(original, name="me and you.JPG", caption="raw")
    message = await received(bot)
    assert message.photo == ()
    assert message.caption == "raw"
    document = message.document
    assert (document.file_name, document.mime_type) == ("me and you.JPG", "image/jpeg")
    assert document.thumbnail.width == 320
    data = await download(bot, document.file_id)
    assert hashlib.sha256(data).digest() == hashlib.sha256(original).digest()


async def test_transparent_pictures_get_a_white_ground(bot: Bot, ana: Person, png: bytes):
    await ana.send_photo(png)
    data = await download(bot, (await received(bot)).photo[-1].file_id)
    pixel = Image.open(io.BytesIO(data)).getpixel((50, 50))
    assert isinstance(pixel, tuple)
    assert min(pixel) > 250


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "LA", "1"])
async def test_every_mode_becomes_a_photo(bot: Bot, ana: Person, mode: str):
    base = Image.open(io.BytesIO(picture(120, 90)))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(base.convert("L"), np.uint16) * 256)
    else:
        image = base.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    await ana.send_photo(buffer.getvalue())
    data = await download(bot, (await received(bot)).photo[-1].file_id)
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    brightness = np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean()
    assert abs(brightness - np.asarray(base.convert("L")).mean()) < 20


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "AVIF", "HEIF"])
async def test_what_cameras_and_browsers_make_becomes_a_photo(bot: Bot, ana: Person, kind: str):
    image, buffer = Image.open(io.BytesIO(picture(200, 150))), io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(buffer)
    else:
        image.save(buffer, kind)
    await ana.send_photo(buffer.getvalue())
    assert (await received(bot)).photo[-1].width == 200


@pytest.mark.parametrize("data", [b"hello", picture(300, 300)[:2000], b"\xff\xd8\xff" + b"0" * 99])
async def test_hostile_bytes_can_be_sent_as_a_file_only(bot: Bot, ana: Person, data: bytes):
    with pytest.raises(UserError) as refusal:
        await ana.send_photo(data)
    assert refusal.value.code == "not_a_photo"
    await ana.send_document(data, name="thing.jpg")
    document = (await received(bot)).document
    assert document.thumbnail is None
    assert await download(bot, document.file_id) == data


async def test_nothing_goes_to_disk(
    bot: Bot, ana: Person, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    # Uploads beyond a megabyte are what web frameworks put into temporary files.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there is no such folder"))
    data = bytes(range(256)) * 20_000
    await ana.send_document(data, name="big.bin")
    assert await download(bot, (await received(bot)).document.file_id) == data


def test_the_store_forgets_the_oldest_files():
    store = FileStore(budget_bytes=100)
    files = [store.add(bytes(40), folder="f", suffix="", mime_type="") for _ in range(3)]
    assert store.get(files[0].file_id) is None
    assert store.at(files[0].path) is None
    assert store.at(files[2].path) is files[2]
    huge = store.add(bytes(500), folder="f", suffix="", mime_type="")
    assert store.get(huge.file_id) is huge
    assert store.get(files[2].file_id) is None
