"""Bots of two frameworks that are not this project's, against the sandbox.

.ci/run puts the frameworks into run/foreign; without them the tests are skipped.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.sandbox import Rates, Sandbox, WebhookRules
from tests.bot.sandbox.pictures import picture

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ROOT / "run" / "foreign"
BOTS = Path(__file__).parent / "foreign"
DEADLINE_S = 60.0


def telebot() -> list[str]:
    python = FRAMEWORKS / "bin" / "python"
    if not any(FRAMEWORKS.glob("lib/*/site-packages/telebot")):
        pytest.skip("pyTelegramBotAPI is not in run/foreign; .ci/run puts it there")
    return [str(python), str(BOTS / "telebot_bot.py")]


def grammy() -> list[str]:
    node = shutil.which("node", path=f"{FRAMEWORKS / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if node is None or not (FRAMEWORKS / "node_modules" / "grammy").is_dir():
        pytest.skip("Node.js or grammY in run/foreign is missing; .ci/run puts them there")
    return [node, str(BOTS / "grammy_bot.cjs")]


@asynccontextmanager
async def running(command: list[str], sandbox: Sandbox, secret: str | None) -> AsyncIterator[None]:
    """A bot in a process of its own, from when it is ready."""
    own = {"API": sandbox.url, "TOKEN": sandbox.token, **({"SECRET": secret} if secret else {})}
    environment = {
        "PATH": os.environ["PATH"],
        "NODE_PATH": str(FRAMEWORKS / "node_modules"),
        "NO_PROXY": "*",
        **own,
    }
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), DEADLINE_S) == b"ready\n"
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("secret", [None, "open-sesame"], ids=["polling", "webhook"])
@pytest.mark.parametrize("framework", [telebot, grammy])
async def test_a_bot_of_another_framework(framework, secret: str | None):
    command = framework()
    async with (
        Sandbox(rates=Rates(), webhooks=WebhookRules(ports=None)) as sandbox,
        running(command, sandbox, secret),
        asyncio.timeout(DEADLINE_S),
    ):
        ana = sandbox.person("ana")
        await ana.send_text("/start")
        hello = await ana.reply()
        assert hello.text == "hello"
        answer = await ana.press(hello, "Press")
        assert (answer.text, answer.alert) == ("pressed", True)
        assert (await ana.reply()).text == (
            "400 Bad Request: query is too old and response timeout expired or query ID is invalid"
        )

        photo = await ana.send_photo(picture(300, 200))
        by_id, uploaded = await ana.replies(2)
        assert by_id.text == f"{len(await ana.download(photo))} bytes"
        assert by_id.photo == photo.photo
        assert uploaded.photo != photo.photo
        assert uploaded.raw["photo"][-1]["width"] == 300

        await ana.delete(photo)
        await ana.send_text("album")
        first, second = await ana.replies(2)
        assert first.group_id == second.group_id
        assert first.photo == photo.photo
        assert second.raw["photo"][-1]["width"] == 300

        await ana.send_text("edit")
        before = await ana.reply()
        assert before.text == "before"
        assert (await ana.edited(before)).text == "after"
