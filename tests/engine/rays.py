"""A real Ray of several processes on this machine, and engines that are fast enough to kill often.

Ray is started and driven by its own commands, in the environment that `run/ray.env` gives an
operator, with configurations made from `run/serve.yaml`. Replicas import this module by its name.
"""

import asyncio
import base64
import importlib.util
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner
from dotenv import dotenv_values

from engine.errors import BundleError, EngineError
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Person

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests"
BROKEN = "broken"
_OBJECT_STORE_BYTES = 80_000_000  # the least that Ray allows
_PATIENCE_S = 120.0

Build = Callable[[Settings], Any]


class Glance:
    """Sees nobody, in the time that a batch takes, and says by which bundle."""

    def __init__(self, bundle: str, batch_s: float) -> None:
        self._bundle = bundle
        self._batch_s = batch_s

    at_once = 1

    def analyze(self, requests: Sequence[PhotoRequest]) -> list[Analysis]:
        time.sleep(self._batch_s)
        return [Analysis((), *request.original_px, self._bundle) for request in requests]

    def info(self) -> EngineInfo:
        """Where it runs, in place of an embedder."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return EngineInfo("1", self._bundle, f"process {os.getpid()} on {node}", 0, "cpu")

    def people(self) -> tuple[Person, ...]:
        return ()


def glance(settings: Settings) -> Glance:
    if settings.engine_bundle == BROKEN:
        raise BundleError("The bundle is broken, as it was meant to be.")
    return Glance(settings.engine_bundle, 0.1)


def gaze(settings: Settings) -> Glance:
    """As slow as a small device, so that Ray's own work is little beside it."""
    return Glance(settings.engine_bundle, 0.2)


def application(arguments: dict[str, str]) -> Any:
    """The engine's application, with what makes an analyzer in `args`."""
    from engine.cluster.deployment import bind

    return bind(pickle.loads(base64.b64decode(arguments["build"])))


def fragile(_arguments: dict[str, str]) -> Any:
    """A deployment of nobody's, whose `reconfigure` fails as ours never does."""
    from ray import serve

    class Fragile:
        def reconfigure(self, user_config: dict[str, str]) -> None:
            if user_config["bundle"] == BROKEN:
                raise BundleError("The bundle is broken, as it was meant to be.")

        def __call__(self) -> str:
            return "well"

    options: dict[str, Any] = {"name": "engine", "max_constructor_retry_count": 1}
    deployment: Any = serve.deployment(Fragile, **options)
    return deployment.bind()


class Cluster:
    """A head without cores, which has the proxy, and workers that can be killed and added.

    Args:
        folder: for Ray's files; a short path, because sockets are among them.
        cores: of each worker.
    """

    def __init__(self, folder: Path, cores: int) -> None:
        self.port, self.gcs_port, self.client_port, dashboard_port = free_ports(4)
        self.url = f"http://127.0.0.1:{self.port}"
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        self._folder = folder
        self._cores = cores
        self._head = self._start_head(dashboard_port)
        self.workers = [self.add(), self.add()]

    def _start_head(self, dashboard_port: int) -> subprocess.Popen[bytes]:
        log = self._folder / "head"
        words = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=0"]
        words += [f"--port={self.gcs_port}", f"--ray-client-server-port={self.client_port}"]
        words += [f"--dashboard-port={dashboard_port}", f"--temp-dir={self._folder}"]
        words += [f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        command = [str(Path(sys.executable).with_name("ray")), *words]
        with log.open("wb") as file:
            head = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
            )
        give_up = time.monotonic() + _PATIENCE_S
        while b"Ray runtime started" not in log.read_bytes():
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.1)
        return head

    def add(self) -> Any:
        """Start a worker. `ray start --address` starts none on loopback, its class does."""
        from ray._private.node import Node
        from ray._private.parameter import RayParams

        parameters: dict[str, Any] = {
            "gcs_address": f"127.0.0.1:{self.gcs_port}",
            "node_ip_address": "127.0.0.1",
            "num_cpus": self._cores,
            "num_gpus": 0,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_log_monitor": False,
            # Any free ones: every node is this machine.
            "node_manager_port": 0,
            "min_worker_port": 0,
            "max_worker_port": 0,
            "dashboard_agent_listen_port": None,
        }
        return Node(RayParams(**parameters), head=False, shutdown_at_exit=False, spawn_reaper=False)

    def kill(self, node: Any) -> None:
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    def stop(self) -> None:
        for worker in self.workers:
            self.kill(worker)
        parent = psutil.Process(self._head.pid)
        for process in (*parent.children(recursive=True), parent):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._head.wait()

    # --- Ray's commands ---

    def serve(self, *words: str) -> str:
        """What `serve WORDS` prints."""
        from ray.serve.scripts import cli

        result = CliRunner().invoke(cli, [*words, "--address", self.dashboard])
        assert result.exit_code == 0, result.output
        return result.output

    def deploy(self, config: Mapping[str, Any]) -> None:
        """`serve deploy`, and wait until `serve status` says how it has ended."""
        file = self._folder / "serve.yaml"
        file.write_text(yaml.safe_dump(dict(config)))
        self.serve("deploy", str(file))
        give_up = time.monotonic() + _PATIENCE_S
        while self.status()["status"] in {"NOT_STARTED", "DEPLOYING", "DELETING"}:
            assert time.monotonic() < give_up, self.status()
            time.sleep(0.1)

    def status(self) -> dict[str, Any]:
        """What `serve status` says of the engines; "GONE" when there are none."""
        applications = yaml.safe_load(self.serve("status"))["applications"]
        found: dict[str, Any] = applications.get("engine", {"status": "GONE", "deployments": {}})
        return found

    def replicas(self) -> list[dict[str, Any]]:
        """The replicas that run, with "pid", "node_id" and "log_file_path"."""
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        details = ServeSubmissionClient(self.dashboard).get_serve_details()
        deployments = details["applications"].get("engine", {"deployments": {}})["deployments"]
        every = [replica for found in deployments.values() for replica in found["replicas"]]
        return [replica for replica in every if replica["state"] == "RUNNING"]

    def kill_replica(self) -> int:
        """Kill the process of one, and return its number."""
        pid = int(self.replicas()[0]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def logs(self) -> list[str]:
        """What each replica's log says."""
        folder = self._folder / "session_latest" / "logs"
        return [
            (folder / replica["log_file_path"].lstrip("/")).read_text()
            for replica in self.replicas()
        ]

    def configuration(
        self,
        build: Build | None,
        *,
        replicas: int = 1,
        bundle: str = "celebrities",
        revision: int = 1,
        max_batch: int = 2,
        import_path: str | None = None,
    ) -> dict[str, Any]:
        """`run/serve.yaml`, changed for these tests.

        Args:
            build: makes what sees faces; None sees with the bundle.
            replicas: how many there are.
            bundle: which one they serve.
            revision: of the bundle.
            max_batch: ENGINE_MAX_BATCH.
            import_path: another application.
        """
        config: dict[str, Any] = yaml.safe_load((ROOT / "run" / "serve.yaml").read_text())
        config["proxy_location"] = "HeadOnly"  # every node is this machine, and has its ports
        config["http_options"]["port"] = self.port
        (served,) = config["applications"]
        environ = {"ENGINE_MAX_BATCH": str(max_batch), "ENGINE_QUEUE": "1"}
        served["runtime_env"] = {"env_vars": environ}
        (deployment,) = served["deployments"]
        deployment["num_replicas"] = replicas
        deployment["max_queued_requests"] = 4 * max_batch * replicas
        deployment["user_config"] = {"bundle": bundle, "revision": revision}
        if build is not None:
            served["import_path"] = f"{__name__}:application"
            served["args"] = {"build": base64.b64encode(pickle.dumps(build)).decode()}
        if import_path is not None:
            served["import_path"] = import_path
        return config


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are different, and free for the moment."""
    with ExitStack() as opened:
        found = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in found]


@contextmanager
def cluster(*, cores: int = 2) -> Iterator[Cluster]:
    """A Ray on loopback, which takes a token; the environment says what Ray's commands need."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: uv sync --extra cluster")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    before = dict(os.environ)
    for name, text in (("token", "0" * 64), ("key", KEY)):
        (folder / name).write_text(text)
    os.environ.update({k: v for k, v in dotenv_values(ROOT / "run" / "ray.env").items() if v})
    os.environ.update(
        PYTHONPATH=str(ROOT),
        RAY_AUTH_TOKEN_PATH=str(folder / "token"),
        ENGINE_API_KEY_FILE=str(folder / "key"),
    )
    os.environ.pop("ENGINE_BUNDLE", None)
    try:
        with warnings.catch_warnings():
            # Of Ray's own making, when its module is imported for the first time.
            warnings.filterwarnings("ignore", "Using extra keyword arguments", module="ray.serve")
            import ray.serve  # noqa: F401
        found = Cluster(folder, cores)
        try:
            yield found
        finally:
            found.stop()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def load(
    ask: Callable[[], Awaitable[Analysis]], clients: int = 8
) -> AsyncIterator[SimpleNamespace]:
    """Clients that ask one photo after another, and what they got: bundles and faults, counted."""
    seen = SimpleNamespace(answers=Counter(), faults=Counter(), slowest_s=0.0, last=None)
    going_on = True

    async def client() -> None:
        while going_on:
            started = time.monotonic()
            try:
                seen.last = (await ask()).bundle
                seen.answers[seen.last] += 1
            except EngineError as error:
                seen.faults[error.code] += 1
            seen.slowest_s = max(seen.slowest_s, time.monotonic() - started)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        yield seen
    finally:
        going_on = False
        await asyncio.gather(*tasks)


async def until(condition: Callable[[], bool], patience_s: float = 60.0) -> None:
    """Look until it is so; the cluster tells nobody when it is."""
    async with asyncio.timeout(patience_s):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
