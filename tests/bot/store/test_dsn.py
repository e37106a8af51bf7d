"""DATABASE_URL as hosting companies write it: understood, or refused by the parameter's name."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import asyncpg
import pytest

from bot.store import Store, StoreError
from bot.store.dsn import Server
from tests.bot.fakes import free_port
from tests.bot.store.places import ANA, Place, enroll

POOLER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture
def server(place: Place) -> str:
    """The address of a PostgreSQL database with all tables."""
    if place.is_sqlite:
        pytest.skip("of PostgreSQL")
    return str(place.address)


def with_parameters(url: str, parameters: str) -> str:
    return f"{url}?{parameters}"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_addresses_are_named_without_what_is_secret(scheme: str) -> None:
    for login in ("bot:s%40fe@", "bot:s@fe@", ""):
        address = f"{scheme}://{login}db.example:5433/name?sslmode=require&sslpassword=s%40fe"
        assert Server.parse(address).name == "postgresql://db.example:5433/name"


def test_several_hosts_are_named() -> None:
    for address in (
        "postgresql://bot:x@one.example:5432,two.example:5433/name",
        "postgresql://bot:x@one.example,two.example/name?port=5432,5433",
        "postgresql:///name?host=one.example,two.example&port=5432,5433&user=bot",
    ):
        assert Server.parse(address).name == "postgresql://one.example:5432,two.example:5433/name"
    assert Server.parse("postgresql://[::1]:5,two/x").name == "postgresql://::1:5,two/x"


@pytest.mark.parametrize(
    "address",
    ["mysql://bot:secret@host/name", "nonsense secret", "postgresql://bot@host:secret/name", ""],
)
def test_what_is_no_address_is_said_without_repeating_it(address: str) -> None:
    with pytest.raises(StoreError, match="is no address of a PostgreSQL database") as caught:
        Server.parse(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("channel_binding=require", "channel_binding=require.*sslmode=verify-full"),
        ("gssencmode=require", "gssencmode=require.*leave it out"),
        ("target_session_attrs=standby", "target_session_attrs=standby.*read-write"),
        ("connection_limit=5", "connection_limit, which"),
        ("connect_timeout=soon", "connect_timeout in DATABASE_URL must be a whole number"),
        ("pasword=secret", "pasword, which"),
    ],
)
def test_a_parameter_that_cannot_be_met_is_named(parameters: str, told: str) -> None:
    with pytest.raises(StoreError, match=told) as caught:
        Server.parse(f"postgresql://bot:secret@host/name?{parameters}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        "channel_binding=prefer&connect_timeout=10",
        "application_name=mine&fallback_application_name=other",
        "options=-c%20search_path%3Dpublic%20-c%20statement_timeout%3D30s",
        "pgbouncer=true&sslmode=prefer",
        "sslmode=disable&sslrootcert=/nowhere/root.crt",
        "ssl=prefer",
        "keepalives=1&keepalives_idle=30&tcp_user_timeout=5000&target_session_attrs=any",
        "client_encoding=utf8&gssencmode=disable&sslcompression=0",
    ],
)
async def test_what_hosting_companies_add_works(place: Place, server: str, parameters: str) -> None:
    place.address = with_parameters(server, parameters)
    async with place.store() as store:
        await enroll(store)
        assert await store.templates(ANA) is not None


async def test_parameters_are_followed(server: str) -> None:
    address = with_parameters(
        server,
        "application_name=mine&options=-c%20statement_timeout%3D7s"
        "&keepalives_idle=31&keepalives_interval=7&keepalives_count=4&tcp_user_timeout=9000",
    )
    session = await Server.parse(address).connect(name="usual", command_s=5)
    try:
        asked = "SELECT current_setting('application_name'), current_setting('statement_timeout')"
        assert tuple(await session.fetchrow(asked)) == ("mine", "7s")
        sock = session._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [31, 7, 4]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 9000
    finally:
        await session.close()


async def test_a_certificate_that_is_not_there_is_said(place: Place, server: str) -> None:
    place.address = with_parameters(server, "sslmode=verify-full&sslrootcert=/nowhere/root.crt")
    with pytest.raises(StoreError, match=r"/nowhere/root\.crt"):
        async with place.store():
            pass


async def test_of_several_hosts_the_one_that_takes_changes_is_used(
    place: Place, server: str
) -> None:
    port = urlsplit(server).port
    login, _, host = server.partition("127.0.0.1")
    place.address = f"{login}127.0.0.1:{free_port()},127.0.0.1{host}"
    async with place.store() as store:
        await enroll(store)
    # A standby server takes no changes; a database that was set so stands for one here.
    name = server.rpartition("/")[2]
    plain = await asyncpg.connect(server)
    try:
        await plain.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(StoreError, match=f"No server of .*{port}.* takes changes"):
            async with place.store():
                pass
    finally:
        await plain.execute("SET default_transaction_read_only = off")
        await plain.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await plain.close()


def _configure(folder: Path, parts: SplitResult, port: int, mode: str) -> tuple[Path, Path]:
    """Write what pgbouncer reads."""
    users, config = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text(f'"{parts.username}" "{parts.password}"\n')
    lines = (
        "[databases]",
        f"* = host=127.0.0.1 port={parts.port}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = plain",
        f"auth_file = {users}",
        f"pool_mode = {mode}",
        # Fewer sessions than the stores have connections, where they may be shared.
        f"default_pool_size = {2 if mode == 'transaction' else 20}",
    )
    config.write_text("\n".join(lines))
    return users, config


@asynccontextmanager
async def pooler(url: str, mode: str) -> AsyncIterator[str]:
    """A pgbouncer before a server; yields its address."""
    if POOLER is None:
        pytest.skip("there is no pgbouncer here: apt-get install pgbouncer")
    parts = urlsplit(url)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="face-matcher-pooler-") as folder:
        users, config = await asyncio.to_thread(_configure, Path(folder), parts, port, mode)
        command = [POOLER, str(config)]
        if os.geteuid() == 0:  # it refuses to run as root
            owner = pwd.getpwnam("postgres")
            for path in (folder, users, config):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            command = ["runuser", "-u", "postgres", "--", *command]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        assert process.stderr
        try:
            while b"process up" not in (line := await process.stderr.readline()):
                assert line, "pgbouncer ended"
            reading = asyncio.create_task(process.stderr.read())
            yield url.replace(f":{parts.port}/", f":{port}/")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await reading


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_may_stand_before_the_server(place: Place, server: str, mode: str) -> None:
    async with pooler(server, mode) as address:
        place.address = f"{address}?pgbouncer=true"

        async def live(store: Store, person: int) -> None:
            for _ in range(2):
                await enroll(store, person)
                assert await store.templates(person) is not None
                await store.choose_language(person, "en")
                assert await store.language(person) == "en"
            await store.forget(person)

        async with place.store() as one, place.store() as other:
            await asyncio.gather(*(live((one, other)[who % 2], who) for who in range(6)))
            await one.tidy()
            assert await one.check_audit() is None
