"""From a Telegram message to a picture's or a clip's bytes, or to the reason why not.

Everything that decides whether a message is looked at stands here in two lists, `RULES` for
look-alikes and `LOGIN_RULES` for the login, and everything about files on Telegram's servers. Knows
nothing about faces or words.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TypeGuard
from urllib.parse import quote

from telegram import (
    Bot,
    CallbackQuery,
    Chat,
    Document,
    File,
    Message,
    PhotoSize,
    Update,
    User,
    VideoNote,
)
from telegram.error import BadRequest, Forbidden, TelegramError
from telegram.ext import filters

from bot.telegram.bounded_bodies import BodyTooLarge
from bot.telegram.request import Request
from engine.media.image import LIMITS, SUFFIXES

logger = logging.getLogger(__name__)

ALLOWED_UPDATES = ("message", "edited_message", "callback_query")
FILE_MAX_BYTES = LIMITS.file_bytes
"""The largest file that Telegram's servers hand to bots, and that the engine reads."""
_DOWNLOAD_ATTEMPTS = 3


class Reason(StrEnum):
    """Why what was sent is of no use; each has its sentence in the locales."""

    NO_FACE = "no_face"
    TOO_SMALL = "too_small"
    BLURRED = "blurred"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_LARGE = "too_large"
    BROKEN_FILE = "broken_file"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_DEMANDING = "too_demanding"
    BUSY = "busy"
    ENGINE_DOWN = "engine_down"
    MISCONFIGURED = "misconfigured"
    DEADLINE = "deadline"
    DOWNLOAD_FAILED = "download_failed"
    INTERNAL = "internal"
    MODEL_CHANGED = "model_changed"

    # The login's: where a capture comes from,
    FORWARDED = "forwarded"
    VIA_BOT = "via_bot"
    EDITED = "edited"
    IN_ALBUM = "in_album"
    SCHEDULED = "scheduled"
    NOT_THEIR_OWN = "not_their_own"
    AS_FILE = "as_file"
    NOT_A_SELFIE = "not_a_selfie"
    NOT_A_ROUND_VIDEO = "not_a_round_video"
    NOT_A_REPLY = "not_a_reply"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"
    SEEN_BEFORE = "seen_before"
    BROKEN_CLIP = "broken_clip"
    # what is on it,
    SEVERAL_FACES = "several_faces"
    FACE_TOO_FAR = "face_too_far"
    FACE_UNCLEAR = "face_unclear"
    FACE_BLURRED = "face_blurred"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    UNEVEN_LIGHT = "uneven_light"
    TURNED_AWAY = "turned_away"
    TILTED = "tilted"
    SOMEBODY_ELSE = "somebody_else"
    # and how the login stands.
    NO_LOGIN = "no_login"
    OVERTAKEN = "overtaken"


PHOTO_IS_TO_BLAME = frozenset(
    {
        Reason.NO_FACE,
        Reason.TOO_SMALL,
        Reason.BLURRED,
        Reason.NOT_AN_IMAGE,
        Reason.UNSUPPORTED_FORMAT,
        Reason.TOO_LARGE,
        Reason.BROKEN_FILE,
        Reason.TOO_MANY_PIXELS,
        Reason.TOO_DEMANDING,
    }
)
"""Reasons that another photo mends; with the others, this one may do later."""

OURS = frozenset(
    {
        Reason.BUSY,
        Reason.ENGINE_DOWN,
        Reason.MISCONFIGURED,
        Reason.DEADLINE,
        Reason.DOWNLOAD_FAILED,
        Reason.INTERNAL,
        Reason.MODEL_CHANGED,
        Reason.NO_LOGIN,
    }
)
"""Reasons that are not in what came, or that somebody may have brought about: nobody can tell."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No card, and why.

    Attributes:
        reason: see `Reason`.
        values: what the reason's sentence speaks of, by placeholder.
    """

    reason: Reason
    values: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capture:
    """A picture file as a person sent it.

    Attributes:
        photo: the file's bytes, kept for the time of an answer only.
        file_id: Telegram's name for it, by which it can be fetched again.
    """

    photo: bytes = field(repr=False)
    file_id: str


Attachment = PhotoSize | Document
LoginAttachment = PhotoSize | VideoNote


@dataclass(frozen=True, slots=True)
class LoginCapture:
    """A picture or clip that the login asked for.

    Attributes:
        content: the file's bytes, kept for the time of an answer only.
        file_unique_id: Telegram's name for it, by which it is known again.
    """

    content: bytes = field(repr=False)
    file_unique_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a message must be to be looked at: if `breaks` it, then `refusal`."""

    refusal: Refusal
    breaks: Callable[[Message, Attachment | None], bool]


class Router:
    """Tells whose request an update is.

    Telegram sends the whole message both for an edited caption and for a picture put in another's
    place. Which picture each message had is kept in memory only.

    Args:
        kept: of how many messages the picture is known; an edit of an older one counts as another
            picture.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._pictures: OrderedDict[tuple[int, int], str] = OrderedDict()

    def __call__(self, update: Update) -> Request | None:
        """Whose request an update is; None for all that the bot leaves alone.

        Left alone: what `route` leaves alone, and what was edited and has the picture that it had.
        """
        request = route(update)
        if request is None or not request.messages:
            return request
        message = request.messages[0]
        picture = attachment(message)
        if picture is None:
            return request
        place = (message.chat.id, message.message_id)
        before = self._pictures.pop(place, None)
        self._pictures[place] = picture.file_unique_id
        if len(self._pictures) > self._kept:
            self._pictures.popitem(last=False)
        same = update.edited_message is not None and before == picture.file_unique_id
        return None if same else request


def route(update: Update) -> Request | None:
    """Whose request an update is, by itself; None for all that the bot leaves alone.

    Left alone: edited words, service messages, groups, channels, other bots, and updates whose
    numbers are none.
    """
    if filters.StatusUpdate.ALL.check_update(update):
        return None  # "X pinned a message" and the like: nobody waits for an answer
    if update.message is not None:
        return _route_message(update, update.message)
    edited = update.edited_message
    if edited is not None and (edited.video_note or attachment(edited)):
        return _route_message(update, edited)
    if update.callback_query is not None:
        return _route_callback(update, update.callback_query)
    return None


def attachment(message: Message) -> Attachment | None:
    """The picture in a message: its largest photo, or a document that says it is an image."""
    if message.photo:
        return max(message.photo, key=lambda size: size.width * size.height)
    document = message.document
    # Telegram repeats an animation, a silent video, as a document.
    if document is None or message.animation is not None:
        return None
    suffix = PurePosixPath(document.file_name or "").suffix.lower()
    kind = document.mime_type or ""
    looks = kind.startswith("image/") or suffix in SUFFIXES
    # Some apps send pictures without a name or a kind: only their bytes can tell.
    unnamed = not suffix and kind in ("", "application/octet-stream")
    return document if looks or unnamed else None


TOO_LARGE = Refusal(Reason.TOO_LARGE, {"megabytes": FILE_MAX_BYTES // 2**20})
RULES: tuple[Rule, ...] = (
    Rule(Refusal(Reason.NOT_AN_IMAGE), lambda _message, source: source is None),
    Rule(
        TOO_LARGE,
        lambda _message, source: source is not None and (source.file_size or 0) > FILE_MAX_BYTES,
    ),
)
"""What a look-alike photo must be, in the order in which it is said."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What the login waits for.

    Attributes:
        clip: whether it is a round video message; else it is a photo.
        asked: Telegram's time of the message that asked for it.
        until: Telegram's time after which it is too late; None where there is time.
        reply_to: numbers of the messages of which it must reply to one; None where it need not.
    """

    clip: bool
    asked: datetime
    until: datetime | None = None
    reply_to: Collection[int] | None = None


@dataclass(frozen=True, slots=True)
class LoginRule:
    """One thing that a capture must be to be judged: if `breaks` it, it is refused with `reason`.

    What Telegram says of a message proves only what it says: that it does not call one forwarded
    does not prove that it is not.
    """

    reason: Reason
    breaks: Callable[[Message, Occasion], bool]


LOGIN_RULES: tuple[LoginRule, ...] = (
    LoginRule(Reason.EDITED, lambda message, _: message.edit_date is not None),
    LoginRule(Reason.FORWARDED, lambda message, _: message.forward_origin is not None),
    LoginRule(Reason.VIA_BOT, lambda message, _: message.via_bot is not None),
    LoginRule(Reason.NOT_THEIR_OWN, lambda message, _: message.sender_chat is not None),
    LoginRule(Reason.SCHEDULED, lambda message, _: bool(message.is_from_offline)),
    LoginRule(Reason.IN_ALBUM, lambda message, _: message.media_group_id is not None),
    LoginRule(
        Reason.NOT_A_ROUND_VIDEO,
        lambda message, occasion: occasion.clip and message.video_note is None,
    ),
    LoginRule(
        Reason.AS_FILE,
        lambda message, occasion: not occasion.clip and message.document is not None,
    ),
    LoginRule(
        Reason.NOT_A_SELFIE, lambda message, occasion: not occasion.clip and not message.photo
    ),
    LoginRule(Reason.TOO_EARLY, lambda message, occasion: message.date < occasion.asked),
    LoginRule(
        Reason.TOO_LATE,
        lambda message, occasion: occasion.until is not None and message.date > occasion.until,
    ),
    LoginRule(
        Reason.NOT_A_REPLY,
        lambda message, occasion: (
            occasion.reply_to is not None
            and (
                message.reply_to_message is None
                or message.reply_to_message.message_id not in occasion.reply_to
            )
        ),
    ),
)
"""What a capture for the login must be, in the order in which it is said."""


def login_attachment(message: Message, occasion: Occasion) -> LoginAttachment | Refusal:
    """The capture in a message, or the first rule that it breaks."""
    for rule in LOGIN_RULES:
        if rule.breaks(message, occasion):
            return Refusal(rule.reason)
    if message.video_note is not None:
        return message.video_note
    return max(message.photo, key=lambda size: size.width * size.height)


class Intake:
    """Fetches the pictures that messages carry.

    Args:
        bot: the way to Telegram.
        timeout_s: how long one file may take.
        local_dir: where a Bot API server of our own keeps its files; None where files come over
            HTTP only.
        pause_s: wait before a failed download is tried again; it doubles.
    """

    def __init__(
        self, bot: Bot, *, timeout_s: float, local_dir: Path | None = None, pause_s: float = 0.3
    ) -> None:
        self._bot = bot
        self._timeout_s = timeout_s
        self._local_dir = local_dir.resolve() if local_dir else None
        self._pause_s = pause_s

    async def capture(self, message: Message, until_s: float) -> Capture | Refusal:
        """The picture in a message.

        Args:
            message: as it came.
            until_s: the event loop's time until which to fetch it; the setting's timeout holds as
                well.
        """
        source = attachment(message)
        for rule in RULES:
            if rule.breaks(message, source):
                return rule.refusal
        assert source is not None
        photo = await self.fetch(source.file_id, until_s, expected=source.file_size)
        return Capture(photo, source.file_id) if isinstance(photo, bytes) else photo

    async def login_capture(
        self, message: Message, occasion: Occasion, until_s: float
    ) -> LoginCapture | Refusal:
        """The picture or clip in a message that the login waits for: arguments as in `capture`."""
        source = login_attachment(message, occasion)
        if isinstance(source, Refusal):
            return source
        if (source.file_size or 0) > FILE_MAX_BYTES:
            return TOO_LARGE
        content = await self.fetch(source.file_id, until_s, expected=source.file_size)
        if isinstance(content, Refusal):
            return content
        return LoginCapture(content, source.file_unique_id)

    async def fetch(
        self, file_id: str, until_s: float, *, expected: int | None = None
    ) -> bytes | Refusal:
        """A file's bytes.

        Args:
            file_id: Telegram's name for it.
            until_s: see `capture`.
            expected: its size in bytes, where known; fewer mean a broken download.
        """
        left_s = max(0.0, until_s - asyncio.get_running_loop().time())
        within_s = min(left_s, self._timeout_s)
        try:
            async with asyncio.timeout(within_s):
                return await self._attempts(file_id, expected)
        except TimeoutError:
            return _failed(f"it did not come within {within_s:.2f} s")

    async def _attempts(self, file_id: str, expected: int | None) -> bytes | Refusal:
        reason: object = None
        for attempt in range(_DOWNLOAD_ATTEMPTS):
            if attempt:
                logger.warning("retry download reason=%s", reason)
                await asyncio.sleep(self._pause_s * 2 ** (attempt - 1))
            try:
                file = await self._bot.get_file(file_id)
                if (file.file_size or 0) > FILE_MAX_BYTES:
                    break
                photo = await self._read(file)
            except BadRequest as error:
                if "too big" in str(error).lower():
                    break
                return _failed(error)
            except Forbidden:
                raise
            except (TelegramError, OSError) as error:
                if isinstance(error.__cause__, BodyTooLarge):
                    break
                reason = error
                continue
            if len(photo) > FILE_MAX_BYTES:
                break
            wanted = file.file_size or expected
            if not wanted or len(photo) >= wanted:
                return photo
            reason = f"only {len(photo)} of {wanted} bytes came"
        else:
            return _failed(reason)
        return TOO_LARGE

    async def _read(self, file: File) -> bytes:
        """The bytes, over HTTP or, where the operator said so, from the shared folder.

        Not PTB's `File.download_*`: those read any local file whose path the server names.
        """
        prefix = f"{self._bot.base_file_url}/"
        path = (file.file_path or "").removeprefix(prefix)
        if path.startswith("/"):
            if self._local_dir is None:
                raise TelegramError(
                    "the Bot API server runs with --local and hands no files out: set "
                    "TELEGRAM_LOCAL_DIR to the folder of its files, as this machine sees it"
                )
            return await asyncio.to_thread(_read_inside, self._local_dir, Path(path))
        if not _is_plain(path):
            raise TelegramError("the Bot API server named a path that is no file of its own")
        return await self._bot.request.retrieve(prefix + quote(path))


def _failed(reason: object) -> Refusal:
    logger.warning("a file was not fetched from Telegram: %s", reason)
    return Refusal(Reason.DOWNLOAD_FAILED)


def _is_plain(path: str) -> bool:
    """Whether a path stays below where it starts, and is no address."""
    parts = path.split("/")
    return bool(path) and ":" not in path and "\\" not in path and not {"", ".", ".."} & {*parts}


def _read_inside(folder: Path, path: Path) -> bytes:
    """A file's bytes, at most one more than are accepted."""
    resolved = path.resolve()
    if not resolved.is_relative_to(folder):
        raise OSError("the Bot API server named a file outside TELEGRAM_LOCAL_DIR")
    with resolved.open("rb") as file:
        return file.read(FILE_MAX_BYTES + 1)


def _route_message(update: Update, message: Message) -> Request | None:
    sender = message.from_user
    if message.chat.type != Chat.PRIVATE or not _is_person(sender):
        return None
    if not (_is_number(message.message_id) and _is_number(message.chat.id)):
        return None
    album = None if message.edit_date else message.media_group_id
    return Request(
        update,
        person=sender.id,
        kind=_kind(message),
        album=album if isinstance(album, str) else None,
        messages=(message,),
    )


def _route_callback(update: Update, query: CallbackQuery) -> Request | None:
    message = query.message
    if not _is_person(query.from_user) or message is None or message.chat.type != Chat.PRIVATE:
        return None
    return Request(update, person=query.from_user.id, kind="callback")


def _is_person(user: User | None) -> TypeGuard[User]:
    return user is not None and _is_number(user.id) and not user.is_bot


def _is_number(value: object) -> bool:
    """PTB's annotations promise numbers; its parser does not check."""
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(message: Message) -> str:
    if message.edit_date:
        return "edited"
    if message.media_group_id:
        return "album"
    if message.photo:
        return "photo"
    if message.animation:
        return "animation"
    if message.document:
        return "document"
    text = message.text
    if isinstance(text, str):
        return "command" if text.startswith("/") else "text"
    kinds = ("sticker", "voice", "video", "video_note", "audio", "location", "contact", "poll")
    return next((kind for kind in kinds if getattr(message, kind, None)), "other")
