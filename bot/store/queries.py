"""Every question that the bot asks its database. Knows nothing about Telegram."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import delete, event, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bot.store.schema import metadata, preferences, updates
from bot.store.errors import StoreError
from bot.store.types import (
    Attempt,
    Barred,
    Enrolment,
    Flow,
    FlowKind,
    Level,
    Membership,
    Receipt,
    Templates,
    Tidied,
)
from bot.store.vault import Vault

_PRUNE_EVERY = 500


class Store:
    """The database; use it as an async context manager.

    Raises:
        StoreError: on entering, when the database cannot be used.
        sqlalchemy.exc.SQLAlchemyError: from every method, when the database fails.
    """

    def __init__(self, database: Path, vault: Vault, *, updates_kept: int) -> None:
        self._database = database
        self._vault = vault
        self._updates_kept = updates_kept
        self._until_prune = 0
        self._engine: AsyncEngine = create_async_engine(
            f"sqlite+aiosqlite:///{database}",
            hide_parameters=True,  # in faults, which are logged
        )
        event.listen(self._engine.sync_engine, "connect", _prepare)

    async def __aenter__(self) -> Self:
        try:
            self._database.parent.mkdir(parents=True, exist_ok=True)
            # Made before SQLite makes it, so that it is its owner's alone.
            os.close(os.open(self._database, os.O_CREAT | os.O_WRONLY, 0o600))
            async with self._engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
        except (OSError, DatabaseError) as error:
            await self._engine.dispose()
            reason = error.orig if isinstance(error, DatabaseError) else error
            raise StoreError(
                f"The database {self._database} cannot be used ({reason}): mend it or its "
                "permissions, or name another file in DATABASE."
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    async def language(self, telegram_id: int) -> str | None:
        """The language that a person chose, if any."""
        query = select(preferences.c.language).where(
            preferences.c.person == self._vault.code(telegram_id)
        )
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def choose_language(self, telegram_id: int, language: str) -> None:
        """Remember the language that a person chose."""
        values = {"person": self._vault.code(telegram_id), "language": language}
        statement = insert(preferences).values(values)
        statement = statement.on_conflict_do_update(set_={"language": language})
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def served_updates(self) -> tuple[int, ...]:
        """The update numbers served last, oldest first."""
        query = select(updates.c.update_id).order_by(updates.c.place)
        async with self._engine.connect() as connection:
            return tuple((await connection.execute(query)).scalars())

    async def mark_served(self, update_id: int) -> None:
        """Remember that an update was served; the oldest are forgotten now and then."""
        async with self._engine.begin() as connection:
            statement = insert(updates).values(update_id=update_id)
            await connection.execute(statement.on_conflict_do_nothing())
            if self._until_prune == 0:
                newest = select(func.max(updates.c.place)).scalar_subquery()
                old = updates.c.place <= newest - self._updates_kept
                await connection.execute(delete(updates).where(old))
        self._until_prune = (self._until_prune or _PRUNE_EVERY) - 1

    # A person's conversation

    async def begin_flow(
        self, telegram_id: int, kind: FlowKind, state: Mapping[str, Any], *, lifetime_s: float
    ) -> Flow:
        """Begin a flow, in the place of any other one of the person."""
        raise NotImplementedError

    async def flow(self, telegram_id: int) -> Flow | None:
        """The person's flow; None when there is none or its deadline is past."""
        raise NotImplementedError

    async def advance_flow(
        self, flow: Flow, state: Mapping[str, Any], *, lifetime_s: float | None = None
    ) -> Flow | None:
        """Give a flow its next state.

        Args:
            flow: as it was read.
            state: JSON-able.
            lifetime_s: seconds from now to the new deadline; None keeps the old one.

        Returns:
            The flow as it is now, or None where somebody was faster, or it has ended: nothing is
            changed then.
        """
        raise NotImplementedError

    async def end_flow(self, flow: Flow) -> bool:
        """End a flow, whatever its revision; whether it was still there."""
        raise NotImplementedError

    # A person's face

    async def membership(self, telegram_id: int) -> Membership | None:
        """How a person stands; None for who is not enrolled."""
        raise NotImplementedError

    async def enroll(self, flow: Flow, enrolment: Enrolment) -> bool:
        """Store a person's templates and consent, forget their failures, and end the flow.

        Templates that were there before are replaced, and the person gets a new data key. All of
        it happens or nothing.

        Args:
            flow: of kind `ENROLL`, as it was read.
            enrolment: what to keep.

        Returns:
            Whether it happened: False where the flow was overtaken, has ended or expired.

        Raises:
            ValueError: the vectors are not (k, d), or not finite.
        """
        raise NotImplementedError

    async def templates(self, telegram_id: int) -> Templates | None:
        """A person's templates; None for who is not enrolled."""
        raise NotImplementedError

    async def claim_capture(
        self,
        telegram_id: int,
        file_unique_id: str,
        content: bytes,
        fingerprints: Sequence[bytes] = (),
    ) -> bool:
        """Remember a photo or clip that came in, unless it came before.

        Args:
            telegram_id: who sent it.
            file_unique_id: Telegram's name for the file.
            content: its bytes.
            fingerprints: see `add_fingerprints`.

        Returns:
            False where the same file or the same bytes came before, from anybody, or nearly the
            same picture from this person.
        """
        raise NotImplementedError

    async def add_fingerprints(
        self, telegram_id: int, file_unique_id: str, fingerprints: Sequence[bytes]
    ) -> bool:
        """Remember what a claimed photo or clip looks like, unless one like it came before.

        Args:
            telegram_id: who sent it.
            file_unique_id: as it was claimed.
            fingerprints: 32 bytes each (`engine.types`): one of a photo; of a clip, those of its
                frames at equal distances in time, always the same distance.

        Returns:
            False where nearly the same picture came before from this person, or the capture was
            never claimed.
        """
        raise NotImplementedError

    # Attempts

    async def new_challenge(
        self, telegram_id: int, level: Level, steps: str, *, lifetime_s: float
    ) -> bytes:
        """Draw a challenge; older open ones of the person are spent.

        Args:
            telegram_id: who is to meet it.
            level: "photo" or "video".
            steps: what is to be done, to be had back with the attempt.
            lifetime_s: seconds until it expires.

        Returns:
            Its nonce, 16 random bytes, of which only a hash is kept.
        """
        raise NotImplementedError

    async def barred(self, telegram_id: int) -> Barred | None:
        """Why a person may not try now ("delay" or "locked"); None when they may."""
        raise NotImplementedError

    async def begin_attempt(self, flow: Flow, level: Level, nonce: bytes) -> Attempt | Barred:
        """Spend a challenge and commit an attempt, which counts as failed until it is finished.

        The flow ends. Where the answer is a `Barred`, nothing is changed.

        Args:
            flow: as it was read.
            level: of the challenge.
            nonce: of the challenge.
        """
        raise NotImplementedError

    async def finish_attempt(
        self, attempt: Attempt, *, passed: bool, reason: str, version: str, bucket: int
    ) -> None:
        """Write down how an attempt ended; nobody is to be told that they passed before it.

        Args:
            attempt: begun, and neither finished nor voided.
            passed: whether it succeeded.
            reason: a code, such as "match".
            version: of the calibration that decided.
            bucket: coarse, 0 to 9; never the score.

        Raises:
            StoreError: the attempt is not open any more, or its person was erased or enrolled anew
                in the meantime: it did not succeed then.
        """
        raise NotImplementedError

    async def void_attempt(self, attempt: Attempt, reason: str) -> None:
        """Something of ours broke: the attempt is not charged. Its challenge stays spent.

        Args:
            attempt: begun; where it is not open any more nothing happens.
            reason: a code.
        """
        raise NotImplementedError

    async def recovery_barred(self, telegram_id: int) -> Barred | None:
        """Why a person may not try a recovery code now ("delay"); None when they may."""
        raise NotImplementedError

    async def use_recovery_code(self, telegram_id: int, code: str) -> bool:
        """Spend a person's recovery code: a lock and all delays are lifted.

        Failures are counted and delayed as attempts are (see `recovery_barred`), but never lock.

        Args:
            telegram_id: who shows it.
            code: as it was typed.

        Returns:
            Whether it was right; False, too, while the person is barred from trying.
        """
        raise NotImplementedError

    async def unlock(self, telegram_id: int) -> bool:
        """Lift a person's lock and delays, on an operator's word; whether there were any."""
        raise NotImplementedError

    async def schedule_reset(self, telegram_id: int, *, delay_s: float) -> datetime:
        """Note that a person may enroll anew after a delay; returns when.

        One that was noted before keeps its time.
        """
        raise NotImplementedError

    async def reset_due(self, telegram_id: int) -> datetime | None:
        """From when a person may enroll anew, if that was noted; enrolling or cancelling ends it."""
        raise NotImplementedError

    async def cancel_reset(self, telegram_id: int) -> bool:
        """Take `schedule_reset` back; whether there was one."""
        raise NotImplementedError

    # A person's rights, and the operator's duties

    async def export(self, telegram_id: int) -> dict[str, Any]:
        """All that is kept about a person, JSON-able: their own templates too, in the open."""
        raise NotImplementedError

    async def forget(self, telegram_id: int) -> Receipt:
        """Erase a person: templates, keys, flows, captures, language, their link to the audit trail.

        A restored backup does not bring them back (see `bot.store.tombstones`).
        """
        raise NotImplementedError

    async def tidy(self) -> Tidied:
        """Delete what has been kept long enough; to be called now and then, by any replica."""
        raise NotImplementedError

    async def mark_noticed(self, telegram_id: int) -> None:
        """Note that a person was told, or cannot be told, that their templates will go."""
        raise NotImplementedError

    async def check_audit(self) -> int | None:
        """Number of the first entry of the audit trail that was tampered with; None: all is well."""
        raise NotImplementedError

    async def rotate_keys(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Give everybody whose data key is wrapped by an older key a new one, under the newest.

        It may be stopped at any time, and goes on where it was when it is called again.

        Args:
            progress: told how many people are done, and how many there are to do.

        Returns:
            How many people it was.
        """
        raise NotImplementedError

    async def keys_in_use(self) -> dict[str, int]:
        """How many people each template key protects, by its id."""
        raise NotImplementedError


def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA busy_timeout = 5000")
    cursor.close()
