import asyncio
import json

import httpx
import pytest
from starlette.types import ASGIApp

from engine.cluster.proxy import ServiceAnswers, middlewares
from engine.errors import Busy
from engine.wire import read_problem


def answering(status: int, body: bytes = b"", **headers: str) -> ASGIApp:
    async def app(scope, receive, send) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    return app


async def ask(app: ASGIApp, path: str = "/v1/analyze", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=ServiceAnswers(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        return await client.post(path, headers=headers)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (503, "busy", 503),
        (429, "busy", 503),
        (408, "deadline_exceeded", 504),
        (404, "unavailable", 503),
        (500, "unavailable", 503),
    ],
)
async def test_rays_own_words_become_the_services(status: int, code: str, told: int) -> None:
    response = await ask(answering(status, b"words of Ray", content_type="text/plain"))
    assert response.status_code == told
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == read_problem(response.content).code == code
    assert "words of Ray" not in response.text


async def test_a_full_queue_says_when_to_come_back() -> None:
    response = await ask(answering(503, content_type="text/plain", retry_after="3"))
    assert response.headers["retry-after"] == "3"
    told = read_problem(response.content)
    assert isinstance(told, Busy)
    assert told.retry_after_s == 3


@pytest.mark.parametrize("status", [200, 404, 415, 500, 503])
async def test_a_replicas_answer_passes_untouched(status: int) -> None:
    body = json.dumps({"any": "thing"}).encode()
    response = await ask(answering(status, body, content_type="application/problem+json", x="y"))
    assert (response.status_code, response.content) == (status, body)
    assert response.headers["x"] == "y"


async def test_metrics_are_text_and_pass() -> None:
    response = await ask(answering(200, b"# HELP", content_type="text/plain"), "/metrics")
    assert (response.status_code, response.text) == (200, "# HELP")


async def test_rays_own_paths_pass() -> None:
    response = await ask(answering(503, b"not yet", content_type="text/plain"), "/-/healthz")
    assert (response.status_code, response.text) == (503, "not yet")


async def test_a_replica_that_died_with_the_request_is_unavailable() -> None:
    async def silent(scope, receive, send) -> None:
        pass

    response = await ask(silent)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


async def test_the_time_in_rays_queue_counts() -> None:
    cancelled = asyncio.Event()

    async def queueing(scope, receive, send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    response = await ask(queueing, **{"X-Timeout-Ms": "1"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert cancelled.is_set()


async def test_a_proxy_that_swallows_the_cancellation_is_late_as_well() -> None:
    async def swallowing(scope, receive, send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await answering(499)(scope, receive, send)

    assert (await ask(swallowing, **{"X-Timeout-Ms": "1"})).status_code in (499, 504)


@pytest.mark.parametrize("said", ["", "soon", "-1", "1e3", "9" * 20])
async def test_a_limit_that_is_none_is_the_replicas_to_refuse(said: str) -> None:
    response = await ask(
        answering(400, content_type="application/problem+json"), **{"X-Timeout-Ms": said}
    )
    assert response.status_code == 400


def test_ray_is_given_starlettes_middleware() -> None:
    (middleware,) = middlewares()
    assert middleware.cls is ServiceAnswers
