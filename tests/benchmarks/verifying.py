"""How long a verification by photo takes, from the selfie sent to the answer read.

    uv run --no-sync python -m tests.benchmarks.verifying ../shared/data/celebrities/Keanu_Reeves

The real bot, store and engine in one process, through a Telegram on this machine: somebody enrolls
and verifies with the photos of a folder of aligned crops, each once, because edits of one photo are
refused as copies. What the bot refuses is counted and the next photo sent. Processor time is of
everything, the Telegram on this machine included.
"""

import argparse
import asyncio
import io
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from bot import app
from bot.sandbox import Sandbox
from bot.settings import Settings
from bot.texts import say
from engine import threads
from engine.client import EmbeddedEngine
from engine.settings import Settings as EngineSettings
from tests.bot import fakes

SELFIES = Settings.model_fields["enroll_selfies"].default


def shots(folder, generator):
    """A person's photos in any order, large and with something around the face."""
    paths = sorted(folder.iterdir())
    for index in generator.permutation(len(paths)):
        with Image.open(paths[index]) as crop:
            pixels = np.asarray(crop.convert("RGB"))
        edge = len(pixels) // 2
        wider = np.pad(pixels, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
        out = io.BytesIO()
        Image.fromarray(wider).resize((896, 896)).save(out, "JPEG", quality=90)
        yield out.getvalue()


class Person:
    """Somebody who sends selfies until one is taken."""

    def __init__(self, person, folder, seed):
        self.person, self.shots = person, shots(folder, np.random.default_rng(seed))
        self.took, self.refused = [], {}

    async def shoot(self, expected, reply_to=None):
        """Send selfies until the bot says something that is no refusal."""
        while True:
            photo = next(self.shots, None)
            if photo is None:
                raise SystemExit(f"no photos are left: {self.refused}")
            began = time.perf_counter()
            await self.person.send_photo(photo, reply_to=reply_to)
            said = await self.person.reply()
            took = time.perf_counter() - began
            if any(said.text.startswith(start) for start in expected):
                self.took.append(took)
                return said
            self.refused[said.text] = self.refused.get(said.text, 0) + 1


async def run(arguments):
    settings = EngineSettings(engine_device=arguments.device)
    with TemporaryDirectory() as folder:
        async with (
            Sandbox() as sandbox,
            await EmbeddedEngine.open(settings) as engine,
            app.running(fakes.settings(sandbox, Path(folder), allow_photo_verify=True), engine),
        ):
            ana = sandbox.person("ana")
            await ana.set_language("en")
            one = Person(ana, arguments.folder, arguments.seed)
            await enroll(one)
            one.took.clear()
            spent, began = time.process_time(), time.perf_counter()
            passed = 0
            for _ in range(arguments.times):
                passed += await verify(one)
            return {
                "verifications": arguments.times,
                "passed": passed,
                "selfies": len(one.took),
                "refused": sum(one.refused.values()),
                "selfie_to_answer_ms": quantiles(one.took),
                "core_s_per_verification": round(
                    (time.process_time() - spent) / arguments.times, 3
                ),
                "verifications_per_minute": round(
                    60 * arguments.times / (time.perf_counter() - began), 1
                ),
            }


async def enroll(one):
    await one.person.send_text("/enroll")
    await one.person.press(await one.person.reply(), say("en", "buttons.agree"))
    await one.person.reply()
    for number in range(1, SELFIES):
        await one.shoot([say("en", "enroll.next", number=number, of=SELFIES)])
    await one.shoot([say("en", "enroll.code", code="|").partition("|")[0]])
    await one.person.reply()


async def verify(one):
    await one.person.send_text("/verify photo")
    asked = await one.person.reply()
    going_on = [f"That's {number}" for number in range(1, 3)]
    ends = [say("en", "verify.passed_photo"), say("en", "verify.failed_photo")]
    while True:
        asked = await one.shoot([*going_on, *ends], reply_to=asked)
        if asked.text in ends:
            return asked.text == ends[0]


def quantiles(seconds):
    found = np.quantile(seconds, (0.5, 0.95, 0.99)) * 1000
    return dict(zip(("p50", "p95", "p99"), map(round, found), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="of one person")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    threads.configure()
    print(json.dumps(asyncio.run(run(arguments))))


if __name__ == "__main__":
    main()
