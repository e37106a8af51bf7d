"""/verify: a challenge, fresh captures, and yes or no; never a score.

By photo: two or three different selfies, each in reply to a message and in time; a low assurance,
because a picture cannot prove that somebody is there. By video: a round video message in which
the person turns the head as drawn. Whatever breaks, nobody is let in. Knows nothing about how
likeness is measured, movements are judged or attempts are counted.
"""

import asyncio
import base64
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

import numpy as np
from telegram import Bot, ForceReply, Message, Update
from telegram.constants import ChatAction
from telegram.ext import ContextTypes

from bot import challenge_card, liveness
from bot.captures import Captures, embedder_of
from bot.enroll import REPLACE
from bot.intake import Occasion, Reason, Refusal
from bot.liveness import Challenge
from bot.packing import Vectors, pack, unpack
from bot.replies import Language, deleting, refused, reply, replying_to, toast, working
from bot.request import Request, current
from bot.store import Attempt, Barred, Flow, FlowKind, Level, Right, Store
from bot.texts import moment, say
from engine import decision
from engine.decision import Decision, LoginCalibration
from engine.types import Face

logger = logging.getLogger(__name__)

BUTTON = rf"^{REPLACE}$"

_MARGIN_S = 30.0
"""A challenge is waited for this much longer, so that who comes too late is told so."""
_TOLD_S = 3600.0
"""For so long after a challenge's time whoever replies to it is told so."""

_PASSED = "passed_"
_OTHER_EMBEDDER = "other_embedder"

Remind = Callable[[Message, int, str], Awaitable[None]]
"""Tells a person, known by their id, in a language, what they should know about their login."""

AskConsent = Callable[[Message, int, str, Right], Awaitable[None]]
"""Asks a person whether another face may be kept; see `Enrolling.ask_consent`."""

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
class _Evidence:
    """What is to be compared with the templates."""

    level: Level
    probes: Vectors
    turns: Sequence[Vectors] = ()


class Verifying:
    """Checks people against their templates.

    Args:
        store: keeps templates, challenges and attempts.
        captures: fetch and see what people send.
        language: see `replies.Language`.
        terms: how it goes.
        remind: called when somebody passed, or cannot pass any more.
        ask_consent: called when somebody passed who wants to replace their face.
        chance: draws challenges; not to be foreseen.
        clock: tells the time, with a zone.
    """

    def __init__(
        self,
        *,
        store: Store,
        captures: Captures,
        language: Language,
        terms: Terms,
        remind: Remind,
        ask_consent: AskConsent,
        chance: Random,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._captures = captures
        self._language = language
        self._terms = terms
        self._remind = remind
        self._ask_consent = ask_consent
        self._chance = chance
        self._clock = clock
        self._voiding: set[asyncio.Task[None]] = set()

    # Asking

    async def command(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Set a challenge."""
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        request = current.get()
        language = await self._language(user)
        level = self._level(context.args)
        if level is None:
            request.outcome = "unknown_level"
            await reply(message, say(language, "verify.which"))
            return
        if level == "photo" and not self._terms.by_photo:
            request.outcome = "no_photo"
            await reply(message, say(language, "verify.no_photo"))
            return
        barred = await self._not_now(request, user.id, language)
        if barred is not None:
            await reply(message, barred)
            if request.outcome == _OTHER_EMBEDDER:
                # Nobody can pass any more, and so be told then.
                await self._remind(message, user.id, language)
            return
        await self._challenge(message, user.id, level, language)

    async def button(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Set the challenge by video that it takes to replace a face; the button is answered."""
        query = update.callback_query
        assert query is not None
        language = await self._language(query.from_user)
        said = None
        if isinstance(query.message, Message):
            said = await self._not_now(current.get(), query.from_user.id, language)
            if said is None:
                person = query.from_user.id
                await self._challenge(query.message, person, "video", language, replacing=True)
        else:
            said = say(language, "toast.button_expired")
        await toast(context.bot, query.id, said)

    def _level(self, words: Sequence[str] | None) -> Level | None:
        if not words:
            return self._terms.level
        return _LEVELS.get(words[0].lower()) if len(words) == 1 else None

    async def _not_now(self, request: Request, telegram_id: int, language: str) -> str | None:
        """What to say to somebody who cannot verify now."""
        calibration = await self._captures.calibration(request)
        if isinstance(calibration, Refusal):
            request.outcome = f"refused_{calibration.reason.value}"
            return refused(calibration, language)
        member = await self._store.membership(telegram_id)
        if member is None:
            request.outcome = "not_enrolled"
            return say(language, "verify.not_enrolled")
        if member.embedder != embedder_of(calibration):
            request.outcome = _OTHER_EMBEDDER
            return say(language, "verify.other_embedder")
        barred = await self._store.barred(telegram_id)
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
        *,
        replacing: bool = False,
    ) -> None:
        """Set a challenge; what Telegram did not deliver was never set, and is charged to nobody.

        Nor can it be answered: whoever sees it all the same gains nothing.
        """
        challenge = liveness.draw(self._chance) if level == "video" else None
        lifetime_s = self._terms.lifetime_s(level)
        if challenge is None:
            text = say(
                language, "verify.photo", count=self._terms.photos, seconds=round(lifetime_s)
            )
            asked = await reply(message, text, ForceReply())
        else:
            card = await asyncio.to_thread(challenge_card.draw, challenge, language)
            with current.get().timed("send"):
                asked = await message.reply_photo(
                    card,
                    caption=say(
                        language,
                        "verify.video_replace" if replacing else "verify.video",
                        seconds=round(lifetime_s),
                    ),
                    reply_markup=ForceReply(),
                    reply_parameters=replying_to(message),
                    protect_content=True,
                    filename="steps.png",
                )
        nonce = await self._store.new_challenge(
            telegram_id,
            level,
            "" if challenge is None else challenge.code,
            lifetime_s=self._whole_lifetime_s(level),
        )
        state = {
            "level": level,
            "replacing": replacing,
            "nonce": base64.b64encode(nonce).decode("ascii"),
            "vectors": [],
            **_awaited(asked),
        }
        await self._store.begin_flow(
            telegram_id, FlowKind.VERIFY, state, lifetime_s=lifetime_s + _TOLD_S
        )
        current.get().outcome = f"challenged_{level}"

    def _whole_lifetime_s(self, level: Level) -> float:
        """How long a challenge lives, whose selfies are asked for one after the other."""
        times = self._terms.photos if level == "photo" else 1
        return times * (self._terms.lifetime_s(level) + _MARGIN_S)

    # Judging

    def waits_for(self, flow: Flow, message: Message) -> bool:
        """Whether a message is for a challenge: after its time, only what replies to it."""
        if self._clock() < flow.deadline - timedelta(seconds=_TOLD_S - _MARGIN_S):
            return True
        answered = message.reply_to_message
        return answered is not None and answered.message_id in flow.state["messages"]

    async def capture(self, request: Request, flow: Flow, language: str, bot: Bot) -> None:
        """Take in what came in reply to a challenge.

        Args:
            request: its messages are what came.
            flow: a live one, of the kind VERIFY.
            language: a key of `bot.texts.LANGUAGES`.
            bot: the way to Telegram.
        """
        message = request.messages[0]
        async with deleting(bot, request.messages):
            async with working(bot, message.chat.id, ChatAction.TYPING):
                said = await self._take(request, message, flow, language)
            if isinstance(said, Refusal):
                request.outcome = f"refused_{said.reason.value}"
                await self.refuse(message, flow, said, language)
            elif said is not None:
                await reply(message, said)
            if request.outcome.startswith(_PASSED):
                await self._remind(message, request.person, language)
                if flow.state["replacing"]:
                    await self._ask_consent(message, request.person, language, Right.VIDEO)

    async def refuse(self, message: Message, flow: Flow, refusal: Refusal, language: str) -> None:
        """Say why, and what is left; what says it may be replied to as the challenge may.

        Args:
            message: what is refused.
            flow: of the kind VERIFY.
            refusal: why.
            language: a key of `bot.texts.LANGUAGES`.
        """
        said = refused(refusal, language)
        if refusal.reason is Reason.TOO_LATE:
            await self._store.end_flow(flow)
        live = await self._store.flow(flow.telegram_id)
        if live is None or live.id != flow.id or live.state["asked"] is None:
            await reply(message, said)
            return
        level: Level = live.state["level"]
        until = datetime.fromisoformat(live.state["asked"])
        until += timedelta(seconds=self._terms.lifetime_s(level))
        left = say(
            language,
            f"verify.left_{level}",
            number=len(live.state["vectors"]),
            of=self._terms.photos,
            seconds=max(0, math.floor((until - self._clock()).total_seconds())),
        )
        asked = await reply(message, f"{said}\n\n{left}", ForceReply())
        state = {**live.state, "messages": [*live.state["messages"], asked.message_id]}
        await self._store.advance_flow(live, state)

    async def _take(
        self, request: Request, message: Message, flow: Flow, language: str
    ) -> str | Refusal | None:
        """What to say; None where it was said."""
        level: Level = flow.state["level"]
        if level == "photo" and not self._terms.by_photo:
            request.outcome = "no_photo"  # it was forbidden meanwhile
            await self._store.end_flow(flow)
            return say(language, "verify.no_photo")
        if flow.state["asked"] is None:  # the challenge never reached the person
            return Refusal(Reason.NOT_A_REPLY)
        asked = datetime.fromisoformat(flow.state["asked"])
        occasion = Occasion(
            clip=level == "video",
            asked=asked,
            until=asked + timedelta(seconds=self._terms.lifetime_s(level)),
            reply_to=tuple(flow.state["messages"]),
        )
        calibration = await self._captures.calibration(request)
        if isinstance(calibration, Refusal):
            return calibration
        member = await self._store.membership(request.person)
        if member is not None and member.embedder != embedder_of(calibration):
            request.outcome = _OTHER_EMBEDDER  # it took over meanwhile
            await self._store.end_flow(flow)
            return say(language, "verify.other_embedder")
        if level == "video":
            return await self._clip(request, message, flow, language, calibration, occasion)
        return await self._photo(request, message, flow, language, calibration, occasion)

    async def _photo(
        self,
        request: Request,
        message: Message,
        flow: Flow,
        language: str,
        calibration: LoginCalibration,
        occasion: Occasion,
    ) -> str | Refusal | None:
        face = await self._captures.selfie(request, message, occasion)
        if isinstance(face, Refusal):
            return face
        assert face.embedding is not None
        vectors = [*flow.state["vectors"], pack(face.embedding)]
        if len(vectors) < self._terms.photos:
            return await self._next_photo(request, message, flow, language, vectors)
        begun = await self._begin(request, flow, language)
        if not isinstance(begun, Attempt):
            return begun
        return await self._judge(
            request, begun, language, calibration, lambda: _Evidence("photo", unpack(vectors))
        )

    async def _next_photo(
        self, request: Request, message: Message, flow: Flow, language: str, vectors: list[str]
    ) -> Refusal | None:
        state = {**flow.state, "vectors": vectors, "messages": [], "asked": None}
        lifetime_s = self._terms.photo_s + _TOLD_S
        advanced = await self._store.advance_flow(flow, state, lifetime_s=lifetime_s)
        if advanced is None:
            return Refusal(Reason.OVERTAKEN)
        request.outcome = f"captured_{len(vectors)}"
        text = say(
            language,
            "verify.next_photo",
            number=len(vectors),
            of=self._terms.photos,
            seconds=round(self._terms.photo_s),
        )
        asked = await reply(message, text, ForceReply())
        # Where it is overtaken, the person has begun something else.
        await self._store.advance_flow(advanced, {**state, **_awaited(asked)})
        return None

    async def _clip(
        self,
        request: Request,
        message: Message,
        flow: Flow,
        language: str,
        calibration: LoginCalibration,
        occasion: Occasion,
    ) -> str | Refusal | None:
        track = await self._captures.clip(request, message, occasion)
        if isinstance(track, Refusal):
            return track
        begun = await self._begin(request, flow, language)
        if not isinstance(begun, Attempt):
            return begun

        def evidence() -> _Evidence | liveness.Failure:
            found = liveness.judge(Challenge.parse(begun.steps), track)
            if isinstance(found, liveness.Failure):
                return found
            turns = [_vectors(turn) for turn in found.turns]
            return _Evidence("video", _vectors(found.neutral), turns)

        return await self._judge(request, begun, language, calibration, evidence)

    async def _begin(self, request: Request, flow: Flow, language: str) -> Attempt | str:
        """Commit an attempt before anything is compared, or what to say instead."""
        nonce = base64.b64decode(flow.state["nonce"])
        begun = await self._store.begin_attempt(flow, flow.state["level"], nonce)
        if isinstance(begun, Attempt):
            return begun
        request.outcome = f"barred_{begun.reason}"
        return self._barred(begun, language)

    async def _judge(
        self,
        request: Request,
        attempt: Attempt,
        language: str,
        calibration: LoginCalibration,
        evidence: Callable[[], "_Evidence | liveness.Failure"],
    ) -> str:
        """Compare, write down, and only then say."""
        try:
            found = await asyncio.to_thread(evidence)
            if isinstance(found, liveness.Failure):
                await self._finish(attempt, calibration, None, found.reason.value)
                request.outcome = f"failed_{found.reason.value}"
                return say(language, f"liveness.{found.reason.value}")
            decided = await self._decide(attempt, calibration, found)
            reset_ended = await self._finish(attempt, calibration, decided, decided.reason)
        except BaseException as fault:
            # Ours to blame: not charged. Where even that fails it stays charged, and nobody is in.
            voiding = asyncio.create_task(self._void(attempt), name="voiding")
            self._voiding.add(voiding)
            voiding.add_done_callback(self._voiding.discard)
            if isinstance(fault, Exception):  # else the time is over, also for waiting
                await asyncio.shield(voiding)
            raise
        if not decided.accepted:
            request.outcome = f"failed_{decided.reason}"
            return say(language, f"verify.failed_{attempt.level}")
        request.outcome = f"{_PASSED}{attempt.level}"
        passed = say(language, f"verify.passed_{attempt.level}")
        return f"{passed}\n\n{say(language, 'verify.reset_ended')}" if reset_ended else passed

    async def _decide(
        self, attempt: Attempt, calibration: LoginCalibration, evidence: _Evidence
    ) -> Decision:
        templates = await self._store.templates(attempt.telegram_id)
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

    async def _finish(
        self,
        attempt: Attempt,
        calibration: LoginCalibration,
        decided: Decision | None,
        reason: str,
    ) -> bool:
        return await self._store.finish_attempt(
            attempt,
            passed=decided is not None and decided.accepted,
            reason=reason,
            version=calibration.version,
            bucket=0 if decided is None else decided.bucket,
        )

    async def _void(self, attempt: Attempt) -> None:
        try:
            await self._store.void_attempt(attempt, "fault")
        except Exception:
            logger.exception("attempt=%s could not be taken back", attempt.id)

    def _barred(self, barred: Barred, language: str) -> str:
        if barred.until is None:
            return say(language, f"verify.barred_{barred.reason}")
        left_s = max(1, math.ceil((barred.until - self._clock()).total_seconds()))
        if left_s < 120:
            return say(language, "verify.barred_delay", count=left_s)
        return say(language, "verify.barred_until", when=moment(barred.until))


def _awaited(asked: Message) -> dict[str, object]:
    """For a conversation's state: which messages may be replied to, and since when."""
    return {"messages": [asked.message_id], "asked": asked.date.isoformat()}


def _vectors(faces: Sequence[Face]) -> Vectors:
    """(k, d) embeddings of faces that have one."""
    return np.stack([face.embedding for face in faces if face.embedding is not None])
