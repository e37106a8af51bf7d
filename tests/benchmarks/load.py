"""Asks an engine for analyses from a process of its own, and writes down what became of each.

`tests.benchmarks.served.Load` starts it: a plan as JSON comes in on stdin, records as JSON go out
on stdout. The engine is behind HTTP, or embedded in this very process. Closed loop: so many clients
ask, wait for the answer, and ask again; one that is refused comes back when it was told to. Open
loop: photos arrive at random at a given rate, whatever becomes of the earlier ones. Every answer is
held against what an idle engine said about the same photo.
"""

import asyncio
import json
import random
import resource
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

MOST_OPEN = 4000
"""Requests at a time in an open loop; beyond these the generator itself would be measured."""

OVERTIME_S = 5.0


class OverHttp:
    """One photo to one outcome, as (code, retry after, bundle, names)."""

    def __init__(self, session, plan):
        self._session = session
        self._url = plan["url"]
        self._timeout_s = plan["timeout_s"]
        self._headers = {"X-Timeout-Ms": str(round(1000 * plan["timeout_s"]))}

    @classmethod
    @asynccontextmanager
    async def open(cls, plan):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield cls(session, plan)

    async def ask(self, photo):
        limit = aiohttp.ClientTimeout(self._timeout_s + OVERTIME_S)
        try:
            async with self._session.post(
                self._url, data=photo, headers=self._headers, timeout=limit
            ) as response:
                answer = await response.json(content_type=None)
                if response.status == 200:
                    return "ok", None, answer.get("bundle"), names(answer)
                return answer["code"], answer.get("retry_after_s"), None, None
        except aiohttp.ClientConnectorError:
            return "not_connected", None, None, None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return f"lost: {type(error).__name__}", None, None, None


class Embedded:
    """The same without a network between."""

    def __init__(self, engine, plan):
        self._engine = engine
        self._timeout_s = plan["timeout_s"]

    @classmethod
    @asynccontextmanager
    async def open(cls, plan):
        from engine.client import EmbeddedEngine
        from engine.settings import Settings

        settings = Settings(**plan["settings"])
        async with await EmbeddedEngine.open(settings) as engine:
            yield cls(engine, plan)

    async def ask(self, photo):
        from engine.errors import EngineError
        from engine.wire import write_analysis

        try:
            deadline_s = asyncio.get_running_loop().time() + self._timeout_s
            found = await self._engine.analyze(photo, deadline_s=deadline_s)
        except EngineError as error:
            return error.code, getattr(error, "retry_after_s", None), None, None
        return "ok", None, found.bundle, names(json.loads(write_analysis(found)))


def names(answer):
    """Whom each face resembles most, in an order that does not depend on chance."""
    faces = answer["faces"]
    return sorted(face["matches"][0]["name"] for face in faces) if isinstance(faces, list) else None


class Book:
    """What became of every request."""

    def __init__(self, plan):
        self.records = []
        self._expected = plan.get("expected") or {}

    def note(self, started, code, bundle, found, photo, late_s):
        record = {"at": started, "took": time.monotonic() - started, "code": code, "late": late_s}
        if code == "ok":
            # Of a bundle that nobody announced, everything is wrong.
            known = self._expected.get(bundle, {})
            record["wrong"] = bool(self._expected) and found != known.get(str(photo))
            record["bundle"] = bundle
        self.records.append(record)


async def one(way, plan, book, photos, number, chance, late_s=0.0):
    """One request; returns what the client is told to wait."""
    photo = number % len(photos)
    started = time.monotonic()
    patience_s = None
    if chance.random() < plan["abandon_share"]:
        patience_s = chance.uniform(0, plan["abandon_within_s"])
    try:
        async with asyncio.timeout(patience_s):
            code, retry_after_s, bundle, found = await way.ask(photos[photo])
    except TimeoutError:
        book.note(started, "abandoned", None, None, photo, late_s)
        return 0.0
    book.note(started, code, bundle, found, photo, late_s)
    if code == "ok":
        return 0.0
    return retry_after_s or 0.05


async def closed(way, plan, book, photos):
    end = time.monotonic() + plan["duration_s"]

    async def client(index):
        chance, number = random.Random(index), index * 7
        while time.monotonic() < end:
            rest_s = await one(way, plan, book, photos, number, chance)
            number += 1
            await asyncio.sleep(max(0.0, min(rest_s, end - time.monotonic())))

    await asyncio.gather(*map(client, range(plan["clients"])))


async def open_loop(way, plan, book, photos):
    chance, number, running = random.Random(0), 0, set()
    due = time.monotonic()
    end = due + plan["duration_s"]
    while (due := due + chance.expovariate(plan["rate"])) < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        late_s = time.monotonic() - due
        if len(running) >= MOST_OPEN:
            book.note(time.monotonic(), "not_sent", None, None, 0, late_s)
            continue
        task = asyncio.create_task(one(way, plan, book, photos, number, chance, late_s))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
    await asyncio.gather(*running)


async def main():
    plan = {"abandon_share": 0.0, "abandon_within_s": 0.0} | json.loads(sys.stdin.read())
    photos = [await asyncio.to_thread(Path(path).read_bytes) for path in plan["photos"]]
    book = Book(plan)
    kind = OverHttp if plan["url"] else Embedded
    async with kind.open(plan) as way:
        if plan["warm_up"]:  # all at once, so that batches have been as large as they become
            await asyncio.gather(*map(way.ask, photos))
        usage, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        await (open_loop if plan.get("rate") else closed)(way, plan, book, photos)
        after, spent = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
    busy = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    result = {
        "began": started,
        "duration_s": plan["duration_s"],
        "generator_cores": busy / spent,
        "resident_mib": after.ru_maxrss / 1024,
        "records": book.records,
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
