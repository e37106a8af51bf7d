"""A real Ray: a head and two workers, each of several processes, on loopback.

The engines see nobody in 20 ms a batch, because how faces are seen is not the point; the default
bundle is served by the command line's test, as an operator would. The tests share one Ray, because
starting it takes seconds, and each brings it to the shape it needs.
"""

import asyncio
import contextlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import skimage.data
import yaml
from click.testing import Result
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from engine.cluster import commands, local_ray
from engine.cluster.local_ray import ROOT, Head
from engine.cluster.plan import Plan, Shape
from engine.cluster.proxy import IMPORT_PATH
from engine.errors import ConfigurationError, EngineError
from engine.remote.client import Patience, RemoteEngine
from engine.settings import Settings
from engine.types import Analysis
from tests.engine import rays, test_contract
from tests.engine.doors import BuildHeld, Gate
from tests.engine.seers import photo

BATCH = 2
SETTINGS = Settings(engine_max_batch=BATCH, engine_device="cpu", engine_bundle="celebrities")
IN_HAND = 4 * BATCH
CLIENTS = 6
PATIENCE_S = 60.0
PHOTO = photo()
WITHOUT_RETRIES = Patience(retries=0)


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[rays.Nodes]:
    with rays.cluster(tmp_path_factory.mktemp("ray"), port) as nodes:
        yield nodes


@pytest.fixture
async def engine(nodes: rays.Nodes, port: int) -> AsyncIterator[RemoteEngine]:
    """A client that forgives nothing, and two replicas of the bundle "first" or a later one."""
    if running() != 2:
        await roll_out("first")
    url = f"http://127.0.0.1:{port}"
    async with RemoteEngine(url, patience=WITHOUT_RETRIES) as engine:
        yield engine


def running() -> int:
    from engine.cluster.rollout import state

    return state(ask=False).replicas.get("RUNNING", 0)


async def roll_out(bundle: str) -> None:
    from engine.cluster.rollout import deploy

    shape = Shape(bundle=bundle, min_replicas=2, max_replicas=2, cpus=1, public=False)
    plan = Plan.of(shape, SETTINGS)
    await asyncio.to_thread(deploy, plan, timeout_s=120, build=rays.glance)


async def homes(engine: RemoteEngine) -> set[str]:
    """Which process on which node each replica is, of those that answer."""
    found = set()
    for _ in range(20):
        with contextlib.suppress(EngineError):
            found.add((await engine.info()).embedder)
    return found


async def healed(engine: RemoteEngine, lost: set[str]) -> None:
    """Return when two replicas answer and none of the lost ones does."""
    async with asyncio.timeout(PATIENCE_S):
        while len(now := await homes(engine)) < 2 or now & lost:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def gate(nodes: rays.Nodes, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """One replica that sees a face on every photo, and is held up by some."""
    from engine.cluster.rollout import deploy

    gate = Gate(tmp_path_factory.mktemp("gate")).make()
    plan = Plan.of(Shape(public=False), test_contract.SETTINGS)
    deploy(plan, timeout_s=120, build=BuildHeld(gate))
    return gate


class TestContract:
    """What every engine promises, here as well; but for a full queue, which is Ray's to tell."""

    test_answer = staticmethod(test_contract.test_all_of_an_answer_comes)
    test_wishes = staticmethod(test_contract.test_what_is_asked_for_is_what_is_done)
    test_info = staticmethod(test_contract.test_it_tells_what_it_is_made_of)
    test_people = staticmethod(test_contract.test_it_tells_whom_it_knows)
    test_mistakes = staticmethod(test_contract.test_a_mistake_of_the_caller_is_theirs)
    test_bad_files = staticmethod(test_contract.test_a_bad_file_is_told_in_the_same_words)
    test_bugs = staticmethod(test_contract.test_a_bug_is_told_without_its_traceback)
    test_lateness = staticmethod(test_contract.test_a_late_answer_is_none)

    @pytest.fixture
    async def engine(self, gate: Gate, port: int) -> AsyncIterator[RemoteEngine]:
        async with RemoteEngine(f"http://127.0.0.1:{port}", patience=WITHOUT_RETRIES) as engine:
            yield engine


async def test_two_replicas_answer_as_the_service_does(engine: RemoteEngine, port: int) -> None:
    assert len(await homes(engine)) == 2
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        for method, path, data, status, code in (
            ("POST", "/v1/analyze", b"text", 415, "not_an_image"),
            ("POST", "/v1/analyze?top_k=0", PHOTO, 400, "invalid_request"),
            ("GET", "/nothing", None, 404, "not_found"),
            ("POST", "/v1/reload", None, 409, "settings_invalid"),
        ):
            async with session.request(method, url + path, data=data) as response:
                assert response.status == status
                assert response.content_type == "application/problem+json"
                assert (await response.json())["code"] == code
        async with session.get(url + "/readyz", headers={"X-Request-Id": "ours"}) as response:
            assert response.status == 200
            assert set(response.headers.getall("X-Request-Id")) == {"ours"}


async def test_more_than_all_queues_hold_is_told_at_once_and_nobody_waits_in_vain(
    engine: RemoteEngine, port: int
) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ask() -> tuple[int, str, float]:
            started = time.monotonic()
            headers = {"X-Timeout-Ms": "4000"}
            async with session.post("/v1/analyze", data=PHOTO, headers=headers) as response:
                body = await response.json()
                return response.status, body.get("code", "ok"), time.monotonic() - started

        asked = 4 * (2 * IN_HAND + 2 * IN_HAND)
        answers = await asyncio.gather(*(ask() for _ in range(asked)))
    codes = {code for _, code, _ in answers}
    assert "busy" in codes
    assert "ok" in codes
    assert codes <= {"ok", "busy", "deadline_exceeded"}
    assert {status for status, code, _ in answers if code == "busy"} == {503}


async def test_a_killed_replica_costs_what_it_had_in_hand_which_retries_hide(
    engine: RemoteEngine, port: int
) -> None:
    before = await homes(engine)
    async with (
        RemoteEngine(f"http://127.0.0.1:{port}") as patient,
        rays.load(lambda: patient.analyze(PHOTO), CLIENTS) as hidden,
        rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen,
    ):
        await rays.until(lambda: sum(seen.answers.values()) > 5 * CLIENTS)
        rays.kill_replica(rays.replicas()[0])
        async with asyncio.timeout(PATIENCE_S):
            while len((now := await homes(engine)) - before) < 1 or len(now) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert set(seen.faults) <= {"unavailable"}
    assert sum(seen.faults.values()) <= min(IN_HAND, CLIENTS)
    assert not hidden.faults


async def test_a_killed_node_costs_what_it_had_in_hand_and_a_new_one_takes_its_place(
    engine: RemoteEngine, nodes: rays.Nodes
) -> None:
    before = await homes(engine)
    killed = next(node for node in nodes.workers if any(node.node_id in home for home in before))
    lost = {home for home in before if killed.node_id in home}
    async with rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen:
        await rays.until(lambda: sum(seen.answers.values()) > 5 * CLIENTS)
        nodes.workers.remove(killed)
        await asyncio.to_thread(nodes.kill, killed)
        nodes.workers.append(await asyncio.to_thread(nodes.add))
        await healed(engine, lost)
    assert set(seen.faults) <= {"unavailable"}
    assert sum(seen.faults.values()) <= len(lost) * min(IN_HAND, CLIENTS)


async def test_a_new_bundle_is_rolled_out_without_an_error(engine: RemoteEngine) -> None:
    before = (await engine.info()).bundle
    after = f"after-{before}"
    async with rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen:
        await roll_out(after)
        await rays.until(lambda: seen.last == after)
    assert not seen.faults
    assert set(seen.answers) == {before, after}
    assert {(await engine.analyze(PHOTO)).bundle for _ in range(10)} == {after}


async def test_a_broken_bundle_leaves_the_old_one_serving_and_says_why(
    engine: RemoteEngine,
) -> None:
    before = (await engine.info()).bundle
    async with rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen:
        with pytest.raises(ConfigurationError, match=r"as it was meant to be(.|\n)*serve on"):
            await roll_out(rays.BROKEN)
    assert not seen.faults
    assert set(seen.answers) == {before}
    assert running() == 2


async def test_deleting_answers_what_was_accepted(engine: RemoteEngine) -> None:
    from engine.cluster.rollout import delete, state

    # More than one batch each, so that some still wait in the replicas.
    asked = [asyncio.create_task(engine.analyze(PHOTO)) for _ in range(2 * IN_HAND)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.to_thread(delete)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert state().status == "NOT_STARTED"
    with pytest.raises(Exception, match="No engine runs"):
        await engine.analyze(PHOTO)


def test_the_command_line_serves_the_default_bundle_rolls_it_over_and_stops(
    tmp_path: Path,
) -> None:
    pytest.importorskip("ray", reason="ray is not installed: uv sync --extra cluster")
    door = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "ENGINE_PORT": str(door),
        "ENGINE_MAX_BATCH": "2",
        "ENGINE_BUNDLE": "celebrities",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine", "cluster", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=200
        )

    for suffix in (".json", ".pth"):
        original = (ROOT / "run" / "models" / "celebrities").with_suffix(suffix)
        (tmp_path / f"others{suffix}").write_bytes(original.read_bytes())
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "JPEG")

    async def seen() -> tuple[str, tuple[list[str], list[float]]]:
        """The bundle's id, and whom the astronaut resembles how much."""
        async with RemoteEngine(f"http://127.0.0.1:{door}") as engine:
            analysis = await engine.analyze(file.getvalue(), timeout_s=60)
            assert (await engine.info()).bundle == analysis.bundle
        return analysis.bundle, resemblances(analysis)

    assert run("status").returncode == 1
    (tmp_path / "run" / "cluster").mkdir(parents=True)  # as a head that was killed leaves it
    local_ray.announce(Head(1, "127.0.0.1:1", "http://127.0.0.1:1"), tmp_path / "run" / "cluster")
    up = run("up", "--replicas", "1")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        pipeline = test_contract.pipeline()
        (expected,) = pipeline.analyze([test_contract.request(file.getvalue())])
        bundle, people = asyncio.run(seen())
        assert bundle == expected.bundle
        names, similarities = resemblances(expected)
        assert people == (names, pytest.approx(similarities, abs=2e-3))
        rolled = run("rollout", "--bundle", str(tmp_path / "others"))
        assert rolled.returncode == 0, rolled.stdout + rolled.stderr
        others, same = asyncio.run(seen())
        assert others == bundle.replace("celebrities", "others")
        assert same == (people[0], pytest.approx(people[1], abs=2e-3))
        status = run("status", "--json")
        assert status.returncode == 0
        record = json.loads(status.stdout)
        assert record["status"] == "RUNNING"
        assert record["bundle"] == str(tmp_path / "others")
        assert record["replicas"]["RUNNING"] == 1
        assert listeners_beyond_loopback(tmp_path) == []
    finally:
        down = run("down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert run("status").returncode == 1


def resemblances(analysis: Analysis) -> tuple[list[str], list[float]]:
    (face,) = analysis.faces
    return [match.name for match in face.matches], [match.similarity for match in face.matches]


def listeners_beyond_loopback(folder: Path) -> list[str]:
    """Addresses other than loopback's that the cluster of a folder listens on."""
    import psutil

    head = psutil.Process(json.loads((folder / "run" / "cluster" / "head.json").read_text())["pid"])
    return [
        f"{process.name()} {connection.laddr}"
        for process in (head, *head.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    ]


# --- What needs no Ray ---


def command(*words: str) -> Result:
    return CliRunner().invoke(commands.app, words)


def test_without_ray_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for words in (("up",), ("status",), ("rollout", "--bundle", "people"), ("down",)):
        result = command(*words)
        assert result.exit_code == 2
        assert "uv sync --extra cluster" in result.stderr


def test_nobody_is_served_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGINE_API_KEY", raising=False)
    result = command("up", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "ENGINE_API_KEY" in result.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("up", "--gpus", "2"), "--gpus"),
        (("up", "--replicas", "3", "--max-replicas", "2"), "--max-replicas"),
        (("status", "--address", "127.0.0.1:1"), "127.0.0.1:1"),
        (("down", "--address", "nowhere"), "HOST:PORT"),
        (("up", "--block", "--address", "auto"), "--block"),
    ],
)
def test_mistakes_are_told_at_once(words: tuple[str, ...], named: str) -> None:
    result = command(*words)
    assert result.exit_code == 2
    assert named in result.stderr


def test_a_head_that_died_is_not_found(tmp_path: Path) -> None:
    local_ray.announce(Head(1, "127.0.0.1:1", "http://127.0.0.1:2"), tmp_path)
    assert local_ray.find(tmp_path) is None
    with FileLock(tmp_path / "lock"):
        assert local_ray.find(tmp_path) == Head(1, "127.0.0.1:1", "http://127.0.0.1:2")
    assert stat.S_IMODE((tmp_path / "head.json").stat().st_mode) == 0o600


def test_the_kuberay_manifest_fits_this_program() -> None:
    service, policy = yaml.safe_load_all((ROOT / "run" / "kuberay.yaml").read_text("utf-8"))
    serving = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = serving["applications"]
    Shape.model_validate(application["args"])
    module, name = application["import_path"].split(":")
    assert f"\ndef {name}(shape: Shape)" in (ROOT / f"{module.replace('.', '/')}.py").read_text()
    cluster = service["spec"]["rayClusterConfig"]
    pods = [group["template"]["spec"] for group in cluster["workerGroupSpecs"]]
    pods.append(cluster["headGroupSpec"]["template"]["spec"])
    known = {name.upper() for name in Settings.model_fields}
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["terminationGracePeriodSeconds"] > Settings().engine_max_timeout_s
        (container,) = pod["containers"]
        told = {entry["name"]: entry["value"] for entry in container["env"]}
        assert told["RAY_USAGE_STATS_ENABLED"] == "0"
        assert told["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == IMPORT_PATH
        assert {name for name in told if name.startswith(("ENGINE_", "FACE_"))} <= known
        assert "ENGINE_API_KEY" not in told
        assert {"name": "serve", "containerPort": serving["http_options"]["port"]} in container[
            "ports"
        ]
    assert policy["kind"] == "NetworkPolicy"
