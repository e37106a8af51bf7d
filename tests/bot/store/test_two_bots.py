"""Two bots with one database: one serves, the other one stands by and follows."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from bot import app
from bot.sandbox import Person, Sandbox, WebhookRules
from bot.settings import Settings
from bot.standby import LeaseLost
from bot.texts import say
from engine.types import EngineInfo
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, free_port, picture
from tests.bot.logins import LoginEngine, english
from tests.bot.store.places import Place
from tests.bot.store.proxies import Proxy, proxied
from tests.bot.test_app import process, stop

PATIENCE_S = 60
LEASE_S = 4.0
"""A short one, so that a killed bot is not waited for long."""


def changes(place: Place, **others: Any) -> dict[str, Any]:
    """A bot's settings for the database."""
    return others if place.is_sqlite else {"database_url": str(place.address), **others}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(webhooks=WebhookRules(ports=None)) as sandbox:
        yield sandbox


async def standing_by(bot: asyncio.subprocess.Process) -> str:
    """Wait until a bot says that it stands by."""
    assert bot.stderr
    async with asyncio.timeout(PATIENCE_S):
        while b"standing by" not in (line := await bot.stderr.readline()):
            assert line, "it ended"
    return line.decode()


async def served(place: Place, number: int) -> None:
    """Wait until so many updates are noted as served."""
    async with asyncio.timeout(PATIENCE_S):
        while (await place.sql("SELECT count(*) FROM updates"))[0][0] < number:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def answers(ana: Person) -> list[str]:
    """What the bot has written so far."""
    return [each.text for each in await ana.messages() if each.raw["from"]["is_bot"]]


async def talk(ana: Person, times: int) -> None:
    """Ask so many things, and wait for as many answers."""
    for _ in range(times):
        await ana.send_text("/help")
    for _ in range(times):
        assert (await ana.reply(timeout_s=PATIENCE_S)).text


async def test_one_answers_and_the_other_follows_when_it_is_killed(
    bare: Place, sandbox: Sandbox
) -> None:
    ana = await english(sandbox)
    chosen = changes(bare, lease_s=LEASE_S, person_queue=10)
    async with process(sandbox, bare.folder, **chosen) as one:
        await talk(ana, 1)
        async with process(sandbox, bare.folder, **chosen) as other:
            told = await standing_by(other)
            assert re.search(r"bot\.db\.lock|the bot on .*, process \d+", told)
            await talk(ana, 3)
            await ana.send_photo(picture())
            assert (await ana.reply()).photo
            await served(bare, 5)
            one.kill()
            await one.wait()
            await talk(ana, 3)
            await ana.send_photo(picture(1))
            assert (await ana.reply()).photo
            await served(bare, 9)
            assert len(await answers(ana)) == 9
            await stop(other)


async def test_a_bot_that_is_stopped_is_followed_at_once(bare: Place, sandbox: Sandbox) -> None:
    ana = await english(sandbox)
    chosen = changes(bare, lease_s=300)
    async with process(sandbox, bare.folder, **chosen) as one:
        await talk(ana, 1)
        async with process(sandbox, bare.folder, **chosen) as other:
            await standing_by(other)
            await stop(one)
            await talk(ana, 2)
            assert len(await answers(ana)) == 3
            await stop(other)


async def test_a_bot_that_stands_by_can_be_stopped(bare: Place, sandbox: Sandbox) -> None:
    ana = await english(sandbox)
    async with process(sandbox, bare.folder, **changes(bare)) as one:
        await talk(ana, 1)
        async with process(sandbox, bare.folder, **changes(bare)) as other:
            await standing_by(other)
            await stop(other)
        await talk(ana, 1)
        await stop(one)


async def test_of_two_webhooks_a_balancer_finds_the_one_that_serves(
    bare: Place, sandbox: Sandbox
) -> None:
    ana = await english(sandbox)
    ports = [free_port(), free_port()]

    def bot(port: int) -> Any:
        address = {"webhook_url": f"http://127.0.0.1:{port}", "webhook_port": port}
        chosen = fakes.settings(sandbox, bare.folder, **changes(bare, **address))
        return app.running(chosen, FakeEngine(), draw=fakes.draw)

    async def health(port: int) -> tuple[int, dict[str, Any]]:
        async with httpx.AsyncClient(trust_env=False) as client:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        told = await client.get(f"http://127.0.0.1:{port}/healthz")
                    except httpx.ConnectError:
                        await asyncio.sleep(0.05)
                    else:
                        return told.status_code, told.json()

    serves, ends = asyncio.Event(), asyncio.Event()

    async def follow() -> None:
        async with bot(ports[1]):
            serves.set()
            await ends.wait()

    async with bot(ports[0]):
        following = asyncio.create_task(follow())
        assert (await health(ports[0]))[0] == 200
        status, told = await health(ports[1])
        assert (status, told["status"]) == (503, "standby")
        await talk(ana, 3)
        assert not serves.is_set()
    async with asyncio.timeout(PATIENCE_S):
        await serves.wait()
    assert (await health(ports[1]))[0] == 200
    await talk(ana, 3)
    assert len(await answers(ana)) == 6
    ends.set()
    await following


@asynccontextmanager
async def silent(
    place: Place, sandbox: Sandbox, **others: Any
) -> AsyncIterator[tuple[Proxy, Settings]]:
    """Settings of a bot whose database goes silent when it is told to."""
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with proxied(str(place.address)) as (proxy, address):
        chosen = fakes.settings(sandbox, place.folder, database_url=address, **others)
        yield proxy, chosen


class Asked(LoginEngine):
    """An engine that tells when it is asked what it is: the first thing that /enroll does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_info = asyncio.Event()

    async def info(self) -> EngineInfo:
        self.asked_info.set()
        return await super().info()


async def test_people_are_answered_and_the_bot_stops_while_the_database_is_silent(
    bare: Place, sandbox: Sandbox
) -> None:
    ana = await english(sandbox)
    times = {"answer_timeout_s": 5, "stop_timeout_s": 4, "lease_s": 300}
    engine = Asked()
    async with silent(bare, sandbox, **times) as (proxy, chosen):
        async with asyncio.timeout(PATIENCE_S):
            async with app.running(chosen, engine, draw=fakes.draw):
                await talk(ana, 1)
                proxy.silence()
                await talk(ana, 1)
                for send in (ana.send_photo(picture()), ana.send_text("/enroll")):
                    await send
                    told = (await ana.reply(timeout_s=PATIENCE_S)).text
                    assert told == say("en", "turned.deadline")
                engine.asked_info.clear()
                await ana.send_text("/enroll")
                await engine.asked_info.wait()  # so that it is under way at the end
            assert (await ana.reply(timeout_s=PATIENCE_S)).text in {
                say("en", "turned.restarting"),
                say("en", "turned.deadline"),
            }


async def test_a_bot_that_is_cut_off_from_the_database_ends_before_another_may_serve(
    bare: Place, sandbox: Sandbox
) -> None:
    ana = await english(sandbox)
    async with silent(bare, sandbox, lease_s=LEASE_S) as (proxy, chosen):
        other = fakes.settings(sandbox, bare.folder, **changes(bare, lease_s=LEASE_S))
        async with asyncio.timeout(PATIENCE_S):
            async with app.running(chosen, FakeEngine(), draw=fakes.draw) as source:
                await talk(ana, 1)
                await served(bare, 1)
                proxy.silence()
                await asyncio.wait([source])
                with pytest.raises(LeaseLost, match="whether this bot may still serve"):
                    source.result()
            async with app.running(other, FakeEngine(), draw=fakes.draw):
                await talk(ana, 1)
                assert len(await answers(ana)) == 2
