"""The service over ASGI, with somebody in place of the networks."""

import asyncio
import base64
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

import httpx
import psutil
import pytest
from fastapi import FastAPI, HTTPException

from engine import wire
from engine.client import EmbeddedEngine
from engine.errors import BundleError
from engine.media.clip import LIMITS as CLIP_LIMITS
from engine.media.clip import MAX_WAITING
from engine.media.image import LIMITS
from engine.runtime import health
from engine.runtime.health import MAX_STALL_S, Health
from engine.runtime.reload import Reloader
from engine.service import app as app_module
from engine.service import body, problem_json
from engine.service.app import application
from engine.service.serving import Served
from engine.settings import Settings
from engine.types import Person
from engine.wire import PROBLEM_PREFIX, PROBLEMS, read_analysis, read_track
from tests.engine import clips, seers
from tests.engine.seers import PATIENCE_S, THUMBNAIL, Seer, photo


@pytest.fixture
def seer():
    return seers.seer()


@cache
def clip() -> bytes:
    """One second: ten frames."""
    return clips.encode(clips.pictures(30))


@pytest.fixture(autouse=True)
def nobody_is_held_up(seer):
    yield
    seer.go_on.set()


@asynccontextmanager
async def serving(
    seer: Seer, settings: Settings | None = None, successor=None, health=None, **options
) -> AsyncIterator[FastAPI]:
    """The application with its lifespan begun."""
    chosen = settings or Settings()

    @asynccontextmanager
    async def open_engine() -> AsyncIterator[Served]:
        async with EmbeddedEngine(seer, **options) as engine:
            yield Served(engine, Reloader(engine, successor or (lambda: seer)))

    app = application(open_engine, chosen, health=health)
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def calling(
    seer: Seer, settings: Settings | None = None, base_url: str = "http://engine", **options
):
    """A client of the application; a fault of its own is an answer, as over a network.

    Without a port in its address it comes as over a Unix socket.
    """
    async with serving(seer, settings, **options) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
            yield client


def code_of(response: httpx.Response) -> str:
    """The problem's code, once everything else about it is as it must be."""
    assert response.headers["content-type"] == "application/problem+json"
    record = response.json()
    assert record["type"] == PROBLEM_PREFIX + record["code"]
    assert record["status"] == response.status_code == PROBLEMS[record["code"]].status
    assert record["title"] == PROBLEMS[record["code"]].title
    assert record["detail"]
    return record["code"]


# --- Answers ---


async def test_analyze(seer):
    async with calling(seer) as client:
        response = await client.post("/v1/analyze?top_k=1", content=photo())
    assert response.status_code == 200
    record = response.json()
    assert (record["width_px"], record["height_px"], record["bundle"]) == (120, 80, "tests@0")
    (face,) = record["faces"]
    assert face["box"] == [50, 30, 70, 50]
    assert [match["name"] for match in face["matches"]] == ["Ana"]
    assert "thumbnail" not in face["matches"][0]
    assert "embedding" not in face
    assert read_analysis(response.content).faces[0].matches[0].similarity == 0.8


async def test_what_is_asked_for_comes(seer):
    async with calling(seer) as client:
        response = await client.post(
            "/v1/analyze?embed=true&aligned=true&thumbnails=true", content=photo()
        )
    (face,) = response.json()["faces"]
    assert len(face["embedding"]) == 2
    assert base64.b64decode(face["matches"][0]["thumbnail"]) == THUMBNAIL
    assert "thumbnail" not in face["matches"][1]
    assert face["pose"]["yaw"] is None
    ((request,),) = seer.seen
    assert (request.embed, request.aligned, request.top_k) == (True, True, 5)


async def test_track(seer):
    async with calling(seer) as client:
        response = await client.post("/v1/track", content=clip())
    assert response.status_code == 200
    record = response.json()
    assert (record["width_px"], record["height_px"], record["bundle"]) == (96, 64, "tests@0")
    assert record["duration_s"] == 1
    assert [frame["time_s"] for frame in record["frames"]] == pytest.approx(
        [k / 10 for k in range(10)]
    )
    for k, frame in enumerate(record["frames"]):
        assert frame["face"]["box"] == [38, 22, 58, 42]
        assert frame["face"]["matches"] == []
        assert ("embedding" in frame["face"]) == (k % 2 == 0)
        assert frame["others"] == 0
    assert len(read_track(response.content).frames) == 10


async def test_answers_are_written_beside_the_event_loop(seer, monkeypatch):
    threads = []

    def noting(write):
        def written(*args, **options):
            threads.append(threading.current_thread())
            return write(*args, **options)

        return written

    for name in ("write_analysis", "write_track", "write_people"):
        monkeypatch.setattr(app_module, name, noting(getattr(wire, name)))
    async with calling(seer) as client:
        await client.post("/v1/analyze", content=photo())
        await client.post("/v1/track", content=clip())
        await client.get("/v1/people")
    assert len(threads) == 3
    assert threading.main_thread() not in threads


async def test_an_answer_too_large_is_refused_and_counted(seer, monkeypatch):
    monkeypatch.setattr(wire, "ANSWER_MAX_BYTES", 100)
    async with calling(seer) as client:
        assert code_of(await client.post("/v1/analyze", content=photo())) == "invalid_request"
        metrics = (await client.get("/metrics")).text
    line = 'engine_requests_total{code="invalid_request",path="/v1/analyze",status="400"} 1.0'
    assert line in metrics.splitlines()


async def test_the_description_says_how_many_people_may_be_asked_for(seer):
    async with calling(seer) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    (top_k,) = [p for p in paths["/v1/analyze"]["post"]["parameters"] if p["name"] == "top_k"]
    assert (top_k["schema"]["minimum"], top_k["schema"]["maximum"]) == (1, 100)


async def test_the_description_tells_nothing_of_the_framework(seer):
    async with calling(seer) as client:
        response = await client.get("/openapi.json")
    assert "ValidationError" not in response.text
    responses = response.json()["paths"]["/v1/analyze"]["post"]["responses"]
    assert sorted(responses) == ["200", "400", "403", "413", "415", "422", "500", "503", "504"]


async def test_the_description_says_which_deadlines_there_are(seer):
    async with calling(seer) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/v1/analyze", "/v1/track"):
        (header,) = [p for p in paths[path]["post"]["parameters"] if p["in"] == "header"]
        limits = {key: header["schema"][key] for key in ("type", "minimum", "maximum")}
        assert limits == {"type": "integer", "minimum": 0, "maximum": 2**53}


async def test_info(seer):
    async with calling(seer) as client:
        response = await client.get("/v1/info")
    assert response.json() == {
        "version": "1",
        "bundle": "tests@0",
        "embedder": "none",
        "people": 2,
        "device": "cpu",
        "login": None,
    }


async def test_people(seer):
    async with calling(seer) as client:
        response = await client.get("/v1/people")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "people": [
            {"name": "Ana", "country": "MX", "known_for": {"es": "pintora", "en": "painter"}},
            {"name": "Ben", "country": "", "known_for": {}},
        ]
    }


# --- Refusals ---


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty_image"), (b"hello", "not_an_image"), (b"%PDF-1.7", "unsupported_format")],
)
async def test_what_is_no_picture(seer, content, code):
    async with calling(seer) as client:
        assert code_of(await client.post("/v1/analyze", content=content)) == code


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not_a_video"),
        (b"hello", "not_a_video"),
        (b"RIFF\0\0\0\0AVI LIST", "unsupported_video"),
        (b"\0\0\0\x20ftypisom" + bytes(100), "broken_video"),
    ],
)
async def test_what_is_no_clip(seer, content, code):
    async with calling(seer) as client:
        assert code_of(await client.post("/v1/track", content=content)) == code
    assert not seer.seen


async def test_a_clip_is_asked_nothing(seer):
    """What the description does not name is ignored by the framework, and changes nothing."""
    async with calling(seer) as client:
        response = await client.post("/v1/track?top_k=5", content=clip())
    assert response.json()["frames"][0]["face"]["matches"] == []


async def test_a_broken_picture(seer):
    async with calling(seer) as client:
        response = await client.post("/v1/analyze", content=photo()[:300])
    assert code_of(response) == "broken_image"


@pytest.mark.parametrize(
    "query",
    ["top_k=0", "top_k=101", "top_k=1_0", "top_k=x", "embed=1", "aligned=", "topk=3"],
)
async def test_a_wrong_query_is_named_before_the_photo_is_looked_at(seer, query):
    async with calling(seer) as client:
        response = await client.post(f"/v1/analyze?{query}", content=photo())
    assert code_of(response) == "invalid_request"
    assert query.split("=")[0] in response.json()["detail"]
    assert not seer.seen


@pytest.mark.parametrize("path", ["/v1/analyze", "/v1/track"])
async def test_a_wrong_deadline_is_told_in_plain_words(seer, path):
    async with calling(seer) as client:
        for value in ("-5", "abc", "1e9", "", "1.5", " 5", "1_0", "9" * 17, "9" * 5000):
            response = await client.post(path, content=photo(), headers={"X-Timeout-Ms": value})
            assert code_of(response) == "invalid_request"
            assert response.json()["detail"] == (
                "The header X-Timeout-Ms must be a whole number of milliseconds from 0 to "
                "9007199254740992."
            )


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("top_k=0", "The query parameter top_k must be a whole number from 1 to 100."),
        ("top_k=" + "9" * 5000, "The query parameter top_k must be a whole number from 1 to 100."),
        ("embed=1", "The query parameter embed must be true or false."),
        ("topk=3", "There is no query parameter topk here: see /openapi.json for what there is."),
    ],
)
async def test_a_wrong_query_is_told_in_plain_words(seer, query, detail):
    async with calling(seer) as client:
        response = await client.post(f"/v1/analyze?{query}", content=photo())
    assert code_of(response) == "invalid_request"
    assert response.json()["detail"] == detail


async def test_every_wrong_value_of_a_request_is_told(seer):
    async with calling(seer) as client:
        response = await client.post(
            "/v1/analyze?top_k=x&embed=1", content=photo(), headers={"X-Timeout-Ms": "-5"}
        )
    detail = response.json()["detail"]
    assert all(name in detail for name in ("top_k", "embed", "X-Timeout-Ms"))


async def test_no_such_path_and_no_such_method(seer):
    async with calling(seer) as client:
        assert code_of(await client.get("/v2/analyze")) == "not_found"
        assert code_of(await client.get("/v1/info/")) == "not_found"
        response = await client.put("/v1/analyze")
    assert code_of(response) == "method_not_allowed"
    assert response.json()["detail"] == "/v1/analyze does not take PUT: send POST."
    assert response.headers["allow"] == "POST"


async def test_an_error_of_the_framework_is_told_without_its_words(seer):
    app = FastAPI()
    problem_json.install(app)

    @app.get("/")
    async def refuse() -> None:
        raise HTTPException(400, "loc: Input should be a valid str")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        response = await client.get("/")
    assert code_of(response) == "invalid_request"
    assert "Input" not in response.text
    assert "/openapi.json" in response.json()["detail"]


# --- Bodies that are not the file itself ---


def form_of(content: bytes) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://engine", files={"photo": ("a.jpg", content)})
    return request.read(), request.headers["Content-Type"]


URLENCODED = "application/x-www-form-urlencoded"  # which curl calls every body, raw ones too
WRAPPED = {
    "a multipart form": form_of,
    "a form's field": lambda _: (b"photo=%FF%D8%FF%E0%00%10", URLENCODED),
    "curl -d @photo.jpg": lambda content: (content.translate(None, b"\r\n\0"), URLENCODED),
    "base64": lambda content: (base64.b64encode(content), ""),
    "base64 in lines": lambda content: (base64.encodebytes(content), "text/plain"),
    "base64 by curl": lambda content: (base64.b64encode(content), URLENCODED),
    "base64url": lambda content: (base64.urlsafe_b64encode(content).rstrip(b"="), ""),
    "a data URL": lambda content: (b"data:image/jpeg;base64," + base64.b64encode(content), ""),
    "JSON": lambda content: (
        json.dumps({"image": base64.b64encode(content).decode()}).encode(),
        "application/json",
    ),
}
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "/v1/analyze": (photo, "curl --data-binary @photo.jpg"),
    "/v1/track": (clip, "curl --data-binary @clip.mp4"),
}


def is_told(response: httpx.Response, how: str) -> bool:
    """Whether it is one sentence that says how to send."""
    assert code_of(response) == "unsupported_body"
    assert response.status_code == 415
    detail = response.json()["detail"]
    return how in detail and detail.endswith(".") and ". " not in detail


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("wrap", WRAPPED)
async def test_a_wrapped_file_is_told_how_to_send_it(seer, path, wrap):
    make, how = FILES[path]
    content, kind = WRAPPED[wrap](make())
    async with calling(seer) as client:
        response = await client.post(path, content=content, headers={"Content-Type": kind})
    assert is_told(response, how)
    assert not seer.seen


async def test_a_file_that_is_no_picture_is_not_called_a_form(seer):
    """As `curl --data-binary @notes.jpg` sends it."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with calling(seer) as client:
        response = await client.post("/v1/analyze", content=b"just some words\n", headers=headers)
    assert code_of(response) == "not_an_image"


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP, deflate"])
@pytest.mark.parametrize("path", FILES)
async def test_a_compressed_body_is_refused_unread(seer, path, coding):
    async with serving(seer) as app:
        talk = Conversation(app, path, [("Content-Encoding", coding)])
        talk.say(gzip.compress(photo()))
        status, sent, record = await talk.answer()
    assert (status, record["code"], talk.taken) == (415, "unsupported_body", 0)
    assert sent["accept-encoding"] == "identity"  # RFC 9110, section 12.5.3
    assert "has a Content-Encoding" in record["detail"]
    assert "curl" in record["detail"]


async def test_a_gzip_file_is_told_how_to_send_it(seer):
    """Compressed, and nobody says so."""
    async with calling(seer) as client:
        for path, (make, how) in FILES.items():
            assert is_told(await client.post(path, content=gzip.compress(make())), how)


@pytest.mark.parametrize("kind", ["", URLENCODED, "application/json", "text/plain"])
async def test_a_file_as_it_is_needs_no_type(seer, kind):
    headers = {"Content-Type": kind, "Content-Encoding": "identity"}
    async with calling(seer) as client:
        response = await client.post("/v1/analyze", content=photo(), headers=headers)
        assert response.status_code == 200
        response = await client.post("/v1/track", content=clip(), headers=headers)
        assert response.status_code == 200


async def test_a_bug_is_told_without_its_insides(seer, caplog):
    seer.fault = KeyError("a secret")
    async with calling(seer) as client:
        response = await client.post("/v1/analyze", content=photo())
    assert code_of(response) == "internal"
    assert "secret" not in response.text
    assert "Computing" in caplog.text


async def test_a_bug_of_the_service_itself_is_a_problem_too(seer):
    seer.info = None
    async with calling(seer) as client:
        assert code_of(await client.get("/v1/info")) == "internal"


# --- Who may ask ---


WAYS_IN = [
    ("POST", "/v1/analyze"),
    ("POST", "/v1/track"),
    ("GET", "/v1/info"),
    ("GET", "/v1/people"),
    ("POST", "/v1/reload"),
    ("GET", "/metrics"),
]


async def test_a_key_is_wanted_where_there_is_one(seer):
    async with calling(seer, Settings(engine_api_key="the-key!")) as client:
        for shown in (None, "Bearer", "Bearer the-key", "Basic the-key!", "Bearer the kéy"):
            headers = {} if shown is None else {b"Authorization": shown.encode()}
            for method, path in (("POST", "/v1/analyze?wrong=1"), *WAYS_IN):
                response = await client.request(method, path, headers=headers)
                assert code_of(response) == "unauthorized"
                assert response.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        assert not seer.seen


async def test_the_key_opens(seer):
    headers = {"Authorization": "bearer the-key"}
    async with calling(seer, Settings(engine_api_key="the-key")) as client:
        assert (await client.get("/v1/info", headers=headers)).status_code == 200
        response = await client.post("/v1/analyze", content=photo(), headers=headers)
        assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Host": "evil.example:8008"}],
    ids=["another page", "another name"],
)
async def test_without_a_key_web_pages_are_kept_out(seer, headers):
    async with calling(seer, base_url="http://127.0.0.1:8008") as client:
        for method, path in WAYS_IN:
            response = await client.request(method, path, headers=headers, content=photo())
            assert code_of(response) == "forbidden"
            assert "ENGINE_API_KEY" in response.json()["detail"]
        assert (await client.get("/livez", headers=headers)).status_code == 200
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert not seer.seen
        assert (await client.post("/v1/analyze", content=photo())).status_code == 200
    for method, path in WAYS_IN:
        assert paths[path][method.lower()]["responses"]["403"]["description"] == "forbidden"


async def test_with_a_key_it_alone_decides(seer):
    headers = {"Origin": "https://face.example", "Authorization": "Bearer the-key"}
    settings = Settings(engine_api_key="the-key")
    async with calling(seer, settings, base_url="http://face.example:8008") as client:
        assert (await client.get("/v1/info", headers=headers)).status_code == 200


# --- Limits ---


class Conversation:
    """One request by hand: its body comes when and as long as the test wants."""

    def __init__(self, app, path, headers=()):
        self.taken = 0
        self.sent = []
        self._incoming = asyncio.Queue()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "server": ("/run/engine.sock", None),
            "client": ("127.0.0.1", 1),
        }
        self.task = asyncio.create_task(app(self._scope, self._receive, self._send))

    def say(self, data: bytes, *, more: bool = True) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def answer(self):
        async with asyncio.timeout(PATIENCE_S):
            await self.task
        start, *parts = self.sent
        content = b"".join(part.get("body", b"") for part in parts)
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, json.loads(content) if content else None

    async def _receive(self):
        message = await self._incoming.get()
        self.taken += len(message.get("body", b""))
        return message

    async def _send(self, message):
        self.sent.append(message)


async def test_a_declared_length_is_refused_before_the_body(seer):
    headers = [("Content-Length", str(LIMITS.file_bytes + 1))]
    async with serving(seer) as app:
        talk = Conversation(app, "/v1/analyze", headers)
        status, _, record = await talk.answer()
    assert (status, record["code"], talk.taken) == (413, "file_too_large", 0)


async def test_a_body_without_length_is_read_no_further_than_the_limit(seer):
    async with serving(seer) as app:
        talk = Conversation(app, "/v1/analyze")
        for _ in range(30):
            talk.say(bytes(2**20))
        status, _, record = await talk.answer()
    assert (status, record["code"]) == (413, "file_too_large")
    assert talk.taken <= LIMITS.file_bytes + 2**20


async def test_a_clip_is_bounded_declared_or_sent(seer):
    headers = [("Content-Length", str(CLIP_LIMITS.clip_bytes + 1))]
    async with serving(seer) as app:
        sized = Conversation(app, "/v1/track", headers)
        status, _, record = await sized.answer()
        assert (status, record["code"], sized.taken) == (413, "clip_too_large", 0)
        chunked = Conversation(app, "/v1/track")
        for _ in range(30):
            chunked.say(bytes(2**20))
        status, _, record = await chunked.answer()
    assert (status, record["code"]) == (413, "clip_too_large")
    assert chunked.taken <= CLIP_LIMITS.clip_bytes + 2**20


async def test_all_bodies_together_are_bounded_and_room_is_given_back(seer, monkeypatch):
    monkeypatch.setattr(body.Allowance.__init__, "__defaults__", (3 * 2**20,))
    async with serving(seer) as app:
        slow = Conversation(app, "/v1/analyze")
        slow.say(bytes(2 * 2**20))
        while not slow.taken:  # noqa: ASYNC110 (nobody announces it)
            await asyncio.sleep(0)
        second = Conversation(app, "/v1/analyze")
        second.say(bytes(2 * 2**20))
        status, headers, record = await second.answer()
        assert (status, record["code"]) == (503, "busy")
        assert int(headers["retry-after"]) >= record["retry_after_s"] > 0
        slow.leave()
        await slow.task
        third = Conversation(app, "/v1/analyze")
        third.say(bytes(2 * 2**20), more=False)
        status, _, record = await third.answer()
        assert record["code"] == "not_an_image"


async def test_a_dribbled_body_is_cut_at_its_deadline(seer):
    async with serving(seer) as app:
        talk = Conversation(app, "/v1/analyze", [("X-Timeout-Ms", "50")])
        talk.say(photo()[:100])
        status, _, record = await talk.answer()
    assert (status, record["code"]) == (504, "deadline_exceeded")
    assert not seer.seen


async def test_the_deadline_holds_for_the_answer_too(seer):
    seer.go_on.clear()
    async with calling(seer) as client:
        response = await client.post("/v1/analyze", content=photo(), headers={"X-Timeout-Ms": "50"})
        assert code_of(response) == "deadline_exceeded"
        seer.go_on.set()


async def test_the_service_has_a_deadline_of_its_own(seer):
    seer.go_on.clear()
    settings = Settings(engine_max_timeout_s=0.05)
    async with calling(seer, settings) as client:
        assert code_of(await client.post("/v1/analyze", content=photo())) == "deadline_exceeded"
        patient = {"X-Timeout-Ms": "3600000"}
        response = await client.post("/v1/analyze", content=photo(), headers=patient)
        assert code_of(response) == "deadline_exceeded"
        seer.go_on.set()


async def test_overload_is_refused_at_once_and_unread(seer):
    seer.go_on.clear()
    async with serving(seer, queue_size=1, max_batch=1) as app:
        first = Conversation(app, "/v1/analyze")
        first.say(photo(), more=False)
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        second = Conversation(app, "/v1/analyze")
        second.say(photo(), more=False)
        while not second.taken:  # noqa: ASYNC110 (nobody announces it)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        third = Conversation(app, "/v1/analyze")
        status, headers, record = await third.answer()
        assert (status, record["code"], third.taken) == (503, "busy", 0)
        assert int(headers["retry-after"]) >= record["retry_after_s"] > 0
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            counted = (await client.get("/metrics")).text.splitlines()
        assert 'engine_requests_total{code="busy",path="/v1/analyze",status="503"} 1.0' in counted
        seer.go_on.set()
        assert [(await talk.answer())[0] for talk in (first, second)] == [200, 200]


@asynccontextmanager
async def overloaded(seer, settings, headers=()):
    """The application, with a photo in the device and another in the queue, which is then full."""
    seer.go_on.clear()
    async with serving(seer, settings, queue_size=1, max_batch=1) as app:
        taken = [Conversation(app, "/v1/analyze", headers)]
        taken[0].say(photo(), more=False)
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        taken.append(Conversation(app, "/v1/analyze", headers))
        taken[1].say(photo(), more=False)
        while not taken[1].taken:  # noqa: ASYNC110 (nobody announces it)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        yield app
        seer.go_on.set()
        assert [(await talk.answer())[0] for talk in taken] == [200, 200]


PICTURES = ("/v1/analyze", "/v1/track")


async def test_under_overload_too_the_key_is_wanted_first(seer):
    key = [("Authorization", "Bearer the-key")]
    async with overloaded(seer, Settings(engine_api_key="the-key"), key) as app:
        for path in PICTURES:
            for headers in ((), [("Authorization", "Bearer another")]):
                stranger = Conversation(app, path, headers)
                status, said, record = await stranger.answer()
                assert (status, record["code"], stranger.taken) == (401, "unauthorized", 0)
                assert said["www-authenticate"] == "Bearer"
            status, _, record = await Conversation(app, path, key).answer()
            assert (status, record["code"]) == (503, "busy")


async def test_under_overload_too_web_pages_are_kept_out(seer):
    async with overloaded(seer, Settings()) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8008"
        ) as client:
            for path in PICTURES:
                response = await client.post(path, headers={"Origin": "http://evil.example"})
                assert code_of(response) == "forbidden"
                assert code_of(await client.post(path)) == "busy"


async def test_a_stranger_who_is_refused_under_overload_is_no_photo(seer):
    key = [("Authorization", "Bearer the-key")]
    async with overloaded(seer, Settings(engine_api_key="the-key"), key) as app:
        await Conversation(app, "/v1/analyze").answer()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            counted = (await client.get("/metrics", headers=dict(key))).text
    assert (
        'engine_requests_total{code="unauthorized",path="/v1/analyze",status="401"} 1.0' in counted
    )


async def test_abandoned_photos_are_not_computed(seer):
    seer.go_on.clear()
    async with serving(seer, max_batch=1) as app:
        first = Conversation(app, "/v1/analyze")
        first.say(photo(), more=False)
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        leaver = Conversation(app, "/v1/analyze")
        leaver.say(photo(), more=False)
        leaver.leave()
        await leaver.task
        seer.go_on.set()
        assert (await first.answer())[0] == 200
        assert leaver.sent[0]["status"] == 499
    assert sum(map(len, seer.seen)) == 1


async def test_abandoned_clips_are_not_computed(seer):
    seer.go_on.clear()
    async with serving(seer, max_batch=1, decode_threads=1) as app:
        first = Conversation(app, "/v1/analyze")
        first.say(photo(), more=False)
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        leavers = [Conversation(app, "/v1/track") for _ in range(2)]
        for talk in leavers:
            talk.say(clips.endless(), more=False)
        async with asyncio.timeout(PATIENCE_S):
            while not clips.children():  # noqa: ASYNC110 (nobody announces it)
                await asyncio.sleep(0)
        for talk in leavers:
            talk.leave()
            await talk.task
            assert talk.sent[0]["status"] == 499
        assert clips.children() == []
        seer.go_on.set()
        assert (await first.answer())[0] == 200
    assert sum(map(len, seer.seen)) <= 2


async def test_the_deadline_holds_for_a_clip_too(seer):
    async with calling(seer) as client:
        headers = {"X-Timeout-Ms": "300"}
        response = await client.post("/v1/track", content=clips.endless(), headers=headers)
        assert code_of(response) == "deadline_exceeded"
    assert clips.children() == []


async def test_clips_beyond_measure_are_refused_at_once_and_unread(seer):
    seer.go_on.clear()
    async with serving(seer, decode_threads=1) as app:
        waiting = [Conversation(app, "/v1/track") for _ in range(MAX_WAITING + 1)]
        for talk in waiting:
            talk.say(clip(), more=False)
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        surplus = Conversation(app, "/v1/track")
        status, headers, record = await surplus.answer()
        assert (status, record["code"], surplus.taken) == (503, "busy", 0)
        assert int(headers["retry-after"]) >= record["retry_after_s"] > 0
        for talk in waiting:
            talk.leave()
            await talk.task
        seer.go_on.set()


# --- Health and numbers ---


async def test_alive_and_ready(seer):
    async with calling(seer) as client:
        assert (await client.get("/livez")).json() == {"status": "ok", "checks": {}}
        response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert set(response.json()["checks"].values()) == {"ok"}


async def test_a_service_that_stops_is_not_ready(seer):
    health = Health()
    async with calling(seer, health=health) as client:
        health.stopping = True
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"]["stopping"] != "ok"
        assert (await client.get("/livez")).status_code == 200


async def test_a_device_that_hangs_is_not_ready(seer):
    now = 1000.0
    seer.go_on.clear()
    async with calling(seer, clock=lambda: now) as client:
        asking = asyncio.create_task(client.post("/v1/analyze", content=photo()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        assert (await client.get("/readyz")).status_code == 200
        now += MAX_STALL_S + 1
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["status"] == "unavailable"
        assert "21 s" in response.json()["checks"]["device"]
        assert (await client.get("/livez")).status_code == 200
        seer.go_on.set()
        await asking
        assert (await client.get("/readyz")).status_code == 200


async def test_where_nothing_is_decoded_any_more_it_is_not_ready(seer, monkeypatch):
    monkeypatch.setattr(health, "MAX_STALL_S", 0.5)
    others = set(psutil.Process().children())
    async with calling(seer, decode_threads=1) as client:
        assert (await client.post("/v1/analyze", content=photo())).status_code == 200
        (decoder,) = set(psutil.Process().children()) - others
        decoder.suspend()
        asking = asyncio.create_task(client.post("/v1/analyze", content=photo()))
        waiting = asyncio.create_task(client.post("/v1/analyze", content=photo()))
        while (response := await client.get("/readyz")).status_code == 200:  # noqa: ASYNC110 (nobody announces it)
            await asyncio.sleep(0.01)
        assert response.status_code == 503
        assert "no photo has been decoded" in response.json()["checks"]["decoding"]
        decoder.resume()
        for answer in await asyncio.gather(asking, waiting):
            assert answer.status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_an_engine_that_is_closed_is_unavailable(seer):
    async with serving(seer) as app:
        pass
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://engine"
    ) as client:
        response = await client.post("/v1/analyze", content=photo())
        assert code_of(response) == "unavailable"
        assert int(response.headers["retry-after"]) > 0
        assert (await client.get("/readyz")).status_code == 503


async def test_metrics(seer):
    async with calling(seer) as client:
        await client.post("/v1/analyze", content=photo())
        await client.post("/v1/analyze", content=b"hello")
        await client.post("/v1/track", content=clip())
        await client.post("/v1/track", content=b"hello")
        await client.post("/v1/reload")
        for path in ("a", "b", "c"):
            await client.get(f"/strangers/made/{path}/up")
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    text = response.text
    for line in (
        'engine_requests_total{code="ok",path="/v1/analyze",status="200"} 1.0',
        'engine_requests_total{code="not_an_image",path="/v1/analyze",status="415"} 1.0',
        'engine_requests_total{code="not_found",path="other",status="404"} 3.0',
        'engine_reloads_total{code="ok"} 1.0',
        'engine_requests_total{code="not_a_video",path="/v1/track",status="415"} 1.0',
        'engine_requests_total{code="ok",path="/v1/track",status="200"} 1.0',
        "engine_batch_photos_sum 16.0",  # ten frames are searched, and five faces embedded
        'engine_stage_seconds_count{stage="prepare"} 16.0',
        'engine_stage_seconds_count{stage="queue"} 16.0',
        "engine_queue_photos 0.0",
        "engine_queue_clips 0.0",
        'engine_bundle_info{bundle="tests@0",device="cpu",embedder="none",version="1"} 1.0',
    ):
        assert line in text.splitlines(), line
    assert "process_resident_memory_bytes" in text
    assert "device_memory" not in text
    assert "strangers" not in text


# --- Reload ---


async def test_reload_changes_who_answers(seer):
    known = (Person("Carla", "CL"),)
    async with calling(seer, successor=lambda: seers.seer("tests@1", known)) as client:
        assert (await client.post("/v1/reload")).json()["bundle"] == "tests@1"
        people = (await client.get("/v1/people")).json()["people"]
        assert people == [{"name": "Carla", "country": "CL", "known_for": {}}]
        response = await client.post("/v1/analyze", content=photo())
        assert response.json()["bundle"] == "tests@1"
        assert (await client.get("/v1/info")).json()["bundle"] == "tests@1"


async def test_a_bad_bundle_leaves_the_old_one(seer):
    def successor():
        raise BundleError("It is torn: build it again.", code="bundle_incomplete")

    async with calling(seer, successor=successor) as client:
        response = await client.post("/v1/reload")
        assert code_of(response) == "bundle_incomplete"
        assert response.json()["detail"] == "It is torn: build it again."
        response = await client.post("/v1/analyze", content=photo())
        assert response.json()["bundle"] == "tests@0"
        assert (
            'engine_reloads_total{code="bundle_incomplete"} 1.0'
            in (await client.get("/metrics")).text
        )


async def test_keys_and_photos_are_not_logged(seer, caplog):
    caplog.set_level("DEBUG")
    headers = {"Authorization": "Bearer the-key"}
    seer.fault = KeyError("oops")
    async with calling(seer, Settings(engine_api_key="the-key")) as client:
        await client.post("/v1/analyze", content=photo(), headers=headers)
        await client.post("/v1/analyze", content=b"my-secret-face", headers=headers)
        await client.post("/v1/track", content=clip(), headers=headers)
        await client.post("/v1/track", content=b"my-secret-face", headers=headers)
        await client.post("/v1/track", content=clip()[:32] + b"my-secret-face", headers=headers)
    assert caplog.records
    own = [record.getMessage() for record in caplog.records if record.name.startswith("engine")]
    assert not any("the-key" in line or "secret-face" in line for line in own)
