"""Sends what a person sends to whatever it is for: the login that waits for it, or a look-alike.

Which conversation a person is in, the database knows; nothing of it lives in this process. Knows
nothing about what any of them does with a message.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from telegram import Update
from telegram.ext import ContextTypes

from bot.login.enroll import Enrolling
from bot.login.move import Moving
from bot.login.recover import Recovering
from bot.login.verify import Verifying
from bot.store import Flow, FlowKind, Known, Store, StoreError
from bot.telegram.incoming import Reason, Refusal
from bot.telegram.replies import Language, deleting, refused, reply
from bot.telegram.request import Request, current
from bot.texts import LANGUAGES, language_of, say

logger = logging.getLogger(__name__)

Handler = Callable[[Update, ContextTypes.DEFAULT_TYPE], Awaitable[None]]


@dataclass(kw_only=True, eq=False)
class Flows:
    """Finds a message's conversation.

    Args:
        store: knows the conversations.
        language: see `replies.Language`.
        enrolling: /enroll.
        verifying: /verify.
        recovering: /recover.
        moving: /move.
        photo: answers pictures that no login waits for.
        hint: answers everything else.
    """

    store: Store
    language: Language
    enrolling: Enrolling
    verifying: Verifying
    recovering: Recovering
    moving: Moving
    photo: Handler
    hint: Handler

    async def picture(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """A photo, an image sent as a file, or an album."""
        request = current.get()
        try:
            flow = await self.store.flow(request.person)
        except StoreError:
            if request.messages[0].reply_to_message is not None:
                raise  # a login may wait for it: nobody is let in, and told to try later
            # Look-alikes need no database.
            logger.exception("update=%s no conversation could be read", request.update.update_id)
            flow = None
        if not await self._capture(request, flow, update, context):
            await self.photo(update, context)

    async def clip(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """A video, round or not, or an animation."""
        request = current.get()
        found = await self.store.conversation(request.person)
        user = update.effective_user
        request.language = found.language
        if user is not None and found.language not in LANGUAGES:
            request.language = language_of(user.language_code)
        if await self._capture(request, found.flow, update, context, found.known):
            return
        if request.messages[0].video_note is None:
            await self.hint(update, context)
        else:
            request.outcome = "no_challenge"
            async with deleting(context.bot, request.messages):
                await self._say(update, request, "verify.no_challenge")

    async def words(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Words that are no command."""
        request = current.get()
        flow = await self.store.flow(request.person)
        user = update.effective_user
        takers = {FlowKind.RESET: self.recovering.code, FlowKind.MOVE: self.moving.code}
        if flow is None or flow.kind not in takers or user is None:
            await self.hint(update, context)
        else:
            await takers[flow.kind](request, flow, await self.language(user), context.bot)

    async def edited(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """A picture put in another's place: no login takes it; else it is a new one."""
        request = current.get()
        flow = await self.store.flow(request.person)
        user, message = update.effective_user, update.edited_message
        assert user is not None
        assert message is not None
        if flow is not None and (
            flow.kind is FlowKind.ENROLL
            or (flow.kind is FlowKind.VERIFY and self.verifying.waits_for(flow, message))
        ):
            request.outcome = f"refused_{Reason.EDITED.value}"
            language, refusal = await self.language(user), Refusal(Reason.EDITED)
            async with deleting(context.bot, request.messages):
                if flow.kind is FlowKind.VERIFY:
                    await self.verifying.refuse(message, flow, refusal, language)
                else:
                    await reply(message, refused(refusal, language))
        elif message.video_note is None:
            await self.photo(update, context)
        else:
            request.outcome = "ignored"

    async def cancel(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """/cancel: end whatever the person is in the middle of."""
        request = current.get()
        flow = await self.store.flow(request.person)
        if flow is None or not await self.store.end_flow(flow):
            await self._say(update, request, "account.nothing_to_cancel")
            return
        request.outcome = f"cancelled_{flow.kind.value}"
        await self._say(update, request, "account.cancelled")

    async def _capture(
        self,
        request: Request,
        flow: Flow | None,
        update: Update,
        context: ContextTypes.DEFAULT_TYPE,
        known: Known | None = None,
    ) -> bool:
        """Whether a login took the message in; `known`: of a clip, see `Conversation`."""
        user = update.effective_user
        if flow is None or user is None:
            return False
        match flow.kind:
            case FlowKind.ENROLL:
                take = self.enrolling.capture
            case FlowKind.VERIFY if self.verifying.waits_for(flow, request.messages[0]):
                take = partial(self.verifying.capture, known=known or {})
            case _:
                return False
        await take(request, flow, await self.language(user), context.bot)
        return True

    async def _say(self, update: Update, request: Request, key: str) -> None:
        user = update.effective_user
        assert user is not None
        await reply(request.messages[0], say(await self.language(user), key))
