"""Edited copies of a person's selfies pass neither for enrolment nor for verification."""

import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from skimage import data

from bot import app
from bot.login.capture_quality import gate
from bot.sandbox import Person, Sandbox
from bot.store.fingerprints import PHOTO_DISTANCE, distances, fingerprint, signs
from bot.texts import say
from engine.client import EmbeddedEngine
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Face
from engine.vision.fingerprint import pattern
from tests.bot import fakes
from tests.bot.logins import SELFIES
from tests.bot.sandbox.test_performer import LANDMARKS

ASTRONAUT = Image.fromarray(data.astronaut())
POINTS = np.asarray(LANDMARKS)
PEOPLE = Path(__file__).parents[3] / "shared" / "data" / "photos" / "people"

Edit = Callable[[Image.Image], Image.Image]


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(share * image.width), round(share * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def framed(image: Image.Image, share: float, colour: str = "white") -> Image.Image:
    return ImageOps.expand(image, round(share * max(image.size)), colour)


def turned(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC)


def edited(image: Image.Image) -> Image.Image:
    """What passed for six people of six."""
    return turned(framed(cropped(image, 0.04), 0.06), 3)


EDITS: dict[str, Edit] = {
    "cropped": lambda image: cropped(image, 0.08),
    "framed": lambda image: framed(image, 0.1),
    "turned": lambda image: turned(image, -5),
    "mirrored": ImageOps.mirror,
    "smaller": lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.75),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "edited": edited,
    "edited and mirrored": lambda image: ImageOps.mirror(edited(image)),
}


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


# --- The fingerprint, where landmarks are known ---


def apart(image: Image.Image, points: NDArray[np.float64]) -> float:
    """How far the face on a picture is from the astronaut's as it was sent before."""
    kept = signs([fingerprint(pattern(ASTRONAUT, POINTS))])
    return float(distances(pattern(image, points), kept)[0])


def test_edits_change_a_fingerprint_little() -> None:
    smaller = Image.open(io.BytesIO(encoded(ASTRONAUT.resize((300, 300)), 40)))
    assert apart(smaller, POINTS * 300 / 512) < PHOTO_DISTANCE / 3
    assert apart(ASTRONAUT.crop((40, 30, 500, 480)), POINTS - (40, 30)) < 0.001
    assert apart(ImageOps.expand(ASTRONAUT, 30, "white"), POINTS + 30) < 0.001
    assert apart(ImageOps.autocontrast(ASTRONAUT, 5), POINTS) < PHOTO_DISTANCE / 3
    flipped = (POINTS * (-1, 1) + (512, 0))[[1, 0, 2, 4, 3]]
    assert apart(ImageOps.mirror(ASTRONAUT), flipped) < PHOTO_DISTANCE / 3
    turn = (POINTS - 256) @ (1, 1j) * np.exp(1j * np.radians(5))
    points = np.stack([turn.real, turn.imag], axis=1) + 256
    assert apart(turned(ASTRONAUT, -5), points) < PHOTO_DISTANCE / 3


@pytest.mark.parametrize("seed", range(3))
def test_landmarks_may_be_found_a_little_elsewhere(seed: int) -> None:
    between_eyes = np.linalg.norm(POINTS[1] - POINTS[0])
    moved = POINTS + np.random.default_rng(seed).normal(0, 0.04 * between_eyes, (5, 2))
    assert apart(ASTRONAUT, moved) < PHOTO_DISTANCE


def test_somebody_else_is_far() -> None:
    assert apart(Image.fromarray(data.chelsea()), POINTS * 0.5) > 4 * PHOTO_DISTANCE


# --- The whole bot, with the engine that people get ---


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))


@asynccontextmanager
async def running(pipeline: Pipeline, folder: Path) -> AsyncIterator[Person]:
    settings = {"enroll_selfies": SELFIES, "verify_photos": 2, "allow_photo_verify": True}
    async with (
        Sandbox() as sandbox,
        EmbeddedEngine(pipeline) as engine,
        app.running(fakes.settings(sandbox, folder, **settings), engine),
    ):
        ana = sandbox.person("ana")
        await ana.set_language("en")
        yield ana


async def agree(ana: Person) -> None:
    await ana.send_text("/enroll")
    await ana.press(await ana.reply(), say("en", "buttons.agree"))
    await ana.reply()


SEEN_BEFORE = say("en", "refusal.seen_before")


async def test_no_edit_of_an_enrolled_selfie_is_another_selfie(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    async with running(pipeline, tmp_path) as ana:
        await agree(ana)
        await ana.send_photo(encoded(ASTRONAUT))
        assert (await ana.reply()).text.startswith(say("en", "enroll.next", number=1, of=SELFIES))
        for name, edit in EDITS.items():
            await ana.send_photo(encoded(edit(ASTRONAUT)))
            assert (await ana.reply()).text.startswith(SEEN_BEFORE), name


def portraits(pipeline: Pipeline, folder: Path) -> Iterator[Image.Image]:
    """Photos of a person that are good enough for a login."""
    for path in sorted(folder.iterdir()):
        image = Image.open(path).convert("RGB")
        image.thumbnail((1280, 1280))
        (analysis,) = pipeline.analyze([PhotoRequest(image, top_k=1)])
        if isinstance(gate(analysis), Face) and analysis.turned == 0:
            yield image


@pytest.mark.skipif(not PEOPLE.is_dir(), reason="needs ../shared/data/photos")
async def test_no_edit_of_somebody_s_selfie_verifies_them(
    pipeline: Pipeline, tmp_path: Path, one_in: Callable[[int], int]
) -> None:
    for name in ("lionel_messi", "roger_federer", "virat_kohli")[:: one_in(3)]:
        folder = tmp_path / name
        folder.mkdir()
        await none_verifies(pipeline, folder, name)


async def none_verifies(pipeline: Pipeline, folder: Path, name: str) -> None:
    async with running(pipeline, folder) as ana:
        await agree(ana)
        taken = []
        for image in portraits(pipeline, PEOPLE / name):
            await ana.send_photo(encoded(image))
            said = (await ana.reply()).text
            if said.startswith(say("en", "enroll.next", number=len(taken) + 1, of=SELFIES)):
                taken.append(image)
            elif said.startswith(say("en", "enroll.code", code="|").partition("|")[0]):
                taken.append(image)
                break
        assert len(taken) == SELFIES, "photos that agree"
        await ana.reply()
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        for image in taken:
            for kind in ("edited", "edited and mirrored", "framed", "turned"):
                await ana.send_photo(encoded(EDITS[kind](image)), reply_to=asked)
                asked = await ana.reply()
                assert asked.text.startswith(SEEN_BEFORE), kind
