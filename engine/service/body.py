"""Bodies of HTTP requests: a photo or a clip, with bounds on all that is held.

Reading stops where a bound is passed, whatever length was declared. A file comes as it is; one that
comes encoded or in a form is refused, and told how to send it. Knows nothing about what is in a
photo or a clip, or how long the caller waits.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request

from engine.errors import Busy, ClipTooLarge, EngineError, FileTooLarge, UnsupportedBody
from engine.media.clip import LIMITS as CLIP_LIMITS
from engine.media.image import LIMITS

MAX_HELD_BYTES = 256 * 2**20
"""Of all bodies together, from their first byte until they are answered."""

_RETRY_S = 1.0

_URLENCODED = "application/x-www-form-urlencoded"
_ENCODED = (
    (re.compile(rb"\x1f\x8b"), "is compressed with gzip"),
    (re.compile(rb"(data:[\w/.+;-]{0,99},)?[\w+/\r\n-]{40,}={0,2}\s*\Z"), "is in base64"),
    (re.compile(rb"\s{0,99}[{\[\"]"), "is JSON"),
)
_FORM = re.compile(rb"[\w.%+-]{1,99}=|[^\x01-\x08\x0e-\x1f]{0,99}[\x01-\x08\x0e-\x1f]")
"""A field and its value, or control characters, which no text has."""
_HEAD_BYTES = 256
"""By which encodings are told."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a body may be.

    Attributes:
        noun: what it is called.
        example: a file's name.
        limit_bytes: how large it may be.
        too_large: the fault of a larger one.
    """

    noun: str
    example: str
    limit_bytes: int
    too_large: type[EngineError]

    @property
    def how(self) -> str:
        """How to send one, for the end of a sentence."""
        return (
            f"send the {self.noun}'s bytes as they are as the body, for example with "
            f"`curl --data-binary @{self.example}`"
        )


PHOTO = FileKind("photo", "photo.jpg", LIMITS.file_bytes, FileTooLarge)
CLIP = FileKind("clip", "clip.mp4", CLIP_LIMITS.clip_bytes, ClipTooLarge)


class Allowance:
    """Bytes that all requests together may hold.

    Args:
        limit_bytes: how many.
    """

    def __init__(self, limit_bytes: int = MAX_HELD_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """What holds that many bytes more for one request, or raises `Busy`.

        They are given back when the block ends.
        """
        own_bytes = 0

        def take(count: int) -> None:
            nonlocal own_bytes
            if self._held_bytes + count > self._limit_bytes:
                raise Busy(
                    "What is being received and what waits already take up all the memory that "
                    "they may: come back later.",
                    retry_after_s=_RETRY_S,
                )
            self._held_bytes += count
            own_bytes += count

        try:
            yield take
        finally:
            self._held_bytes -= own_bytes


async def read_file(request: Request, kind: FileKind, take: Callable[[int], None]) -> bytes:
    """A body that is one file, as it is.

    Args:
        request: whose body it is.
        kind: what it is to be.
        take: see `Allowance.share`.

    Raises:
        EngineError: the kind's `too_large`; it is too large, declared or sent.
        UnsupportedBody: it is encoded or a form.
        Busy: more than there is room for at present.
        ClientDisconnect: the caller left.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type.startswith("multipart/"):
        raise UnsupportedBody(f"The body is a multipart form: {kind.how}.")
    body = bytearray()
    async for chunk in _bounded(request, kind, take):
        body += chunk
    content = bytes(body)
    # curl calls every body a form. One that is has no zero bytes, and every picture or clip has;
    # of a file sent as a form's data, curl leaves them out.
    if media_type == _URLENCODED and b"\0" not in content and _FORM.match(content):
        raise UnsupportedBody(f"The body is a form: {kind.how}.")
    if how := _encoding(content):
        raise UnsupportedBody(f"The body {how}: {kind.how}.")
    return content


def _encoding(content: bytes) -> str | None:
    """What was done to a file that did not come as it is."""
    head = content[:_HEAD_BYTES]
    return next((how for pattern, how in _ENCODED if pattern.match(head)), None)


async def _bounded(
    request: Request, kind: FileKind, take: Callable[[int], None]
) -> AsyncIterator[bytes]:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedBody(
            f"The body has a Content-Encoding: {kind.how}, without such a header."
        )
    declared = request.headers.get("content-length", "")
    count = int(declared) if declared.isdecimal() else 0
    if count <= kind.limit_bytes:
        count = 0
        async for chunk in request.stream():
            count += len(chunk)
            if count > kind.limit_bytes:
                break
            take(len(chunk))
            yield chunk
        else:
            return
    raise kind.too_large(
        f"The {kind.noun} has more than the {kind.limit_bytes / 2**20:g} MB accepted: send a "
        "smaller one."
    )
