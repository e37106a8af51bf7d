"""Every question that the bot asks its database: each verb is one transaction, or says otherwise.

What the verbs do is in the modules beside this one, by noun. Knows nothing about Telegram beyond
its ids, and nothing about how faces are compared.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from bot.store import (
    attempts,
    audit,
    captures,
    contacts,
    faces,
    flows,
    holds,
    keymarks,
    people,
    preferences,
    recovery,
    resets,
    restoring,
    rights,
    seals,
    served,
    takeovers,
    tidying,
    tombstones,
)
from bot.store.accounts import Accounts
from bot.store.database import CLOSE_S, LONG_S, Database, make_private_file
from bot.store.lease import FileLease, Lease, RowLease
from bot.store.migrate import migrate
from bot.store.types import (
    Alarm,
    Attempt,
    Barred,
    Ended,
    Enrolment,
    Flow,
    FlowKind,
    Level,
    Membership,
    Receipt,
    Retention,
    Takeover,
    Templates,
    Tidied,
)
from bot.store.vault import Vault
from bot.store.work import Work

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 5.0
_PRUNE_EVERY = 500
_ROTATED_AT_ONCE = 100
_RETENTION = Retention()


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Store(Accounts):
    """The database; use it as an async context manager.

    Args:
        database: a file of SQLite's, or the URL of a PostgreSQL database.
        vault: the keys; without template keys in it there are languages and update numbers only.
        updates_kept: how many update numbers are remembered.
        retention: how long the rest is.
        clock: the time, in UTC.
        busy_timeout_s: how long a verb waits for other writers.
        tombstones: the file of the erased (see `bot.store.tombstones`); for SQLite it is beside the
            database if it is not given.
        close_s: how long leaving may take; what is still being written then is cut off.
        restored: whether the database came from a backup: see `bot.store.restoring`.

    Attributes:
        ended: what was ended at the start because it had ended before.

    Raises:
        StoreError: from everything, when the database or a key cannot be used; nothing of that verb
            has happened then.
    """

    def __init__(
        self,
        database: Path | str,
        vault: Vault,
        *,
        updates_kept: int,
        retention: Retention = _RETENTION,
        clock: Callable[[], datetime] = utc_now,
        busy_timeout_s: float = _BUSY_TIMEOUT_S,
        tombstones: Path | None = None,
        close_s: float = CLOSE_S,
        restored: bool = False,
    ) -> None:
        super().__init__(
            Database(database, busy_timeout_s=busy_timeout_s, close_s=close_s),
            vault,
            clock,
            retention,
        )
        self._updates_kept = updates_kept
        self._until_prune = 0
        if tombstones is None and isinstance(database, Path):
            tombstones = tombstones_beside(database)
        self._tombstones = tombstones
        self._restored = restored
        self.ended = Ended()

    async def __aenter__(self) -> Self:
        try:
            if self._database.path is not None:
                make_private_file(self._database.path)
            await self._database.prepare()
            await self._write_many(self._start)
            await self._bury()
            if self._restored:
                await self._database.wipe(*people.ERASED)
        except OSError as error:
            await self._database.close()
            raise self._database.complain(error.strerror or type(error).__name__) from None
        except BaseException:
            await self._database.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    async def language(self, telegram_id: int) -> str | None:
        """The language that a person chose, if any."""
        return await self._read(preferences.language, telegram_id)

    async def choose_language(self, telegram_id: int, language: str) -> None:
        """Remember the language that a person chose."""
        await self._write(preferences.choose_language, telegram_id, language)

    async def writing_language(self, telegram_id: int) -> str | None:
        """The language to write to a person in: the one that they chose, or consented in."""
        return await self._read(preferences.writing_language, telegram_id)

    async def served_updates(self, bot_id: int) -> tuple[int, ...]:
        """The update numbers served last, oldest first; those of another bot are forgotten.

        Args:
            bot_id: Telegram's number of this bot.
        """
        return await self._write(served.of_bot, bot_id)

    async def mark_served(self, update_id: int) -> None:
        """Remember that an update was served; the oldest are forgotten now and then."""
        kept = self._updates_kept if self._until_prune == 0 else None
        await self._write(served.mark, update_id, kept)
        self._until_prune = (self._until_prune or _PRUNE_EVERY) - 1

    def lease(self, place: str, lifetime_s: float) -> Lease:
        """The right to serve with this database, not taken yet.

        Args:
            place: where this bot runs, for people to read.
            lifetime_s: see `Lease`; for PostgreSQL.
        """
        if self._database.path is not None:
            return FileLease(self._database.path)
        return RowLease(self._database.write, place, lifetime_s)

    # A person's conversation

    async def begin_flow(
        self, telegram_id: int, kind: FlowKind, state: Mapping[str, Any], *, lifetime_s: float
    ) -> Flow:
        """Begin a flow, in the place of any other one of the person."""
        return await self._write(flows.begin, telegram_id, kind, state, lifetime_s)

    async def flow(self, telegram_id: int) -> Flow | None:
        """The person's flow; None when there is none or its deadline is past."""
        flow = await self._read(flows.read, telegram_id)
        if flow is None or flow.deadline > self._clock():
            return flow
        await self._write(flows.end_expired, telegram_id)
        return None

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
        return await self._write(flows.advance, flow, state, lifetime_s)

    async def end_flow(self, flow: Flow) -> bool:
        """End a flow, whatever its revision; whether it was still there."""
        return await self._write(flows.end, flow)

    # A person's face

    async def membership(self, telegram_id: int) -> Membership | None:
        """How a person stands; None for who is not enrolled."""
        return await self._read(rights.membership, telegram_id, self._retention)

    async def enroll(self, flow: Flow, enrolment: Enrolment) -> bool:
        """Store a person's templates and consent, and end the flow.

        Templates that were there before are replaced, where the person has the right to, and the
        person gets a new data key. The recovery code, where it is the right, is used up, and lifts
        a lock and all delays. All of it happens or nothing.

        Args:
            flow: of kind `ENROLL`, as it was read.
            enrolment: what to keep.

        Returns:
            Whether it happened: False where the flow was overtaken, has ended or expired, or the
            person has not the right that the enrolment names, or not any more.

        Raises:
            ValueError: the vectors are not (k, d), or not finite.
        """
        prepared = await asyncio.to_thread(faces.prepare, enrolment)
        return await self._write(faces.enroll, flow, prepared)

    async def templates(self, telegram_id: int) -> Templates | None:
        """A person's templates; None for who is not enrolled."""
        rotated = await self._read(faces.read, telegram_id)
        return None if rotated is None else await asyncio.to_thread(faces.rotate_back, rotated)

    async def claim_capture(
        self,
        telegram_id: int,
        file_unique_id: str,
        content: bytes,
        patterns: Sequence[bytes] = (),
    ) -> bool:
        """Remember a photo or clip that came in, unless it came before.

        Args:
            telegram_id: who sent it.
            file_unique_id: Telegram's name for the file.
            content: its bytes.
            patterns: see `add_fingerprints`.

        Returns:
            False where the same file or the same bytes came before, from anybody, or nearly the
            same shot from this person.
        """
        digest = await asyncio.to_thread(lambda: hashlib.sha256(content).digest())
        return await self._write(
            captures.claim, telegram_id, file_unique_id, digest, tuple(patterns)
        )

    async def add_fingerprints(
        self, telegram_id: int, file_unique_id: str, patterns: Sequence[bytes]
    ) -> bool:
        """Remember what a claimed photo or clip looks like, unless one like it came before.

        Args:
            telegram_id: who sent it.
            file_unique_id: as it was claimed.
            patterns: of the face (`engine.types`): one of a photo; of a clip, those of some
                frames. Their fingerprints are kept.

        Returns:
            False where nearly the same shot came before from this person, or the capture was
            never claimed.
        """
        return await self._write(
            captures.add_fingerprints, telegram_id, file_unique_id, tuple(patterns)
        )

    # Attempts

    async def new_challenge(
        self, telegram_id: int, level: Level, steps: str, *, lifetime_s: float
    ) -> bytes:
        """Draw a challenge; older open ones of the person are spent.

        One by video that was let lapse counts as a failed attempt, or somebody could draw until a
        challenge fits a clip that they have; see `bot.store.limits`.

        Args:
            telegram_id: who is to meet it.
            level: "photo" or "video".
            steps: what is to be done, to be had back with the attempt.
            lifetime_s: seconds until it expires.

        Returns:
            Its nonce, 16 random bytes, of which only a hash is kept.
        """
        return await self._write(attempts.new_challenge, telegram_id, level, steps, lifetime_s)

    async def excuse_challenge(self, telegram_id: int, nonce: bytes) -> None:
        """Something of ours kept an answer that came from being judged.

        Let lapse, the challenge counts as a draw, and not as a failure; see `bot.store.limits`.
        """
        await self._write(attempts.excuse, telegram_id, nonce)

    async def barred(self, telegram_id: int, *, drawing: bool = False) -> Barred | None:
        """Why a person may not try now ("delay" or "locked"); None when they may.

        Args:
            telegram_id: whom it is about.
            drawing: whether a challenge by video is to be drawn, which may be too early ("draws").
        """
        return await self._read(attempts.barred, telegram_id, drawing)

    async def claim_alarm(self, telegram_id: int, *, lease_s: float) -> Alarm | None:
        """Take it on to tell a person of attempts that they may not have made: as `claim_notice`.

        Returns:
            What is to be told; None where there is nothing, or another replica has taken it on.
        """
        return await self._write(attempts.claim_alarm, telegram_id, lease_s)

    async def mark_alarmed(self, telegram_id: int, alarm: Alarm) -> None:
        """Note that a person was told, or cannot be told, of an alarm."""
        await self._write(attempts.mark_alarmed, telegram_id, alarm)

    async def begin_attempt(
        self, flow: Flow, level: Level, nonce: bytes, *, subject: int | None = None
    ) -> Attempt | Barred:
        """Spend a challenge and commit an attempt, which counts as failed until it is finished.

        The flow ends. Where the answer is a `Barred`, nothing is changed.

        Args:
            flow: as it was read.
            level: of the challenge.
            nonce: of the challenge.
            subject: whose face it is to be; None is whose flow it is.
        """
        return await self._write(attempts.begin, flow, level, nonce, subject)

    async def finish_attempt(
        self, attempt: Attempt, *, passed: bool, reason: str, version: str, bucket: int
    ) -> bool:
        """Write down how an attempt ended; nobody is to be told that they passed before it.

        One by video that succeeded ends the wait after which the face might be replaced.

        Args:
            attempt: begun, and neither finished nor voided.
            passed: whether it succeeded.
            reason: a code, such as "match".
            version: of the calibration that decided.
            bucket: coarse, 0 to 9; never the score.

        Returns:
            Whether a wait was ended.

        Raises:
            StoreError: the attempt is not open any more, or its person was erased or enrolled anew
                in the meantime: it did not succeed then.
        """
        return await self._write(attempts.finish, attempt, passed, reason, version, bucket)

    async def void_attempt(self, attempt: Attempt, reason: str) -> None:
        """Something of ours broke: the attempt is no failure. Its challenge stays spent, a draw.

        Args:
            attempt: begun; where it is not open any more nothing happens.
            reason: a code.
        """
        await self._write(attempts.void, attempt, reason)

    async def recovery_barred(self, telegram_id: int) -> Barred | None:
        """Why a person may not try a recovery code now ("delay"); None when they may."""
        return await self._read(attempts.recovery_barred, telegram_id)

    async def check_recovery_code(self, telegram_id: int, code: str) -> bool:
        """Whether a code is a person's; it is used up by the face that is stored by its right.

        Failures are counted and delayed as attempts are (see `recovery_barred`), but never lock.

        Args:
            telegram_id: who shows it.
            code: as it was typed.

        Returns:
            Whether it is; False, too, while the person is barred from trying.
        """
        if not recovery.is_recovery_code(code):
            return False
        begun = await self._write(attempts.begin_recovery, telegram_id)
        if begun is None:
            return False
        attempt_id, digest = begun
        right = await asyncio.to_thread(recovery.matches, code, digest)
        return await self._write(
            attempts.finish_recovery, telegram_id, attempt_id, digest, right, code
        )

    async def unlock(self, telegram_id: int) -> bool:
        """Lift a person's lock, delays and hold, on an operator's word; whether there were any."""
        return await self._write(attempts.unlock, telegram_id)

    async def schedule_reset(self, telegram_id: int, *, delay_s: float) -> datetime:
        """Note that a person may enroll anew after a delay; returns when.

        One that was noted before keeps its time.
        """
        return await self._write(resets.schedule, telegram_id, delay_s)

    async def reset_due(self, telegram_id: int) -> datetime | None:
        """When a person may enroll anew, if that was noted; enrolling or cancelling ends it."""
        return await self._read(resets.due, telegram_id)

    async def cancel_reset(self, telegram_id: int) -> bool:
        """Take `schedule_reset` back, and the enrolment that it opened; whether there was one."""
        return await self._write(resets.cancel, telegram_id)

    # A person's rights, and the operator's duties

    async def export(self, telegram_id: int, *, vectors: bool = False) -> dict[str, Any]:
        """All that is kept about a person, JSON-able.

        Args:
            telegram_id: who.
            vectors: whether their templates are in it, in the open: a face can be rebuilt from
                them, so that they are never to be sent into a chat.
        """
        exported = await self._read(rights.export, telegram_id, self._retention)
        if vectors:
            found = await self.templates(telegram_id)
            exported["templates"] = found and {
                "embedder": found.embedder,
                "vectors": found.vectors.tolist(),
                "mean": found.mean.tolist(),
            }
        await self._write(rights.note_export, telegram_id)
        return exported

    async def forget(self, telegram_id: int) -> Receipt:
        """Erase a person: templates, keys, flows, captures, language, link to the audit trail.

        Whoever had a face stored may not enroll again for a while: see `held_until`. A restored
        backup does not bring them back: see `bot.store.tombstones`.
        """
        receipt = await self._write(rights.forget, telegram_id, self._retention)
        await self._wipe_people()
        return receipt

    async def held_until(self, telegram_id: int) -> datetime | None:
        """From when on somebody who was erased may enroll again; None where they may now."""
        return await self._read(holds.until, telegram_id)

    async def tidy(self) -> Tidied:
        """Delete what has been kept long enough; to be called now and then, by any replica."""
        # One transaction each: together they would hold what others wait for.
        kept = self._retention
        for code in await self._read(attempts.with_lapsed):
            await self._write(attempts.spend_lapsed, code)
        old = Counter[str]()
        for code in await self._read(tidying.with_old, kept):
            old += await self._write(tidying.drop_old, code, kept)
        counts = {
            **{name: old[name] for name in ("flows", "challenges", "captures", "attempts")},
            "audit": await self._write_many(tidying.old_audit, kept),
            "holds": await self._write_many(holds.drop_old),
            "contacts": await self._write_many(contacts.drop_old),
        }
        leaving, notices = await self._read(tidying.idle, kept)
        announcements = await self._read(takeovers.notices)
        left = [await self._write(tidying.leave, code, kept) for code in leaving]
        unused = await self._read(people.unused)
        dropped = [await self._write(people.drop_if_unused, code) for code in unused]
        counts |= {"enrolments": sum(left), "people": sum(dropped)}
        await self._bury()
        await self._database.wipe(*people.ERASED if any(counts.values()) else ())
        alarms = await self._read(attempts.alarms)
        return Tidied(counts, tuple(notices), tuple(announcements), tuple(alarms))

    async def erasing_waits(self) -> datetime | None:
        """Until when nothing should be erased, because the clock may be wrong; to be asked hourly.

        That is where the database has been in use, and not within the week before the last three
        days: either nobody ran the bot, or the clock has leapt. None: the clock is believed, and
        moments of the past that are later than it says are set to now.
        """
        return await self._write_many(tidying.clock_doubted_until, self._retention)

    async def confirm_clock(self) -> None:
        """Believe the clock for three days, on an operator's word."""
        await self._write(tidying.confirm_clock)

    async def claim_notice(self, telegram_id: int, *, lease_s: float) -> bool:
        """Take it on to tell a person that their templates will go, before anybody else does.

        Args:
            telegram_id: who is to be told.
            lease_s: seconds after which another replica may, unless `mark_noticed` came.

        Returns:
            False where another replica has taken it on or has told them, or there is no need.
        """
        return await self._write(tidying.claim_notice, telegram_id, self._retention, lease_s)

    async def mark_noticed(self, telegram_id: int) -> None:
        """Note that a person was told, or cannot be told, that their templates will go."""
        await self._write(tidying.mark_noticed, telegram_id, self._retention)

    async def enrolled(self) -> dict[str, int]:
        """How many people are enrolled with each embedder, by its id."""
        return await self._read(takeovers.enrolled)

    async def plan_takeover(self, embedder: str, replaces: str, *, notice_days: float) -> Takeover:
        """When an embedder takes over from another one: noted once, for every replica.

        It takes over at once where nobody is enrolled with the other one, or fewer people than are
        with this one already.

        Args:
            embedder: id of the one that takes over.
            replaces: id of the other one.
            notice_days: how long people who are enrolled with the other one are told before; 0 ends
                a wait that was noted, too.
        """
        return await self._write(takeovers.plan, embedder, replaces, notice_days)

    async def withdraw_takeover(self) -> bool:
        """Take `plan_takeover` back; whether there was one."""
        return await self._write(takeovers.withdraw)

    async def claim_announcement(self, telegram_id: int, due: datetime, *, lease_s: float) -> bool:
        """Take it on to tell a person of a takeover's date: as `claim_notice`."""
        return await self._write(takeovers.claim_announcement, telegram_id, due, lease_s)

    async def mark_announced(self, telegram_id: int, due: datetime) -> None:
        """Note that a person was told, or cannot be told, of a takeover's date."""
        await self._write(takeovers.mark_announced, telegram_id, due)

    async def check_audit(self) -> int | None:
        """Number of the audit trail's first entry that was tampered with; None: all is well."""
        return await self._database.read(self._bound(False, audit.check), limit_s=LONG_S)

    async def check_seals(self) -> list[str]:
        """What was changed by somebody without the key of the ids, in sentences; see `seals`."""
        return await self._database.read(self._bound(False, seals.check), limit_s=LONG_S)

    async def rotate_keys(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Give everybody whose data key is wrapped by an older key a new one, under the newest.

        From the beginning on nobody new is protected by an older one, whoever is running.
        It may be stopped at any time, and goes on where it was when it is called again.

        Args:
            progress: told how many people are done, and how many there are to do.

        Returns:
            How many people it was.
        """
        current = self._vault.keyring.current
        await self._write(keymarks.close_older)
        in_use = await self.keys_in_use()
        total = sum(count for key_id, count in in_use.items() if key_id != current)
        done = 0
        while codes := await self._read(people.codes_under_other_keys, current, _ROTATED_AT_ONCE):
            for code in codes:
                done += await self._write(people.leave_old_key, code, current)
                if progress is not None:
                    progress(done, max(total, done))
        if done:
            await self._write(_note_rotation, done, current)
        await self._database.wipe(*people.ERASED)
        return done

    async def give_up_key(self, key_id: str) -> None:
        """See that a template key may be destroyed: nobody will be protected by it any more.

        Args:
            key_id: not the newest one's.

        Raises:
            StoreError: it protects somebody.
        """
        await self._write(keymarks.give_up, key_id)

    async def keys_in_use(self) -> dict[str, int]:
        """How many people each template key protects, by its id."""
        return await self._read(people.count_by_key)

    async def _start(self, work: Work) -> None:
        """Bring the tables up to date, know the keys again, and end what must not go on."""
        await migrate(work.connection)
        await keymarks.check(work)
        marks = frozenset[bytes]()
        if self._tombstones is not None:
            marks = await asyncio.to_thread(tombstones.read_file, self._tombstones)
        sealed = seals.all_sealed(work)
        if sealed not in marks | await tombstones.read(work):
            await seals.seal_unsealed(work)
        marks |= {sealed}
        self.ended = await restoring.end(work, marks, self._retention, restored=self._restored)

    async def _wipe_people(self) -> None:
        """After somebody was erased."""
        await self._bury()
        await self._database.wipe(*people.ERASED)

    async def _bury(self) -> None:
        """Write the tombstones into their file too, where an older database cannot lose them."""
        if self._tombstones is None:
            return
        marks = await self._read(tombstones.read)
        try:
            await asyncio.to_thread(tombstones.add_to_file, self._tombstones, marks)
        except OSError as error:
            # What is erased is erased; the file learns it at the next chance.
            logger.warning("%s could not be written: %s", self._tombstones, error.strerror)


def tombstones_beside(database: Path) -> Path:
    """The file of the erased that belongs to a SQLite database."""
    return database.with_name(f"{database.name}.tombstones")


async def _note_rotation(work: Work, count: int, key_id: str) -> None:
    await audit.append(work, "keys_rotated", people=count, key=key_id)
