"""A real Ray: a head and two workers, each of several processes, on loopback.

All tests share it, because starting it takes seconds, and each deploys what it needs. The engines
of most see nobody in 100 ms a batch, because how faces are seen is not the point.
"""

import asyncio
import inspect
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
import skimage.data
from PIL import Image

from engine.client import Engine
from engine.errors import ConfigurationError, Unavailable
from engine.remote.client import Patience, RemoteEngine
from engine.settings import Settings
from engine.types import Analysis
from tests.engine import rays, test_contract
from tests.engine.doors import Build, BuildHeld, Door, Gate
from tests.engine.seers import photo

BATCH = 2
IN_HAND = 4 * BATCH
CLIENTS = 6
PATIENCE_S = 60.0
PHOTO = photo()
HEADERS = {"Authorization": f"Bearer {rays.KEY}"}
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

# One Ray for all of them, in whatever process they run.
pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[rays.Cluster]:
    with rays.cluster() as cluster:
        yield cluster


def client(cluster: rays.Cluster, *, retries: int = 0) -> RemoteEngine:
    return RemoteEngine(cluster.url, key=rays.KEY, patience=Patience(retries=retries))


# --- What every engine promises ---


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate")).make()


class TestContract:
    @pytest.fixture
    def door(self, cluster: rays.Cluster) -> Door:
        @asynccontextmanager
        async def over_ray(
            settings: Settings, build: Build, _folder: Path
        ) -> AsyncIterator[Engine]:
            real = build is test_contract.see_really  # as the application does
            config = cluster.configuration(
                None if real else build, max_batch=BATCH if real else settings.engine_max_batch
            )
            await asyncio.to_thread(cluster.deploy, config)
            async with client(cluster) as engine:
                yield engine

        return over_ray

    @pytest.fixture
    async def engine(self, door: Door, gate: Gate, tmp_path: Path) -> AsyncIterator[Engine]:
        async with door(test_contract.SETTINGS, BuildHeld(gate), tmp_path) as engine:
            yield engine


for name, promise in vars(test_contract).items():
    if (
        name.startswith("test_")
        and {"engine", "door"} & inspect.signature(promise).parameters.keys()
    ):
        setattr(TestContract, name, staticmethod(promise))


# --- The bundle that comes with it ---


async def test_the_default_bundle_another_and_a_rebuilt_one_are_served_by_one_process(
    cluster: rays.Cluster, tmp_path: Path
) -> None:
    for suffix in (".json", ".pth"):
        original = (rays.ROOT / "run" / "models" / "celebrities").with_suffix(suffix)
        (tmp_path / f"others{suffix}").write_bytes(original.read_bytes())
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "JPEG")
    (expected,) = test_contract.pipeline().analyze([test_contract.request(file.getvalue())])
    names, similarities = resemblances(expected)
    cluster.deploy(cluster.configuration(None))
    (before,) = cluster.replicas()
    async with client(cluster, retries=2) as engine:
        analysis = await engine.analyze(file.getvalue())
        assert analysis.bundle == expected.bundle == (await engine.info()).bundle
        assert resemblances(analysis) == (names, pytest.approx(similarities, abs=2e-3))
        cluster.deploy(cluster.configuration(None, bundle=str(tmp_path / "others")))
        analysis = await engine.analyze(file.getvalue())
        assert analysis.bundle == expected.bundle.replace("celebrities", "others")
        assert resemblances(analysis) == (names, pytest.approx(similarities, abs=2e-3))
        record = json.loads((tmp_path / "others.json").read_text())
        record["people"]["0"] = "Somebody else"
        (tmp_path / "others.json").write_text(json.dumps(record))
        rebuilt = cluster.configuration(None, bundle=str(tmp_path / "others"), revision=2)
        cluster.deploy(rebuilt)
        assert (await engine.people())[0].name == "Somebody else"
    (after,) = cluster.replicas()
    assert after["pid"] == before["pid"]


def resemblances(analysis: Analysis) -> tuple[list[str], list[float]]:
    (face,) = analysis.faces
    return [match.name for match in face.matches], [match.similarity for match in face.matches]


# --- Two replicas ---


@pytest.fixture
async def engine(cluster: rays.Cluster) -> AsyncIterator[RemoteEngine]:
    """A client that forgives nothing, and two replicas of the bundle "first" or a later one."""
    if len(await asyncio.to_thread(processes, cluster)) != 2:
        await roll_out(cluster, "first")
        await rays.until(lambda: len(processes(cluster)) == 2)
    async with client(cluster) as engine:
        yield engine


async def roll_out(cluster: rays.Cluster, bundle: str) -> None:
    config = cluster.configuration(rays.glance, replicas=2, bundle=bundle, max_batch=BATCH)
    await asyncio.to_thread(cluster.deploy, config)


def processes(cluster: rays.Cluster) -> set[int]:
    """Which processes the replicas are, whether they answer or not."""
    return {replica["pid"] for replica in cluster.replicas()}


async def homes(engine: RemoteEngine) -> set[str]:
    """Which process on which node each replica is, of those that answer."""
    found = set()
    for _ in range(20):
        found.add((await engine.info()).embedder)
    return found


async def healed(cluster: rays.Cluster, lost: set[int]) -> None:
    """Return when two replicas run and none of the lost processes does."""
    await rays.until(lambda: len(processes(cluster)) == 2 and not processes(cluster) & lost)


async def test_two_replicas_answer_as_the_service_does(
    engine: RemoteEngine, cluster: rays.Cluster
) -> None:
    assert len(await homes(engine)) == 2
    async with aiohttp.ClientSession(cluster.url, headers=HEADERS) as session:
        for method, path, data, headers, status, code in (
            ("POST", "/v1/analyze", PHOTO, {"Authorization": "Bearer no"}, 401, "unauthorized"),
            ("POST", "/v1/analyze", b"text", {}, 415, "not_an_image"),
            ("POST", "/v1/analyze?top_k=0", PHOTO, {}, 400, "invalid_request"),
            ("GET", "/nothing", None, {}, 404, "not_found"),
            ("POST", "/v1/reload", None, {}, 409, "settings_invalid"),
        ):
            async with session.request(method, path, data=data, headers=headers) as response:
                assert response.status == status
                assert response.content_type == "application/problem+json"
                assert (await response.json())["code"] == code
        async with session.get("/readyz", headers={"X-Request-Id": "ours"}) as response:
            assert response.status == 200
            assert set(response.headers.getall("X-Request-Id")) == {"ours"}


async def test_more_than_all_queues_hold_is_told_at_once_and_nobody_waits_in_vain(
    engine: RemoteEngine, cluster: rays.Cluster
) -> None:
    async with aiohttp.ClientSession(cluster.url, headers=HEADERS) as session:

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
    engine: RemoteEngine, cluster: rays.Cluster
) -> None:
    async with (
        client(cluster, retries=Patience().retries) as patient,
        rays.load(lambda: patient.analyze(PHOTO), CLIENTS) as hidden,
        rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen,
    ):
        await rays.until(lambda: sum(seen.answers.values()) > 5 * CLIENTS)
        killed = await asyncio.to_thread(cluster.kill_replica)
        await healed(cluster, {killed})
    assert set(seen.faults) <= {"unavailable"}
    assert sum(seen.faults.values()) <= min(IN_HAND, CLIENTS)
    assert not hidden.faults


async def test_a_killed_node_costs_what_it_had_in_hand_and_a_new_one_takes_its_place(
    engine: RemoteEngine, cluster: rays.Cluster
) -> None:
    before = cluster.replicas()
    killed = next(node for node in cluster.workers if node.node_id == before[0]["node_id"])
    lost = {replica["pid"] for replica in before if replica["node_id"] == killed.node_id}
    async with rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen:
        await rays.until(lambda: sum(seen.answers.values()) > 5 * CLIENTS)
        cluster.workers.remove(killed)
        await asyncio.to_thread(cluster.kill, killed)
        cluster.workers.append(await asyncio.to_thread(cluster.add))
        await healed(cluster, lost)
    assert set(seen.faults) <= {"unavailable"}
    assert sum(seen.faults.values()) <= len(lost) * min(IN_HAND, CLIENTS)


# --- Bundles ---


async def test_a_new_bundle_is_rolled_out_without_an_error_by_the_same_processes(
    engine: RemoteEngine, cluster: rays.Cluster
) -> None:
    before, served_by = (await engine.info()).bundle, processes(cluster)
    after = f"after-{before}"
    async with rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen:
        await roll_out(cluster, after)
        await rays.until(lambda: seen.last == after)
    assert not seen.faults
    assert set(seen.answers) == {before, after}
    assert {(await engine.analyze(PHOTO)).bundle for _ in range(20)} == {after}
    assert processes(cluster) == served_by


async def test_a_broken_bundle_leaves_the_old_one_serving_says_why_and_is_mended(
    engine: RemoteEngine, cluster: rays.Cluster
) -> None:
    before, served_by = (await engine.info()).bundle, processes(cluster)
    async with rays.load(lambda: engine.analyze(PHOTO), CLIENTS) as seen:
        await roll_out(cluster, rays.BROKEN)
        await rays.until(
            lambda: all("broken, as it was meant to be" in log for log in cluster.logs())
        )
    assert not seen.faults
    assert set(seen.answers) == {before}
    assert cluster.status()["status"] == "RUNNING"
    async with (
        aiohttp.ClientSession(cluster.url, headers=HEADERS) as session,
        session.post("/v1/reload") as response,
    ):
        assert "broken, as it was meant to be" in (await response.json())["detail"]
    await roll_out(cluster, f"mended-{before}")
    assert {(await engine.analyze(PHOTO)).bundle for _ in range(20)} == {f"mended-{before}"}
    assert processes(cluster) == served_by


# --- Who reaches it ---


async def test_nothing_listens_beyond_loopback(engine: RemoteEngine, cluster: rays.Cluster) -> None:
    assert len(await homes(engine)) == 2
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {cluster.port, cluster.gcs_port, cluster.client_port} <= {port for _, port in listening}
    assert {address for address, _ in listening} <= LOOPBACK


async def test_ray_does_nothing_without_its_token(cluster: rays.Cluster) -> None:
    import grpc

    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{cluster.dashboard}/api/serve/applications/") as response,
    ):
        assert response.status == 401
    for port, method in (
        (cluster.gcs_port, "/ray.rpc.InternalKVGcsService/InternalKVKeys"),
        (cluster.client_port, "/ray.rpc.RayletDriver/ClusterInfo"),
    ):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"", timeout=PATIENCE_S)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_configuration_of_0_1_is_refused(cluster: rays.Cluster) -> None:
    from engine.cluster.deployment import application

    with pytest.raises(ConfigurationError, match=r"args has bundle, gpus: run/serve\.yaml"):
        application({"bundle": "celebrities", "gpus": 1})


# --- The end ---


async def test_what_was_accepted_is_answered_before_the_engines_go(
    engine: RemoteEngine, cluster: rays.Cluster
) -> None:
    # More than one batch each, so that some still wait in the replicas.
    asked = [asyncio.create_task(engine.analyze(PHOTO)) for _ in range(2 * IN_HAND)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.to_thread(cluster.deploy, {"applications": []})
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert cluster.status()["status"] == "GONE"
    with pytest.raises(Unavailable, match="No engine runs"):
        await engine.analyze(PHOTO)


async def test_ray_itself_ends_a_replica_whose_reconfigure_fails(cluster: rays.Cluster) -> None:
    """Why ours never does."""
    fragile = f"{rays.__name__}:fragile"
    await asyncio.to_thread(cluster.deploy, cluster.configuration(None, import_path=fragile))
    (before,) = cluster.replicas()
    broken = cluster.configuration(None, import_path=fragile, bundle=rays.BROKEN)
    await asyncio.to_thread(cluster.deploy, broken)
    await rays.until(lambda: not psutil.pid_exists(before["pid"]))
    assert cluster.replicas() == []
    assert "broken, as it was meant to be" in str(cluster.status())
