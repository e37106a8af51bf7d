"""Links as Telegram reads them: what is one, and how it is written then.

Knows addresses; nothing about buttons or texts.
Source: TDLib's HttpUrl.cpp and LinkManager.cpp.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

_PARTS = re.compile(r"(?:([^:/?#@\[\]]*)://)?([^/?#]*)(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?:(.*)@)?(\[.*\]|[^:]*)(?::(.*))?", re.DOTALL)
_DISALLOWED = re.compile(r"[\x00-\x20\"#/:<>?@\[\\\]^`{|}\x7f]")
_OWN_SCHEMES = ("tg", "ton")
_USER = re.compile(r"tg:(?://)?user/?\?([^#]*)", re.IGNORECASE)


class WrongLink(ValueError):
    """What Telegram takes for no link; the message is its reason."""


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a link.

    Attributes:
        scheme: "http" or "https".
        userinfo: what stands before @, or "".
        host: in small letters, an IPv6 address in brackets.
        port: as it was given, or None.
        rest: path, query and fragment; begins with a slash.
        plain: whether no scheme was given.
    """

    scheme: str
    userinfo: str
    host: str
    port: int | None
    rest: str
    plain: bool

    def __str__(self) -> str:
        user = f"{self.userinfo}@" if self.userinfo else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{user}{self.host}{port}{self.rest}"


def parse(link: str, scheme: str = "http") -> Address:
    """A link's parts.

    Args:
        link: as it was written; the scheme may be missing.
        scheme: taken where none is given.

    Raises:
        WrongLink: it is none.
    """
    parts = _PARTS.fullmatch(link)
    assert parts is not None  # every part may be empty
    given, authority, rest = parts.groups()
    if given is not None and given.lower() not in {"http", "https"}:
        raise WrongLink("Unsupported URL protocol")
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise WrongLink("Disallowed character in URL host")
    userinfo, host, port = found[1] or "", found[2].lower(), found[3]
    if port is not None and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise WrongLink("Wrong port number specified in the URL")
    if not host:
        raise WrongLink("URL host is empty")
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise WrongLink("Wrong IPv6 address specified in the URL") from None
    elif _DISALLOWED.search(host):
        raise WrongLink("Disallowed character in URL host")
    rest = rest.rstrip() or "/"
    rest = rest if rest.startswith("/") else f"/{rest}"
    return Address(
        scheme=(given or scheme).lower(),
        userinfo=userinfo,
        host=host,
        port=int(port) if port else None,
        rest=re.sub(r"[\x00-\x20]", lambda match: f"%{ord(match[0]):02X}", rest),
        plain=given is None,
    )


def checked(link: str) -> str:
    """A link as Telegram stores it: with a scheme and a path.

    Raises:
        WrongLink: it is none; the message is Telegram's sentence.
    """
    try:
        return _checked(link)
    except WrongLink as reason:
        raise WrongLink(f"URL '{link}' is invalid: {reason}") from None


def _checked(link: str) -> str:
    scheme, colon, rest = link.partition(":")
    if colon and scheme.lower() in _OWN_SCHEMES:
        scheme = scheme.lower()
        address = parse(rest.removeprefix("//"))
        if not address.plain or address.userinfo or address.port or address.host.startswith("["):
            raise WrongLink(f"Wrong {scheme} URL")
        if not re.fullmatch(r"[a-z0-9_-]+", address.host):
            raise WrongLink("Unallowed characters in URL host")
        tail = address.rest.removeprefix("/") if address.rest[1:2] == "?" else address.rest
        return f"{scheme}://{address.host}{tail}"
    address = parse(link)
    if "." not in address.host and not address.host.startswith("["):
        raise WrongLink("Wrong HTTP URL")
    return str(address)


def user_of(link: str) -> int | None:
    """The id in a link to a person such as tg://user?id=7001, or None."""
    found = _USER.fullmatch(link.partition("#")[0])
    user_id = dict(reversed(parse_qsl(found[1]))).get("id", "") if found else ""
    return int(user_id) if user_id.isascii() and user_id.isdecimal() else None
