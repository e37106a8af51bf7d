"""/recover: the code that was shown once lets a person begin anew, locked or not.

Knows nothing about what a code looks like inside or how failures are counted.
"""

from dataclasses import dataclass

from telegram import Message

from bot.login import notices
from bot.login.alerts import Alerts
from bot.login.enroll import Enrolling
from bot.login.recovery_code import RecoveryCode, barred_from_codes
from bot.store import FlowKind, Right
from bot.telegram.replies import reply
from bot.telegram.request import Request
from bot.texts import say


@dataclass(kw_only=True, eq=False)
class Recovering(RecoveryCode):
    """Takes recovery codes.

    Args:
        enrolling: goes on from there.
        alerts: goes on where the code is to end a contact.
    """

    kind = FlowKind.RESET
    question = "recover.ask"
    enrolling: Enrolling
    alerts: Alerts

    async def _not_now(self, request: Request, language: str) -> str | None:
        if await self.store.membership(request.person) is None:
            request.outcome = "not_enrolled"
            return say(language, "verify.not_enrolled")
        barred = await self.store.recovery_barred(request.person)
        return barred_from_codes(request, barred, language)

    async def _take(
        self, request: Request, message: Message, code: str, language: str, purpose: str
    ) -> None:
        if not await self.store.check_recovery_code(request.person, code):
            request.outcome = "wrong_code"
            await reply(message, say(language, "recover.wrong"))
            return
        request.outcome = "recovered"
        await notices.pass_on(
            message.get_bot(), self.store, request.person, "alerts.recovered_there"
        )
        if purpose == "alerts":
            await self.alerts.end_by_right(message, request.person, language)
            return
        await reply(message, say(language, "recover.done"))
        await self.enrolling.ask_consent(message, request.person, language, Right.CODE)
