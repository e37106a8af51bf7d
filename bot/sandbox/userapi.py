"""The people's side over HTTP: the web chat, what it may ask for, and events as they happen.

Knows addresses, JSON and who may ask; what an action does stands in `people`.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from bot.sandbox.clips import container
from bot.sandbox.envelope import envelope_from
from bot.sandbox.errors import UserError
from bot.sandbox.events import Event
from bot.sandbox.faults import fault_from, fields_of
from bot.sandbox.forms import Form, FormError, is_utf8, read_form
from bot.sandbox.people import CLIPS, Attachment, SandboxPeople
from bot.sandbox.stage import MOST_STEPS, STEPS, Performer
from bot.sandbox.world import Claims, Json, PrivateChat, World

STATIC = Path(__file__).parent / "static"
_HEARTBEAT_S = 15.0
_SHOWN = {"image/jpeg", "image/png", "image/webp", "image/gif", "video/mp4", "video/webm"}
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PLACEHOLDER = b"a placeholder of the sandbox"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ASSETS = {
    "/": "index.html",
    "/chat.css": "chat.css",
    "/chat.js": "chat.js",
    "/pretend.js": "pretend.js",
    "/render.js": "render.js",
    "/round.js": "round.js",
    "/stage.js": "stage.js",
    "/words.js": "words.js",
    "/icon.svg": "icon.svg",
}

Handler = Callable[[Request], Awaitable[Response]]


class UserApi:
    """Routes for the people of the sandbox and for faults.

    Args:
        world: the state.
        hosts: the Host headers that are answered ("127.0.0.1:8080"); any other may be a foreign
            page that found a name for this machine.
        epoch: tells this run from an earlier one, so that a page that reconnects after a restart
            starts anew.
        performer: asked whenever somebody might want a clip made from a photo; None where nobody
            can make one.
    """

    def __init__(
        self,
        world: World,
        *,
        hosts: frozenset[str],
        epoch: str,
        performer: Callable[[], Performer | None],
    ) -> None:
        self._world = world
        self._performer = performer
        self._people = SandboxPeople(world)
        self._hosts = hosts
        self._epoch = epoch

    def routes(self) -> list[BaseRoute]:
        """The routes, to be put into an application."""
        person = "/api/people/{name}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/api/people", self._list_people),
            ("GET", person, self._snapshot),
            ("PATCH", person, self._change_person),
            ("GET", f"{person}/events", self._events),
            ("DELETE", f"{person}/messages", self._clear),
            ("POST", f"{person}/texts", self._send_text),
            ("POST", f"{person}/photos", self._send_photos),
            ("POST", f"{person}/documents", self._send_documents),
            ("POST", f"{person}/others", self._send_other),
            ("POST", f"{person}/forwards", self._forward),
            ("POST", f"{person}/presses", self._press),
            ("PATCH", person + "/messages/{message_id:int}", self._edit),
            ("DELETE", person + "/messages/{message_id:int}", self._delete),
            ("GET", "/api/files/{file_id}", self._file),
            ("GET", "/api/performances", self._list_ways),
            ("POST", "/api/performances", self._perform),
            ("GET", "/api/faults", self._list_faults),
            ("POST", "/api/faults", self._add_fault),
            ("DELETE", "/api/faults", self._clear_faults),
        ]
        routes: list[BaseRoute] = [
            Route(path, self._guarded(_asset(name)), methods=["GET"])
            for path, name in _ASSETS.items()
        ]
        routes += [
            Route(path, self._guarded(handler), methods=[method]) for method, path, handler in table
        ]
        return routes

    def _guarded(self, handler: Handler) -> Handler:
        """A handler that answers this machine's own page and clients, and turns faults to JSON."""

        async def guarded(request: Request) -> Response:
            try:
                self._check(request)
                response = await handler(request)
            except UserError as error:
                response = JSONResponse(error.body(), error.status)
            except FormError as error:
                code, status = ("too_large", 413) if error.too_large else ("bad_request", 400)
                response = JSONResponse(UserError(code, str(error)).body(), status)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return guarded

    def _check(self, request: Request) -> None:
        host = request.headers.get("host", "").lower()
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "none")
        if (
            host not in self._hosts
            or (origin is not None and origin.lower() != f"http://{host}")
            or site not in {"none", "same-origin"}
        ):
            raise UserError("foreign", "Only the sandbox's own page may ask this.", 403)

    # Reading

    async def _list_people(self, _request: Request) -> Response:
        accounts = self._world.accounts.values()
        return JSONResponse(
            {
                "bot": self._world.bot,
                "people": [self._people.profile(account) for account in accounts],
            }
        )

    async def _snapshot(self, request: Request) -> Response:
        account = self._account(request)
        return JSONResponse({**self._people.snapshot(account), "after": account.events.last})

    async def _events(self, request: Request) -> Response:
        account = self._account(request)
        return StreamingResponse(
            self._follow(account, self._position(request)), media_type="text/event-stream"
        )

    def _position(self, request: Request) -> int | None:
        """The number of the last event the client has, or None where it needs a snapshot."""
        epoch, _, number = request.headers.get("last-event-id", "").rpartition("-")
        if epoch != self._epoch:
            number = request.query_params.get("after", "")
        return int(number) if number.isdecimal() else None

    async def _follow(self, account: PrivateChat, position: int | None) -> AsyncIterator[str]:
        log = account.events
        yield "retry: 1000\n\n"
        while not self._world.closing.is_set():
            events = None if position is None else log.after(position)
            if events is None:
                events = [Event(log.last, "snapshot", self._people.snapshot(account))]
            for event in events:
                position = event.number
                data = json.dumps({"kind": event.kind, "number": event.number, **event.body})
                yield f"id: {self._epoch}-{event.number}\nevent: {event.kind}\ndata: {data}\n\n"
            if not events and position is not None and not await log.wait(position, _HEARTBEAT_S):
                yield ": still here\n\n"

    async def _file(self, request: Request) -> Response:
        file = self._world.files.get(request.path_params["file_id"])
        if file is None:
            raise UserError("no_file", "This file is not there (any more).", 404)
        shown = file.mime_type in _SHOWN
        name = file.name or file.path.rpartition("/")[2]
        disposition = "inline" if shown else "attachment"
        data, status, headers = _part(file.data, request.headers.get("range", ""))
        return Response(
            data,
            status,
            media_type=file.mime_type if shown else "application/octet-stream",
            headers={
                **headers,
                "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(name, safe='')}",
                "Content-Security-Policy": "default-src 'none'; sandbox",
                "Cache-Control": "private, max-age=3600",
            },
        )

    # Acting

    async def _send_text(self, request: Request) -> Response:
        form = await read_form(request)
        return _sent(
            self._people.send_text(
                self._account(request), _text(form, "text"), envelope_from(form.values)
            )
        )

    async def _send_photos(self, request: Request) -> Response:
        return await self._send_files(request, self._people.send_photos)

    async def _send_documents(self, request: Request) -> Response:
        return await self._send_files(request, self._people.send_documents)

    async def _send_files(
        self, request: Request, send: Callable[..., Awaitable[list[Json]]]
    ) -> Response:
        form = await read_form(request)
        return _sent(
            await send(
                self._account(request),
                _attachments(form),
                _text(form, "caption"),
                envelope_from(form.values),
            )
        )

    async def _send_other(self, request: Request) -> Response:
        form = await read_form(request)
        account, kind, envelope = (
            self._account(request),
            _text(form, "kind"),
            envelope_from(form.values),
        )
        sent = _attachments(form) or [Attachment("placeholder", "", _PLACEHOLDER)]
        if kind not in CLIPS:
            return _sent([self._people.send_other(account, kind, sent[0].data, envelope)])
        claims = Claims(*(_count(form, name) for name in ("duration_s", "width_px", "height_px")))
        message = await self._people.send_clip(
            account, kind, sent[0], claims, caption=_text(form, "caption"), envelope=envelope
        )
        return _sent([message])

    async def _forward(self, request: Request) -> Response:
        form = await read_form(request)
        message = self._people.forward(
            self._account(request),
            _integer(form, "message_id") or 0,
            hidden=_flag(form, "hidden"),
            copy=_flag(form, "copy"),
            envelope=envelope_from(form.values),
        )
        return _sent([message])

    async def _press(self, request: Request) -> Response:
        form = await read_form(request)
        query_id = self._people.press(
            self._account(request), _integer(form, "message_id") or 0, _text(form, "data")
        )
        return JSONResponse({"query_id": query_id})

    async def _edit(self, request: Request) -> Response:
        form = await read_form(request)
        account, message_id = self._account(request), request.path_params["message_id"]
        if photos := _attachments(form):
            return _sent([await self._people.edit_photo(account, message_id, photos[0])])
        return _sent([self._people.edit(account, message_id, _text(form, "text"))])

    async def _delete(self, request: Request) -> Response:
        self._people.delete(self._account(request), request.path_params["message_id"])
        return JSONResponse({})

    async def _clear(self, request: Request) -> Response:
        self._people.clear(self._account(request))
        return JSONResponse({})

    async def _change_person(self, request: Request) -> Response:
        account = self._account(request)
        form = await read_form(request)
        if "language_code" in form.values:
            code = form.values["language_code"]
            self._people.set_language(account, str(code) if code else None)
        if "blocked" in form.values:
            self._people.set_blocked(account, form.values["blocked"] is True)
        return JSONResponse({"account": self._people.profile(account)})

    # Clips from photos

    async def _list_ways(self, _request: Request) -> Response:
        performer = self._performer()
        return JSONResponse({"ways": dict(performer.ways) if performer else {}})

    async def _perform(self, request: Request) -> Response:
        form = await read_form(request)
        performer = self._performer()
        ways = performer.ways if performer else {}
        way, steps = _text(form, "way"), _text(form, "steps")
        photo, other = form.upload("photo"), form.upload("other")
        if performer is None or way not in ways:
            raise UserError("bad_way", "A clip can be made in one of: " + ", ".join(ways) + ".")
        if not 1 <= len(steps) <= MOST_STEPS or not STEPS.issuperset(steps):
            raise UserError("bad_steps", "Steps are letters: s and o for the sides, u, d.")
        if photo is None or (other is None and ways[way]):
            raise UserError("empty", "There is a photo missing.")
        clip = await performer.perform(
            photo.data, steps=steps, way=way, other=other.data if other and ways[way] else None
        )
        return Response(clip, media_type=container(clip)[1])

    # Faults

    async def _list_faults(self, _request: Request) -> Response:
        return self._faults()

    async def _add_fault(self, request: Request) -> Response:
        form = await read_form(request)
        self._world.faults.add(fault_from(form.values))
        return self._faults()

    async def _clear_faults(self, _request: Request) -> Response:
        self._world.faults.clear()
        return self._faults()

    def _faults(self) -> Response:
        return JSONResponse(
            {"faults": [fields_of(fault) for fault in self._world.faults.pending()]}
        )

    def _account(self, request: Request) -> PrivateChat:
        return self._people.account(request.path_params["name"])


def _asset(name: str) -> Handler:
    async def handler(_request: Request) -> Response:
        return FileResponse(STATIC / name)

    return handler


def _attachments(form: Form) -> list[Attachment]:
    return [Attachment(one.name, one.mime_type, one.data) for one in form.uploads]


def _part(data: bytes, wanted: str) -> tuple[bytes, int, dict[str, str]]:
    """What a Range header asks for: bytes, status, headers. Browsers seek in videos with it."""
    asked = _RANGE.fullmatch(wanted)
    if asked is None:
        return data, 200, {"Accept-Ranges": "bytes"}
    start, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if not start <= last:
        return b"", 416, {"Content-Range": f"bytes */{len(data)}"}
    return data[start : last + 1], 206, {"Content-Range": f"bytes {start}-{last}/{len(data)}"}


def _sent(messages: list[Json]) -> Response:
    return JSONResponse({"messages": messages})


def _text(form: Form, name: str) -> str:
    value: Any = form.values.get(name, "")
    if not isinstance(value, str) or not is_utf8(value):
        raise UserError("bad_request", f"The field {name!r} must be text.")
    return value


def _integer(form: Form, name: str) -> int | None:
    value: Any = form.values.get(name)
    if value in (None, ""):
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UserError("bad_request", f"The field {name!r} must be a whole number.") from None


def _count(form: Form, name: str) -> int | None:
    number = _integer(form, name)
    if number is not None and number < 0:
        raise UserError("bad_request", f"The field {name!r} must not be negative.")
    return number


def _flag(form: Form, name: str) -> bool:
    return str(form.values.get(name, "")).lower() == "true"
