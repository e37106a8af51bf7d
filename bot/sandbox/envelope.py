"""What stands around a message's content: whom it answers, when it was sent, where it came from.

Honest unless told otherwise: the lies are what a forward, a schedule, another bot or a modified
client makes of a message, so that a bot's rules about them can be tried. Knows the Bot API's
fields; nothing about chats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypedDict

from bot.sandbox.errors import UserError

MOST_AGE_S = 366 * 24 * 3600
_CHANNEL = {"id": -1_002_000_000_001, "type": "channel", "title": "A channel"}
_GROUP = {"id": -1_002_000_000_002, "type": "supergroup", "title": "A group"}
_OTHER_BOT = {
    "id": 7_000_000_002,
    "is_bot": True,
    "first_name": "Another Bot",
    "username": "another_sandbox_bot",
}


class Origin(StrEnum):
    """Where a forwarded message says it was written first.

    USER: by an account. HIDDEN_USER: by somebody of whom only the name is told. CHAT: by a group
    in its own name. CHANNEL: in a channel.
    """

    USER = "user"
    HIDDEN_USER = "hidden_user"
    CHAT = "chat"
    CHANNEL = "channel"


class Lies(TypedDict, total=False):
    """The lies of an `Envelope`, to be written as keyword arguments."""

    age_s: int
    origin: str
    via_bot: bool
    in_album: bool
    offline: bool
    edited: bool
    as_channel: bool


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds one message.

    Attributes:
        reply_to: id of the message that is answered, or None.
        age_s: how many seconds before now the server's date lies; less than 0 is ahead of now.
        origin: what `forward_origin` claims; None where the message is no forward.
        via_bot: whether another bot's inline mode made it.
        in_album: whether it claims to be part of an album, however many there are.
        offline: whether a schedule or an automatic answer sent it.
        edited: whether it has been edited before the bot sees it first.
        as_channel: whether it is sent in the name of a channel.

    Raises:
        UserError: `age_s` is more than a year, or more than an hour ahead.
    """

    reply_to: int | None = None
    age_s: int = 0
    origin: Origin | None = None
    via_bot: bool = False
    in_album: bool = False
    offline: bool = False
    edited: bool = False
    as_channel: bool = False

    def __post_init__(self) -> None:
        if not -3600 <= self.age_s <= MOST_AGE_S:
            raise UserError("bad_request", f"age_s must be -3600 to {MOST_AGE_S}.")

    def fields(self, *, now_s: float, author: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a Bot API Message that differ from an honest one's, and its date.

        What only the chat knows, an album's id and the message that is answered, is left to it.

        Args:
            now_s: seconds since 1970.
            author: the User that a forward says it comes from.
        """
        date = int(now_s) - self.age_s
        told: dict[str, Any] = {"date": date}
        if self.origin is not None:
            told["forward_origin"] = {"date": date, **_origin(self.origin, author)}
        if self.via_bot:
            told["via_bot"] = _OTHER_BOT
        if self.offline:
            told["is_from_offline"] = True
        if self.edited:
            told["edit_date"] = date
        if self.as_channel:
            told["sender_chat"] = _CHANNEL
        return told


HONEST = Envelope()


def envelope_from(values: Mapping[str, Any]) -> Envelope:
    """An envelope from the fields of a form, whose values may be text; others are passed over.

    Raises:
        UserError: a value is of the wrong kind or out of range.
    """
    told: dict[str, Any] = {}
    for field in fields(Envelope):
        value = values.get(field.name)
        if value not in (None, ""):
            told[field.name] = _READERS.get(field.name, _flag)(field.name, value)
    return Envelope(**told)


def _integer(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UserError("bad_request", f"The field {name!r} must be a whole number.") from None


def _flag(name: str, value: Any) -> bool:
    flag = {"true": True, "false": False}.get(str(value).lower())
    if flag is None:
        raise UserError("bad_request", f"The field {name!r} must be true or false.")
    return flag


def _origin_of(name: str, value: Any) -> Origin:
    try:
        return Origin(value)
    except ValueError:
        kinds = ", ".join(Origin)
        raise UserError("bad_request", f"The field {name!r} must be one of: {kinds}.") from None


_READERS = {"reply_to": _integer, "age_s": _integer, "origin": _origin_of}


def _origin(origin: Origin, author: Mapping[str, Any]) -> dict[str, Any]:
    if origin is Origin.USER:
        return {"type": "user", "sender_user": dict(author)}
    if origin is Origin.HIDDEN_USER:
        return {"type": "hidden_user", "sender_user_name": author["first_name"]}
    if origin is Origin.CHAT:
        return {"type": "chat", "sender_chat": _GROUP}
    return {"type": "channel", "chat": _CHANNEL, "message_id": 1}
