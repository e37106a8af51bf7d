"""The whole face login on the chat page, in both languages: enroll, verify, take along, forget.

The real bot, store and page; faces are those that the test says, because nobody stands before the
camera. SCREENSHOTS=folder keeps pictures of it.
"""

import asyncio
import os
import random
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from bot.login.liveness import draw
from bot.sandbox import Rates, Sandbox
from bot.texts import say
from tests.bot.fakes import picture
from tests.bot.login.test_verify import clip_of
from tests.bot.logins import LOT, SELFIES, LoginEngine, login_bot
from tests.bot.sandbox.clips import clip
from tests.e2e.chat_page import ChatPage

SCREENSHOTS = "SCREENSHOTS"


class Visit:
    """A person at the page."""

    def __init__(self, browser: webdriver.Chrome, url: str, language: str) -> None:
        self.page = ChatPage(browser, f"{url}/#{'ana' if language == 'es' else 'ben'}")
        self.page.resize(1280, 1000)
        self.language, self.shot = language, 0

    def say(self, words: str) -> None:
        self.page.find("#text").send_keys(words, Keys.ENTER)

    def hears(self, key: str, **values: object) -> None:
        wanted = " ".join(say(self.language, key, **values).split())
        self.page.until(lambda: wanted in " ".join((self.page.texts("theirs") or [""])[-1].split()))

    def presses(self, label: str) -> None:
        wanted = say(self.language, label)
        keys = self.page.until(
            lambda: [key for key in self.page.all(".theirs .key") if key.text == wanted]
        )
        keys[-1].click()

    def sends(self, photo: bytes) -> None:
        self.page.drop(photo)
        self.page.until(lambda: self.page.find("#tray").is_displayed())
        self.page.click("#send")

    def keeps(self, name: str) -> None:
        if folder := os.environ.get(SCREENSHOTS):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.browser.save_screenshot(f"{folder}/{name}-{self.language}.png")


@pytest.mark.parametrize("language", ["es", "en"])
async def test_a_login_from_the_consent_to_its_end(
    language: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    engine = LoginEngine()
    engine.watch = clip_of(0, draw(random.Random(LOT)))
    video = tmp_path / "round.mp4"
    video.write_bytes(clip(7.0, 128, 128))
    async with (
        Sandbox(rates=Rates()) as sandbox,
        login_bot(tmp_path, engine, sandbox, send_rate=30),
    ):

        def scenario() -> None:
            visit = Visit(browser, sandbox.url, language)
            visit.say("/enroll")
            visit.hears("enroll.consent", count=SELFIES, days=365, hours=24)
            visit.keeps("consent")
            visit.presses("buttons.agree")
            visit.hears("enroll.first", count=SELFIES)
            for number in range(1, SELFIES):
                visit.sends(picture(number))
                visit.hears("enroll.next", number=number, of=SELFIES)
            visit.sends(picture(SELFIES))
            visit.page.until(
                lambda: (
                    any("-" in words for words in visit.page.words(".theirs code"))
                    or len(visit.page.texts("theirs")) >= SELFIES + 3
                )
            )
            visit.keeps("enrolled")
            visit.say("/verify")
            visit.hears("verify.video", seconds=90)
            shown = visit.page.find(".theirs .photo img")
            visit.page.until(lambda: visit.page.script("return arguments[0].naturalWidth", shown))
            # What is answered stands above the words that are being written, however long it is.
            width = visit.page.script("return document.querySelector('#app').offsetWidth")
            assert width <= 860
            visit.keeps("challenge")
            visit.page.send_round_video(video)
            visit.hears("verify.passed_video")
            visit.keeps("verified")
            visit.say("/mydata")
            visit.page.until(lambda: "mydata.json" in " ".join(visit.page.words(".theirs")))
            visit.say("/forget")
            visit.hears("rights.forget")
            visit.presses("buttons.forget_yes")
            visit.page.until(
                lambda: (
                    say(language, "rights.forgotten", number="\0", when="").split("\0")[0]
                    in visit.page.texts("theirs")[-1]
                )
            )
            visit.say("/verify")
            visit.hears("verify.not_enrolled")
            visit.keeps("forgotten")
            assert visit.page.complaints() == []

        try:
            await asyncio.to_thread(scenario)
        finally:
            if os.environ.get(SCREENSHOTS):
                browser.save_screenshot(f"{os.environ[SCREENSHOTS]}/last-{language}.png")
