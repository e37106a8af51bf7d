"""The Bot API's methods over the sandbox's state, with Telegram's limits and error sentences.

Knows what each method does; nothing about HTTP, tokens or faults.
Source: https://core.telegram.org/bots/api
"""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import telegram

from bot.sandbox.errors import ApiError, bad_request
from bot.sandbox.forms import Form, Upload, is_utf8
from bot.sandbox.keyboard import inline_keyboard, reply_markup
from bot.sandbox.markup import rich_text
from bot.sandbox.pictures import NotAPicture, dimensions
from bot.sandbox.webhook import WebhookRules, webhook_at
from bot.sandbox.world import Claims, Json, PrivateChat, World, inside_reply, seen_by_bot

MAX_TEXT = 4096
MAX_CAPTION = 1024
MAX_ANSWER = 200
MAX_PHOTO_BYTES = 10 * 1024 * 1024
MAX_DOCUMENT_BYTES = 50 * 1024 * 1024
MAX_DOWNLOAD_BYTES = 20 * 1024 * 1024
MAX_PHOTO_SIDES_PX = 10_000
MAX_PHOTO_RATIO = 20
MAX_COMMANDS = 100
MAX_ALBUM = 10
MAX_DELETED = 100
ACTIONS = frozenset(
    (
        "typing",
        "upload_photo",
        "record_video",
        "upload_video",
        "record_voice",
        "upload_voice",
        "upload_document",
        "choose_sticker",
        "find_location",
        "record_video_note",
        "upload_video_note",
    )
)
BOT_API_METHODS = frozenset(
    # python-telegram-bot gives every method also by its name in the Bot API.
    {name for name in vars(telegram.Bot) if re.fullmatch(r"[a-z]+([A-Z][a-z]*)+", name)} | {"close"}
)
MEDIA = ("photo", "document", "video", "video_note")
_CONTENT = frozenset({"text", "entities", "caption", "caption_entities", *MEDIA})
_COMMAND = re.compile(r"[a-z0-9_]{1,32}")
_LANGUAGE = re.compile(r"[a-z]{2}")


class Call:
    """One call's parameters, read as the Bot API reads them.

    Args:
        form: fields and files of the call; structures are JSON in a string, or JSON itself.
    """

    def __init__(self, form: Form) -> None:
        self._form = form

    def text(self, name: str) -> str:
        """A string; "" where it is missing.

        Raises:
            ApiError: 400, it is not UTF-8.
        """
        value = self._form.values.get(name)
        return "" if value is None else str(_whole(value))

    def integer(self, name: str) -> int | None:
        """A whole number, or None where it is missing or none."""
        try:
            return int(self._form.values.get(name, ""))
        except (TypeError, ValueError):
            return None

    def flag(self, name: str) -> bool:
        """A boolean; False where it is missing."""
        return str(self._form.values.get(name, "")).lower() in {"true", "1", "yes"}

    def structure(self, name: str) -> Any:
        """A list or object, or None where it is missing.

        Raises:
            ApiError: 400, the JSON is broken or not UTF-8.
        """
        value = self._form.values.get(name)
        if isinstance(value, str):
            try:
                value = json.loads(value) if value else None
            except (ValueError, RecursionError):
                raise bad_request(f"can't parse {name} JSON object") from None
        return _whole(value)

    def upload(self, name: str) -> Upload | None:
        """A file sent under a name, or None."""
        return self._form.upload(name)


class Methods:
    """Bot API methods by name; `await methods.call("sendMessage", form)` gives the result.

    Args:
        world: the state.
        webhooks: which addresses may be one.
    """

    def __init__(self, world: World, webhooks: WebhookRules) -> None:
        self._world = world
        self._webhooks = webhooks
        self._table: dict[str, Callable[[Call], Awaitable[Any]]] = {
            name.lower(): method
            for name, method in {
                "getMe": self._get_me,
                "getUpdates": self._get_updates,
                "setWebhook": self._set_webhook,
                "deleteWebhook": self._delete_webhook,
                "getWebhookInfo": self._get_webhook_info,
                "sendMessage": self._send_message,
                "sendPhoto": self._send_photo,
                "sendDocument": self._send_document,
                "sendVideo": self._send_video,
                "sendVideoNote": self._send_video_note,
                "sendMediaGroup": self._send_media_group,
                "sendChatAction": self._send_chat_action,
                "editMessageText": self._edit_text,
                "editMessageCaption": self._edit_caption,
                "editMessageMedia": self._edit_media,
                "editMessageReplyMarkup": self._edit_reply_markup,
                "deleteMessage": self._delete_message,
                "deleteMessages": self._delete_messages,
                "answerCallbackQuery": self._answer_callback_query,
                "getFile": self._get_file,
                "getChat": self._get_chat,
                "setMyCommands": self._set_my_commands,
                "getMyCommands": self._get_my_commands,
                "deleteMyCommands": self._delete_my_commands,
                "setMyName": self._set_my("name", 64),
                "getMyName": self._get_my("name"),
                "setMyDescription": self._set_my("description", 512),
                "getMyDescription": self._get_my("description"),
                "setMyShortDescription": self._set_my("short_description", 120),
                "getMyShortDescription": self._get_my("short_description"),
            }.items()
        }

    def check(self, name: str) -> None:
        """Whether there is a method of this name; case does not matter.

        Raises:
            ApiError: 400 for a method that only Telegram has, 404 for what is no method.
        """
        if name.lower() in self._table:
            return
        for known in BOT_API_METHODS:
            if known.lower() == name.lower():
                raise bad_request(f"the sandbox does not have {known}")
        raise ApiError(404, "Not Found: method not found")

    async def call(self, name: str, form: Form) -> Any:
        """Carry a method out; its result as JSON.

        Raises:
            ApiError: the call is refused.
        """
        return await self._table[name.lower()](Call(form))

    # Updates

    async def _get_me(self, _call: Call) -> Json:
        return {
            **self._world.bot,
            "can_join_groups": False,
            "can_read_all_group_messages": False,
            "supports_inline_queries": False,
            "can_connect_to_business": False,
            "has_main_web_app": False,
        }

    async def _get_updates(self, call: Call) -> list[Json]:
        limit = call.integer("limit")
        return await self._world.inbox.poll(
            offset=call.integer("offset"),
            limit=min(100, max(1, 100 if limit is None else limit)),
            timeout_s=min(50, max(0, call.integer("timeout") or 0)),
            allowed=_kinds(call),
        )

    async def _set_webhook(self, call: Call) -> bool:
        inbox = self._world.inbox
        url = call.text("url")
        webhook = None
        if url:
            if call.text("certificate") or call.upload("certificate"):
                raise bad_request("bad webhook: the sandbox takes no certificate of a webhook")
            webhook = await webhook_at(
                url,
                self._webhooks,
                ip_address=call.text("ip_address"),
                secret_token=call.text("secret_token"),
                max_connections=call.integer("max_connections"),
            )
        inbox.allow(_kinds(call))
        if call.flag("drop_pending_updates"):
            inbox.drop_pending()
        inbox.set_webhook(webhook)
        return True

    async def _delete_webhook(self, call: Call) -> bool:
        if call.flag("drop_pending_updates"):
            self._world.inbox.drop_pending()
        self._world.inbox.set_webhook(None)
        return True

    async def _get_webhook_info(self, _call: Call) -> Json:
        inbox = self._world.inbox
        webhook = inbox.webhook
        info: Json = {
            "url": webhook.url if webhook else "",
            "has_custom_certificate": False,
            "pending_update_count": inbox.pending_count,
        }
        if webhook:
            info["ip_address"] = webhook.ip_address
            info["max_connections"] = webhook.max_connections
            if webhook.last_error:
                info["last_error_date"], info["last_error_message"] = webhook.last_error
        if inbox.allowed:
            info["allowed_updates"] = inbox.allowed
        return info

    # Sending

    async def _send_message(self, call: Call) -> Json:
        return self._send(call, self._text(call))

    async def _send_photo(self, call: Call) -> Json:
        media = await self._media("photo", call.text("photo"), call)
        return self._send(call, {**media, **self._caption(call)})

    async def _send_document(self, call: Call) -> Json:
        media = await self._media("document", call.text("document"), call)
        return self._send(call, {**media, **self._caption(call)})

    async def _send_video(self, call: Call) -> Json:
        media = await self._media("video", call.text("video"), call)
        return self._send(call, {**media, **self._caption(call)})

    async def _send_video_note(self, call: Call) -> Json:
        return self._send(call, await self._media("video_note", call.text("video_note"), call))

    async def _send_media_group(self, call: Call) -> list[Json]:
        items = call.structure("media")
        if not isinstance(items, list) or not 2 <= len(items) <= MAX_ALBUM:
            raise bad_request(f"wrong number of media: an album has 2 to {MAX_ALBUM}")
        contents = [await self._input_media(item, call) for item in items]
        if len({"photo" in content for content in contents}) > 1:
            raise bad_request("documents can't be mixed with other media types")
        group_id = self._world.next_group_id()
        return self._send_all(call, [{**one, "media_group_id": group_id} for one in contents])

    def _send(self, call: Call, content: Json) -> Json:
        return self._send_all(call, [content])[0]

    def _send_all(self, call: Call, contents: list[Json]) -> list[Json]:
        account = self._reachable(call)
        checked = [self._complete(call, account, one) for one in contents]
        if self._world.throttle is not None:
            self._world.throttle.take(account.user_id, len(checked))
        drafts = [self._world.draft(account, from_bot=True, content=one) for one in checked]
        return [seen_by_bot(self._world.post(account, one)) for one in drafts]

    def _complete(self, call: Call, account: PrivateChat, content: Json) -> Json:
        """A new message's content, with what the call says around it."""
        content.update(self._reply(call, account))
        markup = reply_markup(call.structure("reply_markup"))
        if markup is not None:
            content["reply_markup"] = markup
        if call.flag("protect_content"):
            content["has_protected_content"] = True
        if call.text("message_effect_id"):
            content["effect_id"] = call.text("message_effect_id")
        return content

    def _reply(self, call: Call, account: PrivateChat) -> Json:
        parameters = call.structure("reply_parameters")
        if isinstance(parameters, dict):
            target = parameters.get("message_id")
            optional = bool(parameters.get("allow_sending_without_reply"))
        else:
            target = call.integer("reply_to_message_id")
            optional = call.flag("allow_sending_without_reply")
        if target is None:
            return {}
        message = account.messages.get(target) if isinstance(target, int) else None
        if message is None:
            if optional:
                return {}
            raise bad_request("message to be replied not found")
        return {"reply_to_message": inside_reply(message)}

    async def _send_chat_action(self, call: Call) -> bool:
        account = self._reachable(call)
        if call.text("action") not in ACTIONS:
            raise bad_request("wrong parameter action in request")
        account.events.publish("action", {"action": call.text("action")})
        return True

    # Media

    async def _media(self, kind: str, reference: str, call: Call) -> Json:
        """{"photo": ...}, {"document": ...} or the like from an upload, attach:// or a file_id."""
        upload = call.upload(kind)
        if reference.startswith("attach://"):
            upload = call.upload(reference.removeprefix("attach://"))
            if upload is None:
                raise bad_request(f"can't find file {reference}")
        if upload is None and not reference:
            raise bad_request(f"there is no {kind} in the request")
        if upload is None:
            return self._media_again(kind, reference)
        if not upload.data:
            raise bad_request("file must be non-empty")
        if kind != "photo" and len(upload.data) > MAX_DOCUMENT_BYTES:
            raise ApiError(413, "Request Entity Too Large")
        if kind in {"video", "video_note"}:
            claims = Claims(
                call.integer("duration"),
                call.integer("length" if kind == "video_note" else "width"),
                call.integer("height"),
            )
            return {kind: await self._world.clip(kind, upload.data, claims)}
        if kind == "document":
            return {
                "document": await self._world.document(
                    upload.data, name=upload.name, mime_type=upload.mime_type
                )
            }
        return {"photo": await self._photo(upload.data)}

    def _media_again(self, kind: str, reference: str) -> Json:
        if reference.startswith(("http://", "https://")):
            raise bad_request("failed to get HTTP URL content")  # the sandbox fetches nothing
        known = self._world.files.media(reference)
        if known is None:
            raise bad_request("wrong file identifier/HTTP URL specified")
        if kind not in known:
            other, wanted = (one.title().replace("_", "") for one in (next(iter(known)), kind))
            raise bad_request(f"can't use file of type {other} as {wanted}")
        return known

    async def _photo(self, data: bytes) -> list[Json]:
        if len(data) > MAX_PHOTO_BYTES:
            raise bad_request(
                f"file of size {len(data)} bytes is too big for a photo; "
                f"the maximum size is {MAX_PHOTO_BYTES} bytes"
            )
        try:
            width, height = dimensions(data)
            if width + height > MAX_PHOTO_SIDES_PX or max(width, height) > MAX_PHOTO_RATIO * min(
                width, height
            ):
                raise bad_request("PHOTO_INVALID_DIMENSIONS")
            return await self._world.photo(data)
        except NotAPicture:
            raise bad_request("IMAGE_PROCESS_FAILED") from None

    async def _input_media(self, item: object, call: Call) -> Json:
        if not isinstance(item, dict) or item.get("type") not in {"photo", "document"}:
            raise bad_request("can't parse InputMedia: the sandbox speaks photo and document")
        media = await self._media(item["type"], str(item.get("media") or ""), call)
        return {**media, **self._caption(Call(Form(item)))}

    # Editing

    async def _edit_text(self, call: Call) -> Json:
        account, message = self._editable(call)
        content = self._text(call)
        if "text" not in message:
            raise bad_request("there is no text in the message to edit")
        return self._edit(call, account, message, content)

    async def _edit_caption(self, call: Call) -> Json:
        account, message = self._editable(call)
        content = self._caption(call)
        if "text" in message:
            raise bad_request("there is no caption in the message to edit")
        if "video_note" in message:
            raise bad_request("message can't be edited")
        media: Json = {key: message[key] for key in MEDIA if key in message}
        return self._edit(call, account, message, {**media, **content})

    async def _edit_media(self, call: Call) -> Json:
        account, message = self._editable(call)
        content = await self._input_media(call.structure("media"), call)
        # The sizes of an uploaded photo took a moment, in which the message may have gone.
        account, message = self._editable(call)
        if "media_group_id" in message and "document" in content:
            raise bad_request("message can't be edited")
        return self._edit(call, account, message, content)

    async def _edit_reply_markup(self, call: Call) -> Json:
        account, message = self._editable(call)
        content = {key: message[key] for key in _CONTENT if key in message}
        return self._edit(call, account, message, content)

    def _editable(self, call: Call) -> tuple[PrivateChat, Json]:
        account = self._reachable(call)
        message = account.messages.get(call.integer("message_id") or 0)
        if message is None:
            raise bad_request("message to edit not found")
        if not message["from"]["is_bot"] or "force_reply" in message.get("reply_markup", ()):
            raise bad_request("message can't be edited")
        return account, message

    def _edit(self, call: Call, account: PrivateChat, message: Json, content: Json) -> Json:
        keyboard = inline_keyboard(call.structure("reply_markup"))
        if keyboard is not None:
            content["reply_markup"] = keyboard
        rest = {
            key: value
            for key, value in message.items()
            if key not in _CONTENT and key not in {"reply_markup", "edit_date"}
        }
        edited = {**rest, **content}
        if edited == {key: value for key, value in message.items() if key != "edit_date"}:
            raise bad_request(
                "message is not modified: specified new message content and reply markup are "
                "exactly the same as a current content and reply markup of the message"
            )
        edited["edit_date"] = int(self._world.clock())
        return seen_by_bot(self._world.change(account, edited))

    async def _delete_message(self, call: Call) -> bool:
        account = self._reachable(call)
        message_id = call.integer("message_id") or 0
        message = account.messages.get(message_id)
        if message is None:
            raise bad_request("message to delete not found")
        if self._world.clock() - message["date"] > 48 * 3600:
            raise bad_request("message can't be deleted for everyone")
        self._world.delete(account, [message_id])
        return True

    async def _delete_messages(self, call: Call) -> bool:
        account = self._reachable(call)
        self._world.delete(account, _message_ids(call))
        return True

    # The rest

    async def _answer_callback_query(self, call: Call) -> bool:
        query_id = call.text("callback_query_id")
        query = self._world.query(query_id)
        if query is None:
            raise bad_request(
                "query is too old and response timeout expired or query ID is invalid"
            )
        if len(call.text("text")) > MAX_ANSWER:
            raise bad_request("MESSAGE_TOO_LONG")
        self._world.answered(query_id)
        query.account.events.publish(
            "answer",
            {
                "query_id": query_id,
                "text": call.text("text"),
                "alert": call.flag("show_alert"),
                "url": call.text("url"),
            },
        )
        return True

    async def _get_file(self, call: Call) -> Json:
        file = self._world.files.get(call.text("file_id"))
        if file is None:
            raise bad_request("wrong file_id or the file is temporarily unavailable")
        if len(file.data) > MAX_DOWNLOAD_BYTES:
            raise bad_request("file is too big")
        return {
            "file_id": file.file_id,
            "file_unique_id": file.unique_id,
            "file_size": len(file.data),
            "file_path": file.path,
        }

    async def _get_chat(self, call: Call) -> Json:
        gifts = (
            "unlimited_gifts",
            "limited_gifts",
            "unique_gifts",
            "premium_subscription",
            "gifts_from_channels",
        )
        return {
            **self._chat(call).chat(),
            "accent_color_id": 0,
            "max_reaction_count": 11,
            "accepted_gift_types": dict.fromkeys(gifts, False),
        }

    async def _set_my_commands(self, call: Call) -> bool:
        scope, language = _scope(call), _language(call)
        commands = call.structure("commands")
        if not isinstance(commands, list) or len(commands) > MAX_COMMANDS:
            raise bad_request("BOT_COMMANDS_TOO_MUCH")
        self._world.set_commands(scope, language, [_command(one) for one in commands])
        return True

    async def _get_my_commands(self, call: Call) -> list[Json]:
        return self._world.commands(_scope(call), _language(call))

    async def _delete_my_commands(self, call: Call) -> bool:
        self._world.set_commands(_scope(call), _language(call), [])
        return True

    def _set_my(self, field: str, most: int) -> Callable[[Call], Awaitable[bool]]:
        async def method(call: Call) -> bool:
            if len(call.text(field)) > most:
                raise bad_request(f"{field.upper()}_TOO_LONG")
            self._world.texts[field, _language(call)] = call.text(field)
            return True

        return method

    def _get_my(self, field: str) -> Callable[[Call], Awaitable[Json]]:
        async def method(call: Call) -> Json:
            default = self._world.bot["first_name"] if field == "name" else ""
            return {field: self._world.texts.get((field, _language(call)), default)}

        return method

    # What calls say

    def _text(self, call: Call) -> Json:
        text, entities = self._rich(call, "text", "entities")
        if not text:
            raise bad_request("message text is empty")
        if len(text) > MAX_TEXT:
            raise bad_request("message is too long")
        return {"text": text, **({"entities": entities} if entities else {})}

    def _caption(self, call: Call) -> Json:
        text, entities = self._rich(call, "caption", "caption_entities")
        if len(text) > MAX_CAPTION:
            raise bad_request("message caption is too long")
        if not text:
            return {}
        return {"caption": text, **({"caption_entities": entities} if entities else {})}

    def _rich(self, call: Call, field: str, entities_field: str) -> tuple[str, list[Json]]:
        entities = call.structure(entities_field)
        given = [
            one
            for one in (entities if isinstance(entities, list) else ())
            if isinstance(one, dict)
            and isinstance(one.get("type"), str)
            and isinstance(one.get("offset"), int)
            and isinstance(one.get("length"), int)
        ]
        return rich_text(
            call.text(field),
            parse_mode=call.text("parse_mode"),
            users=self._world.user,
            entities=given,
        )

    def _chat(self, call: Call) -> PrivateChat:
        if not call.text("chat_id"):
            raise bad_request("chat_id is empty")
        account = self._world.account_of(call.integer("chat_id") or 0)
        if account is None:
            raise bad_request("chat not found")
        return account

    def _reachable(self, call: Call) -> PrivateChat:
        account = self._chat(call)
        if account.blocked:
            raise ApiError(403, "Forbidden: bot was blocked by the user")
        if not account.started:
            raise ApiError(403, "Forbidden: bot can't initiate conversation with a user")
        return account


def _whole(value: Any) -> Any:
    if not is_utf8(value):
        raise bad_request("strings must be encoded in UTF-8")
    return value


def _kinds(call: Call) -> list[str] | None:
    kinds = call.structure("allowed_updates")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        return None
    return kinds


def _message_ids(call: Call) -> list[int]:
    ids = call.structure("message_ids")
    if ids in (None, ""):
        raise bad_request("message identifiers are not specified")
    if not isinstance(ids, list):
        raise bad_request("expected an Array of message identifiers")
    if len(ids) > MAX_DELETED:
        raise bad_request("too many message identifiers specified")
    if not all(isinstance(one, int | str) and not isinstance(one, bool) for one in ids):
        raise bad_request("message identifier must be a Number")
    try:
        numbers = [int(one) for one in ids]
    except ValueError:
        raise bad_request("can't parse message identifier as Number") from None
    if any(number <= 0 for number in numbers):
        raise bad_request("invalid message identifier specified")
    return numbers


def _scope(call: Call) -> str:
    scope = call.structure("scope") or {"type": "default"}
    kind = scope.get("type") if isinstance(scope, dict) else None
    if kind in {"default", "all_private_chats", "all_group_chats", "all_chat_administrators"}:
        return str(kind)
    if kind == "chat":
        return f"chat:{scope.get('chat_id')}"
    raise bad_request("can't parse BotCommandScope: unsupported type specified")


def _language(call: Call) -> str:
    code = call.text("language_code")
    if code and not _LANGUAGE.fullmatch(code):
        raise bad_request("invalid language code specified")
    return code


def _command(item: object) -> Json:
    if not isinstance(item, dict):
        raise bad_request("can't parse BotCommand: expected an Object")
    command = str(item.get("command", "")).removeprefix("/")
    description = str(item.get("description", ""))
    if not _COMMAND.fullmatch(command):
        raise bad_request("BOT_COMMAND_INVALID")
    if not 1 <= len(description) <= 256:
        raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
    return {"command": command, "description": description}
