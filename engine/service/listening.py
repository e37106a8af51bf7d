"""Where the service listens: a TCP port or a Unix socket, and who may reach it without a key.

Knows nothing about what is answered there.
"""

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigurationError
from engine.settings import Settings

_FOR_OWNER_AND_GROUP = 0o117


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that has its address and does not listen yet.

    Attributes:
        socket: bound.
        url: what a client's ENGINE_URL is to be, "unix:/path" or "http://host:port".
    """

    socket: socket.socket
    url: str


def require_key(settings: Settings) -> None:
    """Raise ConfigurationError where other machines could use the service without a key."""
    private = settings.engine_socket is not None or _is_loopback(settings.engine_host)
    if settings.api_key is None and not private:
        raise ConfigurationError(
            f"ENGINE_HOST is {settings.engine_host!r}, so others could use the engine: set "
            "ENGINE_API_KEY (`openssl rand -hex 32` makes one) or ENGINE_API_KEY_FILE, or listen "
            "on 127.0.0.1 or on a Unix socket (ENGINE_SOCKET)."
        )


@contextmanager
def listener(settings: Settings) -> Iterator[Listener]:
    """Take the address that the settings name; a Unix socket's file is gone afterwards.

    Raises:
        ConfigurationError: it is taken, or not to be had.
    """
    if settings.engine_socket is not None:
        with _unix(settings.engine_socket) as taken:
            yield Listener(taken, f"unix:{settings.engine_socket.absolute()}")
    else:
        with _tcp(settings.engine_host, settings.engine_port) as taken:
            yield Listener(taken, _url(taken))


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
        except BaseException:
            taken.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"The service cannot listen on {host}, port {port}: {error.strerror or error}. Set "
            "ENGINE_HOST and ENGINE_PORT to an address of this machine that is free."
        ) from error
    return taken


def _url(taken: socket.socket) -> str:
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if taken.family == socket.AF_INET6 else f"http://{host}:{port}"


@contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taken:
        try:
            _remove_left_over(path)
            before = os.umask(_FOR_OWNER_AND_GROUP)
            try:
                taken.bind(str(path))
            finally:
                os.umask(before)
        except OSError as error:
            raise ConfigurationError(
                f"The service cannot listen on {path}: {error.strerror or error}. Set "
                "ENGINE_SOCKET to a path in a folder that is there and may be written."
            ) from error
        own = path.stat().st_ino
        try:
            yield taken
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == own:
                    path.unlink()


def _remove_left_over(path: Path) -> None:
    """Remove the socket of a service that was killed; raise OSError where one is alive."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return  # binding says that the name is taken
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
