import httpx
import pytest
from telegram import Bot, Message

from bot.sandbox import Person, Sandbox
from bot.sandbox.clips import UNKNOWN, Shape, shape
from bot.sandbox.errors import UserError
from tests.bot.sandbox.clips import clip


async def received(bot: Bot) -> Message:
    message = (await bot.get_updates(offset=-1, timeout=10))[-1].message
    assert message is not None
    return message


@pytest.mark.parametrize("form", ["mp4", "webm"])
def test_a_video_tells_its_shape(form: str):
    assert shape(clip(2.0, 96, 64, form=form)) == Shape(2, 96, 64)


@pytest.mark.parametrize("data", [b"", b"moving pictures", clip()[:200], b"\x1a\x45\xdf\xa3junk"])
def test_what_is_no_video_has_no_shape(data: bytes):
    assert shape(data) == UNKNOWN


@pytest.mark.parametrize(("form", "suffix"), [("mp4", ".mp4"), ("webm", ".webm")])
async def test_a_round_video_carries_its_bytes(bot: Bot, ana: Person, form: str, suffix: str):
    data = clip(3.0, form=form)
    sent = await ana.send_video_note(data)
    note = (await received(bot)).video_note
    assert (note.length, int(note._duration.total_seconds()), note.file_size) == (96, 3, len(data))
    file = await note.get_file()
    assert file.file_path.endswith(suffix)
    assert bytes(await file.download_as_bytearray()) == data
    assert await ana.download(sent) == data


async def test_claims_may_be_lies(bot: Bot, ana: Person):
    await ana.send_video_note(clip(1.0), duration_s=9, side_px=240)
    note = (await received(bot)).video_note
    assert (note.length, int(note._duration.total_seconds())) == (240, 9)
    await ana.send_video(clip(1.0), duration_s=0, width_px=1, height_px=2, caption="me")
    message = await received(bot)
    assert (message.video.width, message.video.height, message.caption) == (1, 2, "me")
    with pytest.raises(UserError):
        await ana.send_video_note(clip(1.0), duration_s=-1)
    with pytest.raises(UserError):
        await ana.send_video_note(b"")


async def test_a_bot_sends_videos(bot: Bot, ana: Person):
    data = clip(2.0)
    sent = await bot.send_video_note(7001, data, length=96, duration=2)
    assert sent.video_note.length == 96
    again = await bot.send_video_note(7001, sent.video_note.file_id)
    assert again.video_note == sent.video_note
    video = await bot.send_video(7001, data, caption="look")
    assert (video.video.width, video.caption) == (96, "look")
    shown = await ana.replies(3)
    assert [await ana.download(one) for one in shown] == [data] * 3


async def test_browsers_can_seek(ana: Person, sandbox: Sandbox):
    data = clip()
    sent = await ana.send_video_note(data)
    where = f"/api/files/{sent.video}"
    async with httpx.AsyncClient(base_url=sandbox.url) as http:
        whole = await http.get(where)
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["content-type"] == "video/mp4"
        for wanted, part in (
            ("bytes=0-", data),
            ("bytes=10-19", data[10:20]),
            (f"bytes={len(data) - 1}-", data[-1:]),
            ("bytes=5-99999999", data[5:]),
        ):
            answer = await http.get(where, headers={"Range": wanted})
            assert (answer.status_code, answer.content) == (206, part)
        first = await http.get(where, headers={"Range": "bytes=0-0"})
        assert first.headers["content-range"] == f"bytes 0-0/{len(data)}"
        beyond = await http.get(where, headers={"Range": f"bytes={len(data)}-"})
        assert (beyond.status_code, beyond.content) == (416, b"")
