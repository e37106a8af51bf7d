"""Where an engine's service listens. Knows nothing about how it is talked to."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_FORMS = "must be http://host:port, https://host or unix:/path/of/a/socket"


@dataclass(frozen=True, slots=True)
class Address:
    """A service's address.

    Attributes:
        name: the address as an operator wrote it.
        base_url: what the routes follow, without a slash at its end.
        socket: path of the Unix socket, where it is one.
    """

    name: str
    base_url: str
    socket: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `http://host:port`, `https://host`, either with a path, or `unix:/path`.

        Raises:
            ValueError: it is none of these; the message goes on after the setting's name.
        """
        if text.startswith("unix:"):
            socket = text.removeprefix("unix:")
            if not socket or "\0" in socket:
                raise ValueError(_FORMS)
            return cls(text, "http://engine", socket)
        try:
            parts = urlsplit(text)
            port = parts.port  # read here, because only reading it finds that it is none
        except ValueError:
            raise ValueError(_FORMS) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError(_FORMS)
        if "@" in parts.netloc:
            raise ValueError("must not carry a password: the key goes into ENGINE_API_KEY")
        if parts.query or parts.fragment or any(c.isspace() or not c.isprintable() for c in text):
            raise ValueError(_FORMS)
        return cls(text, text.rstrip("/"))
