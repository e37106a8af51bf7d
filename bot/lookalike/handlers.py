"""A photo or an album in, cards with the people it resembles out; and the buttons below them.

Knows nothing about how faces are found (the engine does), how a card is drawn or how bytes come
from Telegram.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from telegram import (
    Bot,
    CallbackQuery,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InputMediaPhoto,
    Message,
    Update,
)
from telegram.error import BadRequest, Forbidden
from telegram.ext import ContextTypes

from bot.engine_gateway import answered
from bot.lookalike import captions
from bot.lookalike.face_choice import choose
from bot.lookalike.gallery_people import GalleryPeople
from bot.lookalike.shown_cards import ShownCard, ShownCards
from bot.lookalike.stable_answers import COMPARED, steady
from bot.telegram.incoming import Intake, Reason, Refusal
from bot.telegram.replies import (
    Language,
    refused,
    reply,
    toast,
    unchanged_is_fine,
    working,
)
from bot.telegram.request import Request, current
from bot.texts import say
from engine.client import Engine
from engine.types import Analysis, Face

logger = logging.getLogger(__name__)

_BUTTONS_IN_A_ROW = 6
_CARDS_AT_A_TIME = 2
_COUNTING_S = 1.0  # for how long a card waits to hear how many people there are


class Draw(Protocol):
    """Draws cards."""

    def __call__(
        self,
        picture: bytes,
        analysis: Analysis,
        /,
        *,
        language: str,
        face: int | None = None,
        people: int | None = None,
    ) -> bytes:
        """Draw a card as PNG; see `bot.drawing.card.draw`."""
        ...


class Lookalike:
    """Answers photos.

    Args:
        engine: looks at photos.
        people: counts whom the engine knows.
        intake: fetches pictures.
        draw: draws cards.
        answers: remembers what buttons need.
        language: see `replies.Language`.
        matches: how many people to name for each face, at most.
        faces_max: how many faces of a photo are shown, the largest.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        people: GalleryPeople,
        intake: Intake,
        draw: Draw,
        answers: ShownCards,
        language: Language,
        matches: int,
        faces_max: int,
    ) -> None:
        self._engine = engine
        self._people = people
        self._intake = intake
        self._draw = draw
        self._answers = answers
        self._language = language
        self._matches = matches
        self._faces_max = faces_max
        # Drawing takes a core and some memory: only so many at a time, whoever asks.
        self._easels = asyncio.Semaphore(_CARDS_AT_A_TIME)

    # Photos

    async def photo(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Answer a photo, an image sent as a file, or an album."""
        assert update.effective_user is not None
        request = current.get()
        language = await self._language(update.effective_user)
        async with working(context.bot, request.messages[0].chat.id):
            alone = len(request.messages) == 1
            look = self._look if alone else self._look_safely
            cards: list[tuple[int, bytes, ShownCard]] = []
            refusals: list[tuple[int, Refusal]] = []
            for number, message in enumerate(request.messages, 1):
                looked = await look(request, message, language)
                if isinstance(looked, Refusal):
                    refusals.append((number, looked))
                else:
                    cards.append((number, *looked))
            if len(cards) == 1:
                number, card, answer = cards[0]
                key = self._answers.keep(answer)
                message = request.messages[number - 1]
                with request.timed("send"):
                    await message.reply_photo(
                        card,
                        caption=captions.whole(answer.analysis, answer.left_out, language),
                        reply_markup=_buttons(key, language, answer.counts, None),
                        do_quote=True,
                        allow_sending_without_reply=True,
                        filename="card.png",
                    )
            elif cards:
                await self._send_album(request, cards, language)
            if refusals:
                request.outcome = (
                    f"refused_{refusals[0][1].reason.value}"
                    if alone
                    else f"answered_{len(cards)}_of_{len(request.messages)}"
                )
                await reply(request.messages[0], _sentences(refusals, len(cards), language))

    async def _look_safely(
        self, request: Request, message: Message, language: str
    ) -> tuple[bytes, ShownCard] | Refusal:
        """Look at one photo of an album; a bug with one does not lose the cards of the others."""
        try:
            return await self._look(request, message, language)
        except Forbidden:
            raise
        except Exception:
            logger.exception("update=%s a photo of an album failed", request.update.update_id)
            return Refusal(Reason.INTERNAL)

    async def _look(
        self, request: Request, message: Message, language: str
    ) -> tuple[bytes, ShownCard] | Refusal:
        """Fetch, see, judge, draw: the card as PNG, and what it answers."""
        with request.timed("download"):
            capture = await self._intake.capture(message, request.look_until_s())
        if isinstance(capture, Refusal):
            return capture
        asked = self._engine.analyze(
            capture.photo,
            top_k=max(self._matches, COMPARED),
            picture=True,
            deadline_s=request.look_until_s(),
        )
        seen = await answered(request, asked)
        if isinstance(seen, Refusal):
            return seen
        chosen = choose(seen.faces, self._faces_max)
        if isinstance(chosen, Refusal):
            return chosen
        faces, left_out = chosen
        compared = steady(faces, self._answers.compared(request.person, seen.bundle))
        shown = [replace(face, matches=face.matches[: self._matches]) for face in compared]
        answer = ShownCard(
            owner=request.person,
            file_id=capture.file_id,
            analysis=replace(seen, faces=tuple(shown), picture=None),
            left_out=left_out,
            language=language,
            compared=compared,
            people=await self._people.count(request.look_until_s(_COUNTING_S), bundle=seen.bundle),
        )
        draw = partial(self._draw, language=language, people=answer.people)
        async with self._easel(request):
            card = await asyncio.to_thread(draw, seen.picture or b"", answer.analysis)
        return card, answer

    @asynccontextmanager
    async def _easel(self, request: Request) -> AsyncIterator[None]:
        """A place to draw a card, for as long as the block lasts."""
        with request.timed("card"):
            async with self._easels:
                yield

    async def _send_album(
        self, request: Request, cards: Sequence[tuple[int, bytes, ShownCard]], language: str
    ) -> None:
        lines = [
            say(
                language,
                "album.line",
                number=number,
                words=captions.photo(answer.analysis, answer.left_out, language),
            )
            for number, _, answer in cards
        ]
        # Telegram shows the caption of an album only where one of its photos alone has one.
        caption: list[str | None] = [captions.fit("\n".join(lines))]
        caption += [None] * (len(cards) - 1)
        media = [
            InputMediaPhoto(card, caption=text, filename=f"card-{number}.png")
            for (number, card, _), text in zip(cards, caption, strict=True)
        ]
        first = request.messages[0]
        with request.timed("send"):
            await first.reply_media_group(media, do_quote=True, allow_sending_without_reply=True)

    # Buttons

    async def button(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Do what a button below an answer says; whatever happens, the button is answered."""
        query = update.callback_query
        assert query is not None
        assert query.message is not None
        key, _, action = (query.data or "").partition(":")
        answer = self._answers.find(key)
        said: str | None = "toast.expired"
        if answer is None:
            current.get().outcome = "expired"
            await _remove_buttons(context.bot, query)
        elif answer.owner != query.from_user.id:
            current.get().outcome = "not_theirs"
            said = "toast.not_yours"
        else:
            said = await self._press(context.bot, query, key, answer, action)
        mine = answer is not None and answer.owner == query.from_user.id
        language = answer.language if answer and mine else await self._language(query.from_user)
        await toast(context.bot, query.id, say(language, said) if said else None)

    async def _press(
        self, bot: Bot, query: CallbackQuery, key: str, answer: ShownCard, action: str
    ) -> str | None:
        """Act; the key of the sentence to show for a moment, if any."""
        verb, number = action[:1], action[1:]
        face = int(number) if number.isdecimal() and number.isascii() else None
        if face is not None and face >= len(answer.analysis.faces):
            return "toast.expired"
        match verb:
            case "d":
                return await self._delete(bot, query, key)
            case "m":
                await _show_longer(bot, query, key, answer, face)
            case "l":
                await _show_caption(bot, query, key, answer, face)
            case "f":
                return await self._show_face(bot, query, key, answer, face)
            case _:
                return "toast.expired"
        return None

    async def _delete(self, bot: Bot, query: CallbackQuery, key: str) -> str:
        try:
            await bot.delete_message(*_place(query))
        except BadRequest:  # Telegram lets bots delete for two days
            return "toast.not_deleted"
        self._answers.drop(key)
        return "toast.deleted"

    async def _show_face(
        self, bot: Bot, query: CallbackQuery, key: str, answer: ShownCard, face: int | None
    ) -> str | None:
        """Show one face's card, or with None the whole photo's again.

        The photo is fetched and decoded anew: no picture is kept longer than an answer takes.
        """
        request = current.get()
        chat_id, message_id = _place(query)
        async with working(bot, chat_id):
            with request.timed("download"):
                photo = await self._intake.fetch(answer.file_id, request.look_until_s())
            if isinstance(photo, Refusal):
                request.outcome = f"refused_{photo.reason.value}"
                return "toast.photo_gone"
            asked = self._engine.analyze(
                photo, top_k=1, picture=True, deadline_s=request.look_until_s()
            )
            seen = await answered(request, asked)
            if isinstance(seen, Refusal):
                request.outcome = f"refused_{seen.reason.value}"
                return "toast.not_seen"
            draw = partial(self._draw, language=answer.language, face=face, people=answer.people)
            async with self._easel(request):
                card = await asyncio.to_thread(draw, seen.picture or b"", answer.analysis)
            media = InputMediaPhoto(card, caption=_caption(answer, face), filename="card.png")
            with request.timed("send"), unchanged_is_fine():
                await bot.edit_message_media(
                    media,
                    chat_id,
                    message_id,
                    reply_markup=_buttons(key, answer.language, answer.counts, face),
                )
        return None


async def _show_longer(
    bot: Bot, query: CallbackQuery, key: str, answer: ShownCard, face: int | None
) -> None:
    text = captions.longer(_face(answer, face), answer.people, answer.language)
    buttons = _buttons(key, answer.language, answer.counts, face, longer=True)
    await _edit_caption(bot, query, text, buttons)


async def _show_caption(
    bot: Bot, query: CallbackQuery, key: str, answer: ShownCard, face: int | None
) -> None:
    buttons = _buttons(key, answer.language, answer.counts, face)
    await _edit_caption(bot, query, _caption(answer, face), buttons)


async def _edit_caption(
    bot: Bot, query: CallbackQuery, text: str, buttons: InlineKeyboardMarkup
) -> None:
    chat_id, message_id = _place(query)
    with current.get().timed("send"), unchanged_is_fine():
        await bot.edit_message_caption(chat_id, message_id, caption=text, reply_markup=buttons)


async def _remove_buttons(bot: Bot, query: CallbackQuery) -> None:
    chat_id, message_id = _place(query)
    with contextlib.suppress(BadRequest):
        await bot.edit_message_reply_markup(chat_id, message_id, reply_markup=None)


def _buttons(
    key: str, language: str, counts: Sequence[int], face: int | None, *, longer: bool = False
) -> InlineKeyboardMarkup:
    """The buttons below a card: other faces, more matches, delete.

    Args:
        key: the answer's.
        language: a key of `texts.LANGUAGES`.
        counts: how many matches each face has.
        face: the face whose card it is; None for the whole photo's.
        longer: whether the longer list of matches is shown.
    """

    def button(text: str, action: str) -> InlineKeyboardButton:
        return InlineKeyboardButton(text, callback_data=f"{key}:{action}")

    rows = []
    count = len(counts)
    if count > 1:
        others = [button(str(i + 1), f"f{i}") for i in range(count) if i != face]
        rows += [
            others[first : first + _BUTTONS_IN_A_ROW]
            for first in range(0, len(others), _BUTTONS_IN_A_ROW)
        ]
        if face is not None:
            rows.append([button(say(language, "buttons.all"), "f")])
    last = []
    if count == 1 or face is not None:
        shown = face or 0
        if longer:
            last.append(button(say(language, "buttons.less"), _with(face, "l")))
        elif counts[shown] > 1:
            last.append(button(say(language, "buttons.more"), _with(face, "m")))
    last.append(button(say(language, "buttons.delete"), "d"))
    return InlineKeyboardMarkup([*rows, last])


def _with(face: int | None, verb: str) -> str:
    return verb if face is None else f"{verb}{face}"


def _face(answer: ShownCard, face: int | None) -> Face:
    return answer.analysis.faces[face or 0]


def _caption(answer: ShownCard, face: int | None) -> str:
    if face is None:
        return captions.whole(answer.analysis, answer.left_out, answer.language)
    return captions.one(answer.analysis.faces[face], answer.language)


def _place(query: CallbackQuery) -> tuple[int, int]:
    """Chat and message of a button, also of a message too old to be readable."""
    assert query.message is not None
    return query.message.chat.id, query.message.message_id


def _sentences(refusals: Sequence[tuple[int, Refusal]], answered: int, language: str) -> str:
    """What to say about the refused photos of an album: one sentence where it fits all of them."""
    if not answered and len({refusal.reason for _, refusal in refusals}) == 1:
        return refused(refusals[0][1], language)
    return "\n".join(
        say(language, "album.line", number=number, words=refused(refusal, language))
        for number, refusal in refusals
    )
