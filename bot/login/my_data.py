"""/mydata and /forget: what is kept about a person, as a file; and its end, with a receipt.

Knows nothing about where things are kept: erasing is the store's work alone.
"""

import json

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import ContextTypes

from bot.login import notices
from bot.store import FlowKind, Receipt, Store
from bot.telegram.replies import Language, reply, replying_to, settle, toast
from bot.telegram.request import current
from bot.texts import DEFAULT, moment, say

BUTTON = r"^forget:"


class Rights:
    """Tells people what is kept about them, and erases it.

    Args:
        store: keeps it.
        language: see `replies.Language`.
        lifetime_s: seconds in which erasing must be confirmed.
    """

    def __init__(self, *, store: Store, language: Language, lifetime_s: float) -> None:
        self._store = store
        self._language = language
        self._lifetime_s = lifetime_s

    async def my_data(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Send all that is kept, as JSON."""
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        language = await self._language(user)
        member = await self._store.membership(user.id)
        content = json.dumps(await self._store.export(user.id), indent=1, ensure_ascii=False)
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
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        language = await self._language(user)
        flow = await self._store.begin_flow(
            user.id, FlowKind.FORGET, {}, lifetime_s=self._lifetime_s
        )
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
        query = update.callback_query
        assert query is not None
        language = await self._language(query.from_user)
        _, verb, number = ((query.data or "") + "::").split(":")[:3]
        flow = await self._store.flow(query.from_user.id)
        said, receipt = None, None
        if flow is None or flow.kind is not FlowKind.FORGET or str(flow.id) != number:
            said, words = say(language, "toast.button_expired"), None
        elif verb == "yes":
            receipt = await self._store.forget(query.from_user.id)
            current.get().outcome = "forgotten"
            words = say(
                language, "rights.forgotten", number=receipt.number, when=moment(receipt.when)
            )
            if receipt.held_until is not None:
                words += " " + say(language, "rights.held", when=moment(receipt.held_until))
        else:
            await self._store.end_flow(flow)
            words = say(language, "rights.kept")
        await settle(query, words)
        await toast(context.bot, query.id, said)
        if receipt is not None:
            await self._tell_others(context.bot, query.from_user.id, receipt)

    async def _tell_others(self, bot: Bot, telegram_id: int, receipt: Receipt) -> None:
        """Whoever was told of the login hears that it is over, and whom it told, that it left."""
        if receipt.contact is not None:
            await notices.pass_on(
                bot, self._store, telegram_id, "alerts.forgotten_there", contact=receipt.contact
            )
        for owner in receipt.left:
            language = await self._store.writing_language(owner) or DEFAULT
            await notices.told(bot, owner, say(language, "alerts.leave_there"))
