"""What people can do: write, send, forward, edit, press, block.

The other side of `methods`: it changes chats and puts updates into the bot's inbox. Knows nothing
about HTTP. A refusal is a `UserError`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bot.sandbox.errors import UserError
from bot.sandbox.markup import finish
from bot.sandbox.methods import MAX_ALBUM, MAX_CAPTION, MAX_TEXT, without_reply
from bot.sandbox.pictures import NotAPicture
from bot.sandbox.world import Account, Json, World

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
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file as a person's client offers it."""

    name: str
    mime_type: str
    data: bytes = field(repr=False)


class People:
    """The actions of the sandbox's people."""

    def __init__(self, world: World) -> None:
        self._world = world

    def account(self, name: str) -> Account:
        """The person of a name such as "ana".

        Raises:
            UserError: nobody is called so.
        """
        try:
            return self._world.accounts[name]
        except KeyError:
            raise UserError("nobody", f"There is nobody called {name!r} here.", 404) from None

    def send_text(self, account: Account, text: str, reply_to: int | None = None) -> list[Json]:
        """Write; what is too long for one message becomes several, as in Telegram's clients."""
        text = text.strip()
        if not text:
            raise UserError("empty", "There is nothing to send.")
        pieces = [text[start : start + MAX_TEXT] for start in range(0, len(text), MAX_TEXT)]
        return [
            self._deliver(account, _with_entities("text", "entities", piece), reply_to)
            for piece in pieces
        ]

    async def send_photos(
        self,
        account: Account,
        photos: Sequence[Attachment],
        caption: str = "",
        reply_to: int | None = None,
    ) -> list[Json]:
        """Send photos; several make an album, whose caption stands under the first.

        Raises:
            UserError: "not_a_photo" when a file cannot be shown as a photo (it can be sent as a
                file), "too_many" for more than ten.
        """
        content: list[Json] = []
        for attachment in _checked(photos):
            try:
                content.append({"photo": await self._world.photo(attachment.data)})
            except NotAPicture:
                raise UserError(
                    "not_a_photo",
                    f"{attachment.name} cannot be sent as a photo, only as a file.",
                    415,
                ) from None
        return self._deliver_all(account, content, caption, reply_to)

    async def send_documents(
        self,
        account: Account,
        files: Sequence[Attachment],
        caption: str = "",
        reply_to: int | None = None,
    ) -> list[Json]:
        """Send files as they are; the caption stands under the first."""
        keep = self._world.document
        content: list[Json] = [
            {"document": await keep(one.data, name=one.name, mime_type=one.mime_type)}
            for one in _checked(files)
        ]
        return self._deliver_all(account, content, caption, reply_to)

    def send_other(
        self, account: Account, kind: str, *, data: bytes, duration_s: int, side_px: int
    ) -> Json:
        """Send what is neither text, photo nor file: a sticker, voice, video, location, contact.

        Args:
            account: who sends.
            kind: "sticker", "voice", "video", "video_note", "audio", "animation", "location" or
                "contact".
            data: the file's bytes; ignored for locations and contacts.
            duration_s: as the sender's client claims, for sounds and videos.
            side_px: width and height, as the sender's client claims.
        """
        if kind == "location":
            return self._deliver(account, {"location": {"latitude": -33.11, "longitude": -64.3}})
        if kind == "contact":
            contact = {"phone_number": "+540000000", "first_name": account.first_name}
            return self._deliver(account, {"contact": contact})
        suffix, mime_type = _MEDIA.get(kind, ("", ""))
        if not suffix:
            kinds = ", ".join((*_MEDIA, "location", "contact"))
            raise UserError("bad_kind", f"A message can be one of: {kinds}.")
        file = self._world.files.add(data, folder=f"{kind}s", suffix=suffix, mime_type=mime_type)
        media: Json = {
            "file_id": file.file_id,
            "file_unique_id": file.unique_id,
            "file_size": len(data),
        }
        sides = {"width": side_px, "height": side_px}
        if kind == "sticker":
            flags = {"type": "regular", "is_animated": False, "is_video": False, "emoji": "🙂"}
            media.update(sides, **flags)
        else:
            media["duration"] = duration_s
        if kind == "video_note":
            media["length"] = side_px
        if kind in {"video", "animation"}:
            media.update(sides)
        if kind not in {"sticker", "video_note"}:
            media["mime_type"] = mime_type
        return self._deliver(account, {kind: media})

    def forward(self, account: Account, message_id: int, *, hidden: bool = False) -> Json:
        """Forward a message of the chat to the bot.

        Args:
            account: who forwards.
            message_id: which message.
            hidden: whether the author's privacy settings hide the account behind a bare name.
        """
        message = self._message(account, message_id)
        if message.get("has_protected_content"):
            raise UserError("protected", "The bot does not allow this to be forwarded.", 403)
        author = message["from"]
        origin = message.get("forward_origin")
        if origin is None and hidden:
            origin = {"type": "hidden_user", "sender_user_name": author["first_name"]}
        elif origin is None:
            origin = {"type": "user", "sender_user": author}
        content = {key: message[key] for key in _COPIED if key in message}
        return self._deliver(
            account, {**content, "forward_origin": {"date": message["date"], **origin}}
        )

    def edit(self, account: Account, message_id: int, text: str) -> Json:
        """Change the text or caption of an own message; the bot gets an edited_message."""
        message = self._own(account, message_id)
        if "forward_origin" in message:
            raise UserError("not_yours", "A forwarded message cannot be edited.", 403)
        field = "text" if "text" in message else "caption"
        text = text.strip()
        if field == "text" and not text:
            raise UserError("empty", "There is nothing to send.")
        if len(text) > (MAX_TEXT if field == "text" else MAX_CAPTION):
            raise UserError("too_long", "That is too long.")
        entities_field = "entities" if field == "text" else "caption_entities"
        rest = {key: value for key, value in message.items() if key not in {field, entities_field}}
        edited = {
            **rest,
            **(_with_entities(field, entities_field, text) if text else {}),
            "edit_date": int(self._world.clock()),
        }
        self._world.change(account, edited)
        self._world.inbox.push("edited_message", edited)
        return edited

    def delete(self, account: Account, message_id: int) -> None:
        """Delete a message of the chat for both sides; bots are not told."""
        self._message(account, message_id)
        self._world.delete(account, [message_id])

    def clear(self, account: Account) -> None:
        """Delete the whole chat; bots are not told."""
        self._world.delete(account, list(account.messages))

    def press(self, account: Account, message_id: int, data: str) -> str:
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
                "message": message,
                "chat_instance": str(account.user_id * 1_000_003),
                "data": data,
            },
        )
        return query_id

    def set_language(self, account: Account, language_code: str | None) -> None:
        """Change what the person's client tells the bot; None tells nothing."""
        if language_code is not None and not _LANGUAGE.fullmatch(language_code):
            raise UserError("bad_language", "A language code looks like es, en or pt-br.")
        account.language_code = language_code
        self._changed(account)
        account.events.publish("commands", {"commands": self._world.commands_for(account)})

    def set_blocked(self, account: Account, blocked: bool) -> None:
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

    def profile(self, account: Account) -> Json:
        """A person as their client sees them."""
        return {
            "name": account.name,
            "user_id": account.user_id,
            "first_name": account.first_name,
            "language_code": account.language_code,
            "blocked": account.blocked,
        }

    def snapshot(self, account: Account) -> Json:
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

    def _changed(self, account: Account) -> None:
        account.events.publish("account", {"account": self.profile(account)})

    def _deliver_all(
        self, account: Account, contents: list[Json], caption: str, reply_to: int | None
    ) -> list[Json]:
        caption = caption.strip()
        if len(caption) > MAX_CAPTION:
            raise UserError("too_long", f"A caption has at most {MAX_CAPTION} characters.")
        if caption:
            contents[0].update(_with_entities("caption", "caption_entities", caption))
        if len(contents) > 1:
            group_id = self._world.next_group_id()
            contents = [{**content, "media_group_id": group_id} for content in contents]
        return [self._deliver(account, content, reply_to) for content in contents]

    def _deliver(self, account: Account, content: Json, reply_to: int | None = None) -> Json:
        if account.blocked:
            raise UserError("blocked", "You blocked this bot. Unblock it to write.", 403)
        if reply_to is not None:
            replied = self._message(account, reply_to)
            content = {**content, "reply_to_message": without_reply(replied)}
        account.started = True
        message = self._world.draft(account, from_bot=False, content=content)
        self._world.post(account, message)
        self._world.inbox.push("message", message)
        return message

    def _message(self, account: Account, message_id: int) -> Json:
        message = account.messages.get(message_id)
        if message is None:
            raise UserError("no_message", "This message is not there (any more).", 404)
        return message

    def _own(self, account: Account, message_id: int) -> Json:
        message = self._message(account, message_id)
        if message["from"]["is_bot"]:
            raise UserError("not_yours", "Only your own messages can be edited.", 403)
        return message


_MEDIA = {
    "sticker": (".webp", "image/webp"),
    "voice": (".oga", "audio/ogg"),
    "video": (".mp4", "video/mp4"),
    "video_note": (".mp4", "video/mp4"),
    "audio": (".mp3", "audio/mpeg"),
    "animation": (".mp4", "video/mp4"),
}


def _checked(files: Sequence[Attachment]) -> Sequence[Attachment]:
    if not files or any(not one.data for one in files):
        raise UserError("empty", "There is nothing to send, or a file is empty.")
    if len(files) > MAX_ALBUM:
        raise UserError("too_many", f"An album has at most {MAX_ALBUM} files.")
    return files


def _with_entities(field: str, entities_field: str, text: str) -> Json:
    text, entities = finish(text, [])
    return {field: text, **({entities_field: entities} if entities else {})}
