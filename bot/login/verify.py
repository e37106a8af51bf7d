"""/verify: a challenge, fresh captures, and yes or no; never a score.

By photo: two or three different selfies, each in reply to a message and in time; a low assurance,
because a picture cannot prove that somebody is there. By video: a round video message in which
the person turns the head as drawn. Whatever breaks, nobody is let in.

What somebody refused to answer counts as a failure; what a fault of ours kept from being judged
after it was shown counts as a draw only (`bot.store.limits` says why). They are told apart by what
the bot saw: the engine, the download or the time for an answer failed while it had an answer at
hand that keeps all rules of the chat. Knows nothing about how likeness is measured, movements are
judged or attempts are counted.
"""

import asyncio
import base64
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import numpy as np
from telegram import Bot, ForceReply, Message, Update
from telegram.constants import ChatAction
from telegram.ext import ContextTypes

from bot.login import challenge_card, liveness
from bot.login.captures import Captures, embedder_of
from bot.login.liveness import Challenge
from bot.login.vector_text import Vectors, label, of_embedder, unlabel
from bot.store import (
    Attempt,
    Barred,
    Flow,
    FlowKind,
    Known,
    Level,
    Store,
    Templates,
    Unusable,
)
from bot.telegram.incoming import OURS, Occasion, Reason, Refusal, login_attachment
from bot.telegram.replies import (
    Language,
    deleting,
    refused,
    reply,
    replying_to,
    toast,
    who_asks,
    who_pressed,
    working,
)
from bot.telegram.request import Request, current
from bot.texts import moment, say
from engine import decision
from engine.decision import Decision, LoginCalibration
from engine.types import Face

logger = logging.getLogger(__name__)

BUTTON = r"^verify:(replace|alerts)$"

_MARGIN_S = 30.0
"""A challenge is waited for this much longer, so that who comes too late is told so."""
_TOLD_S = 3600.0
"""For so long after a challenge's time whoever replies to it is told so."""

_OTHER_EMBEDDER = "other_embedder"

Remind = Callable[[Message, int, str], Awaitable[None]]
"""Tells a person, known by their id, in a language, what they should know about their login."""

Alarm = Callable[[int], Awaitable[None]]
"""Tells a person, known by their id, of attempts that they may not have made."""

Then = Callable[[Message, Attempt, Flow, str], Awaitable[None]]
"""Does what a challenge was set for: what is answered, the pass, its flow, the language."""

_LEVELS: dict[str, Level] = {
    "photo": "photo",
    "foto": "photo",
    "video": "video",
    "vídeo": "video",
}
"""What may stand behind the command."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How verifying goes.

    Attributes:
        level: what is asked for by default.
        by_photo: whether selfies will do.
        photos: how many selfies it takes by photo.
        photo_s: seconds in which each must come.
        video_s: seconds in which the clip must come.
    """

    level: Level
    by_photo: bool
    photos: int
    photo_s: float
    video_s: float

    def lifetime_s(self, level: Level) -> float:
        """Seconds that a challenge of a level lives."""
        return self.video_s if level == "video" else self.photo_s


@dataclass(frozen=True, slots=True)
class _Pass:
    """That somebody passed, and what to say."""

    text: str
    attempt: Attempt
    alarm: bool


_Said = str | _Pass | Refusal | None
"""What to say; None where it was said."""


@dataclass(frozen=True, slots=True)
class _LoginAnswer:
    """What came in reply to a challenge: a message, for a person whose conversation this is."""

    request: Request
    message: Message
    flow: Flow
    language: str
    known: Known

    @property
    def level(self) -> Level:
        """Of the challenge."""
        level: Level = self.flow.state["level"]
        return level

    @property
    def subject(self) -> int:
        """Telegram id of whose face it is to be."""
        subject: int = self.flow.state["subject"]
        return subject

    @property
    def nonce(self) -> bytes:
        """Of the challenge."""
        return base64.b64decode(self.flow.state["nonce"])


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What is to be compared with the templates."""

    level: Level
    probes: Vectors
    turns: Sequence[Vectors] = ()


@dataclass(kw_only=True, eq=False)
class Verifying:
    """Checks people against their templates.

    Args:
        store: keeps templates, challenges and attempts.
        captures: fetch and see what people send.
        language: see `replies.Language`.
        terms: how it goes.
        remind: called when somebody passed, or cannot pass any more.
        alarm: called when somebody's failures or draws were counted.
        then: called when somebody passed a challenge that was set for a purpose, by its name.
        chance: draws challenges; not to be foreseen.
        clock: tells the time, with a zone.
    """

    store: Store
    captures: Captures
    language: Language
    terms: Terms
    remind: Remind
    alarm: Alarm
    then: Mapping[str, Then]
    chance: Random
    clock: Callable[[], datetime]
    _beside: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    # Asking

    async def command(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Set a challenge."""
        message, user, language = await who_asks(update, self.language)
        request = current.get()
        level = self._level(context.args)
        if level is None:
            request.outcome = "unknown_level"
            await reply(message, say(language, "verify.which"))
            return
        if level == "photo" and not self.terms.by_photo:
            request.outcome = "no_photo"
            await reply(message, say(language, "verify.no_photo"))
            return
        barred = await self._not_now(request, user.id, level, language)
        if barred is not None:
            await reply(message, barred)
            if request.outcome == _OTHER_EMBEDDER:
                # Nobody can pass any more, and so be told then.
                await self.remind(message, user.id, language)
            return
        await self._challenge(message, user.id, level, language)

    async def button(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Set the challenge by video that the button's purpose takes; the button is answered."""
        query, language, purpose, _ = await who_pressed(update, self.language)
        said = None
        if isinstance(query.message, Message):
            said = await self._not_now(current.get(), query.from_user.id, "video", language)
            if said is None:
                person = query.from_user.id
                await self._challenge(query.message, person, "video", language, purpose)
        else:
            said = say(language, "toast.button_expired")
        await toast(context.bot, query.id, said)

    async def challenge_for_move(
        self, request: Request, message: Message, language: str, *, subject: int, used: bytes
    ) -> None:
        """Set a challenge for the face of somebody else's account, by whose code this one came.

        It counts for that account, as whatever comes of it does.

        Args:
            request: of the account that is to take over.
            message: what is answered.
            language: a key of `bot.texts.LANGUAGES`.
            subject: Telegram id of the account whose face it is to be.
            used: the mark of its recovery code.
        """
        barred = await self._not_now(request, subject, "video", language)
        if barred is not None:
            await reply(message, barred)
            return
        whose = {"subject": subject, "used": used.hex()}
        await self._challenge(message, request.person, "video", language, "move", whose)

    def _level(self, words: Sequence[str] | None) -> Level | None:
        if not words:
            return self.terms.level
        return _LEVELS.get(words[0].lower()) if len(words) == 1 else None

    async def _not_now(
        self, request: Request, telegram_id: int, level: Level, language: str
    ) -> str | None:
        """What to say to somebody who cannot verify now."""
        calibration = await self.captures.calibration(request)
        if isinstance(calibration, Refusal):
            request.outcome = f"refused_{calibration.reason.value}"
            return refused(calibration, language)
        member = await self.store.membership(telegram_id)
        if member is None:
            request.outcome = "not_enrolled"
            return say(language, "verify.not_enrolled")
        if member.embedder != embedder_of(calibration):
            request.outcome = _OTHER_EMBEDDER
            return say(language, "verify.other_embedder")
        barred = await self.store.barred(telegram_id, drawing=level == "video")
        if barred is not None:
            request.outcome = f"barred_{barred.reason}"
            return self._barred(barred, language)
        return None

    async def _challenge(
        self,
        message: Message,
        telegram_id: int,
        level: Level,
        language: str,
        purpose: str = "",
        whose: Mapping[str, Any] | None = None,
    ) -> None:
        """Set a challenge; what Telegram did not deliver was never set, and is charged to nobody.

        Nor can it be answered: whoever sees it all the same gains nothing.
        """
        challenge = liveness.draw(self.chance) if level == "video" else None
        lifetime_s = self.terms.lifetime_s(level)
        if challenge is None:
            text = say(language, "verify.photo", count=self.terms.photos, seconds=round(lifetime_s))
            asked = await reply(message, text, ForceReply())
        else:
            card = await asyncio.to_thread(challenge_card.draw, challenge, language)
            with current.get().timed("send"):
                asked = await message.reply_photo(
                    card,
                    caption=say(
                        language,
                        f"verify.video_{purpose}" if purpose else "verify.video",
                        seconds=round(lifetime_s),
                    ),
                    reply_markup=ForceReply(),
                    reply_parameters=replying_to(message),
                    protect_content=True,
                    filename="steps.png",
                )
        state: dict[str, Any] = {"subject": telegram_id, **(whose or {})}
        nonce = await self.store.new_challenge(
            state["subject"],
            level,
            "" if challenge is None else challenge.code,
            lifetime_s=self._whole_lifetime_s(level),
        )
        state |= {
            "level": level,
            "purpose": purpose,
            "nonce": base64.b64encode(nonce).decode("ascii"),
            "vectors": [],
            **_awaited(asked),
        }
        await self.store.begin_flow(
            telegram_id, FlowKind.VERIFY, state, lifetime_s=lifetime_s + _TOLD_S
        )
        current.get().outcome = f"challenged_{level}"
        await self.alarm(state["subject"])

    def _whole_lifetime_s(self, level: Level) -> float:
        """How long a challenge lives, whose selfies are asked for one after the other."""
        times = self.terms.photos if level == "photo" else 1
        return times * (self.terms.lifetime_s(level) + _MARGIN_S)

    # Judging

    def waits_for(self, flow: Flow, message: Message) -> bool:
        """Whether a message is for a challenge: after its time, only what replies to it."""
        if self.clock() < flow.deadline - timedelta(seconds=_TOLD_S - _MARGIN_S):
            return True
        answered = message.reply_to_message
        return answered is not None and answered.message_id in flow.state["messages"]

    async def capture(
        self, request: Request, flow: Flow, language: str, bot: Bot, *, known: Known
    ) -> None:
        """Take in what came in reply to a challenge.

        Args:
            request: its messages are what came.
            flow: a live one, of the kind VERIFY.
            language: a key of `bot.texts.LANGUAGES`.
            bot: the way to Telegram.
            known: of a clip, see `bot.store.Conversation`.
        """
        answer = _LoginAnswer(request, request.messages[0], flow, language, known)
        message, purpose = answer.message, flow.state["purpose"]
        async with deleting(bot, request.messages):
            async with working(bot, message.chat.id, ChatAction.TYPING):
                said = await self._taken(answer)
            if isinstance(said, Refusal):
                request.outcome = f"refused_{said.reason.value}"
                await self.refuse(message, flow, said, language)
            elif isinstance(said, _Pass):
                await reply(message, said.text)
                if answer.level == "photo":  # a pass by video has ended what it would speak of
                    await self.remind(message, request.person, language)
                if purpose:
                    await self.then[purpose](message, said.attempt, flow, language)
            elif said is not None:
                again = f"\n\n{say(language, 'move.again')}" if purpose == "move" else ""
                await reply(message, said + again)
            if not isinstance(said, _Pass) or said.alarm:
                await self.alarm(answer.subject)

    async def refuse(self, message: Message, flow: Flow, refusal: Refusal, language: str) -> None:
        """Say why, and what is left; what says it may be replied to as the challenge may.

        Args:
            message: what is refused.
            flow: of the kind VERIFY.
            refusal: why.
            language: a key of `bot.texts.LANGUAGES`.
        """
        said = refused(refusal, language)
        live = await self.store.flow(flow.telegram_id)
        over = refusal.reason is Reason.TOO_LATE  # also for what comes later, until it is forgotten
        if over or live is None or live.id != flow.id or live.state["asked"] is None:
            await reply(message, said)
            return
        level: Level = live.state["level"]
        until = datetime.fromisoformat(live.state["asked"])
        until += timedelta(seconds=self.terms.lifetime_s(level))
        left = say(
            language,
            f"verify.left_{level}",
            number=len(live.state["vectors"]),
            of=self.terms.photos,
            seconds=max(0, math.floor((until - self.clock()).total_seconds())),
        )
        asked = await reply(message, f"{said}\n\n{left}", ForceReply())
        state = {**live.state, "messages": [*live.state["messages"], asked.message_id]}
        await self.store.advance_flow(live, state)

    async def _taken(self, answer: _LoginAnswer) -> _Said:
        """As `_take`; a fault of ours is noted for the challenge."""
        try:
            said = await self._take(answer)
        except BaseException as fault:
            await self._see_to(fault, self._excuse(answer))
            raise
        if isinstance(said, Refusal) and said.reason in OURS:
            await self._excuse(answer)
        return said

    async def _excuse(self, answer: _LoginAnswer) -> None:
        if answer.level == "video":  # there is nothing to draw by photo
            await self.store.excuse_challenge(answer.subject, answer.nonce)

    async def _see_to(self, fault: BaseException, work: Coroutine[Any, Any, None]) -> None:
        """Have something written down after a fault; where even that fails it is logged."""
        seeing = asyncio.create_task(_or_log(work), name="after a fault")
        self._beside.add(seeing)
        seeing.add_done_callback(self._beside.discard)
        if isinstance(fault, Exception):  # else the time is over, also for waiting
            await asyncio.shield(seeing)

    async def _take(self, answer: _LoginAnswer) -> _Said:
        state = answer.flow.state
        if answer.level == "photo" and not self.terms.by_photo:
            answer.request.outcome = "no_photo"  # it was forbidden meanwhile
            await self.store.end_flow(answer.flow)
            return say(answer.language, "verify.no_photo")
        if state["asked"] is None:  # the challenge never reached the person
            return Refusal(Reason.NOT_A_REPLY)
        asked = datetime.fromisoformat(state["asked"])
        occasion = Occasion(
            clip=answer.level == "video",
            asked=asked,
            until=asked + timedelta(seconds=self.terms.lifetime_s(answer.level)),
            reply_to=tuple(state["messages"]),
        )
        source = login_attachment(answer.message, occasion)
        if isinstance(source, Refusal):  # before anything of ours can fail
            return source
        return await (self._clip if occasion.clip else self._photo)(answer, occasion)

    async def _changed(self, answer: _LoginAnswer, calibration: LoginCalibration) -> str | None:
        """What to say where another embedder took over meanwhile, which nobody is charged for."""
        member = await self.store.membership(answer.subject)
        if member is None or member.embedder == embedder_of(calibration):
            return None
        answer.request.outcome = _OTHER_EMBEDDER
        await self._excuse(answer)
        await self.store.end_flow(answer.flow)
        return say(answer.language, "verify.other_embedder")

    async def _photo(self, answer: _LoginAnswer, occasion: Occasion) -> _Said:
        calibration = await self.captures.calibration(answer.request)
        if isinstance(calibration, Refusal):
            return calibration
        changed = await self._changed(answer, calibration)
        if changed is not None:
            return changed
        seen = await self.captures.selfie(answer.request, answer.message, occasion)
        if isinstance(seen, Refusal):
            return seen
        face, calibration = seen
        changed = await self._changed(answer, calibration)
        if changed is not None:
            return changed
        assert face.embedding is not None
        embedder = embedder_of(calibration)
        kept = of_embedder(answer.flow.state["vectors"], embedder)
        vectors = [*kept, label(embedder, face.embedding)]
        if len(vectors) < self.terms.photos:
            return await self._next_photo(answer, vectors)
        attempt = await self.store.begin_attempt(
            answer.flow, answer.level, answer.nonce, subject=answer.subject
        )
        if isinstance(attempt, Barred):
            return self._not_begun(answer, attempt)
        templates = partial(self.store.templates, attempt.telegram_id)
        evidence = partial(_Evidence, "photo", unlabel(vectors))
        return await self._judge(answer, calibration, attempt, templates, evidence)

    async def _next_photo(
        self, answer: _LoginAnswer, vectors: Sequence[Sequence[str]]
    ) -> Refusal | None:
        state = {**answer.flow.state, "vectors": vectors, "messages": [], "asked": None}
        lifetime_s = self.terms.photo_s + _TOLD_S
        advanced = await self.store.advance_flow(answer.flow, state, lifetime_s=lifetime_s)
        if advanced is None:
            return Refusal(Reason.OVERTAKEN)
        answer.request.outcome = f"captured_{len(vectors)}"
        text = say(
            answer.language,
            "verify.next_photo",
            number=len(vectors),
            of=self.terms.photos,
            seconds=round(self.terms.photo_s),
        )
        asked = await reply(answer.message, text, ForceReply())
        # Where it is overtaken, the person has begun something else.
        await self.store.advance_flow(advanced, {**state, **_awaited(asked)})
        return None

    async def _clip(self, answer: _LoginAnswer, occasion: Occasion) -> _Said:
        seen = await self.captures.clip(answer.request, answer.message, occasion)
        if isinstance(seen, Refusal):
            return seen
        track, calibration, clip = seen
        begun = await self.store.begin_by_clip(answer.flow, answer.nonce, clip, answer.known)
        if begun is Unusable.SEEN_BEFORE:
            return Refusal(Reason.SEEN_BEFORE)
        if begun is Unusable.OTHER_EMBEDDER:
            answer.request.outcome = _OTHER_EMBEDDER
            return say(answer.language, "verify.other_embedder")
        if isinstance(begun, Barred):
            return self._not_begun(answer, begun)
        attempt, rotated = begun

        def evidence() -> _Evidence | liveness.Failure:
            found = liveness.judge(Challenge.parse(attempt.steps), track)
            if isinstance(found, liveness.Failure):
                return found
            turns = [_vectors(turn) for turn in found.turns]
            return _Evidence("video", _vectors(found.neutral), turns)

        templates = partial(self.store.unrotated, rotated)
        return await self._judge(answer, calibration, attempt, templates, evidence)

    def _not_begun(self, answer: _LoginAnswer, barred: Barred) -> str:
        answer.request.outcome = f"barred_{barred.reason}"
        return self._barred(barred, answer.language)

    async def _judge(
        self,
        answer: _LoginAnswer,
        calibration: LoginCalibration,
        attempt: Attempt,
        templates: Callable[[], Awaitable[Templates | None]],
        evidence: Callable[[], _Evidence | liveness.Failure],
    ) -> str | _Pass:
        """Compare, write down, and only then say.

        Args:
            answer: what came.
            calibration: of the bundle that saw it.
            attempt: committed.
            templates: fetches what it is compared with.
            evidence: what is to be compared. It may take long.
        """
        request, language = answer.request, answer.language
        try:
            found = await asyncio.to_thread(evidence)
            failed = found.reason.value if isinstance(found, liveness.Failure) else ""
            decided = (
                Decision(accepted=False, reason=failed, bucket=0)
                if isinstance(found, liveness.Failure)
                else await _decide(await templates(), calibration, found)
            )
            finished = await self.store.finish_attempt(
                attempt,
                passed=decided.accepted,
                reason=decided.reason,
                version=calibration.version,
                bucket=decided.bucket,
            )
        except BaseException as fault:
            # Ours to blame: no failure. Where even that fails it stays one, and nobody is in.
            await self._see_to(fault, self.store.void_attempt(attempt, "fault"))
            raise
        if not decided.accepted:
            request.outcome = f"failed_{decided.reason}"
            return say(
                language, f"liveness.{failed}" if failed else f"verify.failed_{attempt.level}"
            )
        request.outcome = f"passed_{attempt.level}"
        passed = say(language, f"verify.passed_{attempt.level}")
        if finished.reset_ended:
            passed += f"\n\n{say(language, 'verify.reset_ended')}"
        return _Pass(passed, attempt, finished.alarm)

    def _barred(self, barred: Barred, language: str) -> str:
        if barred.until is None:
            return say(language, f"verify.barred_{barred.reason}")
        if barred.reason == "draws":
            return say(language, "verify.barred_draws", when=moment(barred.until))
        left_s = max(1, math.ceil((barred.until - self.clock()).total_seconds()))
        if left_s < 120:
            return say(language, "verify.barred_delay", count=left_s)
        return say(language, "verify.barred_until", when=moment(barred.until))


async def _decide(
    templates: Templates | None, calibration: LoginCalibration, evidence: _Evidence
) -> Decision:
    if templates is None or templates.embedder != embedder_of(calibration):
        return Decision(accepted=False, reason="not_comparable", bucket=0)
    return await asyncio.to_thread(
        decision.decide,
        calibration,
        evidence.level,
        templates.vectors,
        evidence.probes,
        evidence.turns,
    )


async def _or_log(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        logger.exception("a fault could not be written down: it counts as a failure")


def _awaited(asked: Message) -> dict[str, object]:
    """For a conversation's state: which messages may be replied to, and since when."""
    return {"messages": [asked.message_id], "asked": asked.date.isoformat()}


def _vectors(faces: Sequence[Face]) -> Vectors:
    """(k, d) embeddings of faces that have one."""
    return np.stack([face.embedding for face in faces if face.embedding is not None])
