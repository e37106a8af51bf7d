"""Every question that the bot asks its database: each verb is one transaction, or says otherwise.

What the verbs do is in the modules beside this one, by noun. Knows nothing about Telegram beyond
its ids, and nothing about how faces are compared.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    moves,
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
    verifications,
)
from bot.store.database import CLOSE_S, LONG_S, Database, make_private_file
from bot.store.faces import RotatedTemplates
from bot.store.fingerprints import likeness
from bot.store.lease import FileLease, Lease, RowLease
from bot.store.migrate import migrate
from bot.store.transactions import Transactions, reads, writes
from bot.store.types import (
    Attempt,
    Barred,
    Clip,
    Conversation,
    Ended,
    Enrolment,
    Flow,
    Known,
    Receipt,
    Retention,
    Templates,
    Tidied,
    Unusable,
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


class Store(Transactions):
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
        return RowLease(self._database, place, lifetime_s)

    # Languages and updates

    language = reads(preferences.language)
    choose_language = writes(preferences.choose_language)
    writing_language = reads(preferences.writing_language)
    served_updates = writes(served.of_bot)

    # A person's conversation

    begin_flow = writes(flows.begin)
    advance_flow = writes(flows.advance)
    end_flow = writes(flows.end)

    async def flow(self, telegram_id: int) -> Flow | None:
        """The person's flow; None when there is none or its deadline is past."""
        return await self._live(await self._read(flows.read, telegram_id))

    async def conversation(self, telegram_id: int) -> Conversation:
        """The person's flow, as `flow` has it, and what a clip for it is compared with."""
        found = await self._read(verifications.read, telegram_id)
        return replace(found, flow=await self._live(found.flow))

    async def _live(self, flow: Flow | None) -> Flow | None:
        if flow is None or flow.deadline > self._clock():
            return flow
        await self._write(flows.end_expired, flow.telegram_id)
        return None

    # A person's face

    membership = reads(rights.membership)

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
        return await self.unrotated(await self._read(faces.read, telegram_id))

    @staticmethod
    async def unrotated(rotated: RotatedTemplates | None) -> Templates | None:
        """Templates as they are compared."""
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
            patterns: of the face (`engine.types`), where they are known: one of a photo; of a clip,
                those of some frames. Their fingerprints are kept.

        Returns:
            False where the same file or the same bytes came before, from anybody, or nearly the
            same shot from this person.
        """
        digest = await asyncio.to_thread(lambda: hashlib.sha256(content).digest())
        # Compared before anything is written, because nobody else can write meanwhile.
        known = await self._read(captures.read, telegram_id) if patterns else {}
        least = await asyncio.to_thread(likeness, patterns, known.values())
        return await self._write(
            captures.claim, telegram_id, file_unique_id, digest, patterns, known, least
        )

    # Attempts

    new_challenge = writes(attempts.new_challenge)
    excuse_challenge = writes(attempts.excuse)
    barred = reads(attempts.barred)
    begin_attempt = writes(attempts.begin)

    async def begin_by_clip(
        self, flow: Flow, nonce: bytes, clip: Clip, known: Known
    ) -> tuple[Attempt, RotatedTemplates | None] | Barred | Unusable:
        """Remember a clip, unless it came before, and begin the attempt that it is for.

        Args:
            flow: as it was read, of the kind VERIFY.
            nonce: of the challenge.
            clip: what came. Where the templates are of another embedder, the challenge is excused,
                and the flow ends.
            known: see `Conversation`.

        Returns:
            The attempt, and the templates to compare with, for `unrotated`; else why there is none.
            What was barred was remembered all the same.
        """
        digest = await asyncio.to_thread(lambda: hashlib.sha256(clip.content).digest())
        least = await asyncio.to_thread(likeness, clip.patterns, known.values())
        return await self._write(verifications.begin, flow, nonce, clip, digest, known, least)

    finish_attempt = writes(attempts.finish)
    void_attempt = writes(attempts.void)
    claim_alarm = writes(attempts.claim_alarm)
    mark_alarmed = writes(attempts.mark_alarmed)
    recovery_barred = reads(attempts.recovery_barred)
    unlock = writes(attempts.unlock)

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

    # Another face without being verified, after a delay

    schedule_reset = writes(resets.schedule)
    reset_due = reads(resets.due)
    cancel_reset = writes(resets.cancel)

    # The other account that is told of a login

    contact = reads(contacts.read)
    invite_contact = writes(contacts.invite)
    open_invitation = writes(contacts.open_link)
    answer_invitation = writes(contacts.answer)
    end_contact = writes(contacts.end)
    end_contact_later = writes(contacts.end_later)
    keep_contact = writes(contacts.keep)
    stop_for_contact = writes(contacts.stop)
    told_of = reads(contacts.count)
    leave_contact = writes(contacts.leave)

    # Another account that takes a login over

    move_barred = reads(moves.barred)

    async def check_move_code(self, telegram_id: int, code: str) -> tuple[int, bytes] | None:
        """Whose recovery code this is, and its mark; it stays good until `move`.

        Failures are counted for who tries, and for all together; no answer takes longer than
        another one.

        Args:
            telegram_id: who tries.
            code: as it was typed.

        Returns:
            Their Telegram id and the mark; None where it is nobody's, or nobody may try now.
        """
        if not recovery.is_recovery_code(code):
            return None
        begun = await self._write(moves.begin, telegram_id, code)
        if begun is None:
            return None
        attempt_id, digest = begun
        right = await asyncio.to_thread(recovery.matches, code, digest)
        return await self._write(
            moves.finish_code, telegram_id, attempt_id, code, digest if right else None
        )

    async def move(self, attempt: Attempt, telegram_id: int, *, used: bytes, code: str) -> bool:
        """Move an enrolment to another account, with its captures, consents and contact.

        The account that had it is erased, and held as after `forget`. All of it or nothing.

        Args:
            attempt: one by video that passed, of the enrolment that is moved.
            telegram_id: of the account that takes it over.
            used: the mark of the recovery code that was shown, which is used up.
            code: the new one.

        Returns:
            Whether it happened: False where the attempt or the code are of no use any more, or the
            other account is enrolled or held.
        """
        digest = await asyncio.to_thread(recovery.digest, code)
        moved = await self._write(moves.move, attempt, telegram_id, used, (code, digest))
        if moved:
            await self._wipe_people()
        return moved

    # A person's rights, and the operator's duties

    held_until = reads(holds.until)
    confirm_clock = writes(tidying.confirm_clock)
    mark_noticed = writes(tidying.mark_noticed)
    enrolled = reads(takeovers.enrolled)
    plan_takeover = writes(takeovers.plan)
    withdraw_takeover = writes(takeovers.withdraw)
    mark_announced = writes(takeovers.mark_announced)
    give_up_key = writes(keymarks.give_up)
    keys_in_use = reads(people.count_by_key)

    async def export(self, telegram_id: int, *, vectors: bool = False) -> dict[str, Any]:
        """All that is kept about a person, JSON-able.

        Args:
            telegram_id: who.
            vectors: whether their templates are in it, in the open: a face can be rebuilt from
                them, so that they are never to be sent into a chat.
        """
        exported = await self._read(rights.export, telegram_id)
        if vectors:
            found = await self.templates(telegram_id)
            exported["templates"] = found and {
                "embedder": found.embedder,
                "vectors": found.vectors.tolist(),
            }
        await self._write(rights.note_export, telegram_id)
        return exported

    async def forget(self, telegram_id: int) -> Receipt:
        """Erase a person: templates, keys, flows, captures, language, link to the audit trail.

        Whoever had a face stored may not enroll again for a while: see `held_until`. A restored
        backup does not bring them back: see `bot.store.tombstones`.
        """
        receipt = await self._write(rights.forget, telegram_id)
        await self._wipe_people()
        return receipt

    async def erasing_waits(self) -> datetime | None:
        """Until when nothing should be erased, because the clock may be wrong; None: it is right.

        To be asked hourly; see `tidying.clock_doubted_until`.
        """
        return await self._write_many(tidying.clock_doubted_until)

    async def tidy(self) -> Tidied:
        """Delete what has been kept long enough; to be called now and then, by any replica."""
        # One transaction each: together they would hold what others wait for.
        for code in await self._read(attempts.with_lapsed):
            await self._write(attempts.spend_lapsed, code)
        old = Counter[str]()
        for code in await self._read(tidying.with_old):
            old += await self._write(tidying.drop_old, code)
        counts = {
            **{name: old[name] for name in ("flows", "challenges", "captures", "attempts")},
            "audit": await self._write_many(tidying.old_audit),
            "holds": await self._write_many(holds.drop_old),
            "contacts": await self._write_many(contacts.drop_old),
        }
        leaving, notices = await self._read(tidying.idle)
        announcements = await self._read(takeovers.notices)
        left = [await self._write(tidying.leave, code) for code in leaving]
        unused = await self._read(people.unused)
        dropped = [await self._write(people.drop_if_unused, code) for code in unused]
        counts |= {"enrolments": sum(left), "people": sum(dropped)}
        await self._bury()
        await self._database.wipe(*people.ERASED if any(counts.values()) else ())
        alarms = await self._read(attempts.alarms)
        return Tidied(counts, tuple(notices), tuple(announcements), tuple(alarms))

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
        self.ended = await restoring.end(work, marks, restored=self._restored)

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
