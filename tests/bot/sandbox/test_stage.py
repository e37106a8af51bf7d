import asyncio
import random
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
import skimage.data
from PIL import Image

from bot.sandbox import Sandbox
from bot.sandbox.acting import AS_ASKED, Acting
from bot.sandbox.clips import shape
from bot.sandbox.errors import UserError
from bot.sandbox.userapi import STATIC
from engine.errors import Busy
from engine.types import Analysis
from tests.bot.fakes import FakeEngine, analysis, face
from tests.bot.sandbox.clips import clip


class Actor:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, str, str, bytes | None]] = []

    @property
    def ways(self) -> Mapping[str, bool]:
        return {"as_asked": False, "two_faces": True}

    async def perform(self, photo: bytes, *, steps: str, way: str, other: bytes | None) -> bytes:
        if photo == b"nobody":
            raise UserError("no_face", "There is no face in this photo.")
        self.asked.append((photo, steps, way, other))
        return clip(1.0)


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=10) as http:
        yield http


async def test_there_is_no_performer_unless_one_is_lent(http: httpx.AsyncClient, sandbox: Sandbox):
    assert (await http.get("/api/performances")).json() == {"ways": {}}
    answer = await http.post("/api/performances", data={"way": "as_asked", "steps": "sudo"})
    assert answer.json()["error"]["code"] == "bad_way"
    sandbox.performer = Actor()
    ways = (await http.get("/api/performances")).json()
    assert ways == {"ways": {"as_asked": False, "two_faces": True}}


async def test_a_performance(http: httpx.AsyncClient, sandbox: Sandbox):
    sandbox.performer = actor = Actor()
    fields = {"way": "as_asked", "steps": "sudo"}
    answer = await http.post("/api/performances", data=fields, files={"photo": b"me"})
    assert answer.headers["content-type"] == "video/mp4"
    assert (await asyncio.to_thread(shape, answer.content)).duration_s == 1
    both = {"photo": b"me", "other": b"you"}
    await http.post("/api/performances", data={**fields, "way": "two_faces"}, files=both)
    await http.post("/api/performances", data=fields, files=both)
    assert actor.asked == [
        (b"me", "sudo", "as_asked", None),
        (b"me", "sudo", "two_faces", b"you"),
        (b"me", "sudo", "as_asked", None),
    ]


@pytest.mark.parametrize(
    ("fields", "photo", "code"),
    [
        ({"way": "unheard_of", "steps": "sudo"}, b"me", "bad_way"),
        ({"way": "as_asked", "steps": "left"}, b"me", "bad_steps"),
        ({"way": "as_asked", "steps": ""}, b"me", "bad_steps"),
        ({"way": "as_asked", "steps": "su" * 9}, b"me", "bad_steps"),
        ({"way": "two_faces", "steps": "sudo"}, b"me", "empty"),
        ({"way": "as_asked", "steps": "sudo"}, None, "empty"),
        ({"way": "as_asked", "steps": "sudo"}, b"nobody", "no_face"),
    ],
)
async def test_refused_performances(
    http: httpx.AsyncClient,
    sandbox: Sandbox,
    fields: dict[str, str],
    photo: bytes | None,
    code: str,
):
    sandbox.performer = actor = Actor()
    files = {} if photo is None else {"photo": photo}
    answer = await http.post("/api/performances", data=fields, files=files)
    assert answer.json()["error"]["code"] == code
    assert actor.asked == []


LANDMARKS = ((198.0, 108.0), (242.0, 105.0), (222.0, 132.0), (204.0, 153.0), (243.0, 151.0))
"""Of the astronaut, in scikit-image's photo."""


def astronaut(_photo: bytes) -> Analysis:
    seen = face()
    return analysis(type(seen)(seen.box, LANDMARKS, 1.0, seen.quality, seen.pose))


@pytest.fixture
def photo(tmp_path) -> bytes:
    path = tmp_path / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return path.read_bytes()


async def test_acting_makes_a_round_video_of_a_photo(photo: bytes):
    acting = Acting(FakeEngine(astronaut), random.Random(1), frames_per_s=1)
    made = await acting.perform(photo, steps="sudo", way=AS_ASKED, other=None)
    seen = await asyncio.to_thread(shape, made)
    assert seen.width_px == seen.height_px
    assert 6 <= seen.duration_s <= 15


async def test_acting_refuses_what_it_cannot_do(photo: bytes):
    def overrun(_photo: bytes) -> Analysis:
        raise Busy("full", retry_after_s=1.0)

    lot = random.Random(1)
    for engine, given, steps, code in (
        (FakeEngine(lambda _photo: analysis()), photo, "sudo", "no_face"),
        (FakeEngine(astronaut), b"no picture", "sudo", "not_a_photo"),
        (FakeEngine(overrun), photo, "sudo", "no_engine"),
        (FakeEngine(astronaut), photo, "ssss", "bad_steps"),
    ):
        with pytest.raises(UserError) as refusal:
            await Acting(engine, lot).perform(given, steps=steps, way=AS_ASKED, other=None)
        assert refusal.value.code == code


def test_the_page_has_a_word_for_every_way():
    words = (STATIC / "words.js").read_text("utf-8")
    for way in Acting(FakeEngine(), random.Random(1)).ways:
        assert words.count(f'"way_{way}":') == 2, way
