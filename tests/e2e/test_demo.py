"""`python -m bot demo` as a newcomer meets it: real bot and engine, in a process of their own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from selenium import webdriver

from bot import demo
from bot.sandbox import Person
from engine.errors import InternalError
from engine.types import Analysis
from tests.bot.fakes import FakeEngine
from tests.e2e.chat_page import ChatPage, chromium

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOT = "SCREENSHOT"
"""Environment variable: where the browser test puts its picture, for the README."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    astronaut = Image.fromarray(skimage.data.astronaut())
    astronaut.crop((0, 0, 440, 440)).save(folder / "astronaut.jpg", quality=95)
    pair = Image.new("RGB", (800, 400))
    pair.paste(astronaut.crop((40, 0, 440, 400)), (0, 0))
    pair.paste(
        astronaut.crop((40, 0, 440, 400)).transpose(Image.Transpose.FLIP_LEFT_RIGHT), (400, 0)
    )
    pair.save(folder / "pair.jpg", quality=95)
    Image.new("RGB", (400, 300), "teal").save(folder / "wall.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def once(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bot", "demo", "--once", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_one_photo_is_answered_with_a_card(photos: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.png"
    ended = once(photos / "astronaut.jpg", "--card", card, "--json")
    assert ended.returncode == 0, ended.stderr
    (reply,) = json.loads(ended.stdout)["replies"]
    assert set(reply) == {"text", "buttons", "photo"}
    assert reply["text"]
    assert len(reply["buttons"]) == 2
    assert reply["photo"] == str(card)
    with Image.open(card) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 1000
    assert ended.stderr == ""


@pytest.mark.parametrize("name", ["wall.png", "notes.txt"])
def test_a_refused_photo_says_why(photos: Path, name: str) -> None:
    ended = once(photos / name, "--json")
    assert ended.returncode == 2, ended.stderr
    (reply,) = json.loads(ended.stdout)["replies"]
    assert reply["photo"] is None
    assert len(reply["text"]) > 20


def test_a_missing_file_is_a_failure(tmp_path: Path) -> None:
    ended = once(tmp_path / "absent.jpg")
    assert ended.returncode == 1
    assert "absent.jpg: No such file" in ended.stderr


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A demo that runs until the tests are done, then is asked to stop."""
    command = [sys.executable, "-m", "bot", "demo", "--port", "0", "--no-browser"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl+C" in line:
            break
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert found, said + (process.communicate()[1] if process.poll() is not None else "")
    yield found.group()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=15)
    assert process.returncode == 0, log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as browser:
        yield browser


def test_a_dropped_photo_gets_a_real_answer(
    browser: webdriver.Chrome, url: str, photos: Path
) -> None:
    page = ChatPage(browser, url)
    page.resize(1280, 1000)
    page.drop((photos / "astronaut.jpg").read_bytes())
    page.until(lambda: page.find("#tray").is_displayed())
    page.click("#send")
    card = page.find(".theirs .photo img")
    page.until(lambda: page.script("return arguments[0].naturalWidth", card) > 500)
    page.until(lambda: page.texts("theirs"))
    assert len(page.all(".theirs .key")) == 2
    if path := os.environ.get(SCREENSHOT):
        browser.save_screenshot(path)

    page.all(".theirs .key")[0].click()
    page.until(lambda: "\n" in page.texts("theirs")[-1])
    assert page.complaints() == []


async def test_another_face_is_a_button_away(url: str, photos: Path) -> None:
    async with Person(url, "ben") as ben:
        await ben.send_photo(photos / "pair.jpg")
        answer = await ben.reply()
        assert "1." in answer.text
        first_card = await ben.download(answer)
        pressed = asyncio.create_task(ben.press(answer, "2"))
        changed = await ben.edited(answer)
        await pressed
        assert await ben.download(changed) != first_card
        await ben.press(changed, "Delete")
        await ben.deleted(changed)


async def test_the_menu_speaks_both_languages(url: str) -> None:
    async with Person(url, "ana") as ana, Person(url, "ben") as ben:
        spanish, english = await ana.commands(), await ben.commands()
    assert spanish.keys() == english.keys() >= {"start", "help", "privacy", "language"}
    assert spanish["help"] != english["help"]


def test_a_taken_port_is_said_plainly(url: str) -> None:
    port = url.rpartition(":")[2]
    ended = subprocess.run(
        [sys.executable, "-m", "bot", "demo", "--port", port, "--no-browser"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert f"Port {port} is taken" in ended.stderr


async def test_a_bug_of_ours_is_no_refusal(photos: Path) -> None:
    """Exit code 2 says that the photo is to blame; whatever else goes wrong is 1."""

    def see(_photo: bytes) -> Analysis:
        raise InternalError("a bug")

    photo = (photos / "astronaut.jpg").read_bytes()
    ending, (reply,) = await demo.once(FakeEngine(see), photo, "astronaut.jpg")
    assert ending is demo.PhotoOutcome.FAILED
    assert reply.photo is None
