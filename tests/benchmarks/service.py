"""The service under load, against the engine without HTTP and against the usual recipe.

    uv run python -m tests.benchmarks.service ../shared/data/photos

Closed loop at 1, 8, 32 and 128 clients and open loop at rates around the measured capacity, with
photos of mixed sizes and face counts; then four times the capacity for a minute, against 32 clients
in a closed loop just before and after. The yardsticks
are taken in turns with it: the embedded engine (the same batcher and pipeline, no HTTP), and
facenet-pytorch's README behind a plain FastAPI endpoint. The load generator is a process of its
own; how many cores it took and how late it was is told. Every answer is compared with what an idle
engine said about the same photo.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from engine import threads
from tests.benchmarks.served import (
    PEER,
    Load,
    Watch,
    expected,
    here,
    photo_files,
    serving,
    summary,
)

COLUMNS = ("per_s", "answered_ms", "refused_ms", "codes", "wrong", "lost", "generator_cores")


class Bench:
    """One run: the photos, what is right about them, and the results so far."""

    def __init__(self, arguments, scratch):
        self.photos = photo_files(here(arguments.folder), scratch, arguments.photos)
        self.settings = {"engine_device": arguments.device}
        self.expected = expected(self.settings, self.photos)
        self.seconds, self.timeout_s = arguments.seconds, arguments.timeout_s
        self.console, self.rows = Console(stderr=True, width=160), {}

    def load(self, title, url, *, right=True, seconds=None, watch=None, **plan):
        """Load something and keep the summary under a title."""
        generator = Load(
            self.photos,
            url,
            expected=self.expected if right else None,
            duration_s=seconds or self.seconds,
            timeout_s=self.timeout_s,
            settings=self.settings | {"engine_queue": 256},
            **plan,
        )
        if watch:
            with Watch(watch) as seen:
                result = generator.result()
            found = summary(result, self.timeout_s) | seen.summary()
        else:
            found = summary(generator.result(), self.timeout_s)
        self.rows.setdefault(title, []).append(found)
        self.console.print(title, found["per_s"], "a second", dict(found["codes"]))
        return found

    def per_s(self, title):
        return statistics.median(found["per_s"] for found in self.rows[title])

    def median(self, title, *keys):
        found = []
        for value in self.rows[title]:
            for key in keys:
                value = value[key]
            found.append(value)
        return statistics.median(found)


def in_turns(bench, turns):
    """The service, the embedded engine and the peer, each in its turn."""
    for _ in range(turns):
        bench.load("embedded, batches", None, clients=32)
        with serving(**bench.settings) as server:
            for clients in (1, 8, 32, 128):
                bench.load(f"closed, {clients}", server.url, clients=clients, watch=server)
        with serving(PEER) as peer:
            bench.load("recipe, 32", peer.url, right=False, clients=32, watch=peer)


def around_capacity(bench, overload_s):
    capacity = bench.per_s("closed, 32")
    with serving(**bench.settings) as server:
        for share in (0.5, 0.8, 1.2):
            bench.load(f"open, {share:g}", server.url, rate=share * capacity, watch=server)
        bench.load("before overload, 32", server.url, clients=32, watch=server)
        bench.load("overload, 4", server.url, seconds=overload_s, rate=4 * capacity, watch=server)
        bench.load("after overload, 32", server.url, clients=32, watch=server)


def verdict(bench):
    """What issue C asks for, as ratios of this run."""
    batches, at_32 = bench.per_s("embedded, batches"), bench.per_s("closed, 32")
    over = bench.rows["overload, 4"][0]
    # Just before and after: machines change their speed by more than what is looked for.
    peak = statistics.mean(bench.per_s(f"{when} overload, 32") for when in ("before", "after"))
    memory = over["resident_mib"]
    return {
        "closed_8_over_embedded": round(bench.per_s("closed, 8") / batches, 2),
        "closed_32_over_embedded": round(at_32 / batches, 2),
        "p95_at_32_over_32_by_throughput": round(
            bench.median("closed, 32", "answered_ms", "p95") / 1000 / (32 / at_32), 2
        ),
        "closed_32_over_recipe": round(at_32 / bench.per_s("recipe, 32"), 2),
        "overload": {
            "goodput_over_peak": round(over["per_s"] / peak, 2),
            "refused_ms": over["refused_ms"],
            "answered_in_time": over["answered_in_time"],
            "memory_growth_mib": memory[-1] - memory[len(memory) // 2],
            "livez_ms": over["livez_ms"],
            "readyz_ms": over["readyz_ms"],
            "checks_not_200": over["checks_not_200"],
        },
        "wrong": sum(found["wrong"] for rows in bench.rows.values() for found in rows),
        "lost": sum(found["lost"] for rows in bench.rows.values() for found in rows),
    }


def show(bench, found):
    table = Table("load", *COLUMNS)
    for title, rows in bench.rows.items():
        for row in rows:
            cells = [row[column] for column in COLUMNS]
            table.add_row(title, *(_cell(value) for value in cells))
    bench.console.print(table)
    bench.console.print_json(json.dumps(found))


def _cell(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {own:g}" for key, own in value.items())
    return "" if value is None else str(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--overload-s", type=float, default=60)
    parser.add_argument("--timeout-s", type=float, default=30, help="deadline of a request")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "auto"])
    arguments = parser.parse_args()
    threads.configure()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, Path(scratch))
        in_turns(bench, arguments.turns)
        around_capacity(bench, arguments.overload_s)
    found = verdict(bench)
    show(bench, found)
    print(json.dumps({"verdict": found, "loads": bench.rows}))


if __name__ == "__main__":
    main()
