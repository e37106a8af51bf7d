"""What the engine on Ray costs, and what its users see when parts of it are killed or replaced.

    uv run python -m tests.benchmarks.cluster [--real ../shared/data/photos] [--seconds 5]

A real Ray on this machine: a head with the door, and two simulated workers with room for a replica
each. By default the engines see nobody and take 200 ms for a batch of 8, without using a core, so
that Ray is what is measured and two replicas can be twice as fast as one on any machine; `--real`
has them see with the default bundle, on cores that they share. Each fault is met twice under the
same load: by clients that forgive nothing and by RemoteEngine's retries. Processor time is counted
by process, so that busy neighbours do not count.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from engine.cluster.plan import Plan, Shape
from engine.remote.client import Patience, RemoteEngine
from engine.service.serving import build_rehearsed
from engine.settings import Settings
from tests.engine import rays
from tests.engine.cluster.test_deployment import PHOTO, free_port

BATCH = 8
PATIENCE_S = 120
WITHOUT_RETRIES = Patience(retries=0)
# By what Ray's processes call themselves.
ROLES = {"ray::ProxyActor": "proxy", "ray::ServeReplica": "replicas"}


class Bench:
    """One cluster under measurement."""

    def __init__(self, nodes, url, photos, build, seconds, clients):
        self.nodes, self.url, self.build = nodes, url, build
        self.photos, self.turn = photos, 0
        self.seconds, self.clients = seconds, clients
        self.bundle = "celebrities"

    async def deploy(self, replicas, bundle=None):
        from engine.cluster.rollout import deploy, state

        self.bundle = bundle or self.bundle
        shape = Shape(
            bundle=self.bundle,
            min_replicas=replicas,
            max_replicas=replicas,
            cpus=1,
            public=False,
        )
        settings = Settings(engine_max_batch=BATCH, engine_device="cpu")
        plan = Plan.of(shape, settings)
        if bundle is None:
            plan = plan.after((await asyncio.to_thread(state)).plan)
        await asyncio.to_thread(deploy, plan, build=self.build)

    def photo(self):
        self.turn += 1
        return self.photos[self.turn % len(self.photos)]

    async def throughput(self, replicas):
        await self.deploy(replicas)
        async with (
            RemoteEngine(self.url) as engine,
            rays.load(lambda: engine.analyze(self.photo()), self.clients) as seen,
        ):
            await asyncio.sleep(1)  # batches find their size
            before, spent, started = sum(seen.answers.values()), processor_s(), time.monotonic()
            await asyncio.sleep(self.seconds)
            done = sum(seen.answers.values()) - before
            took = time.monotonic() - started
            after = processor_s()
        cost = {role: 1000 * (after[role] - spent[role]) / done for role in after}
        return {
            "replicas": replicas,
            "photos_per_s": round(done / took, 1),
            "core_ms_per_photo": {role: round(value, 2) for role, value in cost.items()},
            "errors": dict(seen.faults),
        }

    async def fault(self, name, cause):
        """The same fault met by both kinds of clients at once, who share the load."""
        rows = []
        async with (
            RemoteEngine(self.url, patience=WITHOUT_RETRIES) as strict,
            RemoteEngine(self.url) as patient,
            rays.load(lambda: strict.analyze(self.photo()), self.clients // 2) as first,
            rays.load(lambda: patient.analyze(self.photo()), self.clients // 2) as second,
        ):
            await asyncio.sleep(1)
            started = time.monotonic()
            await cause()
            healed_s = time.monotonic() - started
            await asyncio.sleep(1)
        for clients, seen in (("no retries", first), ("retries", second)):
            rows.append(
                {
                    "fault": name,
                    "clients": clients,
                    "answers": sum(seen.answers.values()),
                    "errors": sum(seen.faults.values()),
                    "codes": dict(seen.faults),
                    "bundles": sorted(seen.answers),
                    "slowest_s": round(seen.slowest_s, 2),
                    "healed_s": round(healed_s, 1),
                }
            )
        return rows

    async def kill_replica(self):
        killed = rays.replicas()[0]
        rays.kill_replica(killed)
        await self.healed({killed})

    async def kill_node(self):
        """The other replica serves alone, because the other node has no room for a second one."""
        before = set(rays.replicas())
        await asyncio.to_thread(self.nodes.kill, self.nodes.workers.pop(0))
        await rays.until(lambda: len(before & set(rays.replicas())) == 1, PATIENCE_S)

    async def add_node(self):
        self.nodes.workers.append(await asyncio.to_thread(self.nodes.add))
        await self.healed(set())

    async def roll_out(self):
        await self.deploy(2, "others" if self.build is rays.gaze else self.bundle)

    async def healed(self, lost):
        def now():
            found = set(rays.replicas())
            return len(found) == 2 and not found & lost and running() == 2

        await rays.until(now, PATIENCE_S)


def running():
    from engine.cluster.rollout import state

    return state(ask=False).replicas.get("RUNNING", 0)


def processor_s():
    """Seconds of processor time by role, of everything that this process has started."""
    spent = Counter(proxy=0.0, replicas=0.0, rest_of_ray=0.0)
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        role = next((r for start, r in ROLES.items() if title.startswith(start)), "rest_of_ray")
        spent[role] += times.user + times.system
    return spent


async def measure(bench):
    throughput = [await bench.throughput(replicas) for replicas in (1, 2)]
    faults = []
    for name, cause in (
        ("a replica is killed", bench.kill_replica),
        ("a node is killed", bench.kill_node),
        ("a node is added", bench.add_node),
        ("a new bundle is rolled out", bench.roll_out),
    ):
        if cause == bench.roll_out:  # it wants room for one more
            bench.nodes.workers.append(await asyncio.to_thread(bench.nodes.add))
        faults += await bench.fault(name, cause)
    return {
        "clients": bench.clients,
        "throughput": throughput,
        "second_replica_factor": round(
            throughput[1]["photos_per_s"] / throughput[0]["photos_per_s"], 2
        ),
        "faults": faults,
    }


def show(result):
    console = Console()
    table = Table("replicas", "photos/s", "proxy", "replicas", "rest of Ray", "errors")
    table.title = "Throughput; core ms a photo"
    for row in result["throughput"]:
        cost = [str(value) for value in row["core_ms_per_photo"].values()]
        table.add_row(
            str(row["replicas"]), str(row["photos_per_s"]), *cost, str(sum(row["errors"].values()))
        )
    console.print(table)
    columns = ("fault", "clients", "answers", "errors", "codes", "slowest_s", "healed_s")
    table = Table(*columns, title=f"Faults under load, {result['clients'] // 2} clients of each")
    for row in result["faults"]:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)


def read(folder):
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:64]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--real", type=Path, metavar="PHOTOS")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    photos = read(arguments.real) if arguments.real else [PHOTO]
    build = build_rehearsed if arguments.real else rays.gaze
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        rays.cluster(Path(folder), port, cores=1) as nodes,
    ):
        bench = Bench(
            nodes,
            f"http://127.0.0.1:{port}",
            photos,
            build,
            arguments.seconds,
            arguments.clients,
        )
        result = asyncio.run(measure(bench))
    show(result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
