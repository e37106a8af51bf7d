"""A bot that is killed at any await of a conversation: another one goes on, and nothing is wrong.

Through real HTTP, on real databases. With `--whole` it is killed at every await that there is
between the first word and the last, which takes hours; the suite tries a few.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot import app, storing
from bot.sandbox import Person, Sandbox
from bot.store import Store
from bot.texts import say
from tests.bot import fakes
from tests.bot.logins import PHOTOS, SELFIES, LoginEngine, Shots, english, enroll, login_bot, verify
from tests.bot.store.crash import PROCESSES, Fuse, count_awaits
from tests.bot.store.places import Place

PATIENCE_S = 60
PASSED = say("en", "verify.passed_photo")
ENROLLED = say("en", "enroll.done", days=365)
OVER = {say("en", "account.cancelled"), say("en", "account.nothing_to_cancel")}
Talk = Callable[[Person, Shots], Awaitable[object]]


def _bot(url: str, token: str, folder: Path, changes: dict[str, Any], fuse: Fuse) -> None:
    """A bot in a process of its own, until it is killed."""
    sandbox: Any = SimpleNamespace(url=url, token=token)
    settings = fakes.settings(
        sandbox,
        folder,
        enroll_selfies=SELFIES,
        verify_photos=PHOTOS,
        allow_photo_verify=True,
        **changes,
    )

    async def child() -> None:
        count_awaits(fuse)
        async with app.running(
            settings, LoginEngine(), draw=fakes.draw, chance=random.Random()
        ) as updates:
            await updates

    asyncio.run(child())


class Scene:
    """A sandbox, a database, and a bot that dies.

    Attributes:
        ana: whoever talks to it.
        shots: photos that nobody has seen.
    """

    def __init__(self, sandbox: Sandbox, place: Place, ana: Person) -> None:
        self._sandbox, self._place = sandbox, place
        self.ana, self.shots = ana, Shots()
        address: dict[str, Any] = {"database_url": str(place.address)}
        self._changes = {} if place.is_sqlite else address

    @asynccontextmanager
    async def another_bot(self) -> AsyncIterator[None]:
        """A bot that lives, on the same database."""
        async with login_bot(self._place.folder, LoginEngine(), self._sandbox, **self._changes):
            yield

    async def killed(self, talk: Talk, at: int) -> bool:
        """Talk to a bot that dies at the given await; whether it did before the talk was over."""
        lit: Synchronized[bool] = PROCESSES.Value("b", False)
        where = self._sandbox.url, self._sandbox.token, self._place.folder, self._changes
        process = PROCESSES.Process(target=_bot, args=(*where, Fuse(at, lit)))
        process.start()
        try:
            await self.ana.send_text("/start")
            await self.ana.reply(timeout_s=PATIENCE_S)
            lit.value = True
            talking = asyncio.ensure_future(talk(self.ana, self.shots))
            death = asyncio.create_task(asyncio.to_thread(process.join, PATIENCE_S))
            await asyncio.wait({talking, death}, return_when=asyncio.FIRST_COMPLETED)
            if talking.done():
                await talking
                await asyncio.sleep(0.1)  # it may have something to write down still
            talking.cancel()
            died = process.exitcode is not None
            assert process.exitcode in (None, -signal.SIGKILL)
        finally:
            process.kill()
            await death
        if not self._place.is_sqlite:
            await self._place.sql("DELETE FROM lease")  # as if the dead bot's had expired
        return died

    async def settled(self) -> None:
        """Wait until all that was said is answered, and nothing is left unfinished."""
        await self.ana.send_text("/cancel")
        while (await self.ana.reply(timeout_s=PATIENCE_S)).text not in OVER:
            pass

    async def heard(self, text: str) -> int:
        """How often the bot said that so far."""
        return [message.text for message in await self.ana.messages()].count(text)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[tuple[Store, int]]:
        """The bot's store, and Ana's number."""
        settings = fakes.settings(self._sandbox, self._place.folder, **self._changes)
        async with storing.store(settings) as store:
            yield store, (await self.ana.messages())[-1].raw["chat"]["id"]

    async def sql(self, statement: str) -> list[Any]:
        return await self._place.sql(statement)

    async def rows(self, table: str) -> int:
        ((number,),) = await self._place.sql(f"SELECT count(*) FROM {table}")
        return int(number)


@pytest.fixture
async def scene(bare: Place) -> AsyncIterator[Scene]:
    async with Sandbox() as sandbox:
        yield Scene(sandbox, bare, await english(sandbox))


@pytest.fixture
def stride(one_in: Callable[[int], int]) -> int:
    """From one await at which the bot is killed to the next."""
    return one_in(600)


async def kills(scene: Scene, prepare: Talk, talk: Talk, stride: int) -> AsyncIterator[int]:
    """Number of a conversation in which the bot was killed: at the first await, and in strides.

    While the caller looks at what is left, a bot that lives has taken over and all is answered.

    Args:
        scene: nobody is enrolled in it before and afterwards.
        prepare: what comes before, for each time.
        talk: what the bot is killed in.
        stride: from one await to the next.
    """
    for number, at in enumerate(count(1, stride)):
        async with scene.another_bot():
            await prepare(scene.ana, scene.shots)
        died = await scene.killed(talk, at)
        async with scene.another_bot():
            await scene.settled()
            yield number
            async with scene.store() as (store, ana):
                await store.forget(ana)
                await store.unlock(ana)
                assert await store.check_audit() is None
        if not died:
            assert number > 0, "it was killed often enough to mean something"
            return


async def nothing(_ana: Person, _shots: Shots) -> None:
    """Nothing comes before."""


async def enrols(ana: Person, shots: Shots) -> None:
    await enroll(ana, shots)


async def verifies(ana: Person, shots: Shots) -> None:
    assert (await verify(ana, shots)).text == PASSED


async def forgets(ana: Person, _shots: Shots) -> None:
    await ana.send_text("/forget")
    asked = await ana.reply()
    await ana.press(asked, say("en", "buttons.forget_yes"))
    await ana.edited(asked)


async def test_an_enrolment_is_whole_or_nothing_and_can_be_done_again(
    scene: Scene, stride: int
) -> None:
    heard = 0
    async for _ in kills(scene, nothing, enrols, stride):
        templates = await scene.rows("templates")
        assert templates in (0, SELFIES), "all or none"
        assert await scene.rows("consents") == await scene.rows("enrolments") == bool(templates)
        assert await scene.rows("flows") == 0
        # It may have died between the deed and the word.
        assert await scene.heard(ENROLLED) - heard <= bool(templates)
        if not templates:
            await enrols(scene.ana, scene.shots)
        await verifies(scene.ana, scene.shots)
        heard = await scene.heard(ENROLLED)


async def test_nobody_passes_without_a_counted_attempt_or_twice_with_one_challenge(
    scene: Scene, stride: int
) -> None:
    heard = 0
    async for _ in kills(scene, enrols, verifies, stride):
        async with scene.store() as (store, ana):
            outcomes = [each["outcome"] for each in (await store.export(ana))["attempts"]]
        assert outcomes in ([], ["open"], ["passed"])
        assert await scene.heard(PASSED) - heard <= outcomes.count("passed")
        assert await scene.rows("flows") == 0
        heard = await scene.heard(PASSED)
        asked = [message for message in await scene.ana.messages() if message.asks_reply]
        if asked:
            await scene.ana.send_photo(scene.shots.new(), reply_to=asked[-1])
            assert (await scene.ana.reply()).text != PASSED
        await verifies(scene.ana, scene.shots)
        heard = await scene.heard(PASSED)


async def draws(ana: Person, _shots: Shots) -> None:
    for _ in range(2):
        await ana.send_text("/verify")
        assert (await ana.reply()).photo


async def test_a_challenge_that_lapsed_is_counted_once_and_only_if_it_could_be_met(
    scene: Scene, stride: int
) -> None:
    async for _ in kills(scene, enrols, draws, stride):
        query = "SELECT failed_video, voided FROM people"
        ((failed, voided),) = await scene.sql(query)
        unmet = await scene.sql("SELECT outcome, reason FROM attempts")
        assert unmet == [("failed", "unanswered")] * failed
        assert voided == 0
        assert len(await scene.sql("SELECT person FROM challenges")) in (failed, failed + 1)


async def test_whoever_is_forgotten_is_so_wholly(scene: Scene, stride: int) -> None:
    async for _ in kills(scene, enrols, forgets, stride):
        left = {table: await scene.rows(table) for table in ("people", "templates", "enrolments")}
        assert len({bool(number) for number in left.values()}) == 1, left
        if left["people"]:
            await forgets(scene.ana, scene.shots)
        for table in ("people", "templates", "enrolments", "consents", "flows", "challenges"):
            assert await scene.rows(table) == 0, table
