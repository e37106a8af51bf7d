"""/mydata and /forget: what is kept about a person, as a file; and its end, with a receipt.

Knows nothing about where things are kept: erasing is the store's work alone.
"""

import json
from dataclasses import dataclass

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import ContextTypes

from bot.login import notices
from bot.store import FlowKind, Receipt, Store
from bot.telegram.replies import Language, reply, replying_to, settle, toast, who_asks, who_pressed
from bot.telegram.request import current
from bot.texts import moment, say

BUTTON = r"^forget:"


@dataclass(kw_only=True, eq=False)
class Rights:
    """Tells people what is kept about them, and erases it.

    Args:
        store: keeps it.
        language: see `replies.Language`.
        lifetime_s: seconds in which erasing must be confirmed.
    """

    store: Store
    language: Language
    lifetime_s: float

    async def my_data(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Send all that is kept, as JSON."""
        message, user, language = await who_asks(update, self.language)
        member = await self.store.membership(user.id)
        content = json.dumps(await self.store.export(user.id), indent=1, ensure_ascii=False)
        if member is None:
            words = say(language, "rights.no_face")
        else:
            used = (
                say(language, "rights.never")
                if member.last_used is None
                else (moment(member.last_used))
            )
            words = say(
                language,
                "rights.face",
                count=member.templates,
                since=moment(member.since),
                used=used,
                until=moment(member.deleted_on),
            )
        with current.get().timed("send"):
            await message.reply_document(
                content.encode(),
                filename="mydata.json",
                caption=words,
                reply_parameters=replying_to(message),
                protect_content=False,  # it is theirs to take along
            )

    async def forget(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Ask whether it is meant."""
        message, user, language = await who_asks(update, self.language)
        flow = await self.store.begin_flow(user.id, FlowKind.FORGET, {}, lifetime_s=self.lifetime_s)
        buttons = [
            InlineKeyboardButton(
                say(language, f"buttons.forget_{verb}"), callback_data=f"forget:{verb}:{flow.id}"
            )
            for verb in ("yes", "no")
        ]
        await reply(
            message,
            say(language, "rights.forget"),
            InlineKeyboardMarkup([[button] for button in buttons]),
        )

    async def button(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Erase, or not; whatever happens, the button is answered."""
        query, language, verb, number = await who_pressed(update, self.language)
        flow = await self.store.flow(query.from_user.id)
        said, receipt = None, None
        if flow is None or flow.kind is not FlowKind.FORGET or str(flow.id) != number:
            said, words = say(language, "toast.button_expired"), None
        elif verb == "yes":
            receipt = await self.store.forget(query.from_user.id)
            current.get().outcome = "forgotten"
            words = say(
                language, "rights.forgotten", number=receipt.number, when=moment(receipt.when)
            )
            if receipt.held_until is not None:
                words += " " + say(language, "rights.held", when=moment(receipt.held_until))
        else:
            await self.store.end_flow(flow)
            words = say(language, "rights.kept")
        await settle(query, words)
        await toast(context.bot, query.id, said)
        if receipt is not None:
            await self._tell_others(context.bot, query.from_user.id, receipt)

    async def _tell_others(self, bot: Bot, telegram_id: int, receipt: Receipt) -> None:
        """Whoever was told of the login hears that it is over, and whom it told, that it left."""
        if receipt.contact is not None:
            await notices.pass_on(
                bot, self.store, telegram_id, "alerts.forgotten_there", contact=receipt.contact
            )
        for owner in receipt.left:
            await notices.tell(bot, self.store, owner, "alerts.leave_there")
