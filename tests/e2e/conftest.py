import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from selenium import webdriver
from telegram import BotCommand

from bot.sandbox import Rates, Sandbox
from tests.e2e.chat_page import ChatPage, chromium
from tests.e2e.echo_bot import EchoBot


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(rates=Rates()) as sandbox:
        yield sandbox


@pytest.fixture
async def bot(sandbox: Sandbox) -> AsyncIterator[EchoBot]:
    bot = EchoBot(sandbox)
    async with bot.application as application:
        await application.updater.start_polling()
        await application.start()
        await application.bot.set_my_commands([BotCommand("start", "Begin"), ("help", "Help")])
        await application.bot.set_my_commands(
            [("start", "Empezar"), ("help", "Ayuda")], language_code="es"
        )
        yield bot
        await application.updater.stop()
        await application.stop()


@pytest.fixture
async def page(browser: webdriver.Chrome, sandbox: Sandbox, bot: EchoBot) -> ChatPage:
    return await asyncio.to_thread(ChatPage, browser, sandbox.url)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    astronaut = Image.fromarray(skimage.data.astronaut())
    pictures = [astronaut, astronaut.crop((100, 0, 400, 300)), astronaut.resize((300, 500))]
    paths = [folder / f"astronaut-{number}.jpg" for number in range(3)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    return paths
