"""Bodies of HTTP requests: a photo, a clip, or a form of photos, with bounds on all that is held.

Reading stops where a bound is passed, whatever length was declared. A file comes as it is; one that
comes encoded or in a form of its own is refused, and told how to send it. Knows nothing about what
is in a photo or a clip, or how long the caller waits.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from engine.errors import Busy, EngineError, FileTooLarge, InvalidRequest, UnsupportedBody
from engine.media.clip import too_large as clip_too_large
from engine.media.clip_decoder import Limits as ClipLimits
from engine.media.image import Limits

FIELD = "photos"
MAX_PHOTOS = 64
MAX_FORM_BYTES = 128 * 2**20
"""Of a form of photos: two megabytes each, when there are as many as there may be."""

MAX_HELD_BYTES = 2 * MAX_FORM_BYTES
"""Of all bodies together, from their first byte until they are answered."""

_RETRY_S = 1.0

_SEND_PHOTO = (
    "send the photo's bytes as they are as the body, for example with "
    "`curl --data-binary @photo.jpg`"
)
_SEND_CLIP = (
    "send the clip's bytes as they are as the body, for example with `curl --data-binary @clip.mp4`"
)
_SEND_PHOTOS = (
    f"send the photos' bytes as they are as the files '{FIELD}' of a multipart form, for example "
    f"with `curl -F '{FIELD}=@photo.jpg'`"
)
_URLENCODED = b"application/x-www-form-urlencoded"
_ENCODED = (
    (re.compile(rb"\x1f\x8b"), "is compressed with gzip"),
    (re.compile(rb"(data:[\w/.+;-]{0,99},)?[\w+/\r\n-]{40,}={0,2}\s*\Z"), "is in base64"),
    (re.compile(rb"\s{0,99}[{\[\"]"), "is JSON"),
)
_FORM = re.compile(rb"[\w.%+-]{1,99}=|[^\x01-\x08\x0e-\x1f]{0,99}[\x01-\x08\x0e-\x1f]")
"""A field and its value, or control characters, which no text has."""
_HEAD_BYTES = 256
"""By which encodings are told."""


class Allowance:
    """Bytes that all requests together may hold.

    Args:
        limit_bytes: how many.
    """

    def __init__(self, limit_bytes: int = MAX_HELD_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds; given back when the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held_bytes -= share.held_bytes

    def take(self, count: int) -> None:
        """Hold that many bytes more, or raise `Busy`."""
        if self.held_bytes + count > self._limit_bytes:
            raise Busy(
                "What is being received and what waits already take up all the memory that they "
                "may: come back later.",
                retry_after_s=_RETRY_S,
            )
        self.held_bytes += count


class Share:
    """What one request holds of an `Allowance`."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self.held_bytes = 0

    def take(self, count: int) -> None:
        """Hold that many bytes more, or raise `Busy`."""
        self._allowance.take(count)
        self.held_bytes += count


async def read_photo(request: Request, share: Share, limits: Limits) -> bytes:
    """The body as it is.

    Raises:
        FileTooLarge: more than `limits.file_bytes`, declared or sent.
        UnsupportedBody: it is encoded or a form.
        Busy: more than there is room for at present.
        ClientDisconnect: the caller left.
    """
    too_large = _too_large("photo", limits.file_bytes)
    return await _read_file(request, share, limits.file_bytes, too_large, _SEND_PHOTO)


async def read_clip(request: Request, share: Share, limits: ClipLimits) -> bytes:
    """The body as it is.

    Raises:
        ClipTooLarge: more than `limits.clip_bytes`, declared or sent.
        UnsupportedBody: it is encoded or a form.
        Busy: more than there is room for at present.
        ClientDisconnect: the caller left.
    """
    too_large = clip_too_large(limits)
    return await _read_file(request, share, limits.clip_bytes, too_large, _SEND_CLIP)


async def read_photos(request: Request, share: Share, limits: Limits) -> list[bytes | EngineError]:
    """The files of a multipart form's field `photos`, in order; of one too large or encoded, why.

    Raises:
        UnsupportedBody: it is no such form, or an encoded one.
        InvalidRequest: it is broken, or holds something else, none or too many.
        FileTooLarge: more than `MAX_FORM_BYTES` in all, declared or sent.
        Busy: more than there is room for at present.
        ClientDisconnect: the caller left.
    """
    form = _Form(_boundary(request), limits)
    try:
        too_large = _too_large("form", MAX_FORM_BYTES)
        async for chunk in _bounded(request, share, MAX_FORM_BYTES, too_large, _SEND_PHOTOS):
            form.write(chunk)
    except FormParserError as error:
        raise _broken_form() from error
    return form.photos()


async def _read_file(
    request: Request, share: Share, limit_bytes: int, too_large: EngineError, send: str
) -> bytes:
    """A body that is one file; `send` says how to send it."""
    kind, _ = parse_options_header(request.headers.get("content-type", ""))
    if kind.startswith(b"multipart/"):
        raise UnsupportedBody(f"The body is a multipart form: {send}.")
    body = bytearray()
    async for chunk in _bounded(request, share, limit_bytes, too_large, send):
        body += chunk
    content = bytes(body)
    # curl calls every body a form. One that is has no zero bytes, and every picture or clip has;
    # of a file sent as a form's data, curl leaves them out.
    if kind == _URLENCODED and b"\0" not in content and _FORM.match(content):
        raise UnsupportedBody(f"The body is a form: {send}.")
    if how := _encoding(content):
        raise UnsupportedBody(f"The body {how}: {send}.")
    return content


def _encoding(content: bytes) -> str | None:
    """What was done to a file that did not come as it is."""
    head = content[:_HEAD_BYTES]
    return next((how for pattern, how in _ENCODED if pattern.match(head)), None)


async def _bounded(
    request: Request, share: Share, limit_bytes: int, too_large: EngineError, send: str
) -> AsyncIterator[bytes]:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedBody(f"The body has a Content-Encoding: {send}, without such a header.")
    declared = request.headers.get("content-length", "")
    count = int(declared) if declared.isdecimal() else 0
    if count <= limit_bytes:
        count = 0
        async for chunk in request.stream():
            count += len(chunk)
            if count > limit_bytes:
                break
            share.take(len(chunk))
            yield chunk
        else:
            return
    raise too_large


class _Form:
    """Collects the files of a form, from its bytes as they come."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self._limits = limits
        self._photos: list[bytes | EngineError] = []
        self._photo = bytearray()
        self._too_large = False
        self._name = bytearray()
        self._value = bytearray()
        self._field = b""
        self._is_file = False
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def photos(self) -> list[bytes | EngineError]:
        if not self._complete:
            raise _broken_form()
        if not self._photos:
            raise InvalidRequest(f"The form has no photo: send 1 to {MAX_PHOTOS} as '{FIELD}'.")
        return self._photos

    # --- What the parser calls ---

    def _begin(self) -> None:
        self._field, self._is_file = b"", False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._field, self._is_file = options.get(b"name", b""), b"filename" in options
        self._name.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        if self._field != FIELD.encode() or not self._is_file:
            raise InvalidRequest(
                f"The form has something else than files named '{FIELD}': leave it out."
            )
        if len(self._photos) == MAX_PHOTOS:
            raise InvalidRequest(
                f"The form has more than {MAX_PHOTOS} photos: send them in several requests."
            )

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._too_large:
            return
        self._photo += data[start:end]
        if len(self._photo) > self._limits.file_bytes:
            self._too_large = True
            self._photo.clear()

    def _part_end(self) -> None:
        photo = bytes(self._photo)
        if self._too_large:
            self._photos.append(_too_large("photo", self._limits.file_bytes))
        elif how := _encoding(photo):
            self._photos.append(UnsupportedBody(f"This photo {how}: {_SEND_PHOTOS}."))
        else:
            self._photos.append(photo)
        self._photo.clear()
        self._too_large = False

    def _end(self) -> None:
        self._complete = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UnsupportedBody(f"The body is no multipart form with a boundary: {_SEND_PHOTOS}.")
    return boundary


def _too_large(what: str, limit_bytes: int) -> FileTooLarge:
    return FileTooLarge(
        f"The {what} has more than the {limit_bytes / 2**20:g} MB accepted: send a smaller one."
    )


def _broken_form() -> InvalidRequest:
    return InvalidRequest("The multipart form is broken or ends too early: send it again.")
