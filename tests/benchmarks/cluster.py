"""What the engine on Ray costs, and what its users see when parts of it are killed or replaced.

    uv run python -m tests.benchmarks.cluster [--real ../shared/data/photos] [--seconds 5]

A real Ray on this machine: a head with the proxy, and two workers with room for a replica each.
By default the engines see nobody and take 200 ms for a batch of 8, without using a core, so that
Ray is what is measured and two replicas can be twice as fast as one on any machine; `--real` has
them see with the default bundle, on cores that they share. Each fault is met twice under the same
load: by clients that forgive nothing and by RemoteEngine's retries. Processor time is counted by
process, so that busy neighbours do not count.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from engine.remote.client import Patience, RemoteEngine
from tests.engine import rays
from tests.engine.seers import photo

BATCH = 8
PATIENCE_S = 120
WITHOUT_RETRIES = Patience(retries=0)
# By what Ray's processes call themselves.
ROLES = {"ray::ProxyActor": "proxy", "ray::ServeReplica": "replicas"}


class Bench:
    """One cluster under measurement."""

    def __init__(self, cluster, photos, build, seconds, clients):
        self.cluster, self.build = cluster, build
        self.photos, self.turn = photos, 0
        self.seconds, self.clients = seconds, clients

    async def deploy(self, replicas, revision=1):
        config = self.cluster.configuration(
            self.build, replicas=replicas, revision=revision, max_batch=BATCH
        )
        await asyncio.to_thread(self.cluster.deploy, config)

    def engine(self, patience=None):
        return RemoteEngine(self.cluster.url, key=rays.KEY, patience=patience or Patience())

    def photo(self):
        self.turn += 1
        return self.photos[self.turn % len(self.photos)]

    async def throughput(self, replicas):
        await self.deploy(replicas)
        async with (
            self.engine() as engine,
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
            self.engine(WITHOUT_RETRIES) as strict,
            self.engine() as patient,
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
        killed = await asyncio.to_thread(self.cluster.kill_replica)
        await self.healed({killed})

    async def kill_node(self):
        """The other replica serves alone, because the other node has no room for a second one."""
        before = self.processes()
        await asyncio.to_thread(self.cluster.kill, self.cluster.workers.pop(0))
        await rays.until(lambda: len(before & self.processes()) == 1, PATIENCE_S)

    async def add_node(self):
        self.cluster.workers.append(await asyncio.to_thread(self.cluster.add))
        await self.healed(set())

    async def roll_out(self):
        await self.deploy(2, revision=2)

    async def healed(self, lost):
        await rays.until(lambda: len(self.processes() - lost) == 2, PATIENCE_S)

    def processes(self):
        return {replica["pid"] for replica in self.cluster.replicas()}


def processor_s():
    """Seconds of processor time by role, of everything that this process has started."""
    spent = {"proxy": 0.0, "replicas": 0.0, "rest_of_ray": 0.0}
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
    photos = read(arguments.real) if arguments.real else [photo()]
    build = None if arguments.real else rays.gaze
    with rays.cluster(cores=1) as cluster:
        bench = Bench(cluster, photos, build, arguments.seconds, arguments.clients)
        result = asyncio.run(measure(bench))
    show(result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
