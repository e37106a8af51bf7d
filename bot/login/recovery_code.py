"""Asks for a recovery code, and takes it: behind the command, or in the words that come next.

Knows nothing about what a code lets anybody do.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from telegram import Bot, ForceReply, Message, Update
from telegram.ext import ContextTypes

from bot.store import Barred, Flow, FlowKind, Store
from bot.telegram.replies import Language, delete, reply, who_asks
from bot.telegram.request import Request, current
from bot.texts import moment, say


@dataclass(kw_only=True, eq=False)
class RecoveryCode(ABC):
    """A conversation that begins with a recovery code.

    Args:
        store: keeps the conversation, and knows the code.
        language: see `replies.Language`.
        lifetime_s: seconds in which the code must come.

    Attributes:
        kind: of the conversation that waits for the code.
        question: key of the sentence that asks for it.
    """

    kind: ClassVar[FlowKind]
    question: ClassVar[str]
    store: Store
    language: Language
    lifetime_s: float

    async def command(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Ask for the code, or take the one that stands behind the command."""
        message, user, language = await who_asks(update, self.language)
        request = current.get()
        if context.args:
            await self._try(request, message, " ".join(context.args), language)
        elif not await self._refused(request, message, language):
            await self.store.begin_flow(user.id, self.kind, {}, lifetime_s=self.lifetime_s)
            await reply(message, say(language, self.question), ForceReply())

    async def code(self, request: Request, flow: Flow, language: str, _bot: Bot) -> None:
        """Take words that came while a code was waited for.

        Args:
            request: its message is what came.
            flow: a live one, of this kind.
            language: a key of `bot.texts.LANGUAGES`.
        """
        await self.store.end_flow(flow)
        message = request.messages[0]
        purpose = flow.state.get("purpose", "")
        await self._try(request, message, message.text or "", language, purpose)

    async def _try(
        self, request: Request, message: Message, code: str, language: str, purpose: str = ""
    ) -> None:
        await delete(message.get_bot(), message)  # it stays good: nobody is to find it in the chat
        if not await self._refused(request, message, language):
            await self._take(request, message, code, language, purpose)

    async def _refused(self, request: Request, message: Message, language: str) -> bool:
        """Say why no code is taken from this account now, where none is."""
        said = await self._not_now(request, language)
        if said is not None:
            await reply(message, said)
        return said is not None

    @abstractmethod
    async def _not_now(self, request: Request, language: str) -> str | None:
        """What to say to somebody from whom no code is taken now."""

    @abstractmethod
    async def _take(
        self, request: Request, message: Message, code: str, language: str, purpose: str
    ) -> None:
        """Look whether the code is right, and go on."""


def barred_from_codes(request: Request, barred: Barred | None, language: str) -> str | None:
    """What to say to somebody who has tried too many codes."""
    if barred is None or barred.until is None:
        return None
    request.outcome = f"barred_{barred.reason}"
    return say(language, "recover.barred", when=moment(barred.until))
