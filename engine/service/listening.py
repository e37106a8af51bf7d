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
from pathlib import Path

from engine.errors import ConfigurationError
from engine.settings import Settings

_FOR_OWNER_AND_GROUP = 0o117


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def require_key(settings: Settings) -> None:
    """Raise ConfigurationError where other machines could use the service without a key."""
    private = settings.engine_socket is not None or is_loopback(settings.engine_host)
    if settings.api_key is None and not private:
        raise ConfigurationError(
            f"ENGINE_HOST is {settings.engine_host!r}, so others could use the engine: set "
            "ENGINE_API_KEY (`openssl rand -hex 32` makes one) or ENGINE_API_KEY_FILE, or listen "
            "on 127.0.0.1 or on a Unix socket (ENGINE_SOCKET)."
        )


@contextmanager
def listener(settings: Settings) -> Iterator[socket.socket]:
    """Take the address that the settings name; a Unix socket's file is gone afterwards.

    Not left to uvicorn, which would take it once the engine is loaded, give a Unix socket to every
    user of the machine, and take the place of a service that is alive.

    Yields:
        A socket that has its address and does not listen yet.

    Raises:
        ConfigurationError: it is taken, or not to be had.
    """
    path, host, port = settings.engine_socket, settings.engine_host, settings.engine_port
    where = f"{host}, port {port}" if path is None else str(path)
    advice = (
        "ENGINE_HOST and ENGINE_PORT to an address of this machine that is free"
        if path is None
        else "ENGINE_SOCKET to a path in a folder that is there and may be written"
    )
    with contextlib.ExitStack() as stack:
        try:
            if path is None:
                family, _, _, _, address = socket.getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )[0]
                taken = stack.enter_context(socket.socket(family))
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(address)
            else:
                taken = stack.enter_context(socket.socket(socket.AF_UNIX))
                stack.enter_context(_bound_to_path(taken, path))
        except OSError as error:
            raise ConfigurationError(
                f"The service cannot listen on {where}: {error.strerror or error}. Set {advice}."
            ) from error
        yield taken


def url_of(listening: socket.socket) -> str:
    """What a client's ENGINE_URL is to be, "unix:/path" or "http://host:port"."""
    address = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{Path(address).absolute()}"
    host = f"[{address[0]}]" if listening.family == socket.AF_INET6 else address[0]
    return f"http://{host}:{address[1]}"


@contextmanager
def _bound_to_path(taken: socket.socket, path: Path) -> Iterator[None]:
    """Bind a socket to a path, and remove it afterwards unless another service has taken it."""
    _remove_left_over(path)
    before = os.umask(_FOR_OWNER_AND_GROUP)
    try:
        taken.bind(str(path))
    finally:
        os.umask(before)
    own = path.stat().st_ino
    try:
        yield
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
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
