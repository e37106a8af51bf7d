"""/alerts: another Telegram account that is told when something happens to a person's login.

It is named by a link, and must say yes itself. Whoever holds the person's account cannot take it
away unseen: that needs what replacing a face needs. Knows nothing about what it is told
(`bot.login.notices`).
"""

from dataclasses import dataclass
from datetime import timedelta

from telegram import (
    Bot,
    CallbackQuery,
    ForceReply,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    Update,
)
from telegram.ext import ContextTypes
from telegram.helpers import create_deep_linked_url

from bot.login import notices
from bot.store import LINK_LIVES, Attempt, Contact, Flow, FlowKind, Store
from bot.telegram.replies import Language, reply, settle, toast, who_asks, who_pressed
from bot.telegram.request import current
from bot.texts import moment, say

BUTTON = r"^alerts:"
_REMOVE = "verify:alerts"
"""What the button says that asks for a challenge by video; `bot.login.verify` sets it."""


@dataclass(kw_only=True, eq=False)
class Alerts:
    """Names, tells and removes people's contacts.

    Args:
        store: keeps them.
        language: see `replies.Language`.
        lifetime_s: seconds in which a recovery code must come.
        delay_s: seconds after which a contact ends whom nobody had the right to end at once.
    """

    store: Store
    language: Language
    lifetime_s: float
    delay_s: float

    async def command(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Say who is told, and of whose logins this account is told."""
        message, user, language = await who_asks(update, self.language)
        told_of = await self.store.told_of(user.id)
        if told_of:
            leave = InlineKeyboardMarkup([[_button(language, "leave", "all")]])
            await reply(message, say(language, "alerts.told_of", count=told_of), leave)
        if await self.store.membership(user.id) is not None:
            await self._show(context.bot, message, user.id, language)
        elif not told_of:
            current.get().outcome = "not_enrolled"
            await reply(message, say(language, "verify.not_enrolled"))

    async def opened(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """A link was opened: say who asks and what it means, or that it is no good."""
        message, user, language = await who_asks(update, self.language)
        (code,) = context.args or [""]
        owner = await self.store.open_invitation(code, user.id)
        if owner is None or owner == user.id:
            current.get().outcome = "no_invitation" if owner is None else "own_invitation"
            key = "alerts.link_dead" if owner is None else "alerts.link_own"
            await reply(message, say(language, key))
            return
        name = await notices.name_of(context.bot, owner) or say(language, "alerts.somebody")
        buttons = [[_button(language, verb, code)] for verb in ("yes", "no")]
        text = say(language, "alerts.asked", name=name)
        await reply(message, text, InlineKeyboardMarkup(buttons))

    async def button(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Do what a button says; whatever happens, the button is answered."""
        query, language, verb, what = await who_pressed(update, self.language)
        match verb:
            case "show" | "code" | "wait" | "keep" if isinstance(query.message, Message):
                done = await self._own(context.bot, query, query.message, language, verb)
            case "yes" | "no":
                done = await self._answered(context.bot, query, language, what, verb == "yes")
            case "stop" | "leave":
                done = await self._contacts(context.bot, query, language, what, verb)
            case _:
                done = False
        said = None if done else say(language, "toast.button_expired")
        if not done:
            await settle(query, None)
        await toast(context.bot, query.id, said)

    async def after_video(
        self, message: Message, _attempt: Attempt, flow: Flow, language: str
    ) -> None:
        """Go on after the challenge by video that it takes to end a contact was passed."""
        await self.end_by_right(message, flow.telegram_id, language)

    async def end_by_right(self, message: Message, telegram_id: int, language: str) -> None:
        """End a person's contact at once; whoever calls has made sure that they may.

        Args:
            message: what is answered.
            telegram_id: the person.
            language: a key of `bot.texts.LANGUAGES`.
        """
        contact = await self.store.end_contact(telegram_id)
        await reply(message, say(language, "alerts.ended" if contact else "alerts.none"))
        if contact is not None:
            bot = message.get_bot()
            await notices.pass_on(
                bot, self.store, telegram_id, "alerts.ended_there", contact=contact
            )

    # The person's own buttons

    async def _show(self, bot: Bot, message: Message, telegram_id: int, language: str) -> None:
        contact = await self.store.contact(telegram_id)
        if contact is not None:
            await reply(message, *self._standing(contact, language))
            return
        code = await self.store.invite_contact(telegram_id)
        if code is None:
            current.get().outcome = "too_many_links"
            await reply(message, say(language, "alerts.too_many_links"))
            return
        link = create_deep_linked_url(bot.username, code)
        minutes = round(LINK_LIVES / timedelta(minutes=1))
        await reply(message, say(language, "alerts.link", link=link, minutes=minutes))

    def _standing(self, contact: Contact, language: str) -> tuple[str, InlineKeyboardMarkup]:
        since = moment(contact.since)
        if contact.ends is not None:
            ends = moment(contact.ends)
            keep = InlineKeyboardMarkup([[_button(language, "keep", "")]])
            return say(language, "alerts.ending", since=since, when=ends), keep
        by_video = InlineKeyboardButton(
            say(language, "buttons.alerts_video"), callback_data=_REMOVE
        )
        ways = [[by_video], *([_button(language, verb, "")] for verb in ("code", "wait"))]
        hours = round(self.delay_s / 3600)
        return say(language, "alerts.set", since=since, hours=hours), InlineKeyboardMarkup(ways)

    async def _own(
        self, bot: Bot, query: CallbackQuery, message: Message, language: str, verb: str
    ) -> bool:
        person = query.from_user.id
        if await self.store.membership(person) is None:
            return False
        if verb == "show":
            await self._show(bot, message, person, language)
            return True
        if await self.store.contact(person) is None:
            return False
        if verb == "code":
            state = {"purpose": "alerts"}
            await self.store.begin_flow(person, FlowKind.RESET, state, lifetime_s=self.lifetime_s)
            await reply(message, say(language, "recover.ask"), ForceReply())
        elif verb == "wait":
            ends = await self.store.end_contact_later(person, delay_s=self.delay_s)
            if ends is None:
                return False
            when = moment(ends)
            keep = InlineKeyboardMarkup([[_button(language, "keep", "")]])
            await settle(query, say(language, "alerts.will_end", when=when), keep)
            await notices.pass_on(
                bot, self.store, person, "alerts.will_end_there", {"when": when}, stoppable=True
            )
        elif await self.store.keep_contact(person):
            await settle(query, say(language, "alerts.kept"))
            await notices.pass_on(bot, self.store, person, "alerts.kept")
        else:
            return False
        return True

    # The other account's buttons

    async def _answered(
        self, bot: Bot, query: CallbackQuery, language: str, code: str, agreed: bool
    ) -> bool:
        owner = await self.store.answer_invitation(
            code, query.from_user.id, language if agreed else None
        )
        if owner is None:
            return False
        verb = "confirmed" if agreed else "declined"
        current.get().outcome = f"contact_{verb}"
        await settle(query, say(language, f"alerts.{verb}"))
        await notices.tell(bot, self.store, owner, f"alerts.{verb}_there")
        return True

    async def _contacts(
        self, bot: Bot, query: CallbackQuery, language: str, what: str, verb: str
    ) -> bool:
        number = int(what) if what.isdecimal() else None
        if number is None and what != "all":
            return False
        owners: tuple[int, ...]
        if verb == "leave":
            owners = await self.store.leave_contact(query.from_user.id, number)
        else:
            stopped = await self.store.stop_for_contact(query.from_user.id, number or 0)
            owners = () if stopped is None else (stopped,)
        if not owners:
            return False
        current.get().outcome = f"contact_{verb}"
        if isinstance(query.message, Message):
            await reply(query.message, say(language, f"alerts.{verb}_done"))
        for owner in owners:
            await notices.tell(bot, self.store, owner, f"alerts.{verb}_there")
        return True


def offer(language: str) -> InlineKeyboardMarkup:
    """The button that leads to /alerts, for the end of an enrolment."""
    return InlineKeyboardMarkup([[_button(language, "show", "")]])


def _button(language: str, verb: str, what: str) -> InlineKeyboardButton:
    return InlineKeyboardButton(
        say(language, f"buttons.alerts_{verb}"), callback_data=f"alerts:{verb}:{what}"
    )
