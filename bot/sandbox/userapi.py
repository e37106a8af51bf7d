"""The people's side over HTTP: the web chat, what it may ask for, and events as they happen.

Knows addresses, JSON and who may ask; what an action does stands in `people`.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from bot.sandbox.errors import UserError
from bot.sandbox.events import Event
from bot.sandbox.faults import fault_from, fields_of
from bot.sandbox.forms import Form, FormError, is_utf8, read_form
from bot.sandbox.people import Attachment, People
from bot.sandbox.world import Account, Json, World

STATIC = Path(__file__).parent / "static"
_HEARTBEAT_S = 15.0
_SHOWN = {"image/jpeg", "image/png", "image/webp", "image/gif"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
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
    "/render.js": "render.js",
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
    """

    def __init__(self, world: World, *, hosts: frozenset[str], epoch: str) -> None:
        self._world = world
        self._people = People(world)
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

    async def _follow(self, account: Account, position: int | None) -> AsyncIterator[str]:
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
        return Response(
            file.data,
            media_type=file.mime_type if shown else "application/octet-stream",
            headers={
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
                self._account(request), _text(form, "text"), _integer(form, "reply_to")
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
        attachments = [Attachment(one.name, one.mime_type, one.data) for one in form.uploads]
        return _sent(
            await send(
                self._account(request),
                attachments,
                _text(form, "caption"),
                _integer(form, "reply_to"),
            )
        )

    async def _send_other(self, request: Request) -> Response:
        form = await read_form(request)
        upload = form.upload("file")
        message = self._people.send_other(
            self._account(request),
            _text(form, "kind"),
            data=upload.data if upload else b"a placeholder of the sandbox",
            duration_s=_integer(form, "duration_s") or 3,
            side_px=_integer(form, "side_px") or 384,
        )
        return _sent([message])

    async def _forward(self, request: Request) -> Response:
        form = await read_form(request)
        hidden = str(form.values.get("hidden", "")).lower() == "true"
        account = self._account(request)
        message_id = _integer(form, "message_id") or 0
        return _sent([self._people.forward(account, message_id, hidden=hidden)])

    async def _press(self, request: Request) -> Response:
        form = await read_form(request)
        query_id = self._people.press(
            self._account(request), _integer(form, "message_id") or 0, _text(form, "data")
        )
        return JSONResponse({"query_id": query_id})

    async def _edit(self, request: Request) -> Response:
        form = await read_form(request)
        message_id = request.path_params["message_id"]
        return _sent([self._people.edit(self._account(request), message_id, _text(form, "text"))])

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

    def _account(self, request: Request) -> Account:
        return self._people.account(request.path_params["name"])


def _asset(name: str) -> Handler:
    async def handler(_request: Request) -> Response:
        return FileResponse(STATIC / name)

    return handler


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
