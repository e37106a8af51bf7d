"""The web chat as tests see it: a real browser, and a page object with the chat's own nouns."""

import base64
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

DEADLINE_S = 20
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # A camera that nobody has to allow, showing a test card.
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
_DROP = """
const [name, kind, data] = arguments;
const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
const files = new DataTransfer();
files.items.add(new File([bytes], name, {type: kind}));
const target = document.querySelector("#log");
for (const type of ["dragenter", "dragover", "drop"]) {
  target.dispatchEvent(new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: files}));
}
"""
_PASTE = _DROP.replace('for (const type of ["dragenter", "dragover", "drop"]) {', "{").replace(
    "new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: files})",
    'new ClipboardEvent("paste", {bubbles: true, cancelable: true, clipboardData: files})',
)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A fresh headless Chromium; the test is skipped where there is none."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
        try:
            yield chrome
        finally:
            chrome.quit()


class ChatPage:
    """The page at the sandbox's address; every look waits until there is something to see."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self.resize(1280, 860)
        browser.get("about:blank")  # so that another fragment of the same address loads anew
        browser.get_log("browser")
        browser.get(url)
        self.until(self.is_online)

    def is_online(self) -> bool:
        return self.find("#app").get_attribute("data-state") == "online"

    def resize(self, width_px: int, height_px: int, *, dark: bool = False) -> None:
        size = {"width": width_px, "height": height_px, "deviceScaleFactor": 1}
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "mobile": width_px < 500}
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def until(self, seen: Callable[[], Any]) -> Any:
        """What `seen` gives once it gives something true."""
        return WebDriverWait(self.browser, DEADLINE_S, poll_frequency=0.05).until(lambda _: seen())

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def find(self, selector: str) -> WebElement:
        """The last element of a selector."""
        found: list[WebElement] = self.until(lambda: self.all(selector))
        return found[-1]

    def click(self, selector: str) -> None:
        self.until(lambda: self.find(selector).is_displayed())
        self.find(selector).click()

    def type(self, *keys: str) -> None:
        """Type into whatever has the focus."""
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    def pick(self, *files: Path, as_file: bool = False) -> None:
        """Choose files in the picker."""
        self.find("#pick-files" if as_file else "#pick-photos").send_keys(
            "\n".join(map(str, files))
        )

    def act(self, selector: str, action: str) -> None:
        """Choose something in the menu of the last message of a selector."""
        self.script(
            "arguments[0].scrollIntoView(); arguments[0].click()", self.find(f"{selector} .actions")
        )
        self.click(f"#message-menu [data-action={action}]")

    def choose(self, selector: str, value: str) -> None:
        """Choose in a list, as with the keyboard."""
        self.script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))",
            self.find(selector),
            value,
        )

    def send_round_video(self, file: Path) -> None:
        """Upload a video as a round one and send it."""
        self.click("#attach")
        self.click("#attach-round")
        self.until(lambda: self.find("#round").is_displayed())
        self.find("#round-file").send_keys(str(file))
        self.until(lambda: self.find("#round").get_attribute("data-step") == "review")
        self.click("#round-send")
        self.until(lambda: not self.find("#round").is_displayed())

    def drop(self, data: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> None:
        """Drop a file onto the conversation."""
        self.browser.execute_script(_DROP, name, kind, base64.b64encode(data).decode())

    def paste(self, data: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> None:
        """Paste a file from the clipboard."""
        self.browser.execute_script(_PASTE, name, kind, base64.b64encode(data).decode())

    def texts(self, side: str = "") -> list[str]:
        """What the bubbles say, of one side ("mine", "theirs") or both."""
        return self.words(f".message.{side} .text" if side else ".message .text")

    def words(self, selector: str) -> list[str]:
        """The text of every element of a selector, read at one moment."""
        source = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)"
        words: list[str] = self.script(source, selector)
        return words

    def focused(self) -> WebElement:
        return self.browser.switch_to.active_element

    def script(self, source: str, *arguments: Any) -> Any:
        return self.browser.execute_script(source, *arguments)

    def complaints(self) -> list[str]:
        """Errors and refusals of the content security policy in the console."""
        entries = self.browser.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]
