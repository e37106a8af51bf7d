"""/move: an enrolment comes here from an account that was lost, by the recovery code and a video.

Neither alone will do. The account that has it is told at once, and so is its contact. Knows nothing
about how codes find their owner or what is kept.
"""

from dataclasses import dataclass

from telegram import Message

from bot.login import alerts, notices
from bot.login.recovery_code import RecoveryCode, barred_from_codes
from bot.login.verify import Verifying
from bot.store import Attempt, Flow, FlowKind, Store, new_recovery_code
from bot.telegram.replies import delete, reply
from bot.telegram.request import Request, current
from bot.texts import DEFAULT, moment, say


@dataclass(kw_only=True, eq=False)
class Moving(RecoveryCode):
    """Takes enrolments over from other accounts.

    Args:
        verifying: sets the challenge by video; `finish` is what comes after it.
    """

    kind = FlowKind.MOVE
    question = "move.ask"
    verifying: Verifying

    async def _not_now(self, request: Request, language: str) -> str | None:
        """Why nothing can be moved to this account."""
        held_until = await self.store.held_until(request.person)
        if await self.store.membership(request.person) is not None:
            request.outcome = "enrolled_already"
            return say(language, "move.enrolled")
        if held_until is not None:
            request.outcome = "held"
            return say(language, "enroll.held", when=moment(held_until))
        barred = await self.store.move_barred(request.person)
        return barred_from_codes(request, barred, language)

    async def _take(
        self, request: Request, message: Message, code: str, language: str, _purpose: str
    ) -> None:
        found = await self.store.check_move_code(request.person, code)
        if found is None:
            request.outcome = "wrong_code"
            await reply(message, say(language, "move.wrong"))
            return
        owner, used = found
        await notices.security(message.get_bot(), self.store, owner, "move.begun")
        await self.verifying.challenge_for_move(
            request, message, language, subject=owner, used=used
        )


async def finish(
    store: Store, message: Message, attempt: Attempt, flow: Flow, language: str
) -> None:
    """Move an enrolment, because the challenge that was set for it was passed.

    Args:
        store: has it.
        message: what is answered.
        attempt: that passed.
        flow: in which it did.
        language: a key of `bot.texts.LANGUAGES`.
    """
    bot, code = message.get_bot(), new_recovery_code()
    # Before it is in force: whatever breaks in between, no code is in force unseen.
    shown = await reply(message, say(language, "enroll.code", code=code), protected=True)
    used = bytes.fromhex(flow.state["used"])
    there = await store.writing_language(attempt.telegram_id) or DEFAULT  # forgotten by the move
    if not await store.move(attempt, flow.telegram_id, used=used, code=code):
        current.get().outcome = "not_moved"
        await delete(bot, shown)
        await reply(message, say(language, "move.overtaken"))
        return
    current.get().outcome = "moved"
    await reply(message, say(language, "move.done"), alerts.offer(language))
    await notices.told(bot, attempt.telegram_id, say(there, "move.gone"))
    await notices.pass_on(bot, store, flow.telegram_id, "move.gone_there")
