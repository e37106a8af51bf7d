"""Who may ask: whoever has the key; or, where there is none, this machine's own programs.

A service without a key listens on loopback only (`engine.service.listening`), which keeps out other
machines, and not the web pages in a browser on this one. Knows nothing about what is asked.
"""

import hashlib
import hmac
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.security import HTTPBearer

from engine.errors import Forbidden, Unauthorized
from engine.service.listening import is_loopback

BEARER = HTTPBearer(auto_error=False)
"""How a key is shown."""


class KeyGuard:
    """Lets nobody in without the key.

    Args:
        key: what has to be shown.
    """

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    async def __call__(self, request: Request) -> None:
        """Raise Unauthorized unless a request shows the key."""
        shown = await BEARER(request)
        # Digests have one length: how long the comparison takes tells nothing about the key.
        if shown is None or not hmac.compare_digest(_digest(shown.credentials), self._digest):
            raise Unauthorized(
                "This needs the engine's key, as `Authorization: Bearer KEY` with the KEY of "
                "ENGINE_API_KEY."
            )


async def keep_web_pages_out(request: Request) -> None:
    """Raise Forbidden where a web page may have sent a request: what guards without a key.

    Browsers name the page that posts (Origin), and the name that they believe the service to have
    (Host), which is another's where DNS was made to lead here.
    """
    _, port = request.scope.get("server") or ("", 0)
    if port is None:  # a Unix socket, as ASGI has it, which no page reaches
        return
    if "origin" in request.headers:
        raise Forbidden(
            "Without a key the engine answers no web pages, and this request has an Origin header: "
            "set ENGINE_API_KEY and show it, or leave the header out."
        )
    if not _is_own_name(request.headers.get("host", "")):
        raise Forbidden(
            "Without a key the engine answers only to names of its own machine, and this request's "
            "Host header has another: ask http://127.0.0.1 or http://localhost, or set "
            "ENGINE_API_KEY and show it."
        )


def _is_own_name(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
