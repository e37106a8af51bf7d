"""/recover: the code that was shown once lets a person begin anew, locked or not.

Knows nothing about what a code looks like inside or how failures are counted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from telegram import Bot, ForceReply, Message, Update
from telegram.ext import ContextTypes

from bot.login import notices
from bot.login.alerts import Alerts
from bot.login.enroll import Enrolling
from bot.store import Flow, FlowKind, Right, Store
from bot.telegram.replies import Language, delete, reply
from bot.telegram.request import Request, current
from bot.texts import moment, say


class Recovering:
    """Takes recovery codes.

    Args:
        store: checks them.
        enrolling: goes on from there.
        alerts: goes on where the code is to end a contact.
        language: see `replies.Language`.
        lifetime_s: seconds in which the code must come.
    """

    def __init__(
        self,
        *,
        store: Store,
        enrolling: Enrolling,
        alerts: Alerts,
        language: Language,
        lifetime_s: float,
    ) -> None:
        self._store = store
        self._enrolling = enrolling
        self._alerts = alerts
        self._language = language
        self._lifetime_s = lifetime_s

    async def command(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Ask for the code, or take the one that stands behind the command."""
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        request = current.get()
        language = await self._language(user)
        if await self._store.membership(user.id) is None:
            request.outcome = "not_enrolled"
            await reply(message, say(language, "verify.not_enrolled"))
        elif context.args:
            await self._try(request, message, " ".join(context.args), language, context.bot)
        else:
            await self._store.begin_flow(user.id, FlowKind.RESET, {}, lifetime_s=self._lifetime_s)
            await reply(message, say(language, "recover.ask"), ForceReply())

    async def code(self, request: Request, flow: Flow, language: str, bot: Bot) -> None:
        """Take words that came while a code was waited for.

        Args:
            request: its message is what came.
            flow: a live one, of the kind RESET.
            language: a key of `bot.texts.LANGUAGES`.
            bot: the way to Telegram.
        """
        await self._store.end_flow(flow)
        message = request.messages[0]
        await self._try(request, message, message.text or "", language, bot, flow.state)

    async def _try(
        self,
        request: Request,
        message: Message,
        code: str,
        language: str,
        bot: Bot,
        state: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        # It is good until the new face is stored: nobody is to find it in the chat.
        await delete(bot, message)
        barred = await self._store.recovery_barred(request.person)
        if barred is not None:
            request.outcome = f"barred_{barred.reason}"
            when = "" if barred.until is None else moment(barred.until)
            await reply(message, say(language, "recover.barred", when=when))
        elif await self._store.check_recovery_code(request.person, code):
            request.outcome = "recovered"
            await notices.pass_on(bot, self._store, request.person, "alerts.recovered_there")
            if state.get("purpose") == "alerts":
                await self._alerts.end_by_right(message, request.person, language)
                return
            await reply(message, say(language, "recover.done"))
            await self._enrolling.ask_consent(message, request.person, language, Right.CODE)
        else:
            request.outcome = "wrong_code"
            await reply(message, say(language, "recover.wrong"))
