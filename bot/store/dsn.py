"""PostgreSQL's address as hosting companies write it, for a driver that takes less than libpq.

Knows libpq's parameters; knows nothing about pools, transactions or tables.
"""

import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import asyncpg

from bot.store.errors import StoreError

_SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg")
_NO_ADDRESS = (
    "DATABASE_URL is no address of a PostgreSQL database: it looks like "
    "postgresql://user:password@host/name; for SQLite name a file in DATABASE instead."
)
# What the driver reads in an address by itself.
_FILES = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl"})
_DRIVER_READS = _FILES | {
    "user",
    "password",
    "dbname",
    "passfile",
    "service",
    "sslmode",
    "sslpassword",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "krbsrvname",
    "gsslib",
}
_SETTINGS = ("application_name", "options")
# Of these a value is met by what the driver does anyway. None: any value is.
_MET: dict[str, frozenset[str] | None] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"auto", "utf8", "utf-8", "unicode"}),
    "fallback_application_name": None,
    "gssencmode": frozenset({"disable", "prefer"}),
    "load_balance_hosts": frozenset({"disable"}),
    "pgbouncer": None,  # works in all of its modes, told or not
    "requiressl": frozenset({"0"}),
    "sslcompression": frozenset({"0"}),
    "sslsni": frozenset({"1"}),
}
_ADVICE = {
    "channel_binding": "leave it out; sslmode=verify-full with sslrootcert keeps others out too",
    "target_session_attrs": "the bot writes: it can be any, read-write or primary",
}
_WRITABLE = ("any", "read-write", "primary")
_CONNECT_S = 5
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_PROBES = {
    "keepalives_idle": ("TCP_KEEPIDLE", 15),
    "keepalives_interval": ("TCP_KEEPINTVL", 5),
    "keepalives_count": ("TCP_KEEPCNT", 3),
    "tcp_user_timeout": ("TCP_USER_TIMEOUT", 15_000),
}
"""libpq's parameter, the socket's option, and its value here where the address says nothing."""


@dataclass
class Server:
    """Where a PostgreSQL database is, and how to connect.

    Attributes:
        name: hosts and database, for people: no user, no password, no parameters.
    """

    name: str
    _dsn: str = field(repr=False)
    _hosts: list[tuple[str | None, int | None]]
    _session: str
    _settings: dict[str, str]
    _numbers: dict[str, int]

    @classmethod
    def parse(cls, address: str) -> "Server":
        """Understand an address.

        Args:
            address: a URL with the parameters of libpq, several hosts among them.

        Raises:
            StoreError: it is none, or the driver cannot do what a parameter asks for.
        """
        try:
            parts = urlsplit(address)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            login, _, spec = parts.netloc.rpartition("@")
            ports = query.pop("port", "")
            hosts = _hosts(spec or query.get("host", ""), ports)
            query.pop("host", None)
        except ValueError:
            hosts = None
        if hosts is None or parts.scheme not in _SCHEMES:
            # The address is not repeated: it may have a password in it.
            raise StoreError(_NO_ADDRESS)
        # The driver's own name for it, and JDBC's, which libpq takes too.
        if mode := query.pop("ssl", ""):
            query.setdefault("sslmode", "require" if mode == "true" else mode)
        session = query.pop("target_session_attrs", "read-write" if len(hosts) > 1 else "any")
        if session not in _WRITABLE:
            raise _cannot("target_session_attrs", session)
        numbers = {name: _number(name, query.pop(name)) for name in _NUMBERS if name in query}
        settings = {name: query.pop(name) for name in _SETTINGS if name in query}
        for name in query.keys() - _DRIVER_READS:
            value = query.pop(name)
            met = _MET.get(name, frozenset())
            if met is not None and value.lower() not in met:
                raise _cannot(name, value if name in _MET else None)
        _see_to_files(query)
        user = login.replace("@", "%40") + "@" if login else ""
        dsn = urlunsplit(("postgresql", user, parts.path, urlencode(query), ""))
        database = unquote(parts.path) or f"/{query.get('dbname', '')}"
        where = ",".join(f"{host}:{port}" if port else str(host or "") for host, port in hosts)
        return cls(f"postgresql://{where}{database}", dsn, hosts, session, settings, numbers)

    async def connect(self, *, name: str, command_s: float) -> Any:
        """Connect to the first host that answers and takes changes; the last good one first.

        Args:
            name: of this program, where the address says none.
            command_s: seconds after which the driver gives a command up.

        Returns:
            The driver's connection.

        Raises:
            StoreError: the driver refuses the address, or no host takes changes.
            OSError: no host answers, or not in time.
            asyncpg.PostgresError: the server refuses.
        """
        fault: Exception | None = None
        for host in tuple(self._hosts):
            try:
                connection = await self._connect(host, name, command_s)
            except asyncpg.InterfaceError as error:
                # Of parameters and of this program's doing, so that it quotes no row.
                raise StoreError(f"DATABASE_URL cannot be used: {error}.") from None
            except (
                OSError,
                asyncpg.PostgresError,
                asyncpg.TargetServerAttributeNotMatched,
            ) as error:
                fault = error
                continue
            self._hosts.remove(host)
            self._hosts.insert(0, host)
            return connection
        assert fault is not None
        if isinstance(fault, asyncpg.TargetServerAttributeNotMatched):
            raise StoreError(
                f"No server of {self.name} takes changes now: see which is the primary one, and "
                "that DATABASE_URL leads to it."
            ) from None
        raise fault

    async def _connect(
        self, host: tuple[str | None, int | None], name: str, command_s: float
    ) -> Any:
        wait_s = self._numbers.get("connect_timeout", 0)
        connection = await asyncpg.connect(
            self._dsn,
            host=host[0],
            port=host[1],
            timeout=wait_s if wait_s > 0 else _CONNECT_S,
            command_timeout=command_s,
            # Poolers hand each transaction to another session: nothing is prepared beyond it.
            statement_cache_size=0,
            target_session_attrs=self._session,
            server_settings={"application_name": name, **self._settings},
        )
        if self._numbers.get("keepalives", 1):
            # The driver has no option for it, and shows its socket nowhere else.
            _keep_alive(connection._transport.get_extra_info("socket"), self._numbers)
        return connection


def _hosts(spec: str, ports: str) -> list[tuple[str | None, int | None]]:
    """The hosts that an address names; ValueError where that is no list of hosts."""
    if not spec:
        return [(None, int(ports) if ports else None)]
    hosts: list[tuple[str | None, int | None]] = []
    for each in spec.split(","):
        bare, colon, port = each.rpartition(":")
        if not colon or each.endswith("]") or each.startswith("/"):
            bare, port = each, ""
        hosts.append((unquote(bare).strip("[]") or None, int(port) if port else None))
    listed = [int(port) for port in ports.split(",")] if ports else []
    if len(listed) == 1:
        listed *= len(hosts)
    if listed and len(listed) != len(hosts):
        raise ValueError("not as many ports as hosts")
    return [
        (host, port if port is not None else listed[i] if listed else None)
        for i, (host, port) in enumerate(hosts)
    ]


def _see_to_files(query: dict[str, str]) -> None:
    """Name a file that is not there, which the driver does not do."""
    if query.get("sslrootcert") == "system":
        query["sslrootcert"] = ssl.get_default_verify_paths().openssl_cafile
    if query.get("sslmode") == "disable":
        return
    for name in _FILES & query.keys():
        if not Path(query[name]).expanduser().exists():
            raise StoreError(f"{name} in DATABASE_URL names no file: there is no {query[name]!r}.")


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise StoreError(f"{name} in DATABASE_URL must be a whole number.") from None


def _cannot(name: str, value: str | None) -> StoreError:
    asked = name if value is None else f"{name}={value}"
    return StoreError(
        f"DATABASE_URL asks for {asked}, which the bot's PostgreSQL driver cannot do: "
        f"{_ADVICE.get(name, 'leave it out')}."
    )


def _keep_alive(sock: socket.socket, numbers: dict[str, int]) -> None:
    """Have a connection end whose other end is gone without a word."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, (option, usual) in _PROBES.items():
        if hasattr(socket, option):  # not every system has every one
            with contextlib.suppress(OSError):  # nor takes every value
                value = numbers.get(name) or usual
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
