"""/move: an enrolment comes here from an account that was lost, by the recovery code and a video.

Neither alone will do. The account that has it is told at once, and so is its contact. Knows nothing
about how codes find their owner or what is kept.
"""

from telegram import Bot, ForceReply, Message, Update
from telegram.ext import ContextTypes

from bot.login import alerts, notices
from bot.login.verify import Verifying
from bot.store import Attempt, Flow, FlowKind, Store, new_recovery_code
from bot.telegram.replies import Language, delete, reply
from bot.telegram.request import Request, current
from bot.texts import DEFAULT, moment, say


class Moving:
    """Takes enrolments over from other accounts.

    Args:
        store: has them.
        verifying: sets the challenge by video; `finish` is what comes after it.
        language: see `replies.Language`.
        lifetime_s: seconds in which the code must come.
    """

    def __init__(
        self, *, store: Store, verifying: Verifying, language: Language, lifetime_s: float
    ) -> None:
        self._store = store
        self._verifying = verifying
        self._language = language
        self._lifetime_s = lifetime_s

    async def command(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Ask for the code, or take the one that stands behind the command."""
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        request = current.get()
        language = await self._language(user)
        if context.args:
            await self._try(request, message, " ".join(context.args), language, context.bot)
        elif not await self._refused(request, message, language):
            await self._store.begin_flow(user.id, FlowKind.MOVE, {}, lifetime_s=self._lifetime_s)
            await reply(message, say(language, "move.ask"), ForceReply())

    async def code(self, request: Request, flow: Flow, language: str, bot: Bot) -> None:
        """Take words that came while a code was waited for.

        Args:
            request: its message is what came.
            flow: a live one, of the kind MOVE.
            language: a key of `bot.texts.LANGUAGES`.
            bot: the way to Telegram.
        """
        await self._store.end_flow(flow)
        message = request.messages[0]
        await self._try(request, message, message.text or "", language, bot)

    async def _refused(self, request: Request, message: Message, language: str) -> bool:
        """Say why nothing can be moved to this account now, where it cannot."""
        held_until = await self._store.held_until(request.person)
        barred = await self._store.move_barred(request.person)
        if await self._store.membership(request.person) is not None:
            request.outcome = "enrolled_already"
            said = say(language, "move.enrolled")
        elif held_until is not None:
            request.outcome = "held"
            said = say(language, "enroll.held", when=moment(held_until))
        elif barred is not None and barred.until is not None:
            request.outcome = f"barred_{barred.reason}"
            said = say(language, "recover.barred", when=moment(barred.until))
        else:
            return False
        await reply(message, said)
        return True

    async def _try(
        self, request: Request, message: Message, code: str, language: str, bot: Bot
    ) -> None:
        await delete(bot, message)  # it stays good: nobody is to find it in the chat
        if await self._refused(request, message, language):
            return
        found = await self._store.check_move_code(request.person, code)
        if found is None:
            request.outcome = "wrong_code"
            await reply(message, say(language, "move.wrong"))
            return
        owner, used = found
        await notices.security(bot, self._store, owner, "move.begun")
        await self._verifying.challenge_for_move(
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
