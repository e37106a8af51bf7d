"""/enroll: consent, a few selfies, and a face login is set up; or nothing is, ever, in part.

The state of the conversation is in the database, sealed; photos are looked at and let go. Knows
nothing about how faces are found, how templates are kept, or how they are compared later.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from telegram import (
    Bot,
    CallbackQuery,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    Update,
)
from telegram.constants import ChatAction
from telegram.ext import ContextTypes

from bot.login import alerts, notices
from bot.login.captures import Captures, embedder_of
from bot.login.vector_text import label, of_embedder, unlabel
from bot.store import Attempt, Enrolment, Flow, FlowKind, Right, Store, new_recovery_code
from bot.telegram.incoming import Occasion, Reason, Refusal
from bot.telegram.replies import (
    Language,
    delete,
    deleting,
    refused,
    reply,
    settle,
    toast,
    who_asks,
    who_pressed,
    working,
)
from bot.telegram.request import Request, current
from bot.texts import LANGUAGES, moment, say, sentences
from engine import decision
from engine.decision import LoginCalibration

logger = logging.getLogger(__name__)

BUTTON = r"^enroll:"
_REPLACE = "verify:replace"
"""What the button says that asks for the challenge by video; `bot.login.verify` sets it."""

OPEN_FOR = timedelta(days=7)
"""How long a face may be replaced once the delay is over."""

_CONSENT = "consent"
_CAPTURE = "capture"


@dataclass(kw_only=True, eq=False)
class Enrolling:
    """Sets up face logins.

    Args:
        store: keeps conversations and templates.
        captures: fetch and see what people send.
        selfies: how many it takes.
        language: see `replies.Language`.
        lifetime_s: after how long an unfinished conversation is forgotten.
        reset_delay_s: after how long somebody who can neither verify nor has the code may begin
            anew.
        hold_hours: how long the mark of somebody who was erased is kept at most, for the consent.
        idle_days: after how many days without use templates are deleted, for the consent.
        clock: tells the time, with a zone.
    """

    store: Store
    captures: Captures
    language: Language
    selfies: int
    lifetime_s: float
    reset_delay_s: float
    hold_hours: int
    idle_days: int
    clock: Callable[[], datetime]

    # Asking for consent

    async def command(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Begin, or say what it takes to replace what is there."""
        message, user, language = await who_asks(update, self.language)
        request = current.get()
        calibration = await self.captures.calibration(request)
        if isinstance(calibration, Refusal):
            request.outcome = f"refused_{calibration.reason.value}"
            await reply(message, refused(calibration, language))
            return
        member = await self.store.membership(user.id)
        held_until = await self.store.held_until(user.id)
        if held_until is not None:
            request.outcome = "held"
            await reply(message, say(language, "enroll.held", when=moment(held_until)))
        elif member is None:
            await self.ask_consent(message, user.id, language, Right.FIRST)
        elif member.locked:
            request.outcome = "barred_locked"
            await reply(message, say(language, "verify.barred_locked"))
        else:
            usable = member.embedder == embedder_of(calibration)
            await self._offer_ways(message, user.id, language, usable=usable)

    async def ask_consent(
        self, message: Message, telegram_id: int, language: str, right: Right
    ) -> None:
        """Ask whether a face may be kept; whoever calls has made sure that it may be replaced.

        The right to it is this conversation's, and ends with it.

        Args:
            message: what is answered.
            telegram_id: the person.
            language: a key of `bot.texts.LANGUAGES`.
            right: what lets them. All but a video bring a new recovery code.
        """
        flow = await self.store.begin_flow(
            telegram_id,
            FlowKind.ENROLL,
            {"stage": _CONSENT, "right": right.value},
            lifetime_s=self.lifetime_s,
        )
        text = say(
            language,
            "enroll.consent",
            count=self.selfies,
            days=self.idle_days,
            hours=self.hold_hours,
        )
        buttons = [
            _button(language, "agree", flow.id),
            _button(language, "decline", flow.id),
        ]
        await reply(message, text, InlineKeyboardMarkup([[button] for button in buttons]))

    async def after_video(
        self, message: Message, _attempt: Attempt, flow: Flow, language: str
    ) -> None:
        """Go on after the challenge by video that it takes to replace a face was passed."""
        await self.ask_consent(message, flow.telegram_id, language, Right.VIDEO)

    async def _offer_ways(
        self, message: Message, telegram_id: int, language: str, *, usable: bool
    ) -> None:
        """Say what it takes to replace a face; `usable`: whether it can still be compared."""
        due = await self._reset_due(telegram_id)
        if due is not None and due + OPEN_FOR < self.clock():
            # Nobody is to find, months later, a door that somebody had left open.
            await self.store.cancel_reset(telegram_id)
            due = None
        if due is None:
            replace = InlineKeyboardButton(say(language, "buttons.replace"), callback_data=_REPLACE)
            ways = [[replace]] if usable else []
            ways.append([_button(language, "wait", 0)])
            hours = round(self.reset_delay_s / 3600)
            key = "enroll.already" if usable else "enroll.already_other"
            await reply(message, say(language, key, hours=hours), InlineKeyboardMarkup(ways))
        elif due <= self.clock():
            await self.ask_consent(message, telegram_id, language, Right.WAIT)
        else:
            await self.remind(message, telegram_id, language)

    async def remind(self, message: Message, telegram_id: int, language: str) -> None:
        """Say that somebody asked to replace the face, where somebody did: arguments as above."""
        due = await self._reset_due(telegram_id)
        if due is not None:
            await reply(message, *_notice(due, language))

    async def _reset_due(self, telegram_id: int) -> datetime | None:
        """When the face may be replaced, if somebody asked for it."""
        due = await self.store.reset_due(telegram_id)
        delay_s = self.reset_delay_s
        if due is not None and due > self.clock() + timedelta(seconds=delay_s):
            # By a clock that was ahead then: the delay is no longer than it is.
            return await self.store.schedule_reset(telegram_id, delay_s=delay_s)
        return due

    # Buttons

    async def button(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Do what a button says; whatever happens, the button is answered."""
        query, language, verb, number = await who_pressed(update, self.language)
        match verb:
            case "agree" | "decline":
                said = await self._decided(context.bot, query, language, verb, number)
            case "wait":
                said = await self._wait(query, language)
            case "keep":
                said = await self._keep(query, language)
            case _:
                said = "toast.button_expired"
        await toast(context.bot, query.id, say(language, said) if said else None)

    async def _decided(
        self, bot: Bot, query: CallbackQuery, language: str, verb: str, number: str
    ) -> str | None:
        flow = await self.store.flow(query.from_user.id)
        if (
            flow is None
            or flow.kind is not FlowKind.ENROLL
            or str(flow.id) != number
            or flow.state["stage"] != _CONSENT
        ):
            await settle(query, None)
            return "toast.button_expired"
        if verb == "decline":
            await self.store.end_flow(flow)
            current.get().outcome = "declined"
            await settle(query, say(language, "enroll.declined"))
            return None
        assert query.message is not None
        state = {
            "stage": _CAPTURE,
            "consent": consent_version(),
            "right": flow.state["right"],
            "asked": query.message.date.isoformat(),
            "vectors": [],
        }
        if await self.store.advance_flow(flow, state, lifetime_s=self.lifetime_s) is None:
            return "toast.button_expired"
        await settle(query, None)
        text = say(language, "enroll.first", count=self.selfies)
        await bot.send_message(query.message.chat.id, text)
        return None

    async def _wait(self, query: CallbackQuery, language: str) -> str | None:
        member = await self.store.membership(query.from_user.id)
        if member is None or member.locked:
            await settle(query, None)
            return "toast.button_expired"
        person = query.from_user.id
        due = await self.store.schedule_reset(person, delay_s=self.reset_delay_s)
        await settle(query, *_notice(due, language))
        await notices.pass_on(
            query.get_bot(),
            self.store,
            person,
            "alerts.waiting_there",
            {"when": moment(due)},
            stoppable=True,
        )
        return None

    async def _keep(self, query: CallbackQuery, language: str) -> str | None:
        cancelled = await self.store.cancel_reset(query.from_user.id)
        if not cancelled:
            await settle(query, None)
            return "toast.button_expired"
        await settle(query, say(language, "enroll.kept"))
        return None

    # Selfies

    async def capture(self, request: Request, flow: Flow, language: str, bot: Bot) -> None:
        """Take one selfie in.

        Args:
            request: its messages are what came.
            flow: a live one, of the kind ENROLL.
            language: a key of `bot.texts.LANGUAGES`.
            bot: the way to Telegram.
        """
        message = request.messages[0]
        if flow.state["stage"] == _CONSENT:
            request.outcome = "refused_no_consent"
            await reply(message, say(language, "enroll.consent_first"))
            return
        async with deleting(bot, request.messages):
            async with working(bot, message.chat.id, ChatAction.TYPING):
                said = await self._take(request, message, flow, language, bot)
            if isinstance(said, Refusal):
                request.outcome = f"refused_{said.reason.value}"
                await reply(message, refused(said, language))

    async def _take(
        self, request: Request, message: Message, flow: Flow, language: str, bot: Bot
    ) -> Refusal | None:
        calibration = await self.captures.calibration(request)
        if isinstance(calibration, Refusal):
            return calibration
        occasion = Occasion(clip=False, asked=datetime.fromisoformat(flow.state["asked"]))
        seen = await self.captures.selfie(request, message, occasion)
        if isinstance(seen, Refusal):
            return seen
        face, calibration = seen
        assert face.embedding is not None
        embedder = embedder_of(calibration)
        kept = of_embedder(flow.state["vectors"], embedder)
        dropped = len(flow.state["vectors"]) - len(kept)  # another embedder took over meanwhile
        vectors = [*kept, label(embedder, face.embedding)]
        if not decision.agree(calibration, unlabel(vectors)):
            return Refusal(Reason.SOMEBODY_ELSE)
        if len(vectors) < self.selfies:
            state = {**flow.state, "vectors": vectors}
            if await self.store.advance_flow(flow, state, lifetime_s=self.lifetime_s) is None:
                return Refusal(Reason.OVERTAKEN)
            request.outcome = f"captured_{len(vectors)}"
            text = say(language, "enroll.next", number=len(vectors), of=self.selfies)
            hint = say(language, f"enroll.hint_{len(vectors)}")
            changed = f"{say(language, 'enroll.changed', count=dropped)}\n\n" if dropped else ""
            await reply(message, f"{changed}{text} {hint}")
            return None
        return await self._finish(request, message, flow, language, calibration, vectors, bot)

    async def _finish(
        self,
        request: Request,
        message: Message,
        flow: Flow,
        language: str,
        calibration: LoginCalibration,
        vectors: Sequence[Sequence[str]],
        bot: Bot,
    ) -> Refusal | None:
        right = Right(flow.state["right"])
        code = None if right is Right.VIDEO else new_recovery_code()
        enrolment = Enrolment(
            embedder=embedder_of(calibration),
            vectors=unlabel(vectors),
            consent=flow.state["consent"],
            recovery_code=code,
            language=language,
            right=right,
        )
        shown = None
        if code is not None:
            # Before it is in force: whatever breaks in between, no code is in force unseen.
            text = say(language, "enroll.code", code=code)
            shown = await reply(message, text, protected=True)
        if not await self.store.enroll(flow, enrolment):
            if shown is not None:
                await delete(bot, shown)
            return Refusal(Reason.OVERTAKEN)
        request.outcome = "enrolled"
        done = say(language, "enroll.done", days=self.idle_days)
        await reply(message, done, alerts.offer(language))
        if right is not Right.FIRST:
            await notices.pass_on(bot, self.store, request.person, "alerts.replaced_there")
        return None


def consent_version() -> str:
    """Which wording people agree to: it changes with the words, in any language."""
    words = "\0".join(str(sentences(language)["enroll"]["consent"]) for language in LANGUAGES)
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _notice(due: datetime, language: str) -> tuple[str, InlineKeyboardMarkup]:
    """That the face may be replaced from then on, and the button that takes it back."""
    keep = InlineKeyboardMarkup([[_button(language, "keep", 0)]])
    return say(language, "enroll.waiting", when=moment(due)), keep


def _button(language: str, verb: str, flow_id: int) -> InlineKeyboardButton:
    return InlineKeyboardButton(
        say(language, f"buttons.{verb}"), callback_data=f"enroll:{verb}:{flow_id}"
    )
