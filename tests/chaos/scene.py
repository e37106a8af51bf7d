"""A run: people, a bot and what goes wrong, as a plan has it, and what came of it.

Carries the plan out; what is right and wrong is `tests.chaos.book`'s to say.
"""

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bot.sandbox import Fault, FaultKind, Person, Rates, Sandbox
from bot.sandbox.client import message_from
from bot.sandbox.errors import UserError
from bot.sandbox.webhook import webhook_at
from bot.sandbox.world import PrivateChat
from bot.store import add_key
from tests.bot import fakes
from tests.bot.store.places import on_postgresql, postgresql_sql
from tests.bot.store.proxies import Proxy, proxied
from tests.chaos.book import Book, Line, Suffered, Verdict
from tests.chaos.bots import Bots, clock_library
from tests.chaos.engine import Device, an_engine
from tests.chaos.plan import CALM, Act, Event, Pace, Trouble, draw

Mode = Literal["polling", "webhook"]

_ALBUM_S = 1.5
_STOP_S = 9.0
_HANGS_S = 40.0
"""After how long a bot that was told to stop counts as hanging; generous for a loaded machine."""
_START_S = 120.0
_PROBE_S = 0.5
_SLOW_S = 0.3
_WAITS_S = 13.0  # that the bot waits for its database, at most
_MANY = 1.5  # who wait for one core
_TELLS_S = 90.0  # within which a fault leaves its line
_PHOTOS = 12
_ENGLISH = ("ben", "dan", "flo")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a bot may hold more at its last calm moment than at its first.

    Attributes:
        rss_bytes: resident memory.
        threads: of the process.
        descriptors: open files and connections.
        tasks: of asyncio.
    """

    rss_bytes: int = 48 * 2**20
    threads: int = 8
    descriptors: int = 16
    tasks: int = 4


@dataclass
class Result:
    """What a run came to.

    Attributes:
        summary: fit for JSON.
        violations: one sentence each; none where all is right.
    """

    summary: dict[str, Any]
    violations: list[str]


@dataclass
class Scene:
    """Everything that a run needs, as long as `entered` lasts."""

    folder: Path
    pace: Pace
    seed: int
    mode: Mode
    sandbox: Sandbox
    people: list[Person]
    accounts: list[PrivateChat]
    bots: Bots
    book: Book
    device: Device
    engine_way: Proxy
    database_way: Proxy | None
    began_s: float
    journal: Callable[..., None]
    under_way: set[asyncio.Task[None]] = field(default_factory=set)
    windows: list[tuple[Trouble, float, float]] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    samples: list[dict[str, Any]] = field(default_factory=list)
    slow: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def now(self) -> float:
        return time.monotonic() - self.began_s

    # The plan

    async def play(self) -> Result:
        """Carry the plan out and judge; the bot is stopped at the end."""
        probing = asyncio.create_task(self._probe(), name="probe")
        self.bots.start()
        async with asyncio.timeout(_START_S):
            await self.bots.started()
        await self._warm_up()
        stood_s, base_s = 0.0, self.now()
        for event in draw(self.seed, self.pace):
            await asyncio.sleep(max(0.0, base_s + stood_s + event.at_s - self.now()))
            self.journal("planned", **event.fields())
            if event.what == CALM:
                begun_s = self.now()
                await self._calm()
                stood_s += self.now() - begun_s
            elif event.who is not None:
                self._spawn(self._act(event))
            else:
                self._spawn(self._trouble(event))
        await self._calm()
        pending = self.book.world.inbox.pending_count
        await self.bots.close()
        probing.cancel()
        verdict = self.book.judge(_ALBUM_S)
        if pending:
            verdict.violations.append(f"{pending} updates were not fetched in the end")
        return self._result(verdict)

    async def _warm_up(self) -> None:
        """Have everything used once, so that what is made at the first use is there."""
        for number, person in enumerate(self.people):
            await person.send_text("/start")
            await person.send_photo(fakes.picture(number % _PHOTOS))
        await self._calm()

    async def _probe(self) -> None:
        """Note when the machine is slow: little takes long, or many wait for its cores."""
        file = self.folder / "probe"
        many = _MANY * (os.cpu_count() or 1)
        while True:
            begun_s = self.now()
            await asyncio.sleep(_PROBE_S)
            await asyncio.to_thread(_write_through, file)
            if self.now() - begun_s > _PROBE_S + _SLOW_S or os.getloadavg()[0] > many:
                self.slow.append(self.now())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self.broken.append(f"the run itself failed: {fault!r}")

    async def _calm(self) -> None:
        """Lift everything, wait until all is answered, and look at the bot."""
        self.book.world.faults.clear()
        for task in tuple(self.under_way):
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)
        patience_s = self.now() + 2 * self.pace.throttled_s + 4 * self.pace.answer_s + _START_S
        while self.now() < patience_s:
            if self.bots.serves and not self.book.waiting():
                break
            await asyncio.sleep(0.2)
        await asyncio.sleep(self.pace.quiet_s)
        if self.bots.serves:
            sample = await self.bots.sample()
            self.samples.append(sample)
            self.journal("calm", **sample)
        else:
            self.bots.problems.append(f"no bot ran at {self.now():.1f} s, though all was lifted")

    # People

    async def _act(self, event: Event) -> None:
        assert event.who is not None
        person, account = self.people[event.who], self.accounts[event.who]
        try:
            await self._do(Act(event.what), person, account, event.values)
        except UserError as error:  # what was to be edited or pressed is gone
            self.journal("not_done", act=event.what, who=event.who, why=error.code)

    async def _do(
        self, act: Act, person: Person, account: PrivateChat, values: Mapping[str, Any]
    ) -> None:
        pick = values.get("pick", 0)
        photo = fakes.picture(pick % _PHOTOS)
        match act:
            case Act.PHOTO:
                await person.send_photo(photo)
            case Act.PICTURE_FILE:
                png = fakes.picture(pick % _PHOTOS, form="PNG")
                await person.send_document(png, name="photo.png", mime_type="image/png")
            case Act.OTHER_FILE:
                await person.send_document(b"words", name="words.jpg", mime_type="image/jpeg")
            case Act.ALBUM:
                photos = [fakes.picture((pick + i) % _PHOTOS) for i in range(values["count"])]
                await person.send_album(photos)
            case Act.TEXT:
                await person.send_text(f"words {pick}")
            case Act.COMMAND:
                await person.send_text(values["text"])
            case Act.OTHER:
                await person.send_other(values["kind"])
            case Act.BURST:
                for number in range(values["count"]):
                    if values["photos"]:
                        await person.send_photo(fakes.picture(number % _PHOTOS))
                    else:
                        await person.send_text(f"burst {number}")
            case Act.EDIT_TEXT:
                if message := self._own(account, "text", pick):
                    await person.edit(message_from(message), f"other words {pick}")
            case Act.EDIT_PHOTO:
                if message := self._own(account, "photo", pick):
                    await person.edit_photo(message_from(message), photo)
            case Act.PRESS:
                await self._press(person, account, pick)

    @staticmethod
    def _own(account: PrivateChat, kind: str, pick: int) -> dict[str, Any] | None:
        """One of the person's last messages of a kind; none of an album, none that was edited."""
        found = [
            message
            for message in account.messages.values()
            if not message["from"]["is_bot"] and kind in message and "edit_date" not in message
        ]
        found = [message for message in found[-8:] if "media_group_id" not in message]
        return found[pick % len(found)] if found else None

    @staticmethod
    async def _press(person: Person, account: PrivateChat, pick: int) -> None:
        found = [
            (message["message_id"], button["callback_data"])
            for message in list(account.messages.values())[-20:]
            for row in message.get("reply_markup", {}).get("inline_keyboard", ())
            for button in row
            if "callback_data" in button
        ]
        if found:
            message_id, data = found[pick % len(found)]
            pressed = {"message_id": message_id, "data": data}
            await person._ask("POST", f"/api/people/{person.name}/presses", json=pressed)

    # What goes wrong

    async def _trouble(self, event: Event) -> None:
        trouble, values = Trouble(event.what), dict(event.values)
        if trouble.value in set(FaultKind):
            fault = Fault(FaultKind(trouble.value), **values)
            self.book.world.faults.add(fault)
            return
        for_s = values.pop("for_s", 0.0)
        begun_s = self.now()
        try:
            match trouble:
                case Trouble.KILL:
                    values["done"] = self.bots.kill(for_s)
                case Trouble.STOP:
                    values["done"] = self.bots.stop(for_s)
                case Trouble.WEBHOOK_TAKEN:
                    await self._take_webhook(values["deleted"])
                case Trouble.CLOCK_JUMP:
                    await self._jump(values["shift_s"], for_s)
                case Trouble.ENGINE_HANGS:
                    await self._between(self.device.hold, self.device.go_on, for_s)
                case Trouble.ENGINE_SILENT:
                    way = self.engine_way
                    await self._between(way.silence, way.speak, for_s)
                case Trouble.DATABASE_STALLS:
                    await self._stall(for_s)
        finally:
            self.windows.append((trouble, begun_s, self.now()))
            self.journal("over", what=trouble, begun_s=round(begun_s, 2), **values)

    @staticmethod
    async def _between(
        begin: Callable[[], object], end: Callable[[], object], for_s: float
    ) -> None:
        begin()
        try:
            await asyncio.sleep(for_s)
        finally:
            end()

    async def _jump(self, shift_s: float, for_s: float) -> None:
        if clock_library() is None:
            self.left_out.add("clock_jump: needs libfaketime (Debian: faketime)")
            return
        shift = self.bots.shift_clock
        await self._between(lambda: shift(shift_s), lambda: shift(0), for_s)

    async def _take_webhook(self, deleted: bool) -> None:
        """Somebody else with the token sets a webhook that leads nowhere, or removes the bot's."""
        inbox = self.book.world.inbox
        if deleted and self.mode == "webhook":
            inbox.set_webhook(None)
            return
        nowhere = await webhook_at(f"http://127.0.0.1:{fakes.free_port()}/", fakes.ANY_PORT)
        inbox.set_webhook(nowhere)

    async def _stall(self, for_s: float) -> None:
        if self.database_way is not None:
            way = self.database_way
            await self._between(way.silence, way.speak, for_s)
            return
        file = self.folder / "bot.db"
        try:
            lock = await asyncio.to_thread(_locked, file)
        except sqlite3.OperationalError:  # another stall, or the bot's own long transaction
            return
        await self._between(lambda: None, lock.close, for_s)

    # What came of it

    def _result(self, verdict: Verdict) -> Result:
        violations = [
            *verdict.violations,
            *self.broken,
            *self.bots.problems,
            *self._ended_by_themselves(),
            *self._unexplained(),
            *self._without_line(),
            *self._grown(),
        ]
        asked = [update for update in self.book.updates.values() if update.asks]
        outcomes = Counter(
            outcome for found in self.book.outcomes.values() for _, _, outcome in found
        )
        summary = {
            "seed": self.seed,
            "mode": self.mode,
            "database": "sqlite" if self.database_way is None else "postgresql",
            "length_s": round(self.now(), 1),
            "updates": len(self.book.updates),
            "of_them_to_be_answered": len(asked),
            "silence_by_design": _silence(self.book),
            "answers": sum(map(len, self.book.said.values())),
            "outcomes": dict(outcomes.most_common()),
            "unanswered": dict(verdict.unanswered.most_common()),
            "twice": dict(verdict.twice.most_common()),
            "faults_met": dict(
                Counter(one.fault.kind.value for one in self.book.suffered).most_common()
            ),
            "troubles": dict(Counter(one.value for one, _, _ in self.windows).most_common()),
            "processes": [[life.number, life.ending] for life in self.book.lives],
            "slow_moments_of_the_machine": len(self.slow),
            "samples": self.samples,
            "left_out": sorted(self.left_out),
            "violations": violations,
        }
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1))
        return Result(summary, violations)

    def _ended_by_themselves(self) -> Iterable[str]:
        """Processes that ended by themselves, but for those that say what was away, and it was.

        A bot ends where it cannot reach Telegram or the database at its start, or where it cannot
        be sure that no other one serves.
        """
        for life in self.book.lives:
            if life.ending in ("kill", "stop") or life.ended_s is None:
                continue
            met = any(
                one.process == life.number and one.at_s > life.ended_s - _TELLS_S
                for one in self.book.suffered
            )
            away = met or self._was(Trouble.DATABASE_STALLS, life.ended_s)
            if life.ending != "1" or not away or not _AWAY.search(life.last_words):
                yield (
                    f"process {life.number} ended by itself with {life.ending} at "
                    f"{life.ended_s:.1f} s: {life.last_words}"
                )

    def _unexplained(self) -> Iterable[str]:
        """Tracebacks in the log that no fault of that time explains."""
        for line in self.book.lines:
            if "Traceback (most recent call last)" in line.text and not self._explained(line):
                yield f"a traceback that nothing explains, at {line.at_s:.1f} s: {line.text}"

    def _explained(self, line: Line) -> bool:
        last = line.text.rstrip().splitlines()[-1]
        if re.match(r"bot\.store\.errors\.StoreError|bot\.standby\.LeaseLost", last):
            return self._was(Trouble.DATABASE_STALLS, line.at_s) or (
                _HASTY.search(last) is not None and self._was_slow(line.at_s)
            )
        if last.startswith("telegram.error.") or "could not be turned away" in line.text:
            since_s = line.at_s - 3 * self.pace.answer_s
            return any(
                one.at_s <= line.at_s and one.at_s + one.fault.retry_after_s >= since_s
                for one in self.book.suffered
            )
        if last.startswith("engine.errors."):
            return any(
                self._was(trouble, line.at_s)
                for trouble in (Trouble.ENGINE_HANGS, Trouble.ENGINE_SILENT)
            )
        return False

    def _was_slow(self, at_s: float) -> bool:
        return any(at_s - self.pace.answer_s <= one <= at_s for one in self.slow)

    def _was(self, trouble: Trouble, at_s: float) -> bool:
        """Whether a trouble was there at a time or shortly before."""
        return any(
            one is trouble and begun_s <= at_s <= ended_s + 3 * self.pace.answer_s
            for one, begun_s, ended_s in self.windows
        )

    def _without_line(self) -> Iterable[str]:
        """Faults that left no line in the log."""
        for each in self.book.suffered:
            wanted = _line_of(each)
            if wanted is None or self._cut_short(each):
                continue
            if not any(
                wanted.search(line.text)
                for line in self.book.lines
                if line.process == each.process and each.at_s <= line.at_s <= each.at_s + _TELLS_S
            ):
                yield f"a fault that left no line: {each}"
        for trouble, begun_s, ended_s in self.windows:
            if trouble is Trouble.WEBHOOK_TAKEN and not self._told(_TAKEN, begun_s, ended_s):
                yield f"a webhook taken at {begun_s:.1f} s left no line"
            stalled = trouble is Trouble.DATABASE_STALLS and self._served(
                begun_s, ended_s - _WAITS_S
            )
            if stalled and not self._told(_STALLED, begun_s, ended_s):
                yield f"a database that stalled at {begun_s:.1f} s left no line"
            jumped = trouble is Trouble.CLOCK_JUMP and ended_s - begun_s > 15
            if jumped and not self._told(_CLOCK_SET, begun_s, ended_s):
                yield f"a clock set at {begun_s:.1f} s left no line"

    def _served(self, begun_s: float, until_s: float) -> bool:
        """Whether an update was answered between two times, which has to be written down then."""
        return any(
            begun_s < at_s < until_s
            for found in self.book.outcomes.values()
            for at_s, _, _ in found
        )

    def _told(self, wanted: re.Pattern[str], begun_s: float, ended_s: float) -> bool:
        if not self._lived(begun_s, ended_s + 30):
            return True
        return any(
            wanted.search(line.text) and begun_s <= line.at_s <= ended_s + _TELLS_S
            for line in self.book.lines
        )

    def _lived(self, from_s: float, until_s: float) -> bool:
        """Whether one process ran all that time."""
        return any(
            life.began_s + 10 < from_s and (life.ended_s or self.now()) > until_s
            for life in self.book.lives
        )

    def _cut_short(self, each: Suffered) -> bool:
        """Whether the process that met a fault ended soon afterwards."""
        return any(
            life.number == each.process
            and life.ended_s is not None
            and life.ended_s <= each.at_s + 2 * self.pace.answer_s
            for life in self.book.lives
        )

    def _grown(self) -> Iterable[str]:
        """What grew from a process's first calm moment to its last beyond the bounds."""
        bounds = Bounds()
        for process in sorted({sample["process"] for sample in self.samples}):
            own = [sample for sample in self.samples if sample["process"] == process]
            for name in ("rss_bytes", "threads", "descriptors", "tasks"):
                grown = own[-1][name] - own[0][name]
                if grown > getattr(bounds, name):
                    yield (f"process {process}: {name} grew by {grown} from {own[0]} to {own[-1]}")


_TAKEN = re.compile(r"took the webhook away|getUpdates failed: Conflict|token has a webhook")
_STALLED = re.compile(r"cannot be used|did not answer within|no answer in time|not be renewed")
_HASTY = re.compile(r"too many want to write|did not answer within|TimeoutError")
_AWAY = re.compile(r"cannot be used|did not answer within|whether this bot may still serve")
_CLOCK_SET = re.compile(r"clock was set")
_ELSEWHERE = (
    r"getUpdates failed|no chat action|was not published|webhook could not be looked after|"
    r"not acknowledged|was not sent|cannot be used"
)


def _line_of(each: Suffered) -> re.Pattern[str] | None:
    """What the log says of a fault that a call met; None where it need not say anything."""
    kind, method = each.fault.kind, re.escape(each.method)
    if kind is FaultKind.SLOW:  # the milliseconds of the update's line tell
        return None
    if each.method == "download":
        return re.compile(r"retry download|a file was not fetched")
    if each.method == "getupdates":
        return re.compile(r"getUpdates failed|not acknowledged")
    if kind is FaultKind.TOO_MANY_REQUESTS:
        return re.compile(rf"throttled endpoint={method}\b|{_ELSEWHERE}", re.IGNORECASE)
    return re.compile(
        rf"retry endpoint={method}\b|{_ELSEWHERE}|could not be [st]|outcome=\w*(error|deadline)",
        re.IGNORECASE,
    )


def _silence(book: Book) -> dict[str, int]:
    """Updates that are met with silence because nobody waits for an answer, by kind."""
    return dict(
        Counter(
            "edited words" if update.kind == "edited_message" else update.kind
            for update in book.updates.values()
            if not update.asks
        )
    )


def _write_through(file: Path) -> None:
    with file.open("wb") as opened:
        opened.write(bytes(4096))
        os.fsync(opened.fileno())


def _locked(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=5, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


@asynccontextmanager
async def entered(
    folder: Path, pace: Pace, *, seed: int, mode: Mode, server: str | None = None
) -> AsyncIterator[Scene]:
    """Everything that a run needs.

    Args:
        folder: empty; database, keys, logs and the journal are put there.
        pace: see there.
        seed: of the plan.
        mode: how the bot gets its updates.
        server: URL of a PostgreSQL server, on which a database is made; None is for SQLite.
    """
    began_s = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        sandbox = Sandbox(rates=Rates(), webhooks=fakes.ANY_PORT)
        names = ("ana", "ben", "cam", "dan", "eva", "flo")[: pace.people]
        for number, name in enumerate(names[2:], 7003):
            language = "en" if name in _ENGLISH else "es"
            sandbox._world.accounts[name] = PrivateChat(name, number, name.title(), language)
        await stack.enter_async_context(sandbox)
        device, engine_way, engine_url = await stack.enter_async_context(an_engine())
        database_way, database = await stack.enter_async_context(_database(folder, server))
        key = folder / "template.keys"
        add_key(key)
        environ = {
            "BOT_TOKEN": sandbox.token,
            "TELEGRAM_API_URL": sandbox.url,
            "IDS_KEY": str(folder / "ids.key"),
            "TEMPLATE_KEYS_FILE": str(key),
            "ENGINE_URL": engine_url,
            "ANSWER_TIMEOUT_S": f"{pace.answer_s:g}",
            "ALBUM_WAIT_S": f"{_ALBUM_S:g}",
            "STOP_TIMEOUT_S": f"{_STOP_S:g}",
            "LOG_LEVEL": "debug",
            **database,
        }
        if mode == "webhook":
            port = fakes.free_port()
            environ |= {
                "WEBHOOK_URL": f"http://127.0.0.1:{port}",
                "WEBHOOK_PORT": str(port),
                "WEBHOOK_CHECK_S": "5",
            }

        def now() -> float:
            return time.monotonic() - began_s

        file = stack.enter_context((folder / "journal.jsonl").open("w"))

        def journal(event: str, **values: Any) -> None:
            file.write(json.dumps({"at_s": round(now(), 2), "event": event, **values}) + "\n")
            file.flush()

        bots = Bots(folder, environ, now=now, stop_s=_HANGS_S)
        bots.book = Book(sandbox, now, lambda: bots.number)
        stack.push_async_callback(bots.close)
        yield Scene(
            folder,
            pace,
            seed,
            mode,
            sandbox,
            [sandbox.person(name) for name in names],
            [sandbox._world.accounts[name] for name in names],
            bots,
            bots.book,
            device,
            engine_way,
            database_way,
            began_s,
            journal,
        )


@asynccontextmanager
async def _database(
    folder: Path, server: str | None
) -> AsyncIterator[tuple[Proxy | None, dict[str, str]]]:
    """Where the bot keeps things: a file, or a database behind a way that can go silent."""
    if server is None:
        yield None, {"DATABASE": str(folder / "bot.db")}
        return
    name = f"face_matcher_chaos_{os.getpid()}"
    await postgresql_sql(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await postgresql_sql(server, f"CREATE DATABASE {name}")
    try:
        async with proxied(on_postgresql(server, name)) as (way, url):
            yield way, {"DATABASE": str(folder / "bot.db"), "DATABASE_URL": url}
    finally:
        await postgresql_sql(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
