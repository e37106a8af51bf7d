"""What callers see when things go wrong under load: nothing wrong, and nothing lost.

    uv run python -m tests.benchmarks.service_faults ../shared/data/photos

Callers who leave, SIGTERM, a new bundle every two seconds, and bundles that are broken in turn;
each under a closed loop of 16 clients. Then four callers who send files that take as long as they
are let, again and again, beside two clients with photos; SIGTERM comes while they do. An answer is
wrong if it names other people than an idle engine does with the bundle that the answer says it was
made with. A request is lost if it was sent before the service was told to stop and got no HTTP
answer at all.
"""

import argparse
import json
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.console import Console

from engine import bundle, threads
from tests.benchmarks.served import OURS, Load, Watch, expected, here, photo_files, serving, summary
from tests.engine import mutations

CLIENTS = 16
ATTACKERS = 4
SETTLED_S = 3.0
BETWEEN_S = 2.0
COMPUTED = re.compile(r"^engine_batch_photos_sum (\S+)", re.MULTILINE)


class Faults:
    """The photos, two bundles that differ in every name, and what is right by each."""

    def __init__(self, arguments, scratch):
        self.seconds = arguments.seconds
        self.files = photo_files(here(arguments.folder), scratch, arguments.photos)
        self.stem = scratch / "people"
        original = bundle.load("celebrities")
        record = original.manifest.model_dump(exclude={"format", "preprocessing", "pth_sha256"})
        renamed = {i: f"{name} (2)" for i, name in original.manifest.people.items()}
        marked = original.tensors | {"edition": torch.tensor(2)}
        self.pairs = [(record, original.tensors), (record | {"people": renamed}, marked)]
        self.settings = {"engine_device": "cpu", "engine_bundle": self.stem, "engine_watch_s": 3600}
        self.expected = {}
        for pair in reversed(self.pairs):
            bundle.save(self.stem, *pair)
            self.expected |= expected({"engine_bundle": str(self.stem)}, self.files)

    def load(self, server, **plan):
        own = {"clients": CLIENTS, "duration_s": self.seconds} | plan
        return Load(self.files, server.url, expected=self.expected, **own)

    def until(self, end, turn):
        """Do something again and again while a load lasts."""
        time.sleep(SETTLED_S)
        said = Counter()
        number = 0
        while time.monotonic() < end:
            said[turn(number)] += 1
            number += 1
            time.sleep(BETWEEN_S)
        return dict(said)


def abandoned(faults):
    """Half of the callers leave before their answer: nobody computes for them."""
    with serving(OURS, **faults.settings) as server:
        before = computed(server)
        load = faults.load(server, warm_up=False, abandon_share=0.5, abandon_within_s=1.0)
        result = load.result()
        found = kept(result)
        found["computed"] = round(computed(server) - before)
        found["after_that"] = kept(faults.load(server).result())["codes"]
    return found


def stopped(faults):
    """SIGTERM: what was accepted is answered, then it ends."""
    with serving(OURS, **faults.settings) as server:
        load = faults.load(server)
        time.sleep(faults.seconds / 2)
        told = time.monotonic()
        server.process.terminate()
        code = server.process.wait()
        ended = time.monotonic()
        result = load.result()
    earlier = [record for record in result["records"] if record["at"] < told]
    in_flight = [record for record in earlier if record["at"] + record["took"] > told]
    return kept(result | {"records": earlier}) | {
        "exit_code": code,
        "stopped_after_s": round(ended - told, 2),
        "in_flight": dict(Counter(record["code"] for record in in_flight)),
        "later": dict(Counter(r["code"] for r in result["records"] if r["at"] >= told)),
    }


def reloaded(faults):
    """The bundle is replaced by one with other names, and back, again and again."""

    def turn(number):
        bundle.save(faults.stem, *faults.pairs[(number + 1) % 2])
        return server.call("/v1/reload", "POST")[0]

    bundle.save(faults.stem, *faults.pairs[0])
    with serving(OURS, **faults.settings) as server, Watch(server) as watch:
        load = faults.load(server)
        said = faults.until(time.monotonic() + faults.seconds, turn)
        result = load.result()
    made_with = Counter(record.get("bundle") for record in result["records"])
    return kept(result) | {
        "reloads": said,
        "answers_by_bundle": dict(made_with),
        "checks_not_200": watch.unwell,
        "resident_mib": watch.summary()["resident_mib"],
    }


def broken(faults):
    """The pair is damaged in one way after the other; the old one goes on serving."""
    weights, description = (faults.stem.with_suffix(suffix) for suffix in (".pth", ".json"))
    sound = weights.read_bytes(), description.read_bytes()

    def shorten():
        weights.write_bytes(sound[0][: len(sound[0]) // 2])

    def exchange():
        shutil.copyfile(__file__, weights)

    def forget():
        description.unlink()

    def garble():
        description.write_text("{")

    ways = (shorten, exchange, forget, garble)

    def turn(number):
        weights.write_bytes(sound[0])
        description.write_bytes(sound[1])
        ways[number % len(ways)]()
        status, text = server.call("/v1/reload", "POST")
        return f"{status} {json.loads(text)['code']}" if status == 409 else str(status)

    settings = faults.settings | {"engine_watch_s": 1}
    with serving(OURS, **settings) as server, Watch(server) as watch:
        load = faults.load(server)
        said = faults.until(time.monotonic() + faults.seconds, turn)
        result = load.result()
    weights.write_bytes(sound[0])
    description.write_bytes(sound[1])
    return kept(result) | {"reloads": said, "checks_not_200": watch.unwell}


def hostile(faults):
    """Files that take long keep neither the others' answers nor the end of the service."""
    file = mutations.slow()
    over = threading.Event()

    def attack(server):
        answers = Counter()
        while not over.is_set():
            answers[server.call("/v1/analyze", "POST", file)[0]] += 1
        return answers

    settings = faults.settings | {"engine_stop_timeout_s": 9}
    with (
        serving(OURS, **settings) as server,
        Watch(server) as watch,
        ThreadPoolExecutor(ATTACKERS) as pool,
    ):
        quiet = faults.load(server, clients=2).result()
        attacks = [pool.submit(attack, server) for _ in range(ATTACKERS)]
        time.sleep(SETTLED_S)
        beside = faults.load(server, clients=2).result()
        watched = watch.summary()
        over.set()
        time.sleep(BETWEEN_S)
        last = [pool.submit(server.call, "/v1/analyze", "POST", file) for _ in range(ATTACKERS)]
        time.sleep(0.5)
        told = time.monotonic()
        server.process.terminate()
        code = server.process.wait()
        stopped_s = time.monotonic() - told
        attacked = sum((future.result() for future in attacks), Counter())
    return {
        "quiet": kept(quiet),
        "beside": kept(beside),
        "answers_to_attackers": dict(attacked),
        **watched,
        "exit_code": code,
        "stopped_after_s": round(stopped_s, 2),
        "in_flight": dict(Counter(future.result()[0] for future in last)),
    }


def kept(result):
    """Of a summary, what tells of faults."""
    found = summary(result)
    return {key: found[key] for key in ("codes", "wrong", "lost", "answered_ms")}


def computed(server):
    found = COMPUTED.search(server.call("/metrics")[1])
    return float(found[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--only", help="the name of one fault, such as `hostile`")
    arguments = parser.parse_args()
    threads.configure()
    with tempfile.TemporaryDirectory() as scratch:
        faults = Faults(arguments, Path(scratch))
        found = {}
        for fault in (abandoned, stopped, reloaded, broken, hostile):
            if arguments.only not in (None, fault.__name__):
                continue
            found[fault.__name__] = fault(faults)
            Console(stderr=True).print(fault.__name__, found[fault.__name__])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
