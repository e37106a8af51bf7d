import io
from collections.abc import AsyncIterator

import pytest
from PIL import Image
from telegram import Bot

from bot.sandbox import Person, Sandbox
from tests.bot.sandbox.pictures import picture


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def bot(sandbox: Sandbox) -> AsyncIterator[Bot]:
    async with Bot(
        sandbox.token, base_url=sandbox.bot_api_url, base_file_url=sandbox.file_url
    ) as bot:
        yield bot


@pytest.fixture
async def ana(sandbox: Sandbox) -> Person:
    """Ana, who has written to the bot already."""
    ana = sandbox.person("ana")
    await ana.send_text("/start")
    return ana


@pytest.fixture
def chat_id() -> int:
    return 7001


@pytest.fixture
def photo() -> bytes:
    return picture(640, 480)


@pytest.fixture
def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (200, 100), (255, 0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()
