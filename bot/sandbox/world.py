"""The state of the sandbox: one bot, its people, their chats, files and commands.

Knows how messages, photos, videos and documents look in the Bot API and keeps them within bounds;
nothing about HTTP, and nothing about who asked for a change (see `methods` and `people`).
"""

import asyncio
import mimetypes
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bot.sandbox.clips import container, shape
from bot.sandbox.events import EventLog
from bot.sandbox.faults import Faults
from bot.sandbox.files import FileStore
from bot.sandbox.pictures import Rendition, renditions, thumbnail
from bot.sandbox.rates import Rates, Throttle
from bot.sandbox.updates import Inbox, Lifetimes

Json = dict[str, Any]

MAX_MESSAGES = 500
"""Messages kept in a chat; older ones are forgotten."""


@dataclass(slots=True)
class PrivateChat:
    """A person and their private chat with the bot.

    Attributes:
        name: lower case, as it stands in addresses ("ana").
        user_id: Telegram's id of the person and of the chat.
        first_name: as shown.
        language_code: what the person's client tells the bot, or None.
        started: whether the person wrote to the bot ever; before, the bot may not write.
        blocked: whether the person blocked the bot.
        messages: by id, oldest first; values are never changed, only replaced.
        events: what the person's client sees.
    """

    name: str
    user_id: int
    first_name: str
    language_code: str | None
    started: bool = False
    blocked: bool = False
    messages: OrderedDict[int, Json] = field(default_factory=OrderedDict)
    events: EventLog = field(default_factory=EventLog)

    def user(self) -> Json:
        """The person as a Bot API User."""
        user: Json = {
            "id": self.user_id,
            "is_bot": False,
            "first_name": self.first_name,
            "username": f"{self.name}_sandbox",
        }
        if self.language_code:
            user["language_code"] = self.language_code
        return user

    def chat(self) -> Json:
        """The chat as a Bot API Chat."""
        return {
            "id": self.user_id,
            "type": "private",
            "first_name": self.first_name,
            "username": f"{self.name}_sandbox",
        }


def seen_by_bot(message: Json) -> Json:
    """A message as the Bot API tells it: of what is below it, only an inline keyboard."""
    if "inline_keyboard" in message.get("reply_markup", {"inline_keyboard": ()}):
        return message
    return {key: value for key, value in message.items() if key != "reply_markup"}


def inside_reply(message: Json) -> Json:
    """A message as it stands in another one's reply_to_message, which has none of its own."""
    told = seen_by_bot(message)
    return {key: value for key, value in told.items() if key != "reply_to_message"}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a sender says of a video; None is the truth, as far as the file tells it.

    Attributes:
        duration_s: whole seconds, 0 or more.
        width_px: of a round video, also its height.
        height_px: of an ordinary one.
    """

    duration_s: int | None = None
    width_px: int | None = None
    height_px: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A pressed button that waits for its answer."""

    account: PrivateChat
    asked_at: float


class World:
    """Everything there is; belongs to one event loop.

    Args:
        bot_id: Telegram's id of the bot.
        bot_name: as shown.
        bot_username: without @.
        clock: seconds since 1970.
        lifetimes: how long the bot has for what it is asked.
        rates: how much the bot may send; None sets no limits.
    """

    def __init__(
        self,
        *,
        bot_id: int,
        bot_name: str,
        bot_username: str,
        clock: Callable[[], float] = time.time,
        lifetimes: Lifetimes | None = None,
        rates: Rates | None = None,
    ) -> None:
        lifetimes = lifetimes or Lifetimes()
        self.clock = clock
        self.throttle = Throttle(rates, clock) if rates else None
        self.bot: Json = {
            "id": bot_id,
            "is_bot": True,
            "first_name": bot_name,
            "username": bot_username,
        }
        self.texts: dict[tuple[str, str], str] = {}
        self.faults = Faults()
        self.files = FileStore()
        self.inbox = Inbox(self.faults, clock, lifetimes=lifetimes)
        self.closing = asyncio.Event()
        self.accounts = {
            account.name: account
            for account in (
                PrivateChat("ana", 7001, "Ana", "es"),
                PrivateChat("ben", 7002, "Ben", "en"),
            )
        }
        self._commands: dict[tuple[str, str], list[Json]] = {}
        self._queries: OrderedDict[str, Query] = OrderedDict()
        self._answer_s = lifetimes.answer_s
        self._last_message_id = 0
        self._last_group_id = 13_000_000_000
        self._last_query_id = 4_000_000_000

    # Messages

    def account_of(self, user_id: int) -> PrivateChat | None:
        """The person (and chat) with an id, or None."""
        return next((one for one in self.accounts.values() if one.user_id == user_id), None)

    def user(self, user_id: int) -> Json | None:
        """The person, or the bot, with an id as a Bot API User, or None."""
        if user_id == self.bot["id"]:
            return self.bot
        account = self.account_of(user_id)
        return account.user() if account else None

    def draft(self, account: PrivateChat, *, from_bot: bool, content: Json) -> Json:
        """A new message with the next id, not yet in its chat."""
        self._last_message_id += 1
        return {
            "message_id": self._last_message_id,
            "date": int(self.clock()),
            "chat": account.chat(),
            "from": self.bot if from_bot else account.user(),
            **content,
        }

    def post(self, account: PrivateChat, message: Json) -> Json:
        """Put a message into its chat."""
        account.messages[message["message_id"]] = message
        while len(account.messages) > MAX_MESSAGES:
            forgotten, _ = account.messages.popitem(last=False)
            account.events.publish("delete", {"message_ids": [forgotten]})
        account.events.publish("message", {"message": message})
        return message

    def change(self, account: PrivateChat, message: Json) -> Json:
        """Replace a message by a later version of itself."""
        account.messages[message["message_id"]] = message
        account.events.publish("edit", {"message": message})
        return message

    def delete(self, account: PrivateChat, message_ids: Iterable[int]) -> None:
        """Take messages out of a chat; ids that are not there are passed over."""
        gone = [one for one in message_ids if account.messages.pop(one, None) is not None]
        if gone:
            account.events.publish("delete", {"message_ids": gone})

    def find(self, message_id: int) -> Json | None:
        """A message of whatever chat, or None."""
        for account in self.accounts.values():
            if message_id in account.messages:
                return account.messages[message_id]
        return None

    def next_group_id(self) -> str:
        """A new media_group_id."""
        self._last_group_id += 1
        return str(self._last_group_id)

    # Files

    async def photo(self, data: bytes) -> list[Json]:
        """A photo's sizes, kept, as Bot API PhotoSizes, smallest first.

        Raises:
            NotAPicture: the bytes cannot be shown.
        """
        sizes = [self._photo_size(one) for one in await asyncio.to_thread(renditions, data)]
        self.files.describe({"photo": sizes})
        return sizes

    async def document(self, data: bytes, *, name: str, mime_type: str) -> Json:
        """A file as a Bot API Document, kept byte for byte, with a preview where it is an image."""
        mime_type = mime_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        suffix = "." + name.rpartition(".")[2].lower() if "." in name else ""
        suffix = suffix if suffix[1:].isalnum() and suffix.isascii() else ""
        preview = await asyncio.to_thread(thumbnail, data)
        file = self.files.add(
            data, folder="documents", suffix=suffix, mime_type=mime_type, name=name
        )
        document: Json = {
            "file_name": name,
            "mime_type": mime_type,
            "file_id": file.file_id,
            "file_unique_id": file.unique_id,
            "file_size": len(data),
        }
        if preview is not None:
            document["thumbnail"] = self._photo_size(preview, folder="thumbnails")
        self.files.describe({"document": document})
        return document

    async def clip(self, kind: str, data: bytes, claims: Claims) -> Json:
        """A file that plays, kept byte for byte, as a Bot API object of its kind.

        Args:
            kind: "video", "video_note" (a round one) or "animation".
            data: the file's bytes.
            claims: what the sender says of it.
        """
        suffix, mime_type = container(data)
        truth = await asyncio.to_thread(shape, data)
        width_px, height_px = (
            said if said is not None else true
            for said, true in (
                (claims.width_px, truth.width_px),
                (claims.height_px, truth.height_px),
            )
        )
        file = self.files.add(data, folder=f"{kind}s", suffix=suffix, mime_type=mime_type)
        clip: Json = {
            "file_id": file.file_id,
            "file_unique_id": file.unique_id,
            "file_size": len(data),
            "duration": truth.duration_s if claims.duration_s is None else claims.duration_s,
        }
        if kind == "video_note":
            clip["length"] = width_px
        else:
            clip.update(width=width_px, height=height_px, mime_type=mime_type)
        self.files.describe({kind: clip})
        return clip

    def _photo_size(self, rendition: Rendition, folder: str = "photos") -> Json:
        file = self.files.add(rendition.data, folder=folder, suffix=".jpg", mime_type="image/jpeg")
        return {
            "file_id": file.file_id,
            "file_unique_id": file.unique_id,
            "file_size": len(rendition.data),
            "width": rendition.width_px,
            "height": rendition.height_px,
        }

    # Buttons

    def ask(self, account: PrivateChat) -> str:
        """Remember that a button was pressed; the new query's id."""
        self._forget_late_queries()
        self._last_query_id += 1
        query_id = str(self._last_query_id)
        self._queries[query_id] = Query(account, self.clock())
        return query_id

    def query(self, query_id: str) -> Query | None:
        """A query that can still be answered, or None."""
        self._forget_late_queries()
        return self._queries.get(query_id)

    def answered(self, query_id: str) -> None:
        """Take no further answer to a query."""
        del self._queries[query_id]

    def _forget_late_queries(self) -> None:
        oldest = self.clock() - self._answer_s
        for query_id in [key for key, one in self._queries.items() if one.asked_at < oldest]:
            del self._queries[query_id]

    # Commands

    def set_commands(self, scope: str, language: str, commands: list[Json]) -> None:
        """Set (or, with an empty list, remove) the menu of a scope and a language."""
        if commands:
            self._commands[scope, language] = commands
        else:
            self._commands.pop((scope, language), None)
        for account in self.accounts.values():
            account.events.publish("commands", {"commands": self.commands_for(account)})

    def commands(self, scope: str, language: str) -> list[Json]:
        """The menu set for exactly this scope and language."""
        return self._commands.get((scope, language), [])

    def commands_for(self, account: PrivateChat) -> list[Json]:
        """The menu that a person sees: narrowest scope first, their language before none."""
        language = (account.language_code or "").split("-")[0].lower()
        for scope in (f"chat:{account.user_id}", "all_private_chats", "default"):
            for code in dict.fromkeys((language, "")):
                if menu := self._commands.get((scope, code)):
                    return menu
        return []

    # The end

    def close(self) -> None:
        """Send everybody who waits home."""
        self.closing.set()
        self.inbox.close()
        for account in self.accounts.values():
            account.events.close()
