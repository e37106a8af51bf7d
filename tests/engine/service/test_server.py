"""Serving on real sockets, by real signals.

With somebody in place of the networks; and once as an operator's process, with everything real.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from engine import bundle
from engine.__main__ import app
from engine.service.server import serve
from engine.settings import Settings
from tests.engine import seers
from tests.engine.seers import PATIENCE_S, photo

ROOT = Path(__file__).parents[3]
KEY = "the-key-of-the-tests"


class Serving:
    """A service in this process, whose bundles are built when the test says so."""

    def __init__(self, settings: Settings) -> None:
        self.builds = 0
        self.built = threading.Semaphore(0)
        self.may_build = threading.Semaphore(0)
        self.seer = seers.seer()
        self._begun = threading.Semaphore(0)
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(serve(settings, self._url.set_result, self._build))

    def _build(self, _settings):
        self.builds += 1
        self._begun.release()
        assert self.may_build.acquire(timeout=PATIENCE_S)
        self.seer.bundle = f"tests@{self.builds}"
        return self.seer

    async def until_building(self) -> None:
        assert await asyncio.to_thread(self._begun.acquire, timeout=PATIENCE_S)

    async def client(self) -> httpx.AsyncClient:
        """One that calls it, once it listens."""
        async with asyncio.timeout(PATIENCE_S):
            url = await self._url
        return _client(url)

    async def end(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await self.task


def _client(url: str) -> httpx.AsyncClient:
    unix = url.startswith("unix:")
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=url.removeprefix("unix:")) if unix else None,
        base_url="http://engine" if unix else url,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=PATIENCE_S,
    )


@pytest.fixture(autouse=True)
def strayed():
    """Signals that nobody heeded, and that would have ended the process."""
    heard = []
    numbers = (signal.SIGHUP, signal.SIGTERM)
    before = [signal.signal(number, lambda got, _frame: heard.append(got)) for number in numbers]
    yield heard
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def folder_of(tmp_path: Path) -> Settings:
    return Settings(engine_socket=tmp_path / "socket", engine_bundle=str(tmp_path / "people"))


async def test_a_signal_while_loading_is_remembered_and_another_one_reloads(tmp_path, strayed):
    serving = Serving(folder_of(tmp_path))
    await serving.until_building()
    os.kill(os.getpid(), signal.SIGHUP)
    serving.may_build.release()
    await serving.until_building()
    serving.may_build.release()
    async with await serving.client():
        os.kill(os.getpid(), signal.SIGHUP)
        await serving.until_building()
        serving.may_build.release()
    await serving.end()
    assert serving.builds == 3
    assert strayed == []


async def test_a_changed_bundle_is_loaded(tmp_path):
    serving = Serving(folder_of(tmp_path).model_copy(update={"engine_watch_s": 0.01}))
    serving.may_build.release()
    async with await serving.client() as client:
        (tmp_path / "new").write_text("another")
        (tmp_path / "new").rename(tmp_path / "people.json")
        await serving.until_building()
        await serving.until_building()
        serving.may_build.release()
        response = await client.post("/v1/analyze", content=photo())
        assert response.status_code == 200
    await serving.end()


async def test_stopping_answers_what_was_accepted(tmp_path):
    settings = folder_of(tmp_path)
    serving = Serving(settings)
    serving.may_build.release()
    async with await serving.client() as client:
        serving.seer.go_on.clear()
        asking = asyncio.create_task(client.post("/v1/analyze", content=photo()))
        assert await asyncio.to_thread(serving.seer.begun.wait, PATIENCE_S)
        ending = asyncio.create_task(serving.end())
        async with _client(f"unix:{settings.engine_socket}") as stranger:
            with contextlib.suppress(httpx.HTTPError):
                while (await stranger.get("/readyz")).status_code == 200:
                    pass
        serving.seer.go_on.set()
        assert (await asking).status_code == 200
        await ending
    assert not settings.engine_socket.exists()


async def test_the_process(tmp_path):
    """What an operator starts: it sees, keeps strangers out, survives a torn bundle, and ends."""
    stem = tmp_path / "people"
    for suffix in (".pth", ".json"):
        shutil.copy(bundle.FOLDER / f"celebrities{suffix}", stem.with_suffix(suffix))
    own = {"ENGINE_BUNDLE": str(stem), "ENGINE_API_KEY": KEY, "ENGINE_WATCH_S": "0"}
    own |= {"ENGINE_PORT": "0", "ENGINE_MAX_BATCH": "1"}  # a rehearsal of few photos
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "engine", "serve", "--device", "cpu"),
        cwd=ROOT,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        line = (await process.stdout.readline()).decode()
        url = re.fullmatch(r"The engine listens on (http://127\.0\.0\.1:\d+)\n", line)[1]
        async with _client(url) as client:
            response = await client.post("/v1/analyze?top_k=3&embed=true", content=photo(512, 512))
            assert response.status_code == 200
            (face,) = response.json()["faces"]
            assert len(face["matches"]) == 3
            assert len(face["embedding"]) == 128
            bundle_id = (await client.get("/v1/info")).json()["bundle"]
            assert response.json()["bundle"] == bundle_id
            assert bundle_id.startswith("people@")
            stem.with_suffix(".pth").write_bytes(b"torn")
            response = await client.post("/v1/reload")
            assert (response.status_code, response.json()["code"]) == (409, "bundle_corrupt")
            assert (await client.post("/v1/analyze", content=photo())).status_code == 200
            response = await client.get("/readyz", headers={"Authorization": "Bearer another"})
            assert response.json()["status"] == "ok"
            response = await client.get("/v1/info", headers={"Authorization": "Bearer another"})
            assert response.status_code == 401
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
        assert process.returncode == 0
        assert b"The bundle was not reloaded" in log
        assert KEY.encode() not in log
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ENGINE_HOST", "0.0.0.0", "ENGINE_API_KEY"),
        ("ENGINE_SOCKET", "/no/such/folder/socket", "cannot listen"),
        ("ENGINE_BUNDLE", "/no/such/bundle", "There is no bundle"),
        ("ENGINE_PORT", "many", "ENGINE_PORT must be a whole number"),
        ("ENGINE_STOP_TIMEOUT_S", "1", "ENGINE_STOP_TIMEOUT_S must be at least 2"),
    ],
)
def test_what_cannot_start_says_why_and_what_to_do(name, value, words):
    environ = {"ENGINE_API_KEY": "", "ENGINE_PORT": "0", name: value}
    result = CliRunner(env=environ).invoke(app, ["serve"])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_every_setting_is_in_the_help_text():
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["serve", "--help"])
    assert result.exit_code == 0
    for name in Settings.model_fields:
        assert name.upper() in result.stdout


def test_importing_the_service_loads_no_torch():
    code = "import sys, engine.service.server; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
