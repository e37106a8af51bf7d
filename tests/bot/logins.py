"""People with faces for the login's tests: an engine that sees whom a test says.

Every person is a direction, every shot of them a little off it. Thresholds are those of the
calibration below; decisions are made by the real `engine.decision`.
"""

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bot import app
from bot.sandbox import Person, Sandbox
from bot.sandbox.client import Message
from bot.texts import say
from engine.decision import LoginCalibration, OperatingPoint
from engine.types import Analysis, EngineInfo, Face, Pose, Quality, Track
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, picture
from tests.bot.rewriting import rewrite

DIMENSION = 16
SELFIES, PHOTOS = 3, 2
_ENROLLED: list[str] = []
_FILES: dict[Path, bytes] = {}
LOT = 5
"""Seed of the challenges that `login_bot` draws."""


def point(level: str, templates: int, probes: int) -> OperatingPoint:
    return OperatingPoint(
        level=level,
        templates=templates,
        probes=probes,
        threshold=0.6,
        template_floor=-1.0,
        turn_threshold=0.5 if level == "video" else None,
        fmr=1e-3,
        fmr_upper_95=1e-3,
        fnmr=0.01,
        people=100,
        impostor_trials=10_000,
        genuine_trials=1_000,
    )


CALIBRATION = LoginCalibration(
    embedder="fake",
    weights_sha256="0" * 64,
    preprocessing=1,
    centre=np.zeros(DIMENSION, np.float32),
    points=(point("photo", 3, 2), point("video", 3, 1)),
    agreement=0.5,
)


def vector(person: int, shot: int = 0) -> Any:
    """(d,) of unit length: shots of one person are alike, and persons are not."""
    own = np.zeros(DIMENSION)
    own[person] = 1.0
    own += 0.12 * np.random.default_rng((person, shot)).standard_normal(DIMENSION)
    return (own / np.linalg.norm(own)).astype(np.float32)


def good_face(person: int = 0, shot: int = 0, **changes: Any) -> Face:
    """A face that passes every gate."""
    return replace(
        fakes.face(size_px=120.0),
        quality=Quality(120.0, 0.2, 0.5, 0.1),
        pose=Pose(0.01, 0.56),
        matches=(),
        embedding=vector(person, shot),
        **changes,
    )


class LoginEngine(FakeEngine):
    """An engine before which `person` stands; each photo is another shot of them.

    Attributes:
        person: who is seen.
        faces: what is seen instead, where a test sets it.
        login: the calibration.
    """

    def __init__(self) -> None:
        super().__init__(self._look)
        self.person, self.shots = 0, 0
        self.faces: tuple[Face, ...] | None = None
        self.login: LoginCalibration | None = CALIBRATION

    def _look(self, photo: bytes) -> Analysis:
        self.shots += 1
        seen = (good_face(self.person, self.shots),) if self.faces is None else self.faces
        pattern = fakes.pattern(*hashlib.sha256(photo).digest())
        faces = [replace(face, pattern=pattern) for face in seen]
        return replace(fakes.analysis(*faces), bundle=self.bundle)

    async def track(self, clip: bytes, *, deadline_s: float | None = None) -> Track:
        seen = await super().track(clip, deadline_s=deadline_s)
        version = None if self.login is None else self.login.version
        return replace(seen, bundle=self.bundle, calibration=version)

    async def info(self) -> EngineInfo:
        return replace(await super().info(), login=self.login)


class Shots:
    """Photos that nobody has seen."""

    def __init__(self, taken: int = 100) -> None:
        self._taken = taken

    def new(self) -> bytes:
        self._taken += 1
        return picture(self._taken)


@asynccontextmanager
async def login_bot(
    folder: Path, engine: FakeEngine, sandbox: Sandbox | None = None, **changes: Any
) -> AsyncIterator[Sandbox]:
    """A sandbox with a bot whose login takes few selfies; the store is in the folder."""
    few = {"enroll_selfies": SELFIES, "verify_photos": PHOTOS, "allow_photo_verify": True}
    if sandbox is not None:
        chosen = fakes.settings(sandbox, folder, **{**few, **changes})
        lot = random.Random(LOT)
        async with app.running(chosen, engine, draw=fakes.draw, chance=lot):
            yield sandbox
        return
    async with Sandbox() as own, login_bot(folder, engine, own, **changes):
        yield own


async def english(sandbox: Sandbox, name: str = "ana") -> Person:
    person = sandbox.person(name)
    await person.set_language("en")
    return person


async def agree(person: Person) -> Message:
    """/enroll, and the consent; the bot's wish for the first selfie."""
    await person.send_text("/enroll")
    asked = await person.reply()
    await person.press(asked, say("en", "buttons.agree"))
    return await person.reply()


async def enroll(person: Person, shots: Shots, *, idle_days: int = 365) -> str:
    """All of /enroll; returns the recovery code."""
    await agree(person)
    code = await capture_all(person, shots, idle_days=idle_days)
    assert code is not None
    return code


async def enrolled(folder: Path) -> str:
    """Have a folder's database hold what `enroll` of Ana leaves; returns her recovery code.

    For tests of what comes afterwards, with a bot that is not started yet: she enrolls once in a
    process, with shots that no test takes, and each has a copy.
    """
    if not _ENROLLED:
        engine, shots = LoginEngine(), Shots(9000)
        engine.shots = 9000
        with TemporaryDirectory() as name:
            own = Path(name)
            async with login_bot(own, engine) as sandbox:
                code = await enroll(await english(sandbox), shots)
            # Every sandbox numbers its updates from the same number on.
            await rewrite(own, "DELETE FROM updates")
            _ENROLLED.append(code)
            _FILES.update(_read_all(own))
    for path, content in _FILES.items():
        file = folder / path
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o600)
    return _ENROLLED[0]


def _read_all(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


async def capture_all(
    person: Person, shots: Shots, *, idle_days: int = 365, new_code: bool = True
) -> str | None:
    """From the first selfie to the end; returns the new recovery code, where one is wanted."""
    for _ in range(SELFIES - 1):
        await person.send_photo(shots.new())
        await person.reply()
    await person.send_photo(shots.new())
    code = code_of(await person.reply()) if new_code else None
    done = await person.reply()
    assert done.text == say("en", "enroll.done", days=idle_days)
    return code


def code_of(message: Message) -> str:
    before, after = say("en", "enroll.code", code="\0").split("\0")
    assert message.text.startswith(before)
    assert message.text.endswith(after)
    return message.text[len(before) : len(message.text) - len(after)]


async def verify(person: Person, shots: Shots) -> Message:
    """All of /verify by photo; returns what the bot says in the end."""
    await person.send_text("/verify photo")
    for _ in range(PHOTOS):
        asked = await person.reply()
        await person.send_photo(shots.new(), reply_to=asked)
    return await person.reply()
