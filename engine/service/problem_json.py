"""Faults as HTTP responses: every one is problem+json with a stable code.

Knows the engine's faults and the framework's; knows nothing about what was asked.
"""

import math

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from engine.errors import (
    Busy,
    EngineError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
    UnsupportedBody,
)
from engine.service.request_counts import name_outcome
from engine.wire import problem

_UNAVAILABLE_RETRY_S = 1
_PLACES = {"query": "query parameter"}
_UNREADABLE = "The request cannot be read: see /openapi.json for what may be sent."
_NOBODY_LISTENS = 499
"""nginx's number for it; it is counted and never sent."""


class ProblemResponse(JSONResponse):
    """A fault, as RFC 9457 has it."""

    media_type = "application/problem+json"


def install(app: FastAPI) -> None:
    """Have an application answer every fault as a problem."""
    app.add_exception_handler(Exception, handle)
    for kind in (EngineError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(kind, handle)


async def handle(request: Request, error: Exception) -> Response:
    """What a request that ended in an error is answered."""
    if isinstance(error, ClientDisconnect):
        name_outcome(request.scope, "abandoned")
        return Response(status_code=_NOBODY_LISTENS)
    fault = _fault(request, error)
    record = problem(fault)
    name_outcome(request.scope, record["code"])
    headers = _headers(fault)
    if isinstance(error, HTTPException) and error.headers:
        headers |= error.headers  # the methods that are allowed
    return ProblemResponse(record, record["status"], headers)


def _fault(request: Request, error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, RequestValidationError):
        return InvalidRequest(" ".join(map(_sentence, error.errors())))
    if isinstance(error, HTTPException):
        path = request.scope["path"]
        match error.status_code:
            case 404:
                return NotFound(f"There is no {path} here: see /openapi.json for what there is.")
            case 405:
                allowed = (error.headers or {}).get("Allow", "another method")
                return MethodNotAllowed(f"{path} does not take {request.method}: send {allowed}.")
            case _:
                return InvalidRequest(_UNREADABLE)
    # Whoever runs the application logs the traceback.
    return InternalError("The service failed on this, by a bug of ours: the log tells more.")


def _sentence(detail: dict[str, object]) -> str:
    """What is wrong with one value, without repeating it; `engine.service.query` has some words.

    Args:
        detail: as pydantic has it, whose own words speak of Python.
    """
    match detail:
        case {"loc": [str(place), name, *_], "type": "value_error", "ctx": {"error": reason}}:
            return f"The {_PLACES.get(place, place)} {name} {reason}."
        case {"loc": [str(place), name, *_], "type": "extra_forbidden"}:
            where = _PLACES.get(place, place)
            return f"There is no {where} {name} here: see /openapi.json for what there is."
        case _:
            return _UNREADABLE


def _headers(fault: EngineError) -> dict[str, str]:
    match fault:
        case Busy():
            return {"Retry-After": str(math.ceil(fault.retry_after_s))}
        case Unavailable():
            return {"Retry-After": str(_UNAVAILABLE_RETRY_S)}
        case UnsupportedBody():
            return {"Accept-Encoding": "identity"}  # RFC 9110, section 12.5.3
        case Unauthorized():
            return {"WWW-Authenticate": "Bearer"}
        case _:
            return {}
