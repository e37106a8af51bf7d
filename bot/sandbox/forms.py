"""Request bodies into fields and uploads, in memory and within a limit.

Reads urlencoded, multipart and JSON bodies and query strings; knows nothing about their meaning.
"""

import dataclasses
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from bot.sandbox.errors import SandboxError

MAX_BODY_BYTES = 64 * 1024 * 1024


class FormError(SandboxError):
    """A body that cannot be read, or one that is too large."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent; `mime_type` as declared, empty where it was not."""

    field: str
    name: str
    mime_type: str
    data: bytes = dataclasses.field(repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """Fields by name (JSON bodies may hold other types than text) and files in order."""

    values: dict[str, Any]
    uploads: tuple[Upload, ...] = ()

    def upload(self, name: str) -> Upload | None:
        """The file of a field, or None."""
        return next((one for one in self.uploads if one.field == name), None)


class _InMemoryParser(MultiPartParser):
    # Starlette would put files beyond 1 MB on disk, where people's photos have no business.
    spool_max_size = MAX_BODY_BYTES


async def read_form(request: Request) -> Form:
    """The query string and the body of a request as one form; the body wins.

    Raises:
        FormError: the body is not what its content type says, or is larger than 64 MiB.
    """
    values: dict[str, Any] = dict(request.query_params)
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            parser = _InMemoryParser(
                request.headers, _bounded(request), max_part_size=MAX_BODY_BYTES
            )
            return await _collected(parser, values)
        if kind == "application/x-www-form-urlencoded":
            return await _collected(FormParser(request.headers, _bounded(request)), values)
        body = b"".join([chunk async for chunk in _bounded(request)])
        if kind == "application/json" and body:
            parsed = json.loads(body)
            if not isinstance(parsed, dict):
                raise FormError("The body must be a JSON object.")
            values.update(parsed)
    except ClientDisconnect as error:
        raise FormError("The client went away.") from error
    except (MultiPartException, ValueError, KeyError) as error:
        raise FormError(f"The body cannot be read: {error}") from error
    return Form(values)


def is_utf8(value: object) -> bool:
    """Whether JSON has no half characters (lone surrogates), which nobody could be sent."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


async def _collected(parser: MultiPartParser | FormParser, values: dict[str, Any]) -> Form:
    form = await parser.parse()
    uploads = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                data = await value.read()
                uploads.append(
                    Upload(name, value.filename or "file", value.content_type or "", data)
                )
            else:
                values[name] = value
    finally:
        await form.close()
    return Form(values, tuple(uploads))


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > MAX_BODY_BYTES:
            raise FormError(f"The body is larger than {MAX_BODY_BYTES} bytes.", too_large=True)
        yield chunk
