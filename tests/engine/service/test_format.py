"""The JSON of version 1, letter by letter: engines and bots of different versions meet."""

import base64
import json
import math
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from engine.bundle import FOLDER, Manifest
from engine.client import EmbeddedEngine
from engine.decision import NO_VETO, LoginCalibration, OperatingPoint
from engine.errors import Busy, NotAnImage
from engine.remote.client import Patience, RemoteEngine
from engine.runtime.reload import Reloader
from engine.service.app import application
from engine.service.serving import Served
from engine.settings import Settings
from engine.types import (
    Analysis,
    EngineInfo,
    Face,
    Frame,
    Match,
    Person,
    Pose,
    Quality,
    Track,
    Verdict,
)
from tests.engine.seers import PATTERN, seer
from tests.engine.strangers import Says, says, stranger

QUALITY = Quality(size_px=20.5, blur=0.25, exposure=0.5, shadow=0.125)
LANDMARKS = ((55.0, 35.0), (65.0, 35.125), (60.0, 40.0), (55.25, 45.0), (65.0, 45.0))
SEEN = Face(
    box=(50.126, 30.0, 70.0, 50.0),
    landmarks=LANDMARKS,
    probability=0.999,
    quality=QUALITY,
    pose=Pose(math.nan, 0.5),
    matches=(
        Match("Ñusta Ocllo", 0.75, 0.5, 99.5, Verdict.IS, b"\xff\xd8\xff\xfe\xfb"),
        Match("Ben", 0.25, -0.125, 30.0, Verdict.FAINT),
    ),
    embedding=np.array([0.6, -0.8, 1e-9], np.float32),
    pattern=PATTERN,
)
PLAIN = Face((1.0, 2.0, 3.0, 4.5), LANDMARKS, 1.0, QUALITY, Pose(0.0, 0.56))
ANALYSIS = Analysis((SEEN, PLAIN), 120, 80, "tests@0", 0.25, 0.5, 270, b"\xff\xd8\xff\xfb")
TRACK = Track(
    (Frame(0.0, SEEN, 2), Frame(0.1, PLAIN, 0, (1.25, 0.0)), Frame(0.2, None, 0)),
    *(120, 80, 0.3, "tests@0", 0.25, 0.5, "5a13864c09f0"),
)
PHOTO_POINT = OperatingPoint(
    *("photo", 3, 2, 0.5, NO_VETO, None, 0.0001, 0.0008, 0.04, 20, 40_000, 900)
)
VIDEO_POINT = OperatingPoint(
    *("video", 3, 1, 0.625, 0.25, 0.375, 0.001, 0.004, 0.25, 20, 40_000, 900)
)
LOGIN = LoginCalibration(
    embedder="dlib-resnet29",
    weights_sha256="55533b28",
    preprocessing=1,
    centre=np.array([0.1, -0.0123, 1e-9], np.float32),
    points=(PHOTO_POINT, VIDEO_POINT),
    agreement=0.375,
    captures=4,
    probes=2,
    attempts=3,
    source="celebrities@01234567",
)
INFO = EngineInfo("1", "tests@0", "none", 2, "cuda:0", LOGIN)
PEOPLE = (Person("Ana", "MX", {"es": "pintora", "en": "painter"}), Person("Ben"))

JSON_QUALITY = {"size_px": 20.5, "blur": 0.25, "exposure": 0.5, "shadow": 0.125}
JSON_LANDMARKS = [[55.0, 35.0], [65.0, 35.12], [60.0, 40.0], [55.25, 45.0], [65.0, 45.0]]
JSON_EMBEDDING = [0.6000000238418579, -0.800000011920929, 9.999999717180685e-10]
JSON_SEEN: dict[str, Any] = {
    "box": [50.13, 30.0, 70.0, 50.0],
    "landmarks": JSON_LANDMARKS,
    "probability": 0.999,
    "quality": JSON_QUALITY,
    "pose": {"yaw": None, "pitch": 0.5},
    "matches": [
        {
            "name": "Ñusta Ocllo",
            "probability": 0.75,
            "similarity": 0.5,
            "percentile": 99.5,
            "verdict": "is",
            "thumbnail": "/9j//vs=",
        },
        {
            "name": "Ben",
            "probability": 0.25,
            "similarity": -0.125,
            "percentile": 30.0,
            "verdict": "faint",
        },
    ],
    "embedding": JSON_EMBEDDING,
    "pattern": base64.b64encode(PATTERN).decode(),
}
JSON_PLAIN: dict[str, Any] = {
    "box": [1.0, 2.0, 3.0, 4.5],
    "landmarks": JSON_LANDMARKS,
    "probability": 1.0,
    "quality": JSON_QUALITY,
    "pose": {"yaw": 0.0, "pitch": 0.56},
    "matches": [],
}
JSON_ANALYSIS = {
    "bundle": "tests@0",
    "width_px": 120,
    "height_px": 80,
    "queue_s": 0.25,
    "compute_s": 0.5,
    "turned": 270,
    "picture": "/9j/+w==",
    "faces": [JSON_SEEN, JSON_PLAIN],
}


def without_thumbnails(face: dict[str, Any]) -> dict[str, Any]:
    matches = [
        {key: value for key, value in match.items() if key != "thumbnail"}
        for match in face["matches"]
    ]
    return face | {"matches": matches}


JSON_TRACK = {
    "bundle": "tests@0",
    "width_px": 120,
    "height_px": 80,
    "duration_s": 0.3,
    "queue_s": 0.25,
    "compute_s": 0.5,
    "calibration": "5a13864c09f0",
    "frames": [
        {"time_s": 0.0, "face": without_thumbnails(JSON_SEEN), "others": 2, "turned_deg": None},
        {"time_s": 0.1, "face": JSON_PLAIN, "others": 0, "turned_deg": [1.25, 0.0]},
        {"time_s": 0.2, "face": None, "others": 0, "turned_deg": None},
    ],
}
JSON_LOGIN = {
    "embedder": "dlib-resnet29",
    "weights_sha256": "55533b28",
    "preprocessing": 1,
    "captures": 4,
    "probes": 2,
    "attempts": 3,
    "agreement": 0.375,
    "source": "celebrities@01234567",
    "points": [
        {
            "level": "photo",
            "templates": 3,
            "probes": 2,
            "threshold": 0.5,
            "template_floor": -1.0,
            "turn_threshold": None,
            "fmr": 0.0001,
            "fmr_upper_95": 0.0008,
            "fnmr": 0.04,
            "people": 20,
            "impostor_trials": 40_000,
            "genuine_trials": 900,
        },
        {
            "level": "video",
            "templates": 3,
            "probes": 1,
            "threshold": 0.625,
            "template_floor": 0.25,
            "turn_threshold": 0.375,
            "fmr": 0.001,
            "fmr_upper_95": 0.004,
            "fnmr": 0.25,
            "people": 20,
            "impostor_trials": 40_000,
            "genuine_trials": 900,
        },
    ],
    "centre": [0.1, -0.0123, 1e-9],
}
JSON_INFO = {
    "version": "1",
    "bundle": "tests@0",
    "embedder": "none",
    "people": 2,
    "device": "cuda:0",
    "login": JSON_LOGIN,
}
JSON_PEOPLE = {
    "people": [
        {"name": "Ana", "country": "MX", "known_for": {"es": "pintora", "en": "painter"}},
        {"name": "Ben", "country": "", "known_for": {}},
    ]
}
JSON_NO_IMAGE = {
    "type": "urn:face-matcher:problem:not_an_image",
    "title": "Not an image",
    "status": 415,
    "detail": "No.",
    "code": "not_an_image",
}
JSON_BUSY = {
    "type": "urn:face-matcher:problem:busy",
    "title": "Busy",
    "status": 503,
    "detail": "Full.",
    "code": "busy",
    "retry_after_s": 0.75,
}


class Recited(EmbeddedEngine):
    """An engine that gives the values above, or a fault."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__(seer())
        self._fault = fault

    async def analyze(self, photo: bytes, **_asked: Any) -> Analysis:
        if self._fault is not None:
            raise self._fault
        return ANALYSIS

    async def track(self, clip: bytes, *, deadline_s: float | None = None) -> Track:
        return TRACK

    async def info(self) -> EngineInfo:
        return INFO

    async def people(self) -> tuple[Person, ...]:
        return PEOPLE


async def served(method: str, path: str, fault: Exception | None = None) -> Any:
    """The JSON that the service answers."""

    @asynccontextmanager
    async def open_engine():
        async with Recited(fault) as engine:
            yield Served(engine, Reloader(engine, seer))

    app = application(open_engine, Settings())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://engine") as client,
    ):
        return (await client.request(method, path, content=b"a file")).json()


ANSWERS = {
    "analysis": ("POST", "/v1/analyze?thumbnails=true", JSON_ANALYSIS),
    "track": ("POST", "/v1/track", JSON_TRACK),
    "info": ("GET", "/v1/info", JSON_INFO),
    "people": ("GET", "/v1/people", JSON_PEOPLE),
}


@pytest.mark.parametrize(("method", "path", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_what_the_service_says(method: str, path: str, expected: Any) -> None:
    found = await served(method, path)
    assert found == expected
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)  # 1 is not 1.0


async def test_thumbnails_come_when_they_are_asked_for() -> None:
    faces = [without_thumbnails(JSON_SEEN), JSON_PLAIN]
    assert await served("POST", "/v1/analyze") == JSON_ANALYSIS | {"faces": faces}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(NotAnImage("No."), JSON_NO_IMAGE), (Busy("Full.", retry_after_s=0.75), JSON_BUSY)],
)
async def test_how_the_service_refuses(fault: Exception, expected: Any) -> None:
    assert await served("POST", "/v1/analyze", fault) == expected


def same(face: Face, expected: Face) -> None:
    assert face.embedding is not None
    assert expected.embedding is not None
    np.testing.assert_array_equal(face.embedding, expected.embedding)
    assert face.embedding.dtype == np.float32
    assert face.pattern == expected.pattern
    assert math.isnan(face.pose.yaw)
    assert face.box == (50.13, 30.0, 70.0, 50.0)
    assert (face.probability, face.quality) == (expected.probability, expected.quality)


async def asked(answer: Says, question: Callable[[RemoteEngine], Any]) -> Any:
    async with (
        stranger(answer) as server,
        RemoteEngine(server.url, patience=Patience(retries=0)) as engine,
    ):
        return await question(engine)


async def test_what_older_engines_do_not_say_may_be_missing() -> None:
    older = {key: value for key, value in JSON_ANALYSIS.items() if key != "turned"}
    analysis = await asked(says(200, older), lambda engine: engine.analyze(b"a file"))
    assert analysis.turned == 0
    older = {key: value for key, value in JSON_TRACK.items() if key != "calibration"}
    track = await asked(says(200, older), lambda engine: engine.track(b"a file"))
    assert track.calibration is None
    older = {key: value for key, value in JSON_INFO.items() if key != "login"}
    assert (await asked(says(200, older), lambda engine: engine.info())).login is None


async def test_what_a_client_understands() -> None:
    analysis = await asked(says(200, JSON_ANALYSIS), lambda engine: engine.analyze(b"a file"))
    same(analysis.faces[0], SEEN)
    assert analysis.faces[0].matches == SEEN.matches
    assert analysis.faces[1].matches == ()
    assert (analysis.turned, analysis.picture) == (270, ANALYSIS.picture)
    assert (analysis.bundle, analysis.queue_s, analysis.compute_s) == ("tests@0", 0.25, 0.5)
    track = await asked(says(200, JSON_TRACK), lambda engine: engine.track(b"a file"))
    same(track.frames[0].face, SEEN)
    assert [frame.turned_deg for frame in track.frames] == [None, (1.25, 0.0), None]
    assert track.frames[2] == TRACK.frames[2]
    assert await asked(says(200, JSON_PEOPLE), lambda engine: engine.people()) == PEOPLE
    info = await asked(says(200, JSON_INFO), lambda engine: engine.info())
    assert info == INFO
    np.testing.assert_array_equal(info.login.centre, LOGIN.centre)
    with pytest.raises(NotAnImage, match=r"No\."):
        await asked(says(415, JSON_NO_IMAGE), lambda engine: engine.analyze(b"a file"))
    with pytest.raises(Busy) as caught:
        await asked(says(503, JSON_BUSY), lambda engine: engine.analyze(b"a file"))
    assert caught.value.retry_after_s == 0.75


def test_the_version_of_a_login_is_kept() -> None:
    """It is in the audit trail, and must not change with the program."""
    assert LOGIN.version == "5a13864c09f0"
    assert "version" not in JSON_LOGIN


def test_the_login_of_a_bundle_is_kept() -> None:
    text = (FOLDER / "celebrities.json").read_text("utf-8")
    manifest = Manifest.model_validate_json(text)
    assert manifest.login is not None
    assert manifest.login.version == "ca05e64a6cc0"
    written = json.loads(manifest.model_dump_json())["login"]
    assert json.dumps(written, sort_keys=True) == json.dumps(
        json.loads(text)["login"], sort_keys=True
    )
