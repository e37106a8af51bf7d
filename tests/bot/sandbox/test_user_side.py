import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup

from bot.sandbox import Person, Sandbox
from bot.sandbox.errors import UserError
from bot.sandbox.userapi import STATIC
from bot.sandbox.world import MAX_MESSAGES


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=10) as http:
        yield http


async def events(http: httpx.AsyncClient, name: str, **headers: str):
    async with http.stream("GET", f"/api/people/{name}/events", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        number = ""
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                number = line.removeprefix("id: ")
            if line.startswith("data: "):
                yield number, json.loads(line.removeprefix("data: "))


async def test_events_begin_with_a_snapshot_and_go_on(
    http: httpx.AsyncClient, ana: Person, bot: Bot
):
    async with aclosing(events(http, "ana")) as stream:
        _, first = await anext(stream)
        assert first["kind"] == "snapshot"
        assert [one["text"] for one in first["messages"]] == ["/start"]
        assert first["account"]["language_code"] == "es"
        await bot.send_chat_action(7001, "typing")
        await bot.send_message(7001, "hi")
        kinds = [(await anext(stream))[1]["kind"] for _ in range(2)]
        assert kinds == ["action", "message"]


async def test_a_stream_that_broke_goes_on_where_it_was(
    http: httpx.AsyncClient, ana: Person, bot: Bot
):
    async with aclosing(events(http, "ana")) as stream:
        number, _ = await anext(stream)
    await bot.send_message(7001, "missed")
    async with aclosing(events(http, "ana", **{"Last-Event-ID": number})) as stream:
        _, event = await anext(stream)
    assert event["message"]["text"] == "missed"
    stale = {"Last-Event-ID": "anotherrun-1"}
    async with aclosing(events(http, "ana", **stale)) as stream:
        _, event = await anext(stream)
    assert event["kind"] == "snapshot"


async def test_people_do_not_see_each_other(sandbox: Sandbox, ana: Person, bot: Bot):
    await bot.send_message(7001, "for ana")
    assert (await ana.reply()).text == "for ana"
    assert await sandbox.person("ben").messages() == ()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_foreign_pages_are_refused(http: httpx.AsyncClient, headers: dict[str, str]):
    for method, path in [
        ("POST", "/api/people/ana/texts"),
        ("GET", "/api/people/ana/events"),
        ("GET", "/api/faults"),
        ("GET", "/"),
    ]:
        answer = await http.request(method, path, headers=headers, params={"text": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign")
    assert (await http.get("/api/people/ana")).json()["messages"] == []


async def test_the_own_page_is_answered(http: httpx.AsyncClient, sandbox: Sandbox):
    port = sandbox.url.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        answer = await http.post("/api/people/ana/texts", json={"text": "x"}, headers=headers)
        assert answer.status_code == 200


async def test_the_page_loads_nothing_from_elsewhere(http: httpx.AsyncClient):
    page = await http.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for name in re.findall(r'(?:href|src)="(/[^"#]*)"', page.text):
        asset = await http.get(name)
        assert asset.status_code == 200, name
        assert asset.headers["x-content-type-options"] == "nosniff"
    for path in STATIC.iterdir():
        outside = re.findall(r"https?://(?!www\.w3\.org)[\w.]+", path.read_text("utf-8"))
        assert outside == [], path.name
        assert "innerHTML" not in path.read_text("utf-8"), path.name


def test_both_languages_say_the_same():
    source = (STATIC / "words.js").read_text("utf-8")
    words = json.loads(source[source.index("= {") + 2 : source.rindex(";")])
    assert words["es"].keys() == words["en"].keys()
    for key, sentence in words["es"].items():
        assert set(re.findall(r"{\w+}", sentence)) == set(re.findall(r"{\w+}", words["en"][key]))
    page = (STATIC / "index.html").read_text("utf-8")
    used = set(re.findall(r'data-(?:word|label|placeholder)="(\w+)"', page))
    scripts = "".join(
        path.read_text("utf-8") for path in STATIC.glob("*.js") if path.name != "words.js"
    )
    used |= set(re.findall(r'\b(?:word|note)\("(\w+)"', scripts))
    assert used <= words["es"].keys()


async def test_files_are_served_so_that_they_cannot_run(
    http: httpx.AsyncClient, ana: Person, photo: bytes
):
    hostile = b"<script>alert(1)</script>"
    sent = await ana.send_document(hostile, name='a".html', mime_type="text/html")
    page = await http.get(f"/api/files/{sent.document}")
    assert page.content == hostile
    assert page.headers["content-type"] == "application/octet-stream"
    assert page.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in page.headers["content-security-policy"]
    sent = await ana.send_photo(photo)
    assert (await http.get(f"/api/files/{sent.photo}")).headers["content-type"] == "image/jpeg"
    assert (await http.get("/api/files/nothing")).status_code == 404


async def test_protected_messages_are_not_forwarded(ana: Person, bot: Bot):
    await bot.send_message(7001, "secret", protect_content=True)
    message = await ana.reply()
    assert message.protected
    with pytest.raises(UserError) as refusal:
        await ana.forward(message)
    assert refusal.value.code == "protected"


async def test_refused_actions(ana: Person, bot: Bot, photo: bytes):
    await bot.send_message(7001, "mine")
    theirs = await ana.reply()
    own = await ana.send_text("own")
    forwarded = await ana.forward(own)
    await ana.delete(own)
    refusals = {
        "no_message": lambda: ana.edit(own, "x"),
        "not_yours": lambda: ana.edit(theirs, "x"),
        "empty": lambda: ana.send_text("  \n "),
        "too_many": lambda: ana.send_album([photo] * 11),
        "too_long": lambda: ana.send_photo(photo, caption="x" * 1025),
        "bad_kind": lambda: ana.send_other("telepathy"),
        "bad_language": lambda: ana.set_language("<b>"),
    }
    for code, action in refusals.items():
        with pytest.raises(UserError) as refusal:
            await action()
        assert refusal.value.code == code
    with pytest.raises(UserError):
        await ana.edit(forwarded, "x")
    with pytest.raises(LookupError, match="No button"):
        await ana.press(theirs, "Anything")
    await ana.block()
    with pytest.raises(UserError, match="Unblock"):
        await ana.send_text("x")


async def test_malformed_requests(http: httpx.AsyncClient):
    for path, body in [
        ("texts", b"{"),
        ("texts", b"[]"),
        ("texts", b'{"text": 1}'),
        ("texts", b'{"text": "half a \\ud83d"}'),
        ("texts", b'{"text": "x", "reply_to": "y"}'),
        ("presses", b'{"message_id": {}}'),
    ]:
        answer = await http.post(
            f"/api/people/ana/{path}", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    answer = await http.post("/api/people/eve/texts", json={"text": "x"})
    assert answer.status_code == 404
    answer = await http.post("/api/people/ana/photos", files={"file": bytes(65 * 1024 * 1024)})
    assert answer.json()["error"]["code"] == "too_large"


async def test_long_texts_become_several_messages(ana: Person):
    await ana.send_text("x" * 5000)
    assert [len(one.text) for one in (await ana.messages())[1:]] == [4096, 904]


async def test_old_messages_are_forgotten(ana: Person):
    await ana.send_text("x" * 4096 * MAX_MESSAGES)
    messages = await ana.messages()
    assert len(messages) == MAX_MESSAGES
    assert messages[0].text != "/start"


async def test_replies_are_handed_out_once_and_waiting_ends(ana: Person, bot: Bot):
    waiting = asyncio.create_task(ana.replies(2))
    for text in ("one", "two", "three"):
        await bot.send_message(7001, text)
    assert [one.text for one in await waiting] == ["one", "two"]
    assert (await ana.reply()).text == "three"
    with pytest.raises(TimeoutError):
        await ana.reply(timeout_s=0.05)


async def test_a_person_has_several_devices(sandbox: Sandbox, ana: Person, bot: Bot):
    other = sandbox.person("ana")
    await bot.send_message(7001, "to both")
    assert [(await one.reply()).text for one in (ana, other)] == ["to both", "to both"]
    question = (await ana.messages())[-1]
    sent = await asyncio.gather(
        *(
            one.send_text(f"from {number}", reply_to=question)
            for number, one in ((1, ana), (2, other))
        )
    )
    assert len({one.message_id for one in sent}) == 2
    updates = await bot.get_updates(timeout=10)
    texts = {update.message.text: update.message.from_user.id for update in updates[1:]}
    assert texts == {"from 1": 7001, "from 2": 7001}
    assert await ana.messages() == await other.messages()


async def test_pressing_waits_for_the_bots_answer(ana: Person, bot: Bot):
    keys = InlineKeyboardMarkup([[InlineKeyboardButton("More ▸", callback_data="1")]])
    await bot.send_message(7001, "x", reply_markup=keys)
    message = await ana.reply()
    assert message.button("more").data == "1"
    with pytest.raises(TimeoutError):
        await ana.press(message, "more", timeout_s=0.05)


async def test_a_taken_port_is_an_error(sandbox: Sandbox):
    with pytest.raises(OSError, match="in use"):
        async with Sandbox(port=int(sandbox.url.rpartition(":")[2])):
            pass


async def test_leaving_ends_waiting_people_and_polls():
    async with Sandbox() as sandbox:
        bot = Bot(sandbox.token, base_url=sandbox.bot_api_url)
        await bot.initialize()
        ana, ben = Person(sandbox.url, "ana"), sandbox.person("ben")
        polling = asyncio.create_task(bot.get_updates(timeout=50))
        waiting = asyncio.create_task(ana.reply())
        # Both wait for sure once they have seen something and still want more.
        await ben.send_text("hi")
        (update,) = await polling
        polling = asyncio.create_task(bot.get_updates(update.update_id + 1, timeout=50))
        await ana.send_text("hi")
        (update,) = await polling
        polling = asyncio.create_task(bot.get_updates(update.update_id + 1, timeout=50))
        await bot.send_chat_action(7001, "typing")
        await ana.wait_for(lambda event: event.kind == "action")
    assert await asyncio.wait_for(polling, 60) == ()
    with pytest.raises(UserError):
        await asyncio.wait_for(waiting, 60)
    await ana.aclose()
    await bot.shutdown()
