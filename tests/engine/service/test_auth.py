import pytest
from starlette.requests import Request

from engine.errors import Forbidden
from engine.service.auth import keep_web_pages_out

TCP = ("127.0.0.1", 8008)
UNIX = ("/run/engine.sock", None)


async def come(server=TCP, **headers):
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await keep_web_pages_out(Request({"type": "http", "server": server, "headers": raw}))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8008", "127.9.9.9:1", "localhost", "LocalHost:8008", "[::1]:8008"],
)
async def test_this_machines_programs_come_in(host):
    await come(Host=host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8008",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8008",
        "127.0.0.1@evil.example",
        "localhost@evil.example:8008",
        "192.168.1.5:8008",
        "0.0.0.0:8008",
        "[::1",
        "",
    ],
)
async def test_names_that_were_made_to_lead_here_do_not(host):
    with pytest.raises(Forbidden, match=r"Host.*ENGINE_API_KEY"):
        await come(Host=host)


async def test_who_names_no_host_does_not():
    with pytest.raises(Forbidden):
        await come()


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:8008", "null", ""])
async def test_web_pages_do_not(origin):
    with pytest.raises(Forbidden, match=r"Origin.*ENGINE_API_KEY"):
        await come(Host="localhost:8008", Origin=origin)


async def test_no_page_reaches_a_unix_socket():
    await come(UNIX, Host="engine", Origin="http://of.a.proxy")
