"""The remote engine against servers that are away, slow, mad or hostile."""

import asyncio
import gzip
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from engine.client import Engine
from engine.errors import (
    BrokenVideo,
    Busy,
    ClipTooLarge,
    DeadlineExceeded,
    EngineError,
    FileTooLarge,
    InternalError,
    NotAnImage,
    NotAVideo,
    Unauthorized,
    Unavailable,
)
from engine.media.clip import LIMITS as CLIP_LIMITS
from engine.media.image import LIMITS
from engine.remote import transport
from engine.remote.circuit_breaker import Breaker
from engine.remote.client import Patience, RemoteEngine
from engine.request import PhotoRequest
from engine.types import Frame, Track
from engine.wire import (
    problem,
    write_analysis,
    write_info,
    write_people,
    write_track,
)
from tests.engine import seers
from tests.engine.strangers import (
    Says,
    closed_port,
    floods,
    is_silent,
    resets,
    says,
    says_raw,
    stranger,
)

ROOT = Path(__file__).parents[3]
KEY = "hunter2-the-key"
PHOTO = b"a photo of somebody, byte by byte \x00\xff"


def seen() -> Any:
    image = seers.Image.new("RGB", (120, 80))
    (analysis,) = seers.seer().analyze([PhotoRequest(image, embed=True)])
    return analysis


ANALYSIS = seen()
GOOD = says(200, write_analysis(ANALYSIS, thumbnails=True))

CLIP = b"a clip of somebody, frame by frame \x00\xff"
TRACK = Track(
    (
        Frame(0.0, replace(ANALYSIS.faces[0], matches=()), 1),
        Frame(0.1, None, 0),
    ),
    *(120, 80, 0.2, "tests@0", 0.01, 0.02),
)
GOOD_TRACK = says(200, write_track(TRACK))


def told(error: EngineError, **headers: str) -> Says:
    record = problem(error)
    return says(record["status"], record, Content_Type="application/problem+json", **headers)


BUSY = Busy("Full.", retry_after_s=0.7)


@dataclass
class Time:
    """A clock that only moves when somebody pauses."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


@asynccontextmanager
async def asking(url: str, time: Time, **options: Any) -> AsyncIterator[RemoteEngine]:
    """A client whose dice always show the highest number."""
    async with RemoteEngine(
        url, clock=time, pause=time.pause, draw=lambda: 1.0, **options
    ) as engine:
        yield engine


def an_engine(url: str) -> Engine:
    """The type checker's word that it is one."""
    return RemoteEngine(url)


# --- What goes out, and what comes back ---


async def test_a_photo_goes_out_as_it_is_and_the_answer_comes_back(time: Time) -> None:
    async with stranger(GOOD) as server, asking(server.url, time, key=KEY) as engine:
        analysis = await engine.analyze(
            PHOTO, top_k=3, embed=True, aligned=True, deadline_s=time() + 8
        )
    assert analysis == ANALYSIS
    assert analysis.faces[0].matches[0].thumbnail == seers.THUMBNAIL
    assert list(analysis.faces[0].embedding) == list(ANALYSIS.faces[0].embedding)
    (heard,) = server.heard
    path = "/v1/analyze?top_k=3&embed=true&aligned=true&picture=false&thumbnails=true"
    assert heard.line == f"POST {path} HTTP/1.1"
    assert heard.body == PHOTO
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert heard.headers["accept-encoding"] == "identity"
    assert 7900 <= heard.timeout_ms < 8000  # a little less: the way back takes time


async def test_a_clip_goes_out_as_it_is_and_its_track_comes_back(time: Time) -> None:
    async with stranger(GOOD_TRACK) as server, asking(server.url, time, key=KEY) as engine:
        track = await engine.track(CLIP, deadline_s=time() + 8)
    assert track == TRACK
    assert list(track.frames[0].face.embedding) == list(TRACK.frames[0].face.embedding)
    (heard,) = server.heard
    assert heard.line == "POST /v1/track HTTP/1.1"
    assert heard.body == CLIP
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert 7900 <= heard.timeout_ms < 8000


async def test_a_large_photo_is_sent_whole(time: Time) -> None:
    photo = bytes(range(256)) * (LIMITS.file_bytes // 256)
    async with stranger(GOOD) as server, asking(server.url, time) as engine:
        await engine.analyze(photo)
    assert server.heard[0].body == photo


async def test_what_can_be_told_here_makes_no_journey(time: Time) -> None:
    async with stranger(GOOD) as server, asking(server.url, time) as engine:
        with pytest.raises(FileTooLarge):
            await engine.analyze(bytes(LIMITS.file_bytes + 1))
        with pytest.raises(DeadlineExceeded):
            await engine.analyze(PHOTO, deadline_s=time() + 0)
        with pytest.raises(ValueError, match="top_k"):
            await engine.analyze(PHOTO, top_k=0)
        with pytest.raises(ClipTooLarge):
            await engine.track(bytes(CLIP_LIMITS.clip_bytes + 1))
        with pytest.raises(NotAVideo):
            await engine.track(b"")
        with pytest.raises(DeadlineExceeded):
            await engine.track(CLIP, deadline_s=time() + 0)
    assert server.connections == 0


async def test_info_comes_and_a_path_in_the_address_is_kept(time: Time) -> None:
    async with (
        stranger(says(200, write_info(seers.INFO))) as server,
        asking(f"{server.url}/engine/", time) as engine,
    ):
        assert await engine.info() == seers.INFO
    assert server.heard[0].line == "GET /engine/v1/info HTTP/1.1"


async def test_people_come(time: Time) -> None:
    script = says(200, write_people(seers.PEOPLE)), says(200, {"people": ["Ana"]})
    async with stranger(*script) as server, asking(server.url, time) as engine:
        assert await engine.people() == seers.PEOPLE
        with pytest.raises(Unavailable, match="cannot be read"):
            await engine.people()
    assert server.heard[0].line == "GET /v1/people HTTP/1.1"


async def test_connections_are_kept_and_as_many_as_are_needed(time: Time) -> None:
    async with stranger(GOOD) as server, asking(server.url, time) as engine:
        for _ in range(5):
            await engine.analyze(PHOTO)
        assert server.connections == 1
        await asyncio.gather(*(engine.analyze(PHOTO) for _ in range(8)))
    assert 1 < server.connections <= 8


async def test_a_unix_socket_is_an_address(time: Time, tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    async with stranger(GOOD, path=path) as server, asking(f"unix:{path}", time) as engine:
        assert await engine.analyze(PHOTO) == ANALYSIS
        await engine.analyze(PHOTO)
    assert server.connections == 1


async def test_a_socket_that_is_not_there_is_named(time: Time, tmp_path: Path) -> None:
    async with asking(f"unix:{tmp_path}/nothing.sock", time) as engine:
        with pytest.raises(Unavailable, match=r"nothing\.sock"):
            await engine.analyze(PHOTO)


# --- Nonsense ---

HTML = b"<html><body>502 Bad Gateway, said the proxy</body></html>"
RECORD = json.loads(write_analysis(ANALYSIS))


def changed(**changes: Any) -> Says:
    return says(200, RECORD | changes)


def face(**changes: Any) -> Says:
    return says(200, RECORD | {"faces": [RECORD["faces"][0] | changes]})


NONSENSE: dict[str, Says] = {
    "html": says(200, HTML, Content_Type="text/html"),
    "broken json": says(200, b'{"faces": ['),
    "nothing": says(200, b""),
    "a list": says(200, [1, 2]),
    "not utf-8": says(200, b"\xff\xfe\x00"),
    "nan": says(200, b'{"faces": NaN}'),
    "nested": says(200, b'{"a":' * 100_000),
    "another version": says(200, {"people": ["Ana"]}),
    "faces are a number": changed(faces=3),
    "faces are words": changed(faces="none"),
    "faces are an object": changed(faces={}),
    "a face is a word": changed(faces=["Ana"]),
    "a width of words": changed(width_px="wide"),
    "a width without end": says(200, b'{"width_px": 1e999}'),
    "a bundle of lists": changed(bundle=[]),
    "a box of three": face(box=[1, 2, 3]),
    "a box of words": face(box="none"),
    "matches are words": face(matches=["Ana"]),
    "matches are an object": face(matches={"name": "Ana"}),
    "an unknown verdict": face(matches=[RECORD["faces"][0]["matches"][0] | {"verdict": "?"}]),
    "a name of numbers": face(matches=[RECORD["faces"][0]["matches"][0] | {"name": 7}]),
    "a broken thumbnail": face(matches=[RECORD["faces"][0]["matches"][0] | {"thumbnail": "é"}]),
    "an embedding of tables": face(embedding=[[1.0], [2.0]]),
    "an embedding of words": face(embedding="close"),
    "compressed": says(200, gzip.compress(bytes(10**6)), Content_Encoding="gzip"),
    "a page that is not there": says(404, HTML),
    "a login page": says(403, HTML),
    "a redirect": says(302, b"", Location="http://127.0.0.1:1/elsewhere"),
    "another's problem": says(500, {"detail": "Internal Server Error"}),
    "a problem that is a list": says(500, []),
    "busy without a time": says(503, {"code": "busy", "detail": "x"}, Retry_After="1000"),
    "busy for ever": says(
        503, b'{"code": "busy", "detail": "x", "retry_after_s": 1e999}', Retry_After="1000"
    ),
    "no http": says_raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "a wrong length": says_raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
    "a header without end": says_raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10**6 + b"\r\n\r\n"),
    "headers without end": says_raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 10**5 + b"\r\n"),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
async def test_an_unreadable_answer_is_a_sentence(time: Time, answer: Says) -> None:
    async with stranger(answer) as server, asking(server.url, time) as engine:
        with pytest.raises(Unavailable) as caught:
            await engine.analyze(PHOTO)
    assert type(caught.value) is Unavailable
    assert caught.value.message.startswith(f"What listens at {server.url} gave ")
    assert caught.value.message.endswith("same version as this program.")
    assert len(caught.value.message) < 500
    assert "\n" not in caught.value.message
    assert len(server.heard) == 1  # it would be answered the same again


FLOODS = {
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    "an error": b"HTTP/1.1 500 Oh\r\nContent-Length: 99999999999\r\n\r\n",
}


@pytest.mark.parametrize("head", FLOODS.values(), ids=FLOODS)
async def test_an_answer_without_end_is_not_read(
    time: Time, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ANSWER_MAX_BYTES", 2**20)
    sent = [0]
    chunk = bytes(2**15) if b"chunked" not in head else b"8000\r\n" + bytes(2**15) + b"\r\n"
    async with stranger(floods(sent, head, chunk)) as server, asking(server.url, time) as engine:
        with pytest.raises(Unavailable, match="more than"):
            await engine.analyze(PHOTO)
        await server.until_gone()
    assert sent[0] < 16 * 2**20  # what the sockets' buffers took, and no more


async def test_an_unknown_problem_is_an_internal_error(time: Time) -> None:
    record = {"code": "moon_phase", "detail": "Wait for the moon."}
    async with stranger(says(400, record)) as server, asking(server.url, time) as engine:
        with pytest.raises(InternalError, match="moon") as caught:
            await engine.analyze(PHOTO)
    assert caught.value.code == "moon_phase"
    assert len(server.heard) == 1


# --- Asking again ---

LOST: dict[str, Says] = {
    "reset": resets,
    "closed": says_raw(b""),
    "closed in the headers": says_raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "closed in the body": says_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "a proxy's 502": says(502, HTML),
    "a proxy's 503": says(503, HTML),
    "draining": told(Unavailable("Later.")),
}


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
async def test_what_was_lost_is_asked_again(time: Time, answer: Says) -> None:
    async with stranger(answer, answer, GOOD) as server, asking(server.url, time) as engine:
        assert await engine.analyze(PHOTO) == ANALYSIS
    assert [heard.body for heard in server.heard] == [PHOTO] * 3
    assert time.pauses == [0.2, 0.4]


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
async def test_what_was_lost_of_a_clip_is_asked_again(time: Time, answer: Says) -> None:
    async with stranger(answer, GOOD_TRACK) as server, asking(server.url, time) as engine:
        assert await engine.track(CLIP) == TRACK
    assert [heard.body for heard in server.heard] == [CLIP] * 2


async def test_a_refused_clip_is_not_asked_again(time: Time) -> None:
    refusal = BrokenVideo("Record it again.")
    async with stranger(told(refusal)) as server, asking(server.url, time) as engine:
        with pytest.raises(BrokenVideo, match=r"Record it again\."):
            await engine.track(CLIP)
    assert len(server.heard) == 1


async def test_a_track_that_is_none_is_a_sentence(time: Time) -> None:
    record = json.loads(write_track(TRACK)) | {"frames": [{}]}
    async with stranger(says(200, record)) as server, asking(server.url, time) as engine:
        with pytest.raises(Unavailable, match="cannot be read"):
            await engine.track(CLIP)
    assert len(server.heard) == 1


async def test_it_is_asked_three_times_and_no_more(time: Time) -> None:
    async with stranger(resets) as server, asking(server.url, time) as engine:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await engine.analyze(PHOTO)
    assert len(server.heard) == 3


async def test_nobody_there_is_unavailable_by_name(time: Time) -> None:
    url = closed_port()
    async with asking(url, time) as engine:
        with pytest.raises(Unavailable) as caught:
            await engine.analyze(PHOTO)
    assert type(caught.value) is Unavailable
    assert caught.value.message.startswith(f"The engine at {url} cannot be reached (")
    assert len(time.pauses) == 2


async def test_a_connection_that_was_closed_while_it_rested_is_replaced(time: Time) -> None:
    async def answers_and_closes(heard: Any, writer: asyncio.StreamWriter) -> None:
        await GOOD(heard, writer)
        writer.close()

    async with stranger(answers_and_closes) as server, asking(server.url, time) as engine:
        for _ in range(3):
            assert await engine.analyze(PHOTO) == ANALYSIS
    assert server.connections >= 3


FINAL: list[tuple[Says, type[EngineError]]] = [
    (told(NotAnImage("No.")), NotAnImage),
    (told(Unauthorized("No key.")), Unauthorized),
    (told(InternalError("A bug.")), InternalError),
    (told(DeadlineExceeded("Late.")), DeadlineExceeded),
    (says(429, HTML, Retry_After="0"), Unavailable),
    (says(504, HTML), Unavailable),
]


@pytest.mark.parametrize(("answer", "kind"), FINAL)
async def test_what_was_said_is_not_asked_again(
    time: Time, answer: Says, kind: type[EngineError]
) -> None:
    async with stranger(answer, GOOD) as server, asking(server.url, time) as engine:
        with pytest.raises(EngineError) as caught:
            await engine.analyze(PHOTO)
    assert type(caught.value) is kind
    assert len(server.heard) == 1


async def test_a_full_engine_is_asked_again_when_it_said(time: Time) -> None:
    busy = told(BUSY, Retry_After="1")
    async with stranger(busy, busy, GOOD) as server, asking(server.url, time) as engine:
        await engine.analyze(PHOTO, deadline_s=time() + 20)
    assert time.pauses == [0.7 * 1.25] * 2  # never earlier, and not all at once


@pytest.mark.parametrize(
    ("answer", "timeout_s"),
    [
        (told(BUSY), 0.8),
        (says(503, HTML, Retry_After="9"), 10),
        (says(503, HTML, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), 1000),
    ],
)
async def test_what_would_come_too_late_is_not_asked_again(
    time: Time, answer: Says, timeout_s: float
) -> None:
    async with stranger(answer) as server, asking(server.url, time) as engine:
        with pytest.raises(EngineError):
            await engine.analyze(PHOTO, deadline_s=time() + timeout_s)
    assert len(server.heard) == 1
    assert time.pauses == []


async def test_busy_says_exactly_when(time: Time) -> None:
    async with stranger(told(BUSY)) as server, asking(server.url, time) as engine:
        with pytest.raises(Busy) as caught:
            await engine.analyze(PHOTO, deadline_s=time() + 0.5)
    assert (caught.value.retry_after_s, caught.value.message) == (0.7, "Full.")


# --- Deadlines, and leaving ---


async def test_each_attempt_is_told_what_is_left(time: Time) -> None:
    script = (says(503, HTML, Retry_After="2"), says(503, HTML, Retry_After="2"), GOOD)
    async with stranger(*script) as server, asking(server.url, time) as engine:
        await engine.analyze(PHOTO, deadline_s=time() + 10)
    assert [heard.timeout_ms for heard in server.heard] == [9950, 7450, 4950]


async def test_who_waits_for_ever_waits_as_long_as_patience_does(time: Time) -> None:
    patience = Patience(total_s=0.1)
    async with stranger(is_silent) as server, asking(server.url, time, patience=patience) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.analyze(PHOTO)
    assert server.heard[0].timeout_ms == 90


async def test_a_deadline_is_kept_here_and_the_server_notices(time: Time) -> None:
    async with stranger(is_silent, GOOD) as server, asking(server.url, time) as engine:
        with pytest.raises(DeadlineExceeded) as caught:
            await engine.analyze(PHOTO, deadline_s=time() + 0.05)
        await server.until_gone()
        assert caught.value.message == (
            "The answer would have come too late: ask again, or allow more time."
        )
        assert await engine.analyze(PHOTO) == ANALYSIS
    assert server.connections == 2


async def test_a_deadline_holds_in_the_middle_of_an_answer(time: Time) -> None:
    async def dribbles(_heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        await asyncio.Event().wait()

    async with stranger(dribbles) as server, asking(server.url, time) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.analyze(PHOTO, deadline_s=time() + 0.05)
        await server.until_gone()


async def test_who_leaves_closes_the_request(time: Time) -> None:
    async with stranger(is_silent) as server, asking(server.url, time) as engine:
        asked = asyncio.create_task(engine.analyze(PHOTO))
        await server.until_heard(1)
        asked.cancel()
        await server.until_gone()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert len(server.heard) == 1


async def test_who_leaves_a_clip_closes_the_request(time: Time) -> None:
    async with stranger(is_silent) as server, asking(server.url, time) as engine:
        asked = asyncio.create_task(engine.track(CLIP))
        await server.until_heard(1)
        asked.cancel()
        await server.until_gone()
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_closing_waits_for_calls_under_way(time: Time) -> None:
    go_on = asyncio.Event()

    async def answers_later(heard: Any, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await GOOD(heard, writer)

    async with stranger(answers_later) as server, asking(server.url, time) as engine:
        asked = asyncio.create_task(engine.analyze(PHOTO))
        await server.until_heard(1)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="shut down"):
            await engine.analyze(PHOTO)
        go_on.set()
        assert await asked == ANALYSIS
        await closing


async def test_closing_gives_up_calls_that_take_too_long(time: Time) -> None:
    async with stranger(is_silent) as server:
        async with asking(server.url, time, patience=Patience(drain_s=0.01)) as engine:
            asked = asyncio.create_task(engine.analyze(PHOTO))
            await server.until_heard(1)
        with pytest.raises(Unavailable, match="before it could answer"):
            await asked
    assert len(server.heard) == 1


async def test_before_it_is_opened_it_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await an_engine("http://127.0.0.1:1").analyze(PHOTO)


# --- Circuit open ---


async def fail(engine: RemoteEngine, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await engine.analyze(PHOTO)


async def test_the_circuit_opens_where_nobody_answers_and_closes_again(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine")
    async with (
        stranger(*[resets] * 5, GOOD) as server,
        asking(server.url, time, patience=Patience(retries=0)) as engine,
    ):
        await fail(engine, 5)
        with pytest.raises(Unavailable, match=r"is asked again in 2\.0 s"):
            await engine.analyze(PHOTO)
        assert len(server.heard) == 5
        assert "does not answer" in caplog.text
        time.now += 2
        assert await engine.analyze(PHOTO) == ANALYSIS
        assert "answers again" in caplog.text
        await engine.analyze(PHOTO)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_one_tries_for_all(time: Time) -> None:
    async with (
        stranger(*[resets] * 5, is_silent, GOOD) as server,
        asking(server.url, time, patience=Patience(retries=0)) as engine,
    ):
        await fail(engine, 5)
        time.now += 2
        first = asyncio.create_task(engine.analyze(PHOTO))
        await server.until_heard(6)
        with pytest.raises(Unavailable, match="not been answering"):
            await engine.analyze(PHOTO)
        first.cancel()  # leaving says nothing about the engine, and lets the next one try
        await asyncio.wait([first])
        assert await engine.analyze(PHOTO) == ANALYSIS


@pytest.mark.parametrize(
    ("silence_s", "told_to_wait"), [(0.01, True), (10, False)], ids=["long", "short"]
)
async def test_silence_counts_where_there_was_time_to_speak(
    time: Time, silence_s: float, told_to_wait: bool
) -> None:
    patience = Patience(silence_s=silence_s)
    async with (
        stranger(is_silent) as server,
        asking(server.url, time, patience=patience, breaker=Breaker(clock=time)) as engine,
    ):
        for _ in range(5):
            with pytest.raises(DeadlineExceeded):
                await engine.analyze(PHOTO, deadline_s=time() + 0.02)
        with pytest.raises(Unavailable if told_to_wait else DeadlineExceeded):
            await engine.analyze(PHOTO, deadline_s=time() + 0.02)


ANSWERED = [told(BUSY), told(NotAnImage("x")), told(InternalError("x")), told(Unavailable("x"))]


@pytest.mark.parametrize("answer", ANSWERED)
async def test_who_refuses_does_answer(time: Time, answer: Says) -> None:
    async with (
        stranger(*[answer] * 9, GOOD) as server,
        asking(server.url, time, patience=Patience(retries=0)) as engine,
    ):
        for _ in range(9):
            with pytest.raises(EngineError):
                await engine.analyze(PHOTO)
        assert await engine.analyze(PHOTO) == ANALYSIS


# --- What nobody is to read ---


@pytest.mark.parametrize(
    "answer",
    [GOOD, resets, says(200, HTML), told(Unauthorized("No."))],
    ids=["good", "lost", "nonsense", "refused"],
)
async def test_neither_key_nor_photo_is_ever_written(
    time: Time, answer: Says, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    written: list[str] = []
    async with stranger(answer) as server, asking(server.url, time, key=KEY) as engine:
        for ask in 6 * (lambda: engine.analyze(PHOTO), lambda: engine.track(PHOTO)):
            try:
                await ask()
            except EngineError as error:
                written += traced(error)
        written += [repr(engine), str(vars(engine).get("_exchange"))]
    everything = "".join([*written, caplog.text])
    assert KEY not in everything
    assert "byte by byte" not in everything


def traced(error: BaseException) -> list[str]:
    import traceback

    return [repr(error), *traceback.format_exception(error)]


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, engine.remote.client; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
