"""The web chat in a real browser, with a small real bot of python-telegram-bot behind it."""

import asyncio
import io
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from telegram import MessageOriginUser

from bot.sandbox import Sandbox
from tests.e2e.chat_page import ChatPage
from tests.e2e.echo_bot import HOSTILE, EchoBot


async def test_a_dropped_photo_is_answered(page: ChatPage, photos: list[Path], bot: EchoBot):
    data = photos[0].read_bytes()

    def scenario() -> None:
        assert page.find("#empty").is_displayed()
        assert page.words("#empty strong") == ["Soltá una foto acá"]
        page.drop(data)
        assert not page.find("#drop").is_displayed()
        page.until(lambda: page.find("#tray").is_displayed())
        page.find("#text").send_keys("Who is this?")
        page.find("#text").send_keys(Keys.ENTER)
        answer = page.find(".theirs .photo img")
        page.until(lambda: page.script("return arguments[0].naturalWidth", answer) > 300)
        assert answer.get_attribute("alt") == "Foto de Face Matcher"
        assert not page.find("#empty").is_displayed()
        assert not page.find("#tray").is_displayed()
        assert page.find("#text").get_attribute("value") == ""
        assert page.texts() == ["Who is this?", "It is you"]
        assert page.words(".theirs .quote span") == ["Who is this?"]
        assert page.complaints() == []

    await asyncio.to_thread(scenario)
    assert bot.got[0].caption == "Who is this?"
    assert (bot.got[0].photo[-1].width, bot.got[0].photo[-1].height) == (512, 512)


async def test_buttons(page: ChatPage, photos: list[Path]):
    def scenario() -> None:
        page.pick(photos[0])
        page.click("#send")
        keys = page.until(lambda: page.all(".key"))
        assert page.words(".key") == ["More", "Alert", "Delete"]
        keys[0].click()
        page.until(lambda: page.texts("theirs") == ["More of you"])
        assert page.words(".toast") == ["Here is more"]
        assert page.words(".theirs .stamp")[0].startswith("editado")
        page.until(lambda: not page.all(".key[aria-busy]"))
        page.all(".key")[1].click()
        page.until(lambda: page.find("#alert").is_displayed())
        assert page.words("#alert-text") == ["Look at this!"]
        page.type(Keys.ENTER)
        page.until(lambda: not page.find("#alert").is_displayed())
        page.all(".key")[2].click()
        page.until(lambda: not page.all(".theirs"))
        assert page.complaints() == []

    await asyncio.to_thread(scenario)


async def test_a_button_whose_bot_is_silent_stays_pending(
    page: ChatPage, photos: list[Path], sandbox: Sandbox, bot: EchoBot
):
    def send() -> None:
        page.pick(photos[0])
        page.click("#send")
        page.find(".key")

    def press() -> None:
        page.all(".key")[0].click()
        page.until(lambda: page.all(".key[aria-busy=true]"))

    await asyncio.to_thread(send)
    await bot.application.updater.stop()
    await asyncio.to_thread(press)
    await bot.application.updater.start_polling()
    await asyncio.to_thread(page.until, lambda: not page.all(".key[aria-busy]"))


async def test_photos_open_large(page: ChatPage, photos: list[Path]):
    def scenario() -> None:
        page.pick(photos[0])
        page.click("#send")
        photo = page.find(".theirs .photo")
        photo.click()
        large = page.find("#viewer-image")
        page.until(lambda: page.script("return arguments[0].naturalWidth", large) == 512)
        assert page.find("#viewer").is_displayed()
        assert page.words("#viewer-caption") == ["It is you"]
        page.type(Keys.ESCAPE)
        page.until(lambda: not page.find("#viewer").is_displayed())
        assert page.focused() == photo

    await asyncio.to_thread(scenario)


async def test_several_photos_make_an_album(page: ChatPage, photos: list[Path], bot: EchoBot):
    def scenario() -> None:
        page.pick(*photos)
        assert len(page.all("#tray-files li")) == 3
        page.click("#tray-files li:last-child button")
        assert len(page.all("#tray-files li")) == 2
        page.pick(photos[1])
        page.click("#send")
        page.until(lambda: len(page.all(".mine .album .photo")) == 3)
        assert len(page.all(".message.mine")) == 1
        page.until(lambda: len(page.all(".theirs .photo")) == 3)

    await asyncio.to_thread(scenario)
    assert len({message.media_group_id for message in bot.got}) == 1


async def test_photos_as_files_and_from_the_clipboard(
    page: ChatPage, photos: list[Path], bot: EchoBot
):
    data = photos[0].read_bytes()

    def scenario() -> None:
        page.paste(data, "pasted.jpg")
        page.until(lambda: page.all("#tray-files li"))
        page.find("#as-file").click()
        page.click("#send")
        page.until(lambda: page.words(".mine .file strong") == ["pasted.jpg"])
        page.until(lambda: len(page.all(".theirs")) == 1)
        assert not page.find("#as-file").is_selected()

    await asyncio.to_thread(scenario)
    document = bot.got[0].document
    assert (document.file_name, document.mime_type) == ("pasted.jpg", "image/jpeg")
    assert bytes(await (await document.get_file()).download_as_bytearray()) == data


async def test_what_is_no_photo_is_offered_as_a_file(page: ChatPage, bot: EchoBot):
    def scenario() -> None:
        page.drop(b"these are no pixels", "broken.jpg")
        page.click("#send")
        page.until(lambda: page.find("#as-file").is_selected())
        assert "archivo" in page.words(".toast")[0]
        page.click("#send")
        page.until(lambda: page.words(".mine .file strong") == ["broken.jpg"])

    await asyncio.to_thread(scenario)


async def test_two_people_and_two_languages(page: ChatPage, bot: EchoBot):
    def scenario() -> None:
        page.click("#empty-start")
        page.until(lambda: page.texts("theirs") == ["Welcome es"])
        page.click("[data-person=ben]")
        page.until(lambda: page.is_online() and page.find("#empty").is_displayed())
        assert page.words("#empty strong") == ["Drop a photo here"]
        assert page.find("html").get_attribute("lang") == "en"
        page.click("#commands")
        menu = ["Begin", "Help"]
        page.until(lambda: page.words("#commands-menu span") == menu)
        page.type(Keys.ESCAPE)
        page.click("[data-person=ana]")
        page.until(lambda: page.texts("theirs") == ["Welcome es"])
        page.script(
            "const select = document.querySelector('#language');"
            "select.value = 'en'; select.dispatchEvent(new Event('change'));"
        )
        page.until(lambda: page.find("html").get_attribute("lang") == "en")
        page.find("#text").send_keys("/start", Keys.ENTER)
        page.until(lambda: page.texts("theirs") == ["Welcome es", "Welcome en"])
        page.browser.refresh()
        page.until(page.is_online)
        assert len(page.texts()) == 4
        assert page.complaints() == []

    await asyncio.to_thread(scenario)


async def test_keyboard_alone(page: ChatPage, bot: EchoBot):
    def scenario() -> None:
        assert page.focused() == page.find("#text")
        page.type("/")
        page.until(lambda: page.find("#commands-menu").is_displayed())
        page.type("h")
        page.until(lambda: len(page.all("#commands-menu button")) == 1)
        page.type(Keys.BACKSPACE, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
        page.until(lambda: page.texts("mine") == ["/help"])
        assert page.focused() == page.find("#text")
        page.type("first line", Keys.SHIFT + Keys.ENTER, "second", Keys.ENTER)
        page.until(lambda: page.texts("mine")[1:] == ["first line\nsecond"])
        page.type(Keys.ARROW_UP)
        assert page.find("#context").is_displayed()
        page.type(" and more", Keys.ENTER)
        page.until(lambda: page.texts("mine")[1:] == ["first line\nsecond and more"])
        page.type(Keys.ARROW_UP, Keys.ESCAPE)
        assert not page.find("#context").is_displayed()
        assert page.find("#text").get_attribute("value") == ""
        page.type(Keys.SHIFT + Keys.TAB)
        page.type(Keys.ENTER)
        page.until(lambda: page.find("#commands-menu").is_displayed())
        page.type(Keys.ESCAPE)
        assert page.focused() == page.find("#commands")
        outline = page.script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"

    await asyncio.to_thread(scenario)
    await_edit = [message for message in bot.got if message.edit_date]
    assert [message.text for message in await_edit] == ["first line\nsecond and more"]


async def test_reply_forward_delete(page: ChatPage, photos: list[Path], bot: EchoBot):
    def scenario() -> None:
        page.pick(photos[0])
        page.click("#send")
        page.find(".theirs .photo")
        page.act(".mine", "forward")
        page.until(lambda: page.words(".forwarded") == ["Reenviado de Ana"])
        page.until(lambda: len(page.all(".theirs .photo")) == 2)
        page.act(".theirs", "reply")
        assert page.words("#context-title") == ["Respuesta a Face Matcher"]
        page.type("thanks", Keys.ENTER)
        page.until(lambda: page.texts("theirs")[-1] == "got thanks")
        page.act(".mine", "delete")
        page.until(lambda: "thanks" not in page.texts("mine"))
        page.pick(photos[0])
        page.find("#text").send_keys("protect", Keys.ENTER)
        page.until(lambda: page.all(".theirs .lock"))
        page.script("arguments[0].click()", page.find(".theirs .actions"))
        offered = [one.get_attribute("data-action") for one in page.all("#message-menu button")]
        assert "reply" in offered
        assert "forward" not in offered

    await asyncio.to_thread(scenario)
    origin = bot.got[1].forward_origin
    assert isinstance(origin, MessageOriginUser)
    assert origin.sender_user.first_name == "Ana"
    assert bot.got[2].reply_to_message.caption == "It is you"


async def test_nothing_that_is_written_runs(page: ChatPage, bot: EchoBot):
    await bot.application.bot.set_my_commands([("a", HOSTILE)], language_code="es")
    await bot.application.bot.set_my_description(HOSTILE)

    def scenario() -> None:
        page.find("#text").send_keys("hostile", Keys.ENTER)
        page.until(lambda: len(page.all(".theirs")) == 2)
        page.find("#text").send_keys(HOSTILE, Keys.ENTER)
        page.until(lambda: page.texts("mine")[-1] == HOSTILE)
        page.drop(b"x", name="<img src=x onerror=window.hacked=1>", kind="text/plain")
        page.until(lambda: page.all("#tray-files li"))
        page.click("#commands")
        page.browser.refresh()
        page.until(lambda: page.is_online() and len(page.all(".theirs")) == 3)
        assert page.texts("theirs")[0] == HOSTILE
        assert page.words(".key") == [HOSTILE]
        assert page.script("return window.hacked") is None
        assert not page.all(".message img, .message script")
        assert page.complaints() == []

    await asyncio.to_thread(scenario)


async def test_other_messages_and_trouble(page: ChatPage, bot: EchoBot, sandbox: Sandbox):
    def scenario() -> None:
        page.click("#attach")
        page.click("[data-other=voice]")
        page.until(lambda: page.texts("theirs") == ["got something"])
        page.click("#more")
        page.click("#open-trouble")
        page.script(
            "const kind = document.querySelector('#trouble-kind');"
            "kind.value = 'server_error'; kind.dispatchEvent(new Event('change'));"
        )
        assert page.find("#trouble-status").is_displayed()
        assert not page.find("#trouble-delay_s").is_displayed()
        page.click("#trouble-add")
        page.until(lambda: page.all("#trouble-orders li"))

    await asyncio.to_thread(scenario)
    (fault,) = sandbox.faults.pending()
    assert (fault.kind, fault.status) == ("server_error", 502)
    assert bot.got[0].voice is not None
    await asyncio.to_thread(page.click, "#trouble-clear")
    await asyncio.to_thread(page.until, lambda: not sandbox.faults.pending())


async def test_a_phone_sized_window(
    page: ChatPage, photos: list[Path], bot: EchoBot, tmp_path: Path
):
    def scenario() -> None:
        page.resize(390, 844)
        page.pick(photos[0])
        page.click("#send")
        page.until(lambda: len(page.all(".theirs .photo img")) == 1)
        page.until(lambda: page.script("return document.querySelector('.theirs img').complete"))
        assert page.script("return document.documentElement.scrollWidth") == 390
        log = page.find("#log")
        assert page.script("return arguments[0].scrollWidth <= arguments[0].clientWidth", log)
        for selector in ("#record", "#attach", "#commands", "#more", "[data-person=ben]", ".key"):
            box = page.find(selector).rect
            assert box["x"] >= 0, selector
            assert box["x"] + box["width"] <= 390, selector
            assert 0 <= box["y"] <= 844 - box["height"], selector
            assert box["height"] >= 30, selector

    await asyncio.to_thread(scenario)
    # A page that failed to paint would be of one colour.
    shot = Image.open(io.BytesIO(await asyncio.to_thread(page.browser.get_screenshot_as_png)))
    assert shot.size == (390, 844)
    assert len(shot.convert("RGB").getcolors(2**24)) > 1000


async def test_the_page_comes_back_after_a_restart(browser: webdriver.Chrome):
    async with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])
        await first.person("ana").send_text("before")
        page = await asyncio.to_thread(ChatPage, browser, first.url)
        await asyncio.to_thread(page.until, lambda: page.texts() == ["before"])
    await asyncio.to_thread(page.until, lambda: not page.is_online())
    async with Sandbox(port=port) as second:
        await second.person("ana").send_text("after")
        await asyncio.to_thread(page.until, lambda: page.texts() == ["after"])
        assert await asyncio.to_thread(page.is_online)
