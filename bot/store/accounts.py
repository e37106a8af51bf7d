"""The store's verbs about a second account: one that is told of a login, or that takes it over.

What they do is in `bot.store.contacts` and `bot.store.moves`.
"""

import asyncio
from abc import abstractmethod
from datetime import datetime

from bot.store import contacts, moves, recovery
from bot.store.transactions import Transactions
from bot.store.types import Attempt, Barred, Contact


class Accounts(Transactions):
    """A part of `Store`."""

    @abstractmethod
    async def _wipe_people(self) -> None:
        """After somebody was erased."""

    # Who else is told

    async def contact(self, telegram_id: int) -> Contact | None:
        """The other account that is told of what happens to a person's login, if there is one."""
        return await self._read(contacts.read, telegram_id)

    async def invite_contact(self, telegram_id: int) -> str | None:
        """A code for a link by which another account may become a person's contact.

        It is good for `contacts.LINK_LIVES`, once, until there is a newer one.

        Returns:
            It, of which only a keyed hash is kept; None where the person is not enrolled, has a
            contact, or made as many links today as there may be.
        """
        return await self._write(contacts.invite, telegram_id)

    async def open_invitation(self, code: str, telegram_id: int) -> int | None:
        """Use a link up: nobody but this account may answer it now; whose it is, or None.

        Who made it may open it, and it stays good.

        Args:
            code: as `invite_contact` gave it.
            telegram_id: who opened it.
        """
        return await self._write(contacts.open_link, code, telegram_id)

    async def answer_invitation(
        self, code: str, telegram_id: int, language: str | None
    ) -> int | None:
        """Answer a link that this account opened.

        Args:
            code: as it was opened.
            telegram_id: who opened it.
            language: to be written to in; None declines.

        Returns:
            Whose it is, or None where it is too late.
        """
        return await self._write(contacts.answer, code, telegram_id, language)

    async def end_contact(self, telegram_id: int) -> Contact | None:
        """End it at once, by a right to that; the contact that it was, if there was one."""
        return await self._write(contacts.end, telegram_id)

    async def end_contact_later(self, telegram_id: int, *, delay_s: float) -> datetime | None:
        """End it after a delay; returns when. One that was noted before keeps its time."""
        return await self._write(contacts.end_later, telegram_id, delay_s)

    async def keep_contact(self, telegram_id: int) -> bool:
        """Take `end_contact_later` back; whether it was under way."""
        return await self._write(contacts.keep, telegram_id)

    async def stop_for_contact(self, telegram_id: int, number: int) -> int | None:
        """On a contact's word, end the wait for another face, and that for their own end.

        Args:
            telegram_id: the contact's.
            number: `Contact.id`.

        Returns:
            Whose waits they were; None where there were none, or it is nobody's contact.
        """
        return await self._write(contacts.stop, telegram_id, number)

    async def told_of(self, telegram_id: int) -> int:
        """Of how many people an account is the contact."""
        return await self._read(contacts.count, telegram_id)

    async def leave_contact(self, telegram_id: int, number: int | None) -> tuple[int, ...]:
        """End it on the contact's own word: of one person, or of all; returns of whom."""
        return await self._write(contacts.leave, telegram_id, number)

    # Who takes a login over

    async def move_barred(self, telegram_id: int) -> Barred | None:
        """Why nobody, or not this account, may try a code now ("delay"); None when it may."""
        return await self._read(moves.barred, telegram_id)

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
        moved = await self._write(
            moves.move, attempt, telegram_id, used, (code, digest), self._retention
        )
        if moved:
            await self._wipe_people()
        return moved
