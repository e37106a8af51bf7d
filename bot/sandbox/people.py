"""What people can do: write, send, forward, edit, press, block.

The other side of `methods`: it changes chats and puts updates into the bot's inbox. Whatever is
sent goes in an `Envelope`, which may lie. Knows nothing about HTTP. A refusal is a `UserError`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bot.sandbox.envelope import HONEST, Envelope, Origin
from bot.sandbox.errors import UserError
from bot.sandbox.markup import finish
from bot.sandbox.methods import MAX_ALBUM, MAX_CAPTION, MAX_TEXT
from bot.sandbox.pictures import NotAPicture
from bot.sandbox.world import Claims, Json, PrivateChat, World, inside_reply, seen_by_bot

_COPIED = (
    "text",
    "entities",
    "caption",
    "caption_entities",
    "photo",
    "document",
    "sticker",
    "voice",
    "video",
    "video_note",
    "audio",
    "animation",
    "location",
    "contact",
)
CLIPS = ("video", "video_note", "animation")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file as a person's client offers it."""

    name: str
    mime_type: str
    data: bytes = field(repr=False)


class SandboxPeople:
    """The actions of the sandbox's people."""

    def __init__(self, world: World) -> None:
        self._world = world

    def account(self, name: str) -> PrivateChat:
        """The person of a name such as "ana".

        Raises:
            UserError: nobody is called so.
        """
        try:
            return self._world.accounts[name]
        except KeyError:
            raise UserError("nobody", f"There is nobody called {name!r} here.", 404) from None

    def send_text(self, account: PrivateChat, text: str, envelope: Envelope = HONEST) -> list[Json]:
        """Write; what is too long for one message becomes several, as in Telegram's clients."""
        text = text.strip()
        if not text:
            raise UserError("empty", "There is nothing to send.")
        pieces = [text[start : start + MAX_TEXT] for start in range(0, len(text), MAX_TEXT)]
        return [
            self._deliver(account, _with_entities("text", "entities", piece), envelope)
            for piece in pieces
        ]

    async def send_photos(
        self,
        account: PrivateChat,
        photos: Sequence[Attachment],
        caption: str = "",
        envelope: Envelope = HONEST,
    ) -> list[Json]:
        """Send photos; several make an album, whose caption stands under the first.

        Raises:
            UserError: "not_a_photo" when a file cannot be shown as a photo (it can be sent as a
                file), "too_many" for more than ten.
        """
        content = [{"photo": await self._photo(one)} for one in _checked(photos)]
        return self._deliver_all(account, content, caption, envelope)

    async def send_documents(
        self,
        account: PrivateChat,
        files: Sequence[Attachment],
        caption: str = "",
        envelope: Envelope = HONEST,
    ) -> list[Json]:
        """Send files as they are; the caption stands under the first."""
        keep = self._world.document
        content: list[Json] = [
            {"document": await keep(one.data, name=one.name, mime_type=one.mime_type)}
            for one in _checked(files)
        ]
        return self._deliver_all(account, content, caption, envelope)

    async def send_clip(
        self,
        account: PrivateChat,
        kind: str,
        clip: Attachment,
        claims: Claims,
        *,
        caption: str = "",
        envelope: Envelope = HONEST,
    ) -> Json:
        """Send a video.

        Args:
            account: who sends.
            kind: "video", "video_note" (a round one, which has no caption) or "animation".
            clip: the file, which is kept byte for byte: official clients only record round
                videos, but nobody checks.
            claims: what the sender's client says of it.
            caption: below the video.
            envelope: see `Envelope`.
        """
        _checked((clip,))
        content = {kind: await self._world.clip(kind, clip.data, claims)}
        caption = "" if kind == "video_note" else caption
        return self._deliver_all(account, [content], caption, envelope)[0]

    def send_other(
        self, account: PrivateChat, kind: str, data: bytes, envelope: Envelope = HONEST
    ) -> Json:
        """Send what is neither text, photo, file nor video.

        Args:
            account: who sends.
            kind: "sticker", "voice", "audio", "location" or "contact".
            data: the file's bytes; ignored for locations and contacts.
            envelope: see `Envelope`.
        """
        if kind == "location":
            place = {"location": {"latitude": -33.11, "longitude": -64.3}}
            return self._deliver(account, place, envelope)
        if kind == "contact":
            contact = {"phone_number": "+540000000", "first_name": account.first_name}
            return self._deliver(account, {"contact": contact}, envelope)
        suffix, mime_type, more = _MEDIA.get(kind, ("", "", {}))
        if not suffix:
            kinds = ", ".join((*CLIPS, *_MEDIA, "location", "contact"))
            raise UserError("bad_kind", f"A message can be one of: {kinds}.")
        file = self._world.files.add(data, folder=f"{kind}s", suffix=suffix, mime_type=mime_type)
        media: Json = {
            "file_id": file.file_id,
            "file_unique_id": file.unique_id,
            "file_size": len(data),
            **more,
        }
        self._world.files.describe({kind: media})
        return self._deliver(account, {kind: media}, envelope)

    def forward(
        self,
        account: PrivateChat,
        message_id: int,
        *,
        hidden: bool = False,
        copy: bool = False,
        envelope: Envelope = HONEST,
    ) -> Json:
        """Forward a message to the bot.

        Args:
            account: who forwards.
            message_id: which message; also one of another person's chat, who let the forwarder
                have it.
            hidden: whether the author's privacy settings hide the account behind a bare name.
            copy: whether the forwarder hides where it comes from: nothing tells that it is a
                forward, but the file's ids stay the same.
            envelope: see `Envelope`; its origin, where it has one, takes the place of the true one.
        """
        message = account.messages.get(message_id) or self._world.find(message_id)
        if message is None:
            raise _not_there()
        if message.get("has_protected_content"):
            raise UserError("protected", "The bot does not allow this to be forwarded.", 403)
        content = {key: message[key] for key in _COPIED if key in message}
        if not copy and envelope.origin is None:
            origin = message.get("forward_origin")
            if origin is None:
                kind = Origin.HIDDEN_USER if hidden else Origin.USER
                written = Envelope(origin=kind).fields(
                    now_s=message["date"], author=message["from"]
                )
                origin = written["forward_origin"]
            content["forward_origin"] = origin
        return self._deliver(account, content, envelope, author=message["from"])

    def edit(self, account: PrivateChat, message_id: int, text: str) -> Json:
        """Change the text or caption of an own message; the bot gets an edited_message."""
        message = self._own(account, message_id)
        field = "text" if "text" in message else "caption"
        text = text.strip()
        if field == "text" and not text:
            raise UserError("empty", "There is nothing to send.")
        if len(text) > (MAX_TEXT if field == "text" else MAX_CAPTION):
            raise UserError("too_long", "That is too long.")
        entities_field = "entities" if field == "text" else "caption_entities"
        rest = {key: value for key, value in message.items() if key not in {field, entities_field}}
        changed = _with_entities(field, entities_field, text) if text else {}
        return self._edited(account, {**rest, **changed})

    async def edit_photo(self, account: PrivateChat, message_id: int, photo: Attachment) -> Json:
        """Put another photo into an own message; the bot gets an edited_message.

        Raises:
            UserError: "not_a_photo" where the message has none, or the file cannot be shown as one.
        """
        if "photo" not in self._own(account, message_id):
            raise UserError("not_a_photo", "There is no photo in this message.")
        sizes = await self._photo(_checked((photo,))[0])
        # The sizes took a moment, in which the message may have gone.
        return self._edited(account, {**self._own(account, message_id), "photo": sizes})

    def _edited(self, account: PrivateChat, message: Json) -> Json:
        edited = {**message, "edit_date": int(self._world.clock())}
        self._world.change(account, edited)
        self._world.inbox.push("edited_message", edited)
        return edited

    def delete(self, account: PrivateChat, message_id: int) -> None:
        """Delete a message of the chat for both sides; bots are not told."""
        self._message(account, message_id)
        self._world.delete(account, [message_id])

    def clear(self, account: PrivateChat) -> None:
        """Delete the whole chat; bots are not told."""
        self._world.delete(account, list(account.messages))

    def press(self, account: PrivateChat, message_id: int, data: str) -> str:
        """Press the button that carries `data`; the id of the query that the bot gets."""
        message = self._message(account, message_id)
        rows = message.get("reply_markup", {}).get("inline_keyboard", ())
        if not any(button.get("callback_data") == data for row in rows for button in row):
            raise UserError("no_button", "There is no such button under this message.", 404)
        query_id = self._world.ask(account)
        self._world.inbox.push(
            "callback_query",
            {
                "id": query_id,
                "from": account.user(),
                "message": seen_by_bot(message),
                "chat_instance": str(account.user_id * 1_000_003),
                "data": data,
            },
        )
        return query_id

    def set_language(self, account: PrivateChat, language_code: str | None) -> None:
        """Change what the person's client tells the bot; None tells nothing."""
        if language_code is not None and not _LANGUAGE.fullmatch(language_code):
            raise UserError("bad_language", "A language code looks like es, en or pt-br.")
        account.language_code = language_code
        self._changed(account)
        account.events.publish("commands", {"commands": self._world.commands_for(account)})

    def set_blocked(self, account: PrivateChat, blocked: bool) -> None:
        """Block the bot or let it back in; the bot gets a my_chat_member update."""
        if account.blocked == blocked:
            return
        account.blocked = blocked
        member: Json = {"user": self._world.bot, "status": "member"}
        kicked: Json = {"user": self._world.bot, "status": "kicked", "until_date": 0}
        self._world.inbox.push(
            "my_chat_member",
            {
                "chat": account.chat(),
                "from": account.user(),
                "date": int(self._world.clock()),
                "old_chat_member": member if blocked else kicked,
                "new_chat_member": kicked if blocked else member,
            },
        )
        self._changed(account)

    def profile(self, account: PrivateChat) -> Json:
        """A person as their client sees them."""
        return {
            "name": account.name,
            "user_id": account.user_id,
            "first_name": account.first_name,
            "language_code": account.language_code,
            "blocked": account.blocked,
        }

    def snapshot(self, account: PrivateChat) -> Json:
        """All that a client needs to show the chat as it is now."""
        language = (account.language_code or "").split("-")[0].lower()
        texts = self._world.texts
        return {
            "bot": self._world.bot,
            "description": texts.get(("description", language))
            or texts.get(("description", ""), ""),
            "account": self.profile(account),
            "commands": self._world.commands_for(account),
            "messages": list(account.messages.values()),
        }

    def _changed(self, account: PrivateChat) -> None:
        account.events.publish("account", {"account": self.profile(account)})

    async def _photo(self, attachment: Attachment) -> list[Json]:
        try:
            return await self._world.photo(attachment.data)
        except NotAPicture:
            raise UserError(
                "not_a_photo",
                f"{attachment.name} cannot be sent as a photo, only as a file.",
                415,
            ) from None

    def _deliver_all(
        self, account: PrivateChat, contents: list[Json], caption: str, envelope: Envelope
    ) -> list[Json]:
        caption = caption.strip()
        if len(caption) > MAX_CAPTION:
            raise UserError("too_long", f"A caption has at most {MAX_CAPTION} characters.")
        if caption:
            contents[0].update(_with_entities("caption", "caption_entities", caption))
        if len(contents) > 1:
            group_id = self._world.next_group_id()
            contents = [{**content, "media_group_id": group_id} for content in contents]
        return [self._deliver(account, content, envelope) for content in contents]

    def _deliver(
        self,
        account: PrivateChat,
        content: Json,
        envelope: Envelope,
        *,
        author: Json | None = None,
    ) -> Json:
        if account.blocked:
            raise UserError("blocked", "You blocked this bot. Unblock it to write.", 403)
        told = envelope.fields(now_s=self._world.clock(), author=author or account.user())
        content = {**content, **told}
        if envelope.in_album:
            content.setdefault("media_group_id", self._world.next_group_id())
        if envelope.reply_to is not None:
            replied = self._message(account, envelope.reply_to)
            content["reply_to_message"] = inside_reply(replied)
        account.started = True
        message = self._world.draft(account, from_bot=False, content=content)
        self._world.post(account, message)
        self._world.inbox.push("message", message)
        return message

    def _message(self, account: PrivateChat, message_id: int) -> Json:
        message = account.messages.get(message_id)
        if message is None:
            raise _not_there()
        return message

    def _own(self, account: PrivateChat, message_id: int) -> Json:
        message = self._message(account, message_id)
        if message["from"]["is_bot"]:
            raise UserError("not_yours", "Only your own messages can be edited.", 403)
        if "forward_origin" in message:
            raise UserError("not_yours", "A forwarded message cannot be edited.", 403)
        return message


_MEDIA: dict[str, tuple[str, str, Json]] = {
    "sticker": (
        ".webp",
        "image/webp",
        {
            "type": "regular",
            "is_animated": False,
            "is_video": False,
            "emoji": "🙂",
            "width": 512,
            "height": 512,
        },
    ),
    "voice": (".oga", "audio/ogg", {"duration": 3, "mime_type": "audio/ogg"}),
    "audio": (".mp3", "audio/mpeg", {"duration": 3, "mime_type": "audio/mpeg"}),
}


def _checked(files: Sequence[Attachment]) -> Sequence[Attachment]:
    if not files or any(not one.data for one in files):
        raise UserError("empty", "There is nothing to send, or a file is empty.")
    if len(files) > MAX_ALBUM:
        raise UserError("too_many", f"An album has at most {MAX_ALBUM} files.")
    return files


def _not_there() -> UserError:
    return UserError("no_message", "This message is not there (any more).", 404)


def _with_entities(field: str, entities_field: str, text: str) -> Json:
    text, entities = finish(text, [])
    return {field: text, **({entities_field: entities} if entities else {})}
