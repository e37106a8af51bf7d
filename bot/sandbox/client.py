"""A person of the sandbox as an object: writes to the bot and waits for its answers, over HTTP.

Uses the same HTTP as the web chat; knows nothing about the state behind it.
"""

import asyncio
import json
import mimetypes
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from bot.sandbox.envelope import Lies
from bot.sandbox.errors import UserError

DEADLINE_S = 30.0
_VIDEOS = ("video", "video_note")


@dataclass(frozen=True, slots=True)
class Button:
    """A button under a message; `data` for one to press, `url` for a link."""

    text: str
    data: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a person sees it.

    Attributes:
        message_id: unique in the sandbox.
        from_bot: whether the bot wrote it.
        text: text or caption, without markup; "" where there is none.
        buttons: rows of buttons.
        photo: file id of the largest size, or None.
        document: file id, or None.
        video: file id of an ordinary or a round video, or None.
        group_id: what the messages of an album share, or None.
        reply_to: id of the message that is answered, or None.
        asks_reply: whether the next thing that is written is to be a reply to it.
        protected: whether it may not be forwarded.
        raw: the whole Bot API object.
    """

    message_id: int
    from_bot: bool
    text: str
    buttons: tuple[tuple[Button, ...], ...]
    photo: str | None
    document: str | None
    video: str | None
    group_id: str | None
    reply_to: int | None
    asks_reply: bool
    protected: bool
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def button(self, label: str) -> Button:
        """The button whose text is, or else contains, `label`, or whose data is `label`.

        Raises:
            LookupError: there is none; the message says which there are.
        """
        everyone = [button for row in self.buttons for button in row]
        exact = [button for button in everyone if label in (button.text, button.data)]
        close = [button for button in everyone if label.lower() in button.text.lower()]
        if exact or close:
            return (exact or close)[0]
        texts = [button.text for button in everyone]
        raise LookupError(f"No button {label!r} under message {self.message_id}: {texts}")


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """What the bot says to a pressed button: a toast, or a dialog where `alert`."""

    text: str
    alert: bool
    url: str


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in the chat, in order; see `bot.sandbox.events.Event`."""

    number: int
    kind: str
    body: Mapping[str, Any]


class Person:
    """One of the sandbox's people ("ana" or "ben"); close it, or use `async with`.

    Messages of the bot are handed out once and in order: `await ana.replies()` gives those that
    no earlier call gave. Another object with the same name is another device of the same person.

    Whatever is sent is honest unless told otherwise: see `bot.sandbox.envelope.Lies`, for instance
    `ana.send_photo(photo, age_s=90, via_bot=True)`.

    Args:
        url: the sandbox's.
        name: the person's, lower case.

    Raises (every action):
        UserError: the sandbox refuses, as a chat app would.
        TimeoutError: what is waited for did not come in time.
    """

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        # The sandbox speaks no TLS; reading certificates takes each client 25 ms.
        no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.AsyncClient(
            base_url=url, timeout=DEADLINE_S, trust_env=False, verify=no_tls
        )
        self._home = f"/api/people/{name}"
        self._events: list[Event] = []
        self._replies_from = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let the connection go."""
        await self._http.aclose()

    # Writing

    async def send_text(
        self, text: str, *, reply_to: Message | None = None, **lies: Unpack[Lies]
    ) -> Message:
        """Write to the bot; the (last) message that came of it."""
        fields = {"text": text, **_around(reply_to, lies)}
        return (await self._send("texts", json=fields))[-1]

    async def send_photo(
        self,
        photo: bytes | Path,
        *,
        caption: str = "",
        reply_to: Message | None = None,
        **lies: Unpack[Lies],
    ) -> Message:
        """Send a photo, which Telegram re-encodes."""
        fields = {"caption": caption, **_around(reply_to, lies)}
        return (await self._send_files("photos", [photo], fields))[0]

    async def send_album(
        self,
        photos: Sequence[bytes | Path],
        *,
        caption: str = "",
        reply_to: Message | None = None,
        **lies: Unpack[Lies],
    ) -> tuple[Message, ...]:
        """Send 2 to 10 photos as one album."""
        fields = {"caption": caption, **_around(reply_to, lies)}
        return await self._send_files("photos", photos, fields)

    async def send_document(
        self,
        data: bytes | Path,
        *,
        name: str = "",
        mime_type: str = "",
        caption: str = "",
        reply_to: Message | None = None,
        **lies: Unpack[Lies],
    ) -> Message:
        """Send a file, which is kept byte for byte."""
        fields = {"caption": caption, **_around(reply_to, lies)}
        sent = await self._send_files("documents", [data], fields, name=name, mime_type=mime_type)
        return sent[0]

    async def send_video_note(
        self,
        data: bytes | Path | None = None,
        *,
        duration_s: int | None = None,
        side_px: int | None = None,
        reply_to: Message | None = None,
        **lies: Unpack[Lies],
    ) -> Message:
        """Send a round video; without data, a placeholder.

        Args:
            data: the video; nobody checks that it is square, or a video.
            duration_s: what the client claims; None is what the file says.
            side_px: likewise, of its width and height.
            reply_to: the message that is answered.
            lies: see `Lies`.
        """
        return await self.send_other(
            "video_note",
            data,
            duration_s=duration_s,
            width_px=side_px,
            height_px=side_px,
            reply_to=reply_to,
            **lies,
        )

    async def send_video(
        self,
        data: bytes | Path | None = None,
        *,
        duration_s: int | None = None,
        width_px: int | None = None,
        height_px: int | None = None,
        caption: str = "",
        reply_to: Message | None = None,
        **lies: Unpack[Lies],
    ) -> Message:
        """Send an ordinary video; without data, a placeholder."""
        return await self.send_other(
            "video",
            data,
            duration_s=duration_s,
            width_px=width_px,
            height_px=height_px,
            caption=caption,
            reply_to=reply_to,
            **lies,
        )

    async def send_sticker(self) -> Message:
        """Send a sticker."""
        return await self.send_other("sticker")

    async def send_voice(self) -> Message:
        """Send a voice message."""
        return await self.send_other("voice")

    async def send_location(self) -> Message:
        """Send a location."""
        return await self.send_other("location")

    async def send_contact(self) -> Message:
        """Send a contact."""
        return await self.send_other("contact")

    async def send_other(
        self,
        kind: str,
        data: bytes | Path | None = None,
        *,
        duration_s: int | None = None,
        width_px: int | None = None,
        height_px: int | None = None,
        caption: str = "",
        reply_to: Message | None = None,
        **lies: Unpack[Lies],
    ) -> Message:
        """Send any other kind: also "audio" and "animation"; without data, a placeholder.

        The claims are for what moves; None is what the file says.
        """
        claims = {"duration_s": duration_s, "width_px": width_px, "height_px": height_px}
        told = {name: value for name, value in claims.items() if value is not None}
        fields = {"kind": kind, "caption": caption, **told, **_around(reply_to, lies)}
        if data is None:
            return (await self._send("others", json=fields))[0]
        return (await self._send_files("others", [data], fields))[0]

    async def forward(
        self,
        message: Message,
        *,
        hidden: bool = False,
        copy: bool = False,
        reply_to: Message | None = None,
        **lies: Unpack[Lies],
    ) -> Message:
        """Forward a message to the bot: one of the chat, or one of another person's.

        Args:
            message: which one.
            hidden: whether only the author's name is told, as their privacy settings may have it.
            copy: whether nothing tells that it is a forward; the file's ids stay.
            reply_to: the message that is answered; official clients do not offer it.
            lies: see `Lies`; `origin` takes the place of the true one.
        """
        fields = {"message_id": message.message_id, "hidden": hidden, "copy": copy}
        return (await self._send("forwards", json={**fields, **_around(reply_to, lies)}))[0]

    async def edit(self, message: Message, text: str) -> Message:
        """Change the text or caption of an own message."""
        answer = await self._ask(
            "PATCH", f"{self._home}/messages/{message.message_id}", json={"text": text}
        )
        return _messages(answer)[0]

    async def edit_photo(self, message: Message, photo: bytes | Path) -> Message:
        """Put another photo into an own message."""
        where = f"{self._home}/messages/{message.message_id}"
        answer = await self._ask("PATCH", where, files=await _parts([photo]))
        return _messages(answer)[0]

    async def delete(self, message: Message) -> None:
        """Delete a message for both sides."""
        await self._ask("DELETE", f"{self._home}/messages/{message.message_id}")

    async def press(
        self, message: Message, button: Button | str, *, timeout_s: float = DEADLINE_S
    ) -> ApiResponse:
        """Press a button (or the one with a label) and wait for the bot's answer to it."""
        if isinstance(button, str):
            button = message.button(button)
        answer = await self._ask(
            "POST",
            f"{self._home}/presses",
            json={"message_id": message.message_id, "data": button.data},
        )
        event = await self.wait_for(
            lambda one: one.kind == "answer" and one.body["query_id"] == answer["query_id"],
            timeout_s=timeout_s,
        )
        return ApiResponse(event.body["text"], event.body["alert"], event.body["url"])

    # Waiting

    async def replies(
        self, count: int = 1, *, timeout_s: float = DEADLINE_S
    ) -> tuple[Message, ...]:
        """The bot's next `count` messages that were not handed out yet, as they were sent."""
        found: list[Message] = []
        position = self._replies_from
        async with asyncio.timeout(timeout_s), aclosing(self._from(position)) as events:
            async for event in events:
                position = event.number
                if event.kind == "message" and event.body["message"]["from"]["is_bot"]:
                    found.append(message_from(event.body["message"]))
                    if len(found) == count:
                        break
        self._replies_from = position
        return tuple(found)

    async def reply(self, *, timeout_s: float = DEADLINE_S) -> Message:
        """The bot's next message that was not handed out yet."""
        return (await self.replies(timeout_s=timeout_s))[0]

    async def edited(self, message: Message, *, timeout_s: float = DEADLINE_S) -> Message:
        """The next version of a message that differs from the one given."""
        event = await self.wait_for(
            lambda one: (
                one.kind == "edit"
                and one.body["message"]["message_id"] == message.message_id
                and one.body["message"] != message.raw
            ),
            timeout_s=timeout_s,
            latest=True,
        )
        return message_from(event.body["message"])

    async def deleted(self, message: Message, *, timeout_s: float = DEADLINE_S) -> None:
        """Wait until a message is gone."""
        await self.wait_for(
            lambda one: one.kind == "delete" and message.message_id in one.body["message_ids"],
            timeout_s=timeout_s,
        )

    async def wait_for(
        self,
        wanted: Callable[[Event], bool],
        *,
        timeout_s: float = DEADLINE_S,
        latest: bool = False,
    ) -> Event:
        """The first event of the chat, past or to come, that is wanted.

        Args:
            wanted: judges one event.
            timeout_s: how long to wait.
            latest: of the events that are there already, take the last wanted one.
        """
        if latest:
            await self._catch_up()
            for event in reversed(self._events):
                if wanted(event):
                    return event
        async with asyncio.timeout(timeout_s), aclosing(self._from(0)) as events:
            async for event in events:
                if wanted(event):
                    return event
        raise AssertionError("the stream of events ends with an exception only")

    # Looking

    async def messages(self) -> tuple[Message, ...]:
        """The whole chat as it is now, oldest first."""
        return _messages(await self._ask("GET", self._home))

    async def commands(self) -> dict[str, str]:
        """The commands menu: description by command."""
        menu = (await self._ask("GET", self._home))["commands"]
        return {entry["command"]: entry["description"] for entry in menu}

    async def download(self, message: Message | str) -> bytes:
        """The bytes of a message's photo (largest size), file or video, or of a file id."""
        if isinstance(message, str):
            file_id: str | None = message
        else:
            file_id = message.photo or message.document or message.video
        if file_id is None:
            raise LookupError("This message has neither a photo nor a file.")
        response = await self._http.get(f"/api/files/{file_id}")
        if not response.is_success:
            raise _refusal(response)
        return response.content

    # Settings

    async def set_language(self, language_code: str | None) -> None:
        """Change the language that the person's app tells the bot; None tells nothing."""
        await self._ask("PATCH", self._home, json={"language_code": language_code})

    async def block(self, blocked: bool = True) -> None:
        """Block the bot, or let it back in."""
        await self._ask("PATCH", self._home, json={"blocked": blocked})

    # Inside

    async def _send_files(
        self,
        where: str,
        files: Sequence[bytes | Path],
        fields: Mapping[str, Any],
        *,
        name: str = "",
        mime_type: str = "",
    ) -> tuple[Message, ...]:
        parts = await _parts(files, name=name, mime_type=mime_type)
        return await self._send(
            where, data={key: str(value) for key, value in fields.items()}, files=parts
        )

    async def _send(self, where: str, **body: Any) -> tuple[Message, ...]:
        return _messages(await self._ask("POST", f"{self._home}/{where}", **body))

    async def _ask(self, method: str, path: str, **body: Any) -> Any:
        response = await self._http.request(method, path, **body)
        if not response.is_success:
            raise _refusal(response)
        return response.json()

    async def _catch_up(self) -> None:
        last = (await self._ask("GET", self._home))["after"]
        async with aclosing(self._from(0)) as events:
            async for event in events:
                if event.number >= last:
                    break

    async def _from(self, position: int) -> AsyncGenerator[Event]:
        """Events later than a number: those that are known, then those that come."""
        for event in tuple(self._events):
            if event.number > position:
                yield event
        seen = self._events[-1].number if self._events else 0
        async with self._http.stream(
            "GET", f"{self._home}/events", params={"after": seen}, timeout=None
        ) as response:
            if not response.is_success:
                await response.aread()
                raise _refusal(response)
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                body = json.loads(line.removeprefix("data: "))
                event = Event(body.pop("number"), body.pop("kind"), body)
                # Another wait of this person may have read it already.
                if not self._events or event.number > self._events[-1].number:
                    self._events.append(event)
                yield event
        raise UserError("closed", "The sandbox closed.", 503)


def message_from(raw: Mapping[str, Any]) -> Message:
    """A message from its Bot API object."""
    rows = raw.get("reply_markup", {}).get("inline_keyboard", ())
    return Message(
        message_id=raw["message_id"],
        from_bot=raw["from"]["is_bot"],
        text=raw.get("text", raw.get("caption", "")),
        buttons=tuple(
            tuple(Button(one["text"], one.get("callback_data"), one.get("url")) for one in row)
            for row in rows
        ),
        photo=raw["photo"][-1]["file_id"] if "photo" in raw else None,
        document=raw["document"]["file_id"] if "document" in raw else None,
        video=next((raw[kind]["file_id"] for kind in _VIDEOS if kind in raw), None),
        group_id=raw.get("media_group_id"),
        reply_to=raw.get("reply_to_message", {}).get("message_id"),
        asks_reply="force_reply" in raw.get("reply_markup", {}),
        protected=raw.get("has_protected_content", False),
        raw=raw,
    )


def _messages(answer: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(message_from(raw) for raw in answer["messages"])


def _around(reply_to: Message | None, lies: Lies) -> dict[str, Any]:
    return {**({} if reply_to is None else {"reply_to": reply_to.message_id}), **lies}


async def _parts(
    files: Sequence[bytes | Path], *, name: str = "", mime_type: str = ""
) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Files as the parts of a form."""
    parts = []
    for number, one in enumerate(files, 1):
        data = await asyncio.to_thread(one.read_bytes) if isinstance(one, Path) else one
        title = name or (one.name if isinstance(one, Path) else f"file_{number}")
        kind = mime_type or mimetypes.guess_type(title)[0] or "application/octet-stream"
        parts.append(("file", (title, data, kind)))
    return parts


def _refusal(response: httpx.Response) -> UserError:
    try:
        error = response.json()["error"]
        return UserError(error["code"], error["message"], response.status_code)
    except (ValueError, KeyError, TypeError):
        return UserError("broken", f"The sandbox answered {response.status_code}.", 500)
