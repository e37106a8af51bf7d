"""One id for one request: in the answer, in the log, and in the threads that work for it."""

import logging
from collections.abc import Iterator

import pytest
from asgi_correlation_id import correlation_id

from engine import request_id
from engine.errors import InternalError
from engine.runtime.batching import Batcher
from engine.settings import Settings
from tests.engine import seers
from tests.engine.service.test_app import calling


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.handler.addFilter(request_id.log_filter())
    with caplog.at_level(logging.INFO, "engine"):
        yield caplog


def ids(log: pytest.LogCaptureFixture, starting: str) -> list[str]:
    """Of the lines that start so."""
    found = [record for record in log.records if record.getMessage().startswith(starting)]
    return [vars(record)["correlation_id"] for record in found]


async def test_a_callers_id_comes_back_and_is_logged(log: pytest.LogCaptureFixture) -> None:
    async with calling(seers.seer()) as client:
        response = await client.post(
            "/v1/analyze", content=seers.photo(), headers={request_id.HEADER: "a-1_b.2"}
        )
    assert response.headers[request_id.HEADER] == "a-1_b.2"
    assert ids(log, "path=/v1/analyze status=200 code=ok total_ms=") == ["a-1_b.2"]


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "ä".encode(), "a\tlevel=ERROR"])
async def test_another_one_is_made(given: str | bytes | None) -> None:
    headers = {} if given is None else {request_id.HEADER: given}
    async with calling(seers.seer()) as client:
        response = await client.post("/v1/analyze", content=seers.photo(), headers=headers)
    made = response.headers[request_id.HEADER]
    assert len(made) == 32
    assert int(made, 16) >= 0


async def test_who_is_refused_gets_one_too(log: pytest.LogCaptureFixture) -> None:
    async with calling(seers.seer(), Settings(engine_api_key="k" * 32)) as client:
        response = await client.post("/v1/analyze", content=seers.photo())
        nowhere = await client.get("/nowhere")
    assert response.status_code == 401
    assert ids(log, "path=/v1/analyze status=401") == [response.headers[request_id.HEADER]]
    assert request_id.HEADER in nowhere.headers
    assert not ids(log, "path=other")


async def test_faults_in_threads_are_logged_with_it(log: pytest.LogCaptureFixture) -> None:
    def prepare(raw: str) -> str:
        if raw == "unprepared":
            raise ValueError(correlation_id.get())
        return raw

    def compute(_items: object) -> list[str]:
        raise ValueError

    async with Batcher(prepare, compute, max_batch=1) as batcher:
        for raw, line in (("unprepared", "Preparing failed."), ("other", "Computing failed.")):
            made = request_id.begin()
            with pytest.raises(InternalError):
                await batcher.submit(raw)
            assert ids(log, line) == [made]
