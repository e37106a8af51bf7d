"""How long a person waits while another one floods the bot.

    uv run python -m tests.benchmarks.fairness

Ana sends 50 photos at once, Ben one, to the real bot with the real engine over real HTTP. Ben's
time from sending to the answer is given in units of what one photo takes when nobody else is
there, measured just before. Every round takes a new bot.
"""

import argparse
import asyncio
import io
import json
import statistics
import time
from contextlib import AsyncExitStack

import skimage.data
from PIL import Image

from bot.demo import running_bot
from bot.sandbox import Sandbox
from engine.client import EmbeddedEngine
from engine.settings import Settings

FLOOD = 50


def photos(count):
    """Different photos of the astronaut, so that no cache can help."""
    astronaut = Image.fromarray(skimage.data.astronaut()).resize((1280, 1280))
    for i in range(count):
        file = io.BytesIO()
        astronaut.crop((i, i, 1180 + i, 1180 + i)).save(file, "JPEG", quality=90)
        yield file.getvalue()


async def answered(person, photo):
    """Seconds from sending a photo to its answer."""
    started = time.perf_counter()
    await person.send_photo(photo)
    await person.reply()
    return time.perf_counter() - started


async def one_round(engine, pictures):
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox())
        await stack.enter_async_context(running_bot(sandbox, engine))
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        alone = statistics.median([await answered(ben, pictures[0]) for _ in range(5)])
        # One connection each, as fifty photos picked in a chat app come one after the other.
        flood = asyncio.create_task(send_all(ana, pictures[1:]))
        await ana.reply()  # the flood is being served
        waited = await answered(ben, pictures[0])
        await flood
        return alone, waited


async def send_all(person, pictures):
    for picture in pictures:
        await person.send_photo(picture)


async def run(rounds):
    pictures = list(photos(FLOOD + 1))
    async with await EmbeddedEngine.open(Settings(engine_device="cpu")) as engine:
        return [await one_round(engine, pictures) for _ in range(rounds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    measured = asyncio.run(run(parser.parse_args().rounds))
    ratios = [waited / alone for alone, waited in measured]
    print(
        json.dumps(
            {
                "flood": FLOOD,
                "alone_ms": [round(1000 * alone) for alone, _ in measured],
                "beside_the_flood_ms": [round(1000 * waited) for _, waited in measured],
                "photos_time_waited_median": round(statistics.median(ratios), 2),
                "photos_time_waited_most": round(max(ratios), 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
