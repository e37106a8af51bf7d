"""A real Ray of several processes on this machine, and an engine that is fast enough to kill often.

Replicas import this module by its name.
"""

import asyncio
import importlib.util
import os
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.cluster import local_ray
from engine.errors import BundleError, EngineError
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Person

BROKEN = "broken"
_OBJECT_STORE_BYTES = 80_000_000


class Glance:
    """Sees nobody, in the time that a batch takes, and says by which bundle."""

    def __init__(self, bundle: str, batch_s: float = 0.02) -> None:
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
    return Glance(settings.engine_bundle)


def gaze(settings: Settings) -> Glance:
    """As slow as a small device, so that Ray's own work is little beside it."""
    return Glance(settings.engine_bundle, 0.2)


class Nodes:
    """A head without cores, and workers that can be killed and added.

    Args:
        folder: for Ray's token.
        cores: of each worker.
    """

    def __init__(self, folder: Path, cores: int) -> None:
        from ray.cluster_utils import Cluster

        self._cores = cores
        # Its own hooks at exit take this process' signals, and may be set in its main thread only.
        self._cluster = Cluster(shutdown_at_exit=False)
        self.head = self._start(0)
        self.workers = [self.add(), self.add()]
        self.address = self._cluster.address

    def add(self) -> object:
        return self._start(self._cores)

    def kill(self, node: object) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()

    def _start(self, cores: int) -> object:
        return self._cluster.add_node(
            node_ip_address="127.0.0.1",
            num_cpus=cores,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
        )


@contextmanager
def cluster(folder: Path, port: int, *, cores: int = 2) -> Iterator[Nodes]:
    """Two workers and a door on loopback; this process is their driver."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: uv sync --extra cluster")
    before = dict(os.environ)
    (folder / "token").write_text("0" * 64)
    os.environ.update(local_ray.environment(folder))
    import ray

    with warnings.catch_warnings():
        # Of Ray's own making, when its module is imported for the first time.
        warnings.filterwarnings("ignore", "Using extra keyword arguments", module="ray.serve")
        from ray import serve

    try:
        nodes = Nodes(folder, cores)
        try:
            ray.init(nodes.address, log_to_driver=False, configure_logging=False)
            serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
            yield nodes
            serve.shutdown()
        finally:
            ray.shutdown()
            nodes.stop()
    finally:
        os.environ.clear()
        os.environ.update(before)


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


def replicas() -> list[str]:
    """The names of the actors that are replicas of the engine, old ones and new ones."""
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    return [a["name"] for a in named if a["name"].startswith("SERVE_REPLICA::engine#")]


def kill_replica(name: str) -> None:
    import ray

    ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)


async def until(condition: Callable[[], bool], patience_s: float = 40.0) -> None:
    """Look until it is so; the cluster tells nobody when it is."""
    async with asyncio.timeout(patience_s):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
