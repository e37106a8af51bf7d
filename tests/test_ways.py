"""The ways of a photo and of a clip: how long they are, and whether CONTRIBUTING.md is right.

What is counted, `tests.ways` says.
"""

import asyncio
import io
import random
import re
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from bot import app
from bot.engines import embedded
from bot.login.liveness import draw
from bot.sandbox import Sandbox
from bot.telegram.request import Request
from bot.texts import say
from engine.client import Engine
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Person, Track
from tests.bot import fakes
from tests.bot.login.test_verify import clip_of
from tests.bot.logins import LOT, LoginEngine, Shots, english, enroll, login_bot
from tests.engine import clips
from tests.ways import ROOT, Call, traced

MOST_STOPS = 20
MOST_TRANSACTIONS = 4
ENGINE = Settings(engine_device="cpu", engine_bundle="celebrities")


def told(heading: str) -> list[Call]:
    """The way as CONTRIBUTING.md tells it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split(f"### {heading}\n")[1].split("\n#")[0]
    found = re.findall(r"^\d+\. `([\w/]+\.py): ([\w.]+)`", section, re.MULTILINE)
    assert len(found) == len(re.findall(r"^\d+\. ", section, re.MULTILINE)) > 10
    return [(file, function) for file, function in found]


async def test_a_photos_way(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "JPEG")
    with traced() as trace:
        async with (
            Sandbox() as sandbox,
            embedded(ENGINE) as engine,
            app.running(fakes.settings(sandbox, tmp_path), engine),
        ):
            ana = sandbox.person("ana")
            await ana.send_text("/help")
            await ana.reply()
            trace.on = True
            await ana.send_photo(file.getvalue())
            assert (await ana.reply()).photo
            trace.on = False
    stops = trace.stops
    assert len(stops) <= MOST_STOPS, stops
    way = told("A photo")
    assert [calls[0][0] for calls in stops] == [file for file, _ in way]
    assert not [call for call, calls in zip(way, stops, strict=True) if call not in calls]
    once = ("Capture", "PhotoFile", "PhotoRequest", "Detections", "CutFace", "Quality", "Pose")
    assert {name: trace.made[name] for name in once} == dict.fromkeys(once, 1)
    decoded = [call for call in trace.calls if call[0].startswith("engine/media/")]
    assert decoded == [
        ("engine/media/decoder_pool.py", "PhotoDecoders.open"),
        ("engine/media/jpeg.py", "encode"),
    ]


class Counting(LoginEngine):
    """Counts what it is asked, and has a real engine look at a real clip meanwhile.

    Attributes:
        trips: the names of the methods that were called.
    """

    def __init__(self, real: Engine, clip: bytes) -> None:
        super().__init__()
        self.trips: list[str] = []
        self._real, self._clip = real, clip

    async def analyze(self, *arguments: object, **options: object) -> Analysis:
        self.trips.append("analyze")
        return await super().analyze(*arguments, **options)  # type: ignore[arg-type]

    async def track(self, clip: bytes, *, deadline_s: float | None = None) -> Track:
        self.trips.append("track")
        await self._real.track(self._clip, deadline_s=deadline_s)
        return await super().track(clip, deadline_s=deadline_s)

    async def info(self) -> EngineInfo:
        self.trips.append("info")
        return await super().info()

    async def people(self) -> tuple[Person, ...]:
        self.trips.append("people")
        return await super().people()


async def test_a_clips_way(tmp_path: Path) -> None:
    shots, clip = Shots(), clips.encode(clips.astronaut(30, step_px=3))
    with traced() as trace:
        async with embedded(ENGINE) as real:
            engine = Counting(real, clip)
            async with login_bot(tmp_path, engine) as sandbox:
                ana = await english(sandbox)
                await enroll(ana, shots)
                await ana.send_text("/verify")
                asked = await ana.reply()
                engine.watch = clip_of(0, draw(random.Random(LOT)))
                engine.trips.clear()
                trace.on = True
                await ana.send_video_note(clip, reply_to=asked)
                assert (await ana.reply()).text == say("en", "verify.passed_video")
            # The bot has stopped, so that what it does after its answer is counted, too.
            trace.on = False
    assert engine.trips == ["track"]
    assert 0 < trace.transactions <= MOST_TRANSACTIONS
    place = {call: number for number, call in reversed(list(enumerate(trace.calls)))}
    places = [place[call] for call in told("A clip")]
    assert places == sorted(places)


@pytest.mark.parametrize("login", [False, True])
async def test_one_deadline_goes_along(tmp_path: Path, login: bool) -> None:
    deadlines: list[object] = []

    class Told(LoginEngine):
        async def analyze(self, *arguments: object, **options: object) -> Analysis:
            deadlines.append(options["deadline_s"])
            return await super().analyze(*arguments, **options)  # type: ignore[arg-type]

    requests: list[Request] = []
    ended = asyncio.Event()

    def finished(request: Request) -> None:
        if request.kind == "photo":
            requests.append(request)
            ended.set()

    engine = Told()
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path, face_login=login)
        async with app.running(chosen, engine, draw=fakes.draw, finished=finished):
            ana = sandbox.person("ana")
            await ana.send_photo(fakes.picture())
            assert (await ana.reply()).photo
            await ended.wait()
            (request,) = requests
            assert deadlines == [request.look_until_s()]
            assert request.arrived_s < request.look_until_s() < request.deadline_s
