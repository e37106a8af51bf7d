"""Round videos, answers, forwards and lies on the chat page, in a real browser with a camera."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from telegram import MessageOriginChannel

from bot.sandbox import Sandbox
from bot.sandbox.clips import Shape, shape
from bot.sandbox.errors import UserError
from tests.bot.sandbox.clips import clip
from tests.e2e.chat_page import ChatPage
from tests.e2e.echo_bot import ASKED, EXPORT, EchoBot


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "round.mp4"
    path.write_bytes(clip(2.0, 128, 128))
    return path


async def test_a_round_video_is_recorded(page: ChatPage, bot: EchoBot, sandbox: Sandbox):
    def scenario() -> None:
        page.click("#record")
        page.until(lambda: page.find("#round").get_attribute("data-step") == "live")
        assert page.focused() == page.find("#round-record")
        assert "15" in page.words("#round-note")[0]
        page.type(Keys.ENTER)
        page.until(lambda: page.words("#round-clock") == ["0:02"])
        assert page.focused() == page.find("#round-stop")
        page.type(Keys.ENTER)
        page.until(lambda: page.find("#round").get_attribute("data-step") == "review")
        page.until(lambda: page.script("return document.querySelector('#round-review').videoWidth"))
        page.type(Keys.ENTER)
        page.until(lambda: not page.find("#round").is_displayed())
        page.until(lambda: page.all(".theirs .disc"))
        assert len(page.all(".mine .disc")) == 1
        # The camera is let go as soon as there is a clip.
        assert page.script("return document.querySelector('#round-live').srcObject") is None
        assert page.complaints() == []

    await asyncio.to_thread(scenario)
    note = bot.got[0].video_note
    data = bytes(await (await note.get_file()).download_as_bytearray())
    truth = await asyncio.to_thread(shape, data)
    claimed = int(note._duration.total_seconds())
    assert truth == Shape(claimed, note.length, note.length) == Shape(claimed, 384, 384)
    assert 2 <= claimed <= 15


async def test_recording_can_be_called_off(page: ChatPage, bot: EchoBot):
    def scenario() -> None:
        for stop in ("#round-cancel", None):
            page.click("#record")
            page.until(lambda: page.find("#round").get_attribute("data-step") == "live")
            page.click("#round-record")
            page.until(lambda: page.find("#round").get_attribute("data-step") == "recording")
            page.click(stop) if stop else page.type(Keys.ESCAPE)
            page.until(lambda: not page.find("#round").is_displayed())
            assert page.script("return document.querySelector('#round-live').srcObject") is None
        page.click("#record")
        page.until(lambda: page.find("#round").get_attribute("data-step") == "live")
        page.click("#round-record")
        page.click("#round-stop")
        page.until(lambda: page.find("#round").get_attribute("data-step") == "review")
        page.click("#round-again")
        page.until(lambda: page.find("#round").get_attribute("data-step") == "live")
        page.click("#round-cancel")
        assert page.all(".message") == []
        assert page.complaints() == []

    await asyncio.to_thread(scenario)
    assert bot.got == []


async def test_a_round_video_is_uploaded_and_plays(page: ChatPage, bot: EchoBot, video: Path):
    def scenario() -> None:
        page.send_round_video(video)
        disc = page.until(lambda: page.all(".theirs .disc"))[0]
        film = page.find(".theirs .disc video")
        page.until(lambda: page.script("return arguments[0].readyState > 0", film))
        assert page.words(".theirs .disc .length") == ["0:02"]
        page.script("arguments[0].focus()", disc)
        page.type(Keys.SPACE)
        page.until(lambda: disc.get_attribute("aria-pressed") == "true")
        page.until(lambda: disc.get_attribute("aria-pressed") == "false")
        assert page.script("return arguments[0].ended", film)
        assert "0:02" in disc.get_attribute("aria-label")
        assert page.complaints() == []

    await asyncio.to_thread(scenario)
    data = await (await bot.got[0].video_note.get_file()).download_as_bytearray()
    assert bytes(data) == await asyncio.to_thread(video.read_bytes)


async def test_a_question_is_answered_by_itself(
    page: ChatPage, bot: EchoBot, video: Path, sandbox: Sandbox
):
    def ask() -> None:
        page.find("#text").send_keys("ask", Keys.ENTER)
        page.until(lambda: page.find("#context").is_displayed())

    def answer() -> None:
        ask()
        assert page.find("#text").get_attribute("placeholder") == ASKED
        page.browser.refresh()
        page.until(page.is_online)
        page.until(lambda: page.find("#context").is_displayed())  # the question still stands
        page.send_round_video(video)
        page.until(lambda: not page.find("#context").is_displayed())
        page.until(lambda: page.all(".theirs .disc"))
        assert page.words(".mine .quote span") == ["Show me"]
        ask()
        page.click("#context-close")
        page.find("#text").send_keys("never mind", Keys.ENTER)
        page.until(lambda: page.texts("theirs")[-1] == "got never mind")
        ask()

    await asyncio.to_thread(answer)
    answered, _, unanswered, _ = bot.got[1:]
    assert answered.reply_to_message.text == "Show me"
    assert unanswered.reply_to_message is None
    # Answered on another device, nothing waits for an answer here any more.
    ana = sandbox.person("ana")
    question = [one for one in await ana.messages() if one.asks_reply][-1]
    await ana.send_text("from elsewhere", reply_to=question)
    await asyncio.to_thread(page.until, lambda: not page.find("#context").is_displayed())


async def test_pretending(page: ChatPage, photos: list[Path], bot: EchoBot, video: Path):
    def pretend(**lies: str | bool) -> None:
        page.click("#attach")
        page.click("#open-pretend")
        page.until(lambda: page.find("#pretend").is_displayed())
        for name, value in lies.items():
            field = page.find(f"#pretend-form [name={name}]")
            if value is True:
                field.click()
            elif name == "origin":
                page.choose("#pretend-form [name=origin]", str(value))
            else:
                field.send_keys(str(value))
        page.click("#pretend-form [type=submit]")

    def scenario() -> None:
        assert not page.find("#pretending").is_displayed()
        pretend(age_s="90", via_bot=True, in_album=True)
        page.until(lambda: page.find("#pretending").is_displayed())
        assert "hace 90 s" in page.words("#pretending-text")[0]
        page.pick(photos[0])
        page.click("#send")
        page.until(lambda: not page.find("#pretending").is_displayed())  # once, and no longer
        page.until(lambda: page.all(".theirs .photo"))
        assert page.words(".mine .forwarded") == ["vía Another Bot"]
        pretend(offline=True, duration_s="12", side_px="99", origin="channel")
        page.send_round_video(video)
        page.until(lambda: page.all(".theirs .disc"))
        pretend(edited=True)
        page.click("#pretending-close")
        page.find("#text").send_keys("honest", Keys.ENTER)
        page.until(lambda: page.texts("theirs")[-1] == "got honest")
        assert page.complaints() == []

    await asyncio.to_thread(scenario)
    photo, note, text = bot.got
    assert photo.via_bot is not None
    assert photo.media_group_id is not None
    assert (note.video_note.length, int(note.video_note._duration.total_seconds())) == (99, 12)
    assert note.is_from_offline
    assert isinstance(note.forward_origin, MessageOriginChannel)
    assert text.edit_date is None
    assert 85 <= (text.date - photo.date).total_seconds() <= 200


async def test_forwarding_in_other_ways(
    page: ChatPage, photos: list[Path], bot: EchoBot, sandbox: Sandbox
):
    def forward(person: str, origin: str) -> None:
        page.act(".day + .mine", "forward_otherwise")  # the first one, which is no forward
        page.until(lambda: page.find("#forwarding").is_displayed())
        page.choose("#forwarding-form [name=person]", person)
        page.choose("#forwarding-form [name=origin]", origin)
        page.click("#forwarding-form [type=submit]")
        page.until(lambda: not page.find("#forwarding").is_displayed())

    def scenario() -> None:
        page.pick(photos[0])
        page.click("#send")
        page.until(lambda: len(page.all(".theirs .photo")) == 1)
        for count, origin in enumerate(("hidden_user", "copy", "chat", "channel"), 2):
            forward("ana", origin)
            page.until(lambda n=count: len(page.all(".theirs .photo")) == n)  # type: ignore[misc]
        forward("ben", "user")
        page.until(lambda: page.words(".toast") == ["Reenviado como Ben"])
        page.click("[data-person=ben]")
        page.until(lambda: page.words(".forwarded") == ["Forwarded from Ana"])
        page.until(lambda: page.all(".theirs .photo"))

    await asyncio.to_thread(scenario)
    origins = [one.forward_origin and one.forward_origin.type for one in bot.got]
    assert origins == [None, "hidden_user", None, "chat", "channel", "user"]
    assert [one.from_user.id for one in bot.got] == [7001] * 5 + [7002]
    assert len({one.photo[-1].file_unique_id for one in bot.got}) == 1


async def test_a_sent_photo_is_changed(page: ChatPage, photos: list[Path], bot: EchoBot):
    def scenario() -> None:
        page.pick(photos[0])
        page.click("#send")
        page.until(lambda: page.all(".theirs .photo"))
        page.act(".mine", "edit_photo")
        page.find("#pick-replacement").send_keys(str(photos[2]))
        page.until(lambda: page.texts("theirs")[-1:] == ["another photo"])
        assert page.words(".mine .stamp")[0].startswith("editado")

    await asyncio.to_thread(scenario)
    before, after = bot.got
    assert (before.message_id, before.edit_date) == (after.message_id, None)
    assert after.edit_date is not None
    assert after.photo[-1].width == 300


async def test_files_of_the_bot_can_be_kept(page: ChatPage, bot: EchoBot):
    def scenario() -> None:
        page.find("#text").send_keys("export", Keys.ENTER)
        link = page.until(lambda: page.all(".theirs .file"))[0]
        assert link.get_attribute("download") == "my-data.json"
        fetched = page.script("return fetch(arguments[0].href).then((one) => one.text())", link)
        assert fetched == EXPORT.decode()
        assert page.texts("theirs") == ["All of it"]

    await asyncio.to_thread(scenario)


async def test_two_devices_of_one_person(page: ChatPage, bot: EchoBot, sandbox: Sandbox):
    def scenario() -> None:
        browser = page.browser
        first = browser.current_window_handle
        page.click("#more")
        page.click("#other-device")
        page.until(lambda: len(browser.window_handles) == 2)
        try:
            browser.switch_to.window(next(one for one in browser.window_handles if one != first))
            page.until(page.is_online)
            assert page.words("[data-person=ana] .device") == ["2"]
            assert browser.title == "Face Matcher · Ana 2"
            page.find("#text").send_keys("from the second", Keys.ENTER)
            page.until(lambda: page.texts("theirs") == ["got from the second"])
            page.click("[data-person=ben]")
            page.until(lambda: page.is_online() and page.find("#empty").is_displayed())
            assert browser.current_url.endswith("#ben/2")
            browser.close()
        finally:
            browser.switch_to.window(first)
        page.until(lambda: page.texts("theirs") == ["got from the second"])
        assert page.words("[data-person=ana] .device") == []

    await asyncio.to_thread(scenario)


class Actor:
    """Makes the same clip of whatever it is given, and remembers what that was."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []

    @property
    def ways(self) -> Mapping[str, bool]:
        return {"as_asked": False, "two_faces": True}

    async def perform(self, photo: bytes, *, steps: str, way: str, other: bytes | None) -> bytes:
        if steps == "ssss":
            raise UserError("bad_steps", "no")
        self.asked.append((steps, way, other is not None))
        return clip(2.0, 128, 128)


async def test_a_clip_is_made_from_a_photo(
    page: ChatPage, photos: list[Path], bot: EchoBot, sandbox: Sandbox
):
    def nobody_performs() -> None:
        page.click("#record")
        page.until(lambda: page.find("#round").get_attribute("data-step") == "live")
        assert not page.find("#round-perform").is_displayed()
        page.click("#round-cancel")

    def scenario() -> None:
        page.click("#record")
        page.click("#round-perform")
        page.until(lambda: page.find("#stage").is_displayed())
        assert not page.find("#stage-other").is_displayed()
        page.find("#stage-form [name=photo]").send_keys(str(photos[0]))
        for select in page.all("#stage-steps select"):
            page.script("arguments[0].value = 's'", select)
        page.click("#stage-make")
        page.until(lambda: "pasos" in page.words("#stage-note")[0])
        for select, step in zip(page.all("#stage-steps select"), "duso", strict=True):
            page.script("arguments[0].value = arguments[1]", select, step)
        page.choose("#stage-form [name=way]", "two_faces")
        page.find("#stage-form [name=other]").send_keys(str(photos[1]))
        page.click("#stage-make")
        page.until(lambda: page.find("#round").get_attribute("data-step") == "review")
        page.click("#round-send")
        page.until(lambda: page.all(".theirs .disc"))

    await asyncio.to_thread(nobody_performs)
    sandbox.performer = actor = Actor()
    await asyncio.to_thread(scenario)
    assert actor.asked == [("duso", "two_faces", True)]
    assert bot.got[0].video_note.length == 128


async def test_everything_fits_a_phone(page: ChatPage, bot: EchoBot, video: Path, sandbox: Sandbox):
    sandbox.performer = Actor()

    def fits(selector: str) -> None:
        box = page.find(selector).rect
        assert box["x"] >= 0, selector
        assert box["x"] + box["width"] <= 390, selector
        assert 0 <= box["y"] <= 844 - box["height"], selector

    def scenario() -> None:
        page.resize(390, 844)
        page.send_round_video(video)
        page.until(lambda: page.all(".theirs .disc"))
        fits(".theirs .disc")
        fits("#record")
        page.click("#record")
        page.until(lambda: page.find("#round").get_attribute("data-step") == "live")
        for selector in ("#round", "#round-record", "#round-upload", "#round-perform"):
            fits(selector)
        page.click("#round-perform")
        fits("#stage")
        page.click("#stage-cancel")
        page.click("#round-cancel")
        page.click("#attach")
        fits("#attach-menu")
        page.click("#open-pretend")
        fits("#pretend")
        page.type(Keys.ESCAPE)
        assert page.script("return document.documentElement.scrollWidth") == 390

    await asyncio.to_thread(scenario)
