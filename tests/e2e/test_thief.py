"""The thief of an account, against the whole bot with the engine that people get.

They hold the account, its history (selfies, a video that passed) and the database to read; not the
face. Each link of the way to the owner's login is tried, one after the other, and each fails; the
owner still gets in. Clips are generated from photos of the owner that the bot has not seen.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot import app
from bot.login.liveness import Challenge, draw
from bot.sandbox import Person, Sandbox, rehearsal
from bot.sandbox.client import Message
from bot.sandbox.performer import Portrait, perform, transcode
from bot.texts import say
from engine.client import EmbeddedEngine
from engine.pipeline import Pipeline
from engine.settings import Settings
from tests.bot import fakes
from tests.bot.logins import LOT, SELFIES
from tests.bot.slides import Edit, show
from tests.bot.test_copies import EDITS, encoded, portraits

OWNER = Path(__file__).parents[3] / "shared" / "data" / "photos" / "people" / "lionel_messi"
FILMED = (2, 8)
"""Photos of which clips are made that pass, whatever is drawn; the others are selfies."""
MOST = 12
FRAMES_PER_S = 10
"""Of all clips: a third of what a phone films, made and seen in a third of the time."""
SEEN_BEFORE = say("en", "refusal.seen_before")
ALREADY = say("en", "enroll.already", hours=24)

pytestmark = pytest.mark.skipif(not OWNER.is_dir(), reason="needs ../shared/data/photos")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))


@pytest.fixture(scope="module")
def photos(pipeline: Pipeline) -> list[Image.Image]:
    return list(islice(portraits(pipeline, OWNER), MOST))


async def portrait(engine: EmbeddedEngine, photo: Image.Image) -> Portrait:
    """What clips are made of."""
    analysis = await engine.analyze(encoded(photo), top_k=1)
    still = Portrait(np.asarray(photo), np.asarray(analysis.faces[0].landmarks))
    return rehearsal.rehearsed(
        still, await engine.track(await asyncio.to_thread(rehearsal.clip, still))
    )


@asynccontextmanager
async def running(engine: EmbeddedEngine, folder: Path) -> AsyncIterator[tuple[Person, Person]]:
    few = {"enroll_selfies": SELFIES, "verify_photos": 2, "allow_photo_verify": True}
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, folder, **few)
        async with app.running(chosen, engine, chance=random.Random(LOT)):
            people = sandbox.person("ana"), sandbox.person("ben")
            for person in people:
                await person.set_language("en")
            yield people


async def enroll(person: Person, photos: list[Image.Image]) -> tuple[list[Image.Image], str]:
    """Enroll with photos that agree; which those are, and the recovery code."""
    await person.send_text("/enroll")
    await person.press(await person.reply(), say("en", "buttons.agree"))
    await person.reply()
    taken = []
    for photo in photos:
        await person.send_photo(encoded(photo))
        said = (await person.reply()).text
        if said.startswith(say("en", "enroll.next", number=len(taken) + 1, of=SELFIES)):
            taken.append(photo)
        elif said.startswith(say("en", "enroll.code", code="|").partition("|")[0]):
            await person.reply()  # it is set up
            before, after = say("en", "enroll.code", code="|").split("|")
            return [*taken, photo], said.removeprefix(before).removesuffix(after)
    raise AssertionError("no photos that agree")


async def asked_for(
    person: Person, command: str, drawn: random.Random
) -> tuple[Message, Challenge]:
    """A challenge by video, and what it asks."""
    await person.send_text(command)
    asked = await person.reply()
    if command == "/enroll":
        assert asked.text == ALREADY
        await person.press(asked, say("en", "buttons.replace"))
        asked = await person.reply()
    assert asked.photo, asked.text
    return asked, draw(drawn)


slide_show = partial(show, seed=2, frames_per_s=FRAMES_PER_S, brisk=True)


def database(folder: Path) -> bytes:
    """All that whoever reads the database sees."""
    return b"".join(path.read_bytes() for path in folder.glob("bot.db*"))


async def test_every_link_of_the_way_to_the_owner_s_login_fails(
    pipeline: Pipeline, photos: list[Image.Image], tmp_path: Path
) -> None:
    drawn = random.Random(LOT)
    async with EmbeddedEngine(pipeline) as engine, running(engine, tmp_path) as (ana, ben):
        others = [photo for index, photo in enumerate(photos) if index not in FILMED]
        selfies, code = await enroll(ana, others)
        heads = [await portrait(engine, photos[index]) for index in FILMED]

        async def film(asked: Challenge, head: Portrait, seed: int) -> bytes:
            return await asyncio.to_thread(
                perform, head, asked, seed=seed, frames_per_s=FRAMES_PER_S, brisk=True
            )

        async def sends(clip: bytes, asked: Message) -> str:
            await ana.send_video_note(clip, reply_to=asked)
            return (await ana.reply()).text

        # The owner gets in, so that the history has a video that passed.
        asked, steps = await asked_for(ana, "/verify", drawn)
        clip = await film(steps, heads[0], 1)
        assert await sends(clip, asked) == say("en", "verify.passed_video")

        # What the bot was sent is not in the chat any more; the thief has it from before.
        await ana.send_text("/verify photo")
        asked = await ana.reply()
        for selfie in selfies:
            for kind in ("edited", "edited and mirrored"):
                await ana.send_photo(encoded(EDITS[kind](selfie)), reply_to=asked)
                asked = await ana.reply()
                assert asked.text.startswith(SEEN_BEFORE), kind
        await ana.send_text("/cancel")
        await ana.reply()

        # The video that passed, encoded anew; then the selfies as a slide show; for a verification.
        asked, steps = await asked_for(ana, "/verify", drawn)
        again = await asyncio.to_thread(transcode, clip, random.Random(0))
        assert (await sends(again, asked)).startswith(SEEN_BEFORE)
        slides = await asyncio.to_thread(slide_show, heads[0], steps, count=9, edit=Edit.FADED)
        assert say("en", "verify.passed_video") not in await sends(slides, asked)

        # The same to replace the face; the wait is told, and forgetting does not help.
        asked, steps = await asked_for(ana, "/enroll", drawn)
        slides = await asyncio.to_thread(slide_show, heads[0], steps, count=17, edit=Edit.SHAKEN)
        assert say("en", "verify.passed_video") not in await sends(slides, asked)
        await ana.send_text("/enroll")
        assert (await ana.reply()).text == ALREADY

        # Codes are guessed, here and from the thief's own account.
        for person, command in ((ana, "/recover"), (ben, "/move")):
            wrong = "WRONG" + code[5:]
            await person.send_text(f"{command} {wrong}")
            key = "recover.wrong" if command == "/recover" else "move.wrong"
            assert (await person.reply()).text == say("en", key)

        # What is given away: no vectors, no scores.
        await ana.send_text("/mydata")
        given = await ana.download((await ana.reply()).document)
        text = json.dumps(json.loads(given))
        assert "vector" not in text
        assert "bucket" not in text

        # The owner still gets in.
        asked, steps = await asked_for(ana, "/verify", drawn)
        assert await sends(await film(steps, heads[1], 1), asked) == say(
            "en", "verify.passed_video"
        )

        # The database gives neither the code nor anything of the face.
        seen = await engine.analyze(encoded(selfies[0]), embed=True)
        vector = seen.faces[0].embedding
        assert vector is not None
        on_disk = await asyncio.to_thread(database, tmp_path)
        numbers = (vector.tobytes(), vector.astype(np.float64).tobytes(), seen.faces[0].pattern)
        for secret in (code.encode(), *(each[:32] for each in numbers if each)):
            assert secret not in on_disk

        # Forgetting erases, and nobody enrolls in the owner's place.
        await ana.send_text("/forget")
        await ana.press(await ana.reply(), say("en", "buttons.forget_yes"))
        await ana.send_text("/enroll")
        assert say("en", "enroll.held", when="|").partition("|")[0] in (await ana.reply()).text
