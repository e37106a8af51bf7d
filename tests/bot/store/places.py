"""What the store's tests share: a clock that stands still, databases, people who enroll."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.store import (
    Attempt,
    Barred,
    Enrolment,
    Flow,
    FlowKind,
    Keyring,
    Level,
    Retention,
    Right,
    Store,
    Vault,
)

ANA, BEN = 5_812_345_678, 7_000_000_001
EMBEDDER = "dlib-resnet29"
CODE = "7ZQ4K-0M3XW-9P2RD-5V8TA"
NORMAL = Retention()


@dataclass
class Clock:
    """The time, which goes on only when it is told to."""

    now: datetime = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@dataclass
class Place:
    """A database that stores can be opened on, one after the other or at the same time."""

    folder: Path
    address: Path | str
    clock: Clock = field(default_factory=Clock)
    ids_key: bytes = b"i" * 32
    keyring: Keyring | None = field(default_factory=lambda: Keyring({"first": b"1" * 32}))

    @property
    def is_sqlite(self) -> bool:
        return isinstance(self.address, Path)

    @property
    def path(self) -> Path:
        assert isinstance(self.address, Path)
        return self.address

    @property
    def vault(self) -> Vault:
        return Vault(self.ids_key, self.keyring)

    @property
    def tombstones(self) -> Path:
        return self.folder / "bot.db.tombstones"

    def store(self, **options: Any) -> Store:
        return Store(
            self.address,
            self.vault,
            clock=self.clock,
            tombstones=self.tombstones,
            **{"updates_kept": 100, **options},
        )

    async def sql(self, statement: str) -> list[Any]:
        """What an intruder with the database, and nothing else, can do."""
        if not self.is_sqlite:
            return await postgresql_sql(str(self.address), statement)
        return await asyncio.to_thread(_sqlite_sql, self.path, statement)


def _sqlite_sql(path: Path, statement: str) -> list[Any]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        return connection.execute(statement).fetchall()


async def postgresql_sql(url: str, statement: str) -> list[Any]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def on_postgresql(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return url.rpartition("/")[0] + "/" + name


def vectors(count: int = 3, dimension: int = 128, *, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors of nobody."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def enrolment(
    given: NDArray[np.float32] | None = None,
    *,
    recovery_code: str | None = None,
    right: Right = Right.VIDEO,
) -> Enrolment:
    """Of somebody who may replace a face that is there, unless a test says otherwise."""
    return Enrolment(
        embedder=EMBEDDER,
        vectors=vectors() if given is None else given,
        consent="2026-11",
        recovery_code=recovery_code,
        language="es",
        right=right,
    )


CODED = enrolment(recovery_code=CODE)


async def enroll(store: Store, person: int = ANA, given: Enrolment | None = None) -> None:
    flow = await store.begin_flow(person, FlowKind.ENROLL, {"captures": []}, lifetime_s=60)
    assert await store.enroll(flow, enrolment() if given is None else given)


async def name_contact(store: Store, contact: int = BEN, person: int = ANA) -> str:
    """Have an account confirm that it is a person's contact; returns the link's code."""
    code = await store.invite_contact(person)
    assert code is not None
    assert await store.open_invitation(code, contact) == person
    assert await store.answer_invitation(code, contact, "en") == person
    return code


async def challenged(
    store: Store, person: int = ANA, level: Level = "video", *, lifetime_s: float = 60
) -> tuple[Flow, bytes]:
    """A flow of a verification, and its challenge's nonce."""
    nonce = await store.new_challenge(person, level, "side up", lifetime_s=lifetime_s)
    flow = await store.begin_flow(person, FlowKind.VERIFY, {}, lifetime_s=lifetime_s)
    return flow, nonce


async def begin(store: Store, person: int = ANA, level: Level = "video") -> Attempt | Barred:
    flow, nonce = await challenged(store, person, level)
    return await store.begin_attempt(flow, level, nonce)


async def finish(store: Store, attempt: Attempt | Barred, *, passed: bool) -> None:
    assert isinstance(attempt, Attempt), attempt
    reason = "match" if passed else "no_match"
    await store.finish_attempt(attempt, passed=passed, reason=reason, version="v1", bucket=3)


async def fail(store: Store, person: int = ANA, times: int = 1) -> None:
    for _ in range(times):
        await finish(store, await begin(store, person), passed=False)


def everything(folder: Path) -> bytes:
    """All bytes of all files."""
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
